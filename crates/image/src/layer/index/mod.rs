//! A layer's tree on disk.
//!
//! All numbers are little-endian. Whatever is read is checked as if a stranger had written it: a file that passes is a tree,
//! without loops, whose files lie within the layer's data.
//!
//! ```text
//! header   magic "BHLAYER\0", version u32, crc32c u32 of all that follows,
//!          data blocks u32, inodes u32, entries u32, zero u32
//! inode    kind u8, flags u8 (1 opaque, 2 implicit), mode u16, uid u32, gid u32, mtime i64, nsec u32,
//!          xattrs u16, each: name length u8, value length u16, name, value
//!          file:    size u64, chunk bits u8 (255: flat), then data block u32, or
//!                   runs u32, each: file block u64, data block u32, blocks u32
//!          symlink: length u16, target
//!          device:  major u32, minor u32
//! entry    directory u32, flags u8 (1 whiteout), target u8 (0 none, 1 inode, 2 lower link),
//!          name length u8, name, then inode u32, or length u16 and path
//! ```
//!
//! Inodes are numbered so that a directory comes after the one it is in; entries are in order of directory and name.

mod decode;
mod encode;

use std::fs::File;
use std::io::{self, BufWriter, Read, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use super::convert::INDEX_FILE;
use super::tree::{Content, LayerTree, Target};
use crate::budget::{Budget, Exceeded};

pub(super) use encode::{stored, stored_name};

const MAGIC: &[u8; 8] = b"BHLAYER\0";
const VERSION: u32 = 1;
const HEADER: usize = 32;
/// Where the checksummed part begins.
const CHECKED: usize = 16;
const FLAT: u8 = u8::MAX;
/// What is gathered before it is written, in bytes.
const BUFFER: usize = 256 << 10;

/// Kinds of inodes, as stored.
mod kind {
    pub(super) const DIRECTORY: u8 = 1;
    pub(super) const FILE: u8 = 2;
    pub(super) const SYMLINK: u8 = 3;
    pub(super) const CHAR_DEVICE: u8 = 4;
    pub(super) const BLOCK_DEVICE: u8 = 5;
    pub(super) const FIFO: u8 = 6;
}

/// Why a layer's index cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum IndexError {
    /// The file cannot be read.
    #[error("cannot read layer index {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The tree would take more memory than an image gets.
    #[error("layer index {} would take the image beyond the limit of {limit} bytes of memory", path.display())]
    Memory {
        /// The file.
        path: PathBuf,
        /// The limit.
        limit: u64,
    },
    /// Written by a version with another format, or not an index at all.
    #[error("layer index {} is not of format version {VERSION}", path.display())]
    Version {
        /// The file.
        path: PathBuf,
    },
    /// The checksum does not fit.
    #[error("layer index {} is damaged (wrong checksum)", path.display())]
    Checksum {
        /// The file.
        path: PathBuf,
    },
    /// The checksum fits, but the contents make no sense.
    #[error("layer index {} is damaged: {problem}", path.display())]
    Invalid {
        /// The file.
        path: PathBuf,
        /// What makes no sense.
        problem: &'static str,
    },
}

pub(super) fn write(tree: &LayerTree, file: &File) -> io::Result<()> {
    let mut out = BufWriter::with_capacity(BUFFER, file);
    let checksum = encode::encode(tree, &mut out)?;
    out.flush()?;
    file.write_all_at(&checksum.to_le_bytes(), CHECKED as u64 - 4)
}

/// Bytes that the index of a tree has at most.
pub(super) fn length(tree: &LayerTree) -> u64 {
    let inodes = tree.inodes.iter().map(encode::stored);
    let names = tree.inodes.iter().flat_map(|inode| match &inode.content {
        Content::Directory { children, .. } => Some(children),
        _ => None,
    });
    let names = names.flatten().map(|(name, child)| {
        encode::stored_name(name) + child.target.as_ref().map_or(0, Target::heap)
    });
    HEADER as u64 + inodes.sum::<u64>() + names.sum::<u64>()
}

/// Reads and checks the index of the layer in `layer_dir`.
///
/// # Errors
///
/// [`IndexError`] names the file.
pub fn read(layer_dir: &Path) -> Result<LayerTree, IndexError> {
    read_within(layer_dir, &mut Budget::of(u64::MAX))
}

/// As [`read`], with memory for the tree taken from `memory`.
pub(crate) fn read_within(layer_dir: &Path, memory: &mut Budget) -> Result<LayerTree, IndexError> {
    let path = layer_dir.join(INDEX_FILE);
    let failed = |source| IndexError::Read {
        path: path.clone(),
        source,
    };
    let too_large = |exceeded: Exceeded| IndexError::Memory {
        path: path.clone(),
        limit: exceeded.limit,
    };
    let mut file = File::open(&path).map_err(failed)?;
    let length = file.metadata().map_err(failed)?.len();
    memory.charge(length).map_err(too_large)?;
    let mut bytes = Vec::new();
    bytes
        .try_reserve_exact(usize::try_from(length).unwrap_or(usize::MAX))
        .map_err(|_| failed(io::ErrorKind::OutOfMemory.into()))?;
    (&mut file)
        .take(length)
        .read_to_end(&mut bytes)
        .map_err(failed)?;
    let tree = decode::decode(&bytes, memory).map_err(|problem| match problem {
        decode::Problem::Memory(exceeded) => too_large(exceeded),
        decode::Problem::Version => IndexError::Version { path: path.clone() },
        decode::Problem::Checksum => IndexError::Checksum { path: path.clone() },
        decode::Problem::Invalid(problem) => IndexError::Invalid {
            path: path.clone(),
            problem,
        },
    })?;
    drop(bytes);
    memory.release(length);
    Ok(tree)
}

#[cfg(test)]
mod tests;
