//! EROFS: the read-only file system that a guest sees as its image.
//!
//! Written here are only metadata: superblock, inodes, directories, extended attributes. The contents of files stay where
//! they are, in the data blobs of the layers; inodes point at them by block number in the disk that the host composes,
//! `metadata ‖ data₁ ‖ data₂ …`. Only features of Linux 5.15 are used (chunk-based files are the newest), so that any guest
//! kernel from 6.1 on mounts it. The format is described in the kernel's `Documentation/filesystems/erofs.rst`
//! and `fs/erofs/erofs_fs.h`.
//!
//! The same tree gives the same bytes: nothing depends on the time, on addresses in memory, or on the host.

mod crc32c;
mod directory;
mod format;
mod layout;
mod reader;
mod tree;
mod write;
mod xattr;

pub use layout::LayoutError;
pub use reader::{ReadError, Reader, Stat, Xattr};
pub use tree::{Body, Inode, InodeId, Tree};
pub use write::{Image, write};

pub(crate) use crc32c::crc32c;
pub(crate) use xattr::xattr_is_storable;
