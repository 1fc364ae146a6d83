//! The files of an archive, by name, whether it is a tar stream or a directory.
//!
//! A stream is read once, front to back, because it may be a pipe and its documents may come last:
//! big files go straight into the store as blobs, small ones wait in memory. Names are keys of a
//! map and never paths on the host.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::rc::Rc;

use bulkhead_types::Digest;
use sha2::{Digest as _, Sha256};

use super::error::{ArchiveError, io_error};
use crate::decompress::Decoder;
use crate::progress::{Phase, Progress};
use crate::store::{Store, StoreError};

/// Files up to this size wait in memory, together up to [`MEMORY_MAX`]; in bytes.
const SMALL: u64 = 1 << 20;
const MEMORY_MAX: u64 = 64 << 20;
/// More than any image archive has.
const ENTRIES_MAX: u64 = 100_000;
/// Bytes between the data of two entries: headers and extensions, which are held in memory.
const BETWEEN_MAX: u64 = 4 << 20;
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
        let budget = Rc::new(Cell::new(u64::MAX));
        let decoder = Decoder::new(BufReader::with_capacity(BUFFER, input)).map_err(read)?;
        let mut archive = tar::Archive::new(Budgeted {
            reader: decoder,
            left: Rc::clone(&budget),
        });
        let (mut items, mut links) = (BTreeMap::new(), BTreeMap::new());
        let (mut memory, mut count) = (0, 0);
        let mut entries = archive.entries().map_err(read)?;
        loop {
            budget.set(BETWEEN_MAX);
            let Some(entry) = entries.next() else { break };
            let mut entry = entry.map_err(read)?;
            budget.set(u64::MAX);
            count += 1;
            if count > ENTRIES_MAX {
                return Err(ArchiveError::TooManyEntries(ENTRIES_MAX));
            }
            let Some(name) = normal(&entry.path_bytes()) else {
                continue;
            };
            let kind = entry.header().entry_type();
            if kind.is_symlink() || kind.is_hard_link() {
                let target = entry
                    .link_name_bytes()
                    .map(|b| b.into_owned())
                    .unwrap_or_default();
                let beside = name.rsplit_once('/').map_or("", |(dir, _)| dir);
                let base = if kind.is_symlink() { beside } else { "" };
                let joined = [base.as_bytes(), b"/", &target].concat();
                links.extend(normal(&joined).map(|target| (name, target)));
            } else if kind.is_file() || kind.is_contiguous() || kind.is_gnu_sparse() {
                let size = entry.size();
                let item = if size <= SMALL && memory + size <= MEMORY_MAX {
                    memory += size;
                    let mut bytes = Vec::new();
                    (&mut entry)
                        .take(SMALL)
                        .read_to_end(&mut bytes)
                        .map_err(read)?;
                    if u64::try_from(bytes.len()).unwrap_or(u64::MAX) < size {
                        return Err(read(io::ErrorKind::UnexpectedEof.into()));
                    }
                    Item::Memory(bytes)
                } else {
                    progress.start(&name, Phase::Loading, Some(size));
                    copy_to_blob(store, &mut entry, size, &|n| progress.advance(&name, n))?
                };
                items.insert(name, item);
            }
        }
        if count == 0 {
            return Err(ArchiveError::Empty);
        }
        Ok(Self::Tar { items, links })
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
                None => Err(ArchiveError::Missing(name.to_owned())),
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
                        return Err(ArchiveError::Missing(name.to_owned()));
                    }
                    Err(source) => return Err(io_error("open", &path)(source)),
                };
                let size = file.metadata().map_err(io_error("inspect", &path))?.len();
                progress.start(name, Phase::Loading, Some(size));
                match copy_to_blob(store, &mut file, size, &|n| progress.advance(name, n))? {
                    Item::Blob { digest, size } => Ok((digest, size)),
                    Item::Memory(_) => Err(ArchiveError::Missing(name.to_owned())),
                }
            }
            Self::Tar { .. } => match self.find(name) {
                Some(Item::Memory(bytes)) => Ok((
                    store.put_blob(bytes)?,
                    u64::try_from(bytes.len()).unwrap_or(u64::MAX),
                )),
                Some(Item::Blob { digest, size }) => Ok((digest.clone(), *size)),
                None => Err(ArchiveError::Missing(name.to_owned())),
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
            Err(ArchiveError::DigestMismatch { name, actual })
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

/// Fails once more than `left` bytes are read: bounds what the tar crate holds in memory.
struct Budgeted<R> {
    reader: R,
    left: Rc<Cell<u64>>,
}

impl<R: Read> Read for Budgeted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.reader.read(buffer)?;
        let left = self
            .left
            .get()
            .checked_sub(u64::try_from(n).unwrap_or(u64::MAX));
        self.left.set(left.ok_or_else(|| {
            io::Error::new(
                io::ErrorKind::InvalidData,
                "an entry's headers are too long",
            )
        })?);
        Ok(n)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
