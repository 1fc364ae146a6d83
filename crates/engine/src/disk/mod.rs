//! Writable disks: an ext4 template made once per size, and sparse copies of it.

mod sparse;
mod template;

use std::path::PathBuf;

pub(crate) use sparse::copy as copy_sparse;
pub(crate) use template::{find_tool, template};

use crate::kind::{ErrorKind, FileError, io_kind};

/// A writable disk could not be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DiskError {
    /// e2fsprogs is not installed.
    #[error("cannot make a writable disk: mke2fs is not installed")]
    NoMke2fs,
    /// mke2fs cannot be executed.
    #[error("cannot execute {}", program.display())]
    Execute {
        /// The program.
        program: PathBuf,
        /// The system's answer.
        #[source]
        source: std::io::Error,
    },
    /// mke2fs failed.
    #[error("cannot make a file system of {size} bytes: mke2fs: {output}")]
    Mke2fs {
        /// Of the disk.
        size: u64,
        /// The last line it wrote.
        output: String,
    },
    /// The host's file system has no files of this length.
    #[error("cannot make a disk of {size} bytes: a file in {} has at most {most}", path.display())]
    TooLarge {
        /// Of the disk.
        size: u64,
        /// In bytes.
        most: u64,
        /// A directory of that file system.
        path: PathBuf,
    },
    /// Copying the template failed.
    #[error("cannot make disk {}", path.display())]
    Copy {
        /// The new disk.
        path: PathBuf,
        /// The system's answer.
        #[source]
        source: std::io::Error,
    },
    /// A file of the cache.
    #[error(transparent)]
    File(#[from] FileError),
}

impl DiskError {
    pub(crate) fn kind(&self) -> ErrorKind {
        match self {
            Self::NoMke2fs => ErrorKind::Unavailable,
            Self::Execute { source, .. } | Self::Copy { source, .. } => io_kind(source),
            Self::Mke2fs { .. } => ErrorKind::Internal,
            Self::TooLarge { .. } => ErrorKind::InvalidInput,
            Self::File(error) => error.kind(),
        }
    }

    pub(crate) fn hint(&self) -> Option<String> {
        match self {
            Self::NoMke2fs => Some("install it: apt-get install e2fsprogs".to_owned()),
            Self::TooLarge { most, .. } => {
                Some(format!("give a smaller --disk, such as {}m", most >> 20))
            }
            _ if self.kind() == ErrorKind::NoSpace => {
                Some("free space on the file system of the state directory".to_owned())
            }
            _ => None,
        }
    }
}
