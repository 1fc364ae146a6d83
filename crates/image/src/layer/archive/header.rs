//! From tar records to entries.

use std::collections::BTreeMap;
use std::io::Read;

use tar::Header;

use super::field::{number, text, unsigned};
use super::input::{BLOCK, Input};
use super::pax::Pax;
use super::sparse::{self, Segment};
use crate::layer::{LayerError, Limits, show};

/// What an entry is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    File,
    HardLink,
    Symlink,
    CharDevice,
    BlockDevice,
    Directory,
    Fifo,
}

/// One entry, its extensions applied, its name still as the archive has it.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) name: Vec<u8>,
    pub(crate) kind: Kind,
    /// Target of links.
    pub(crate) link: Vec<u8>,
    pub(crate) mode: u16,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) mtime: (i64, u32),
    pub(crate) device: (u32, u32),
    pub(crate) xattrs: BTreeMap<Box<[u8]>, Box<[u8]>>,
    /// Of a regular file, holes included, in bytes.
    pub(crate) size: u64,
    /// The stretches of a regular file that the archive has bytes for.
    pub(crate) segments: Vec<Segment>,
}

/// An archive being read.
pub(crate) struct Archive<'a, R> {
    input: Input<R>,
    limits: &'a Limits,
    /// Of the current entry, not read yet.
    content: u64,
    padding: u64,
    /// The current entry, for messages.
    name: Vec<u8>,
}

impl<'a, R: Read> Archive<'a, R> {
    pub(crate) fn new(reader: R, limits: &'a Limits) -> Self {
        Self {
            input: Input::new(reader, limits.max_bytes),
            limits,
            content: 0,
            padding: 0,
            name: Vec::new(),
        }
    }

    /// Bytes of the archive read so far.
    pub(crate) fn offset(&self) -> u64 {
        self.input.offset()
    }

    /// The next bytes of the current entry's content; all of them are there or it is an error. Follow with
    /// [`Self::consume`].
    pub(crate) fn content(&mut self, most: u64) -> Result<&[u8], LayerError> {
        let most = most.min(self.content);
        if self.input.peek(most)?.is_empty() && most > 0 {
            let within = format!("the content of {}", show(&self.name));
            return Err(self.input.truncated(&within));
        }
        self.input.peek(most)
    }

    /// Takes bytes that [`Self::content`] showed.
    pub(crate) fn consume(&mut self, count: usize) {
        self.input.consume(count);
        self.content = self.content.saturating_sub(count as u64);
    }

    /// The next entry; `None` at the end of the archive, when all of the stream has been read.
    pub(crate) fn next(&mut self) -> Result<Option<Entry>, LayerError> {
        let rest = self.content + self.padding;
        let within = format!("the content of {}", show(&self.name));
        self.input.skip(rest, &within)?;
        (self.content, self.padding) = (0, 0);

        let mut pax = Pax::default();
        let mut extended = false;
        let mut long_name = None;
        let mut long_link = None;
        // Of the extension records before this entry: any number of them may stand there.
        let mut extension_bytes = 0;
        loop {
            let offset = self.input.offset();
            let block = match self.input.block()? {
                Some(block) if block.iter().any(|byte| *byte != 0) => block,
                _ if extended => {
                    return Err(self.input.truncated("an extended header without an entry"));
                }
                // Some tools leave the closing zeros out, and of an empty layer not a byte is left then.
                None => return Ok(None),
                Some(_) => {
                    self.input.drain()?;
                    return Ok(None);
                }
            };
            let header = Header::from_byte_slice(&block);
            check(header, &block).ok_or(LayerError::BadHeader { offset })?;
            match header.as_old().linkflag[0] {
                b'x' => {
                    let bytes = self.extension(header, offset, &mut extension_bytes)?;
                    let content = offset + BLOCK as u64;
                    pax = Pax::default();
                    pax.parse(&bytes)
                        .ok_or(LayerError::BadPax { offset: content })?;
                    extended = true;
                }
                // A global header: for other engines, too, it says nothing about a layer.
                b'g' => drop(self.extension(header, offset, &mut extension_bytes)?),
                b'L' => {
                    let bytes = self.extension(header, offset, &mut extension_bytes)?;
                    long_name = Some(text(&bytes).to_vec());
                    extended = true;
                }
                b'K' => {
                    let bytes = self.extension(header, offset, &mut extension_bytes)?;
                    long_link = Some(text(&bytes).to_vec());
                    extended = true;
                }
                _ => return self.entry(header, pax, long_name, long_link).map(Some),
            }
        }
    }

    /// Reads the content of an extension record; `before` is what those before the same entry took.
    fn extension(
        &mut self,
        header: &Header,
        offset: u64,
        before: &mut u64,
    ) -> Result<Vec<u8>, LayerError> {
        let size = unsigned(&header.as_old().size).ok_or(LayerError::BadHeader { offset })?;
        // A record without content took a block too.
        *before = before.saturating_add(size.max(BLOCK as u64));
        if *before > self.limits.max_extension_bytes {
            return Err(LayerError::TooMuch {
                entry: show(text(&header.as_old().name)),
                limit: self.limits.max_extension_bytes,
                what: "bytes of extended header",
            });
        }
        self.within_limit(size, text(&header.as_old().name))?;
        let mut bytes = Vec::new();
        let mut left = size;
        while left > 0 {
            let piece = self.input.peek(left)?;
            let count = piece.len();
            if count == 0 {
                return Err(self.input.truncated("an extended header"));
            }
            bytes.extend_from_slice(piece);
            self.input.consume(count);
            left -= count as u64;
        }
        self.input.skip(padding(size), "an extended header")?;
        Ok(bytes)
    }

