//! Layers: an archive in, a data blob and a tree index out.
//!
//! A layer is stored once and shared by every image that has it, so it is converted once: the contents of its
//! files go into `data`, each beginning on a 4 KiB boundary, and everything else (names, owners, modes,
//! extended attributes, whiteouts, links) into `index`. Nothing is ever unpacked onto the host's file system:
//! names in an archive are only ever names in a tree in memory, so a hostile archive has no host path to reach.
//!
//! | file | what it holds |
//! |---|---|
//! | `archive` | tar as a stream: headers, PAX and GNU extensions, sparse maps |
//! | `convert` | one archive entry after the other into tree and data |
//! | `name`, `resolve` | names made safe, symbolic links of the layer followed inside the layer |
//! | `tree`, `insert` | the tree, and the rules by which entries change it |
//! | `data` | the data blob, with holes where files have them |
//! | `index` | the tree on disk |

mod archive;
mod convert;
mod data;
mod error;
mod index;
mod insert;
mod limits;
mod name;
mod resolve;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
mod tree;

pub use convert::{DATA_FILE, INDEX_FILE, LayerSummary, convert};
pub use error::LayerError;
pub use index::{IndexError, read as read_index};
pub use limits::Limits;
pub use tree::{
    Attributes, Child, Content, Extent, Extents, InodeId, LayerInode, LayerTree, Target,
};

pub(crate) use archive::{Archive, Kind};
pub(crate) use index::read_within;
pub(crate) use name::{NameProblem, show};
pub(crate) use resolve::{Found, resolve};
pub(crate) use tree::structure;

/// The unit in which file contents are placed, in bytes: an EROFS block, and a page of the guest.
pub const BLOCK_SIZE: u64 = 4096;
