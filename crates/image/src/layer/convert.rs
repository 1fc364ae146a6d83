//! One archive, entry after entry, into a layer's data and index.

use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use super::archive::{Archive, Entry, Kind, Segment};
use super::data::DataWriter;
use super::insert::{Place, TreeBuilder};
use super::name::{Meaning, meaning, show};
use super::tree::{Attributes, Content, LayerInode};
use super::{BLOCK_SIZE, LayerError, Limits, index};
use crate::budget::{Space, check_space};
use crate::erofs::xattr_is_storable;

/// Name of the file with the contents of a layer's files.
pub const DATA_FILE: &str = "data";
/// Name of the file with a layer's tree.
pub const INDEX_FILE: &str = "index";

/// EROFS's largest chunks in a map of our length: no file may be longer.
const MAX_FILE_BYTES: u64 = 1 << 56;

/// What a conversion did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LayerSummary {
    /// Bytes of the archive, all of which were read.
    pub archive_bytes: u64,
    /// Names in the layer, directories that no entry mentions and whiteouts included.
    pub entries: u64,
    /// Sum of the sizes of its files as a guest sees them, holes included, in bytes.
    pub file_bytes: u64,
    /// Length of the data blob, in bytes; what it takes on the disk may be less.
    pub data_bytes: u64,
    /// Extended attributes left out, because no file system of a guest takes them from an image.
    pub dropped_xattrs: u64,
}

/// Reads an uncompressed layer archive to its end and writes `data` and `index` into the directory `dest_dir`, which
/// must exist. Both files and the directory are synced; nothing there may be trusted before this returns, so
/// callers convert into a temporary directory and rename it.
///
/// # Errors
///
/// [`LayerError`] names the entry, or the byte of the archive, and what is wrong with it. The directory's contents are
/// then of no use.
pub fn convert(
    archive: impl Read,
    dest_dir: &Path,
    limits: &Limits,
) -> Result<LayerSummary, LayerError> {
    let mut limits = limits.clone();
    limits.max_file_bytes = limits.max_file_bytes.min(MAX_FILE_BYTES);
    limits.max_entries = limits.max_entries.min(u64::from(u32::MAX / 2));

    let data_path = dest_dir.join(DATA_FILE);
    let file = create(&data_path)?;
    let mut conversion = Conversion {
        archive: Archive::new(archive, &limits),
        tree: TreeBuilder::new(&limits),
        data: DataWriter::new(file, Space::new(limits.keep_free)),
        limits: &limits,
        file_bytes: 0,
        dropped_xattrs: 0,
        data_path: data_path.clone(),
    };
    while let Some(entry) = conversion.archive.next()? {
        conversion.entry(entry)?;
    }

    let mut summary = LayerSummary {
        archive_bytes: conversion.archive.offset(),
        entries: conversion.tree.entries(),
        file_bytes: conversion.file_bytes,
        data_bytes: 0,
        dropped_xattrs: conversion.dropped_xattrs,
    };
    let (file, blocks) = conversion.data.finish().map_err(write_error(&data_path))?;
    summary.data_bytes = u64::from(blocks) * BLOCK_SIZE;
    let mut tree = conversion.tree.tree;
    tree.data_blocks = blocks;
    let index_path = dest_dir.join(INDEX_FILE);
    let index_file = create(&index_path)?;
    // Its length was charged to the layer's memory, which bounds it.
    check_space(dest_dir, index::length(&tree), limits.keep_free)
        .and_then(|()| index::write(&tree, &index_file))
        .map_err(write_error(&index_path))?;
    sync(&file, &data_path)?;
    sync(&index_file, &index_path)?;
    let directory = File::open(dest_dir).map_err(|source| LayerError::Write {
        operation: "open",
        path: dest_dir.to_owned(),
        source,
    })?;
    sync(&directory, dest_dir)?;
    Ok(summary)
}

struct Conversion<'a, R> {
    archive: Archive<'a, R>,
    tree: TreeBuilder,
    data: DataWriter,
    limits: &'a Limits,
    file_bytes: u64,
    dropped_xattrs: u64,
    data_path: PathBuf,
}