    fn within_limit(&self, bytes: u64, entry: &[u8]) -> Result<(), LayerError> {
        if bytes > self.input.left() {
            return Err(LayerError::TooMuch {
                entry: show(entry),
                limit: self.limits.max_bytes,
                what: "bytes",
            });
        }
        Ok(())
    }

    fn entry(
        &mut self,
        header: &Header,
        mut pax: Pax,
        long_name: Option<Vec<u8>>,
        long_link: Option<Vec<u8>>,
    ) -> Result<Entry, LayerError> {
        let old = header.as_old();
        let mut name = long_name
            .or(pax.path.take())
            .unwrap_or_else(|| header.path_bytes().into_owned());
        if let Some(real) = pax.sparse.name.take() {
            name = real;
        }
        let bad = |field| LayerError::BadField {
            entry: show(&name),
            field,
        };
        let kind = match old.linkflag[0] {
            0 if name.ends_with(b"/") => Kind::Directory,
            0 | b'0' | b'7' | b'S' => Kind::File,
            b'1' => Kind::HardLink,
            b'2' => Kind::Symlink,
            b'3' => Kind::CharDevice,
            b'4' => Kind::BlockDevice,
            b'5' => Kind::Directory,
            b'6' => Kind::Fifo,
            other => {
                return Err(LayerError::UnsupportedType {
                    entry: show(&name),
                    kind: char::from(other),
                });
            }
        };
        let link = long_link
            .or(pax.link.take())
            .unwrap_or_else(|| text(&old.linkname).to_vec());
        let mode = number(&old.mode).ok_or_else(|| bad("mode"))? & 0o7777;
        let id = |record: &Option<Vec<u8>>, field: &[u8], what| {
            let value = match Pax::number(record) {
                Ok(Some(value)) => Some(value),
                Ok(None) => unsigned(field),
                Err(()) => None,
            };
            value
                .and_then(|value| u32::try_from(value).ok())
                // The id that the system calls keep for "do not change".
                .filter(|value| *value != u32::MAX)
                .ok_or_else(|| bad(what))
        };
        let uid = id(&pax.uid, &old.uid, "owner")?;
        let gid = id(&pax.gid, &old.gid, "group")?;
        let mtime = match pax.time() {
            Ok(Some(time)) => Some(time),
            Ok(None) => number(&old.mtime).map(|seconds| (seconds, 0)),
            Err(()) => None,
        };
        let mtime = mtime.ok_or_else(|| bad("modification time"))?;
        let device = if matches!(kind, Kind::CharDevice | Kind::BlockDevice) {
            device(header).ok_or_else(|| bad("device number"))?
        } else {
            (0, 0)
        };
        let stored = match Pax::number(&pax.size) {
            Ok(Some(size)) => Some(size),
            Ok(None) => unsigned(&old.size),
            Err(()) => None,
        };
        let mut stored = stored.ok_or_else(|| bad("size"))?;
        if kind != Kind::File {
            // As other engines do: only files have content, whatever the header says.
            stored = 0;
        }
        self.within_limit(stored, &name)?;
        self.padding = padding(stored);
        let mut size = stored;
        let mut segments = vec![Segment {
            offset: 0,
            length: stored,
        }];
        if kind == Kind::File && !self.limits.sparse_files {
            if old.linkflag[0] == b'S' || pax.sparse.is_used() {
                return Err(LayerError::Sparse { entry: show(&name) });
            }
        } else if kind == Kind::File {
            let max = self.limits.max_sparse_segments;
            let sparse = if old.linkflag[0] == b'S' {
                let header = header.as_gnu().ok_or_else(|| bad("sparse header"))?;
                Some(sparse::gnu(header, &mut self.input, max, &name)?)
            } else {
                sparse::pax(&pax.sparse, &mut stored, &mut self.input, max, &name)?
            };
            if let Some((map, real_size)) = sparse {
                (segments, size) = (map, real_size);
            }
            if size > self.limits.max_file_bytes {
                return Err(LayerError::TooMuch {
                    entry: show(&name),
                    limit: self.limits.max_file_bytes,
                    what: "bytes in one file",
                });
            }
            sparse::check(&segments, size, stored, &name)?;
        }
        self.content = stored;
        self.name.clone_from(&name);
        Ok(Entry {
            kind,
            link,
            // Masked to twelve bits above.
            mode: mode as u16,
            uid,
            gid,
            mtime,
            device,
            xattrs: pax.xattrs,
            size,
            segments,
            name,
        })
    }
}

fn padding(size: u64) -> u64 {
    size.next_multiple_of(BLOCK as u64) - size
}

/// Verifies a header's checksum: the sum of its bytes, unsigned or (by historic tools) signed.
fn check(header: &Header, block: &[u8; BLOCK]) -> Option<()> {
    let wanted = number(&header.as_old().cksum)?;
    let mut plain = 0i64;
    let mut signed = 0i64;
    for (index, byte) in block.iter().enumerate() {
        // The checksum's own field counts as spaces.
        let byte = if (148..156).contains(&index) {
            b' '
        } else {
            *byte
        };
        plain += i64::from(byte);
        signed += i64::from(byte.cast_signed());
    }
    (wanted == plain || wanted == signed).then_some(())
}

/// Device numbers that Linux has: twelve bits of major, twenty of minor.
fn device(header: &Header) -> Option<(u32, u32)> {
    let (major, minor) = if let Some(ustar) = header.as_ustar() {
        (&ustar.dev_major, &ustar.dev_minor)
    } else {
        let gnu = header.as_gnu()?;
        (&gnu.dev_major, &gnu.dev_minor)
    };
    let major = u32::try_from(number(major)?).ok()?;
    let minor = u32::try_from(number(minor)?).ok()?;
    (major < 1 << 12 && minor < 1 << 20).then_some((major, minor))
}
