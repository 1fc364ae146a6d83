//! The files of an archive, by name, whether it is a tar stream or a directory.
//!
//! A stream is read once, front to back, because it may be a pipe and its documents may come last:
//! big files go straight into the store as blobs, small ones wait in memory. Names are keys of a
//! map and never paths on the host.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufReader, Read, Write};
use std::path::{Path, PathBuf};

use bulkhead_types::Digest;
use sha2::{Digest as _, Sha256};

use super::error::{ArchiveError, io_error};
use crate::decompress::Decoder;
use crate::layer::{Archive, Kind, LayerError, Limits, show};
use crate::progress::{Outcome, Phase, Progress};
use crate::store::{Store, StoreError};

/// Files up to this size wait in memory, together up to [`DOCUMENTS_MAX`], because manifests and configurations
/// are among them; larger ones and those beyond it become blobs at once. In bytes.
const SMALL: u64 = 1 << 20;
const DOCUMENTS_MAX: u64 = 8 << 20;
/// More than any image archive has.
const ENTRIES_MAX: u64 = 100_000;
/// Bytes of one name or link target, as in a layer.
const PATH_MAX: usize = 4095;
/// Bytes of all names and link targets, which stay in memory: an archive has three names for a layer, of some
/// hundred bytes each. One that needs more is refused.
const NAMES_MAX: u64 = 16 << 20;
/// What a name costs beside its own bytes: its place in the map and its allocation, in bytes.
const NAME_COST: u64 = 160;
/// Bytes of the whole stream, uncompressed; as many as 16 layers of the largest size.
const BYTES_MAX: u64 = 4 << 40;
const BUFFER: usize = 256 << 10;

/// Content of an archive.
#[derive(Debug, Clone)]
pub(super) enum Item {
    Memory(Vec<u8>),
    Blob { digest: Digest, size: u64 },
}

/// Where the files are.
pub(super) enum Source {
    Tar {
        items: BTreeMap<String, Item>,
        links: BTreeMap<String, String>,
    },
    Directory(PathBuf),
}

impl Source {
    /// Reads a tar stream, compressed or not, to its end.
    pub(super) fn read_tar(
        store: &Store,
        input: &mut dyn Read,
        progress: &dyn Progress,
    ) -> Result<Self, ArchiveError> {
        let read = |source| ArchiveError::Read { source };
        let decoder = Decoder::new(BufReader::with_capacity(BUFFER, input)).map_err(read)?;
        let limits = Limits {
            max_bytes: BYTES_MAX,
            max_path: PATH_MAX,
            sparse_files: false,
            ..Limits::default()
        };
        let mut archive = Archive::new(decoder, &limits);
        let mut files = Files::default();
        let mut count = 0;
        while let Some(entry) = archive.next().map_err(ArchiveError::entry)? {
            count += 1;
            if count > ENTRIES_MAX {
                return Err(ArchiveError::TooManyEntries(ENTRIES_MAX));
            }
            if entry.name.len().max(entry.link.len()) > PATH_MAX {
                return Err(ArchiveError::LongName(show(&entry.name)));
            }
            let Some(name) = normal(&entry.name) else {
                continue;
            };
            match entry.kind {
                Kind::Symlink | Kind::HardLink => {
                    let beside = name.rsplit_once('/').map_or("", |(dir, _)| dir);
                    let base = match entry.kind {
                        Kind::Symlink => beside,
                        _ => "",
                    };
                    let joined = [base.as_bytes(), b"/", &entry.link].concat();
                    if let Some(target) = normal(&joined) {
                        files.keep(name.len() + target.len(), &name)?;
                        files.links.insert(name, target);
                    }
                }
                Kind::File => {
                    files.keep(name.len(), &name)?;
                    let mut content = Content {
                        archive: &mut archive,
                        left: entry.size,
                    };
                    let item = if entry.size <= SMALL && files.take_document(entry.size) {
                        let mut bytes = Vec::new();
                        content.read_to_end(&mut bytes).map_err(read)?;
                        Item::Memory(bytes)
                    } else {
                        load(store, (&name, entry.size), &mut content, progress)?
                    };
                    files.items.insert(name, item);
                }
                Kind::Directory | Kind::CharDevice | Kind::BlockDevice | Kind::Fifo => {}
            }
        }
        if count == 0 {
            return Err(ArchiveError::Empty);
        }
        Ok(Self::Tar {
            items: files.items,
            links: files.links,
        })
    }

