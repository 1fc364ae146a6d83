//! What can be wrong with a layer.

use std::io;
use std::path::PathBuf;

use super::name::NameProblem;
use super::resolve::ResolveProblem;

/// Why a layer could not be converted. Entries are named as the archive names them, quoted and escaped.
#[derive(Debug, thiserror::Error)]
pub enum LayerError {
    /// The archive's source failed, for example a connection or a decompressor.
    #[error("cannot read the archive at byte {offset}")]
    Read {
        /// Bytes of the archive read before.
        offset: u64,
        /// What the source said.
        #[source]
        source: io::Error,
    },
    /// The archive ends before what it promised.
    #[error("archive is truncated at byte {offset}, within {within}")]
    Truncated {
        /// Bytes of the archive read before.
        offset: u64,
        /// The part that is incomplete.
        within: String,
    },
    /// A block that must be a tar header is none.
    #[error("archive has no valid tar header at byte {offset}")]
    BadHeader {
        /// Where the block begins.
        offset: u64,
    },
    /// A number in a header cannot be read or does not fit.
    #[error("entry {entry} has an invalid {field}")]
    BadField {
        /// The entry.
        entry: String,
        /// Which field.
        field: &'static str,
    },
    /// A PAX record is malformed.
    #[error("archive has a malformed PAX header at byte {offset}")]
    BadPax {
        /// Where its content begins.
        offset: u64,
    },
    /// A sparse file's map is malformed or contradicts the file's size.
    #[error("entry {entry} has an invalid sparse map")]
    BadSparseMap {
        /// The entry.
        entry: String,
    },
    /// A sparse file where none is taken: its map claims bytes that are not in the archive.
    #[error("entry {entry} is a sparse file, which an archive of images has no use for")]
    Sparse {
        /// The entry.
        entry: String,
    },
    /// A kind of entry that no file system object corresponds to.
    #[error("entry {entry} has the unsupported type {kind:?}")]
    UnsupportedType {
        /// The entry.
        entry: String,
        /// The type flag.
        kind: char,
    },
    /// The name is not one that may appear in a layer.
    #[error("entry {entry} has an unacceptable name")]
    BadName {
        /// The entry.
        entry: String,
        /// What is wrong.
        #[source]
        source: NameProblem,
    },
    /// The target of a hard link is not a name that may appear in a layer.
    #[error("hard link {entry} to {target} leaves the layer or names nothing")]
    BadLinkTarget {
        /// The entry.
        entry: String,
        /// What it points at.
        target: String,
        /// What is wrong.
        #[source]
        source: NameProblem,
    },
    /// A symbolic link without a target, or with a NUL in it.
    #[error("symbolic link {entry} has an invalid target")]
    BadSymlink {
        /// The entry.
        entry: String,
    },
    /// The directory that should hold the entry cannot be found or made.
    #[error("cannot place entry {entry}")]
    BadParent {
        /// The entry.
        entry: String,
        /// What is in the way.
        #[source]
        source: ResolveProblem,
    },
    /// The layer's root must stay a directory.
    #[error("entry {entry} would replace the root directory")]
    ReplacesRoot {
        /// The entry.
        entry: String,
    },
    /// Hard links to directories do not exist.
    #[error("hard link {entry} points at the directory {target}")]
    LinkToDirectory {
        /// The entry.
        entry: String,
        /// What it points at.
        target: String,
    },
    /// More than [`super::Limits`] allows.
    #[error("entry {entry} exceeds the limit of {limit} {what}")]
    TooMuch {
        /// The entry at which the limit was passed.
        entry: String,
        /// The limit.
        limit: u64,
        /// The unit of the limit.
        what: &'static str,
    },
    /// The layer's tree would take more memory than an image gets.
    #[error("entry {entry} would take the image beyond the limit of {limit} bytes of memory")]
    Memory {
        /// The entry at which the limit was passed.
        entry: String,
        /// The limit.
        limit: u64,
    },
    /// The layer's files could not be written.
    #[error("cannot {operation} {}", path.display())]
    Write {
        /// What was tried.
        operation: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}