impl<R: Read> Conversion<'_, R> {
    fn entry(&mut self, mut entry: Entry) -> Result<(), LayerError> {
        let full = std::mem::take(&mut entry.name);
        let bad_name = |source| LayerError::BadName {
            entry: show(&full),
            source,
        };
        let meaning = meaning(&full, self.limits.max_path).map_err(bad_name)?;
        if meaning == Meaning::Bookkeeping {
            return Ok(());
        }
        self.tree.count(&full)?;
        match meaning {
            Meaning::Bookkeeping => Ok(()),
            Meaning::Root => {
                if entry.kind != Kind::Directory {
                    return Err(LayerError::ReplacesRoot { entry: show(&full) });
                }
                let attributes = self.attributes(&mut entry, &full)?;
                self.tree.set_root(attributes, &full)
            }
            Meaning::Opaque { directory } => self.tree.opaque(&directory, &full),
            Meaning::Whiteout { parent, name } => self.tree.whiteout(&Place {
                parent: &parent,
                name,
                full: &full,
            }),
            Meaning::Object { parent, name } => {
                let place = Place {
                    parent: &parent,
                    name,
                    full: &full,
                };
                if entry.kind == Kind::HardLink {
                    return self.tree.hard_link(&place, &entry.link);
                }
                let attributes = self.attributes(&mut entry, &full)?;
                let content = self.content(&entry, &full)?;
                self.tree.place(
                    &place,
                    LayerInode {
                        attributes,
                        content,
                    },
                )
            }
        }
    }

    fn content(&mut self, entry: &Entry, full: &[u8]) -> Result<Content, LayerError> {
        let (major, minor) = entry.device;
        Ok(match entry.kind {
            Kind::Directory | Kind::HardLink => Content::Directory {
                opaque: false,
                implicit: false,
                children: Default::default(),
            },
            Kind::Symlink => {
                let target = entry.link.as_slice();
                if target.is_empty() || target.contains(&0) || target.len() > self.limits.max_path {
                    return Err(LayerError::BadSymlink { entry: show(full) });
                }
                Content::Symlink(target.into())
            }
            Kind::CharDevice => Content::CharDevice(major, minor),
            Kind::BlockDevice => Content::BlockDevice(major, minor),
            Kind::Fifo => Content::Fifo,
            Kind::File => self.file(entry.size, &entry.segments)?,
        })
    }

    /// Copies a file's content into the data blob.
    fn file(&mut self, size: u64, segments: &[Segment]) -> Result<Content, LayerError> {
        let failed = |source| write_error(&self.data_path)(source);
        self.file_bytes = self.file_bytes.saturating_add(size);
        let mut file = self.data.file(size);
        let mut position = 0;
        for segment in segments {
            file.hole(segment.offset - position).map_err(failed)?;
            let mut left = segment.length;
            while left > 0 {
                let piece = self.archive.content(left)?;
                let count = piece.len();
                file.write(piece).map_err(failed)?;
                self.archive.consume(count);
                left -= count as u64;
            }
            position = segment.offset + segment.length;
        }
        file.hole(size - position).map_err(failed)?;
        let extents = file.finish().map_err(failed)?;
        Ok(Content::File { size, extents })
    }

    fn attributes(&mut self, entry: &mut Entry, full: &[u8]) -> Result<Attributes, LayerError> {
        let mut xattrs = std::mem::take(&mut entry.xattrs);
        let before = xattrs.len();
        xattrs.retain(|name, value| keeps(name, value));
        self.dropped_xattrs += (before - xattrs.len()) as u64;
        let bytes: usize = xattrs
            .iter()
            .map(|(name, value)| name.len() + value.len())
            .sum();
        if bytes > self.limits.max_xattr_bytes {
            return Err(LayerError::TooMuch {
                entry: show(full),
                limit: self.limits.max_xattr_bytes as u64,
                what: "bytes of extended attributes",
            });
        }
        Ok(Attributes {
            // Whatever an archive says: the bits of a symbolic link mean nothing, and Linux shows them all set.
            mode: if entry.kind == Kind::Symlink {
                0o777
            } else {
                entry.mode
            },
            uid: entry.uid,
            gid: entry.gid,
            mtime: entry.mtime.0,
            mtime_nsec: entry.mtime.1,
            xattrs,
        })
    }
}

/// Whether an extended attribute is kept: not where no guest could have it, and not where the guest's overlay would
/// take an image's word for its own bookkeeping (redirects, whiteouts).
fn keeps(name: &[u8], value: &[u8]) -> bool {
    xattr_is_storable(name, value)
        && !name.starts_with(b"trusted.overlay.")
        && !name.starts_with(b"user.overlay.")
}

fn create(path: &Path) -> Result<File, LayerError> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path)
        .map_err(|source| LayerError::Write {
            operation: "create",
            path: path.to_owned(),
            source,
        })
}

fn sync(file: &File, path: &Path) -> Result<(), LayerError> {
    file.sync_all().map_err(|source| LayerError::Write {
        operation: "sync",
        path: path.to_owned(),
        source,
    })
}

fn write_error(path: &Path) -> impl Fn(io::Error) -> LayerError + '_ {
    move |source| LayerError::Write {
        operation: "write",
        path: path.to_owned(),
        source,
    }
}