    /// Whether there is such a file.
    pub(super) fn has(&self, name: &str) -> bool {
        match self {
            Self::Tar { .. } => self.find(name).is_some(),
            Self::Directory(dir) => dir.join(name).is_file(),
        }
    }

    fn find(&self, name: &str) -> Option<&Item> {
        let Self::Tar { items, links } = self else {
            return None;
        };
        let mut name = normal(name.as_bytes())?;
        // Chains of links are short; loops are not.
        for _ in 0..8 {
            if let Some(item) = items.get(&name) {
                return Some(item);
            }
            name = links.get(&name)?.clone();
        }
        None
    }

    /// Reads a document of at most `limit` bytes.
    pub(super) fn document(
        &self,
        store: &Store,
        name: &str,
        limit: u64,
    ) -> Result<Vec<u8>, ArchiveError> {
        match self {
            Self::Directory(dir) => {
                let path = dir.join(name);
                let mut bytes = Vec::new();
                let file = File::open(&path).map_err(io_error("open", &path))?;
                file.take(limit.saturating_add(1))
                    .read_to_end(&mut bytes)
                    .map_err(io_error("read", &path))?;
                Ok(bytes)
            }
            Self::Tar { .. } => match self.find(name) {
                Some(Item::Memory(bytes)) => Ok(bytes.clone()),
                Some(Item::Blob { digest, .. }) => Ok(store.read_blob(digest, limit)?),
                None => Err(ArchiveError::Missing(name.into())),
            },
        }
    }

    /// Makes sure that the store has the file's content as a blob; returns its digest and size.
    pub(super) fn blob(
        &self,
        store: &Store,
        name: &str,
        progress: &dyn Progress,
    ) -> Result<(Digest, u64), ArchiveError> {
        match self {
            Self::Directory(dir) => {
                let path = dir.join(name);
                let mut file = match File::open(&path) {
                    Ok(file) => file,
                    Err(e) if e.kind() == io::ErrorKind::NotFound => {
                        return Err(ArchiveError::Missing(name.into()));
                    }
                    Err(source) => return Err(io_error("open", &path)(source)),
                };
                let size = file.metadata().map_err(io_error("inspect", &path))?.len();
                match load(store, (name, size), &mut file, progress)? {
                    Item::Blob { digest, size } => Ok((digest, size)),
                    Item::Memory(_) => Err(ArchiveError::Missing(name.into())),
                }
            }
            Self::Tar { .. } => match self.find(name) {
                Some(Item::Memory(bytes)) => Ok((
                    store.put_blob(bytes)?,
                    u64::try_from(bytes.len()).unwrap_or(u64::MAX),
                )),
                Some(Item::Blob { digest, size }) => Ok((digest.clone(), *size)),
                None => Err(ArchiveError::Missing(name.into())),
            },
        }
    }

    /// As [`Source::blob`] for a file whose name promises its digest.
    pub(super) fn named_blob(
        &self,
        store: &Store,
        digest: &Digest,
        progress: &dyn Progress,
    ) -> Result<u64, ArchiveError> {
        if let Some(size) = store.blob_size(digest) {
            return Ok(size);
        }
        let name = format!("blobs/sha256/{}", digest.hex());
        let (actual, size) = self.blob(store, &name, progress)?;
        if actual == *digest {
            Ok(size)
        } else {
            Err(ArchiveError::DigestMismatch {
                name: name.into(),
                actual,
            })
        }
    }
}

/// Copies `size` bytes into a blob of the store.
pub(super) fn copy_to_blob(
    store: &Store,
    input: &mut dyn Read,
    size: u64,
    advance: &dyn Fn(u64),
) -> Result<Item, ArchiveError> {
    let mut writer = store.blob_writer()?;
    let mut buffer = vec![0; BUFFER];
    let mut total: u64 = 0;
    loop {
        let n = match input.read(&mut buffer) {
            Ok(0) => break,
            Ok(n) => n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
            Err(source) => return Err(ArchiveError::Read { source }),
        };
        writer
            .write_all(buffer.get(..n).unwrap_or_default())
            .map_err(|source| StoreError::Io {
                operation: "write a blob in",
                path: store.temp_root(),
                source,
            })?;
        let n = u64::try_from(n).unwrap_or_default();
        total += n;
        advance(n);
    }
    if total < size {
        return Err(ArchiveError::Read {
            source: io::ErrorKind::UnexpectedEof.into(),
        });
    }
    let (digest, size) = writer.commit(None)?;
    Ok(Item::Blob { digest, size })
}

