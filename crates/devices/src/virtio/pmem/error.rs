//! What can go wrong with the files behind persistent memory.

use std::io;

/// Why files could not become persistent memory.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PmemError {
    /// A file's size could not be read.
    #[error("read the size of part {part} of the persistent memory")]
    Size {
        /// Position of the file in the list.
        part: usize,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// A part is no regular file.
    #[error("use part {part} of the persistent memory: not a regular file")]
    NotRegular {
        /// Position of the file in the list.
        part: usize,
    },
    /// The parts together are larger than an address space, or there is not a byte in them.
    #[error("join the parts of the persistent memory: the sum of their sizes is {what}")]
    Total {
        /// What is wrong with it.
        what: &'static str,
    },
    /// There is no room for the parts.
    #[error("reserve {bytes} bytes of address space for persistent memory")]
    Reserve {
        /// Length asked for.
        bytes: usize,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// A file cannot be mapped; not every file system allows it.
    #[error("map part {part} of the persistent memory")]
    Map {
        /// Position of the file in the list.
        part: usize,
        /// The cause.
        #[source]
        source: io::Error,
    },
}
