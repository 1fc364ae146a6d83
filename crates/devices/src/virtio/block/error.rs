//! What can go wrong with the files behind a disk.

use std::io;

/// Why a disk could not be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BlockError {
    /// The serial does not fit the 20 bytes of section 5.2.6.
    #[error("use serial {serial:?}: it must be 1 to 20 printable ASCII characters")]
    Serial {
        /// The serial given.
        serial: String,
    },
    /// A file's size could not be read.
    #[error("read the size of part {part} of the disk")]
    Size {
        /// Position of the file in the list.
        part: usize,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// A part is no regular file.
    #[error("use part {part} of the disk: not a regular file")]
    NotRegular {
        /// Position of the file in the list.
        part: usize,
    },
    /// The parts together are larger than a disk can be.
    #[error("join the parts of the disk: the sum of their sizes overflows")]
    TooLarge,
    /// The size of a writable disk is no multiple of 512 bytes.
    #[error("use a file of {bytes} bytes as a disk: not a multiple of 512")]
    Unaligned {
        /// Size of the file.
        bytes: u64,
    },
}

/// A failure of the host that the guest sees as an I/O error, for whoever can tell the user.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fault {
    /// The host's file system, or a quota on it, is full.
    OutOfSpace,
    /// Another error, with its `errno` where there is one.
    Io(Option<i32>),
}

impl Fault {
    pub(super) fn of(error: &io::Error) -> Self {
        match error.raw_os_error() {
            Some(libc::ENOSPC | libc::EDQUOT | libc::EFBIG) => Self::OutOfSpace,
            code => Self::Io(code),
        }
    }
}