/// The digest of bytes in memory.
pub(super) fn digest_bytes(bytes: &[u8]) -> Digest {
    Digest::from_bytes(Sha256::digest(bytes).into())
}

/// A name without `.`, `..` and empty parts; `None` where it leads out of the archive.
fn normal(name: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(name).ok()?;
    let mut parts: Vec<&str> = Vec::new();
    for part in text.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop()?;
            }
            part => parts.push(part),
        }
    }
    (!parts.is_empty()).then(|| parts.join("/"))
}

/// Whether a directory is an OCI image layout.
pub(super) fn is_layout(dir: &Path) -> bool {
    dir.join("index.json").is_file()
}

/// What is kept of an archive while it is read, and what that takes in memory.
#[derive(Default)]
struct Files {
    items: BTreeMap<String, Item>,
    links: BTreeMap<String, String>,
    /// Bytes of names and targets, each with [`NAME_COST`].
    names: u64,
    /// Bytes of documents.
    documents: u64,
}

impl Files {
    /// Counts `bytes` of names that stay in memory.
    fn keep(&mut self, bytes: usize, name: &str) -> Result<(), ArchiveError> {
        self.names += bytes as u64 + NAME_COST;
        if self.names > NAMES_MAX {
            return Err(ArchiveError::TooMuchMemory {
                entry: show(name.as_bytes()),
                limit: NAMES_MAX,
            });
        }
        Ok(())
    }

    /// Whether a document of so many bytes may still wait in memory.
    fn take_document(&mut self, bytes: u64) -> bool {
        let fits = self.documents + bytes <= DOCUMENTS_MAX;
        if fits {
            self.documents += bytes;
        }
        fits
    }
}

/// The content of the entry that [`Archive::next`] gave last.
struct Content<'a, 'l, R> {
    archive: &'a mut Archive<'l, R>,
    left: u64,
}

impl<R: Read> Read for Content<'_, '_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let most = self.left.min(buffer.len() as u64);
        let piece = match self.archive.content(most) {
            Ok(piece) => piece,
            Err(LayerError::Read { source, .. }) => return Err(source),
            Err(error) => return Err(io::Error::new(io::ErrorKind::UnexpectedEof, error)),
        };
        let count = piece.len();
        if let Some(place) = buffer.get_mut(..count) {
            place.copy_from_slice(piece);
        }
        self.archive.consume(count);
        self.left -= count as u64;
        Ok(count)
    }
}

/// Copies a file of the archive into a blob and tells `progress`.
fn load(
    store: &Store,
    (name, size): (&str, u64),
    input: &mut dyn Read,
    progress: &dyn Progress,
) -> Result<Item, ArchiveError> {
    let shown = shown_as(name);
    progress.start(shown, Phase::Loading, Some(size));
    let item = copy_to_blob(store, input, size, &|n| progress.advance(shown, n))?;
    // What becomes of a layer is told by its digest, which may be another name.
    if matches!(&item, Item::Blob { digest, .. } if digest.short() != shown) {
        progress.finish(shown, Outcome::Done);
    }
    Ok(item)
}

/// As what `progress` knows a file: by the beginning of the digest that it is named after, if it is, as in
/// `blobs/sha256/DIGEST`, `ID/layer.tar` and `DIGEST.tar`.
fn shown_as(name: &str) -> &str {
    /// Hexadecimal digits of a SHA-256 digest.
    const DIGITS: usize = 64;
    let is_digest =
        |part: &&str| part.len() == DIGITS && part.bytes().all(|b| b.is_ascii_hexdigit());
    match name.split(['/', '.']).find(is_digest) {
        Some(digest) => digest.get(..12).unwrap_or(digest),
        None => name,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_layer_is_known_by_the_beginning_of_its_digest() {
        let digest = "0123456789abcdef".repeat(4);
        for name in [
            format!("blobs/sha256/{digest}"),
            format!("{digest}/layer.tar"),
            format!("{digest}.tar"),
        ] {
            assert_eq!(shown_as(&name), "0123456789ab", "{name}");
        }
        assert_eq!(shown_as("app/layer.tar"), "app/layer.tar");
    }

    #[test]
    fn names_stay_inside_the_archive() {
        let normal = |text: &str| normal(text.as_bytes());
        assert_eq!(normal("./a//b/../c").as_deref(), Some("a/c"));
        assert_eq!(normal("/manifest.json").as_deref(), Some("manifest.json"));
        for outside in ["..", "a/../..", "../manifest.json", "", "/"] {
            assert_eq!(normal(outside), None, "{outside}");
        }
    }
}
