//! What can go wrong with an archive.

use std::io;
use std::path::{Path, PathBuf};

use bulkhead_types::{Digest, GuestText};

use super::recompress::CopyError;
use crate::kind::ErrorKind;
use crate::layer::LayerError;
use crate::manifest::ManifestError;
use crate::reference::ReferenceError;
use crate::store::StoreError;

/// A failed `load`, `save` or `import`.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ArchiveError {
    /// The archive could not be read: it is cut short, is no tar, or its compression is damaged.
    #[error("cannot read the archive")]
    Read {
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A file or directory failed.
    #[error("cannot {operation} {}", .path.display())]
    Io {
        /// What was tried.
        operation: &'static str,
        /// On what.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The output failed.
    #[error("cannot write the archive")]
    Write {
        /// Why.
        #[source]
        source: io::Error,
    },
    /// What is at the path that an archive should get is no file.
    #[error("failed to save image: {reason}")]
    Target {
        /// What is there, or that its directory is not.
        reason: String,
    },
    /// Not the beginning of any archive.
    #[error("this is no tar archive, neither plain nor compressed with gzip, zstd, xz or bzip2")]
    NoArchive {
        /// What is wrong with the first bytes.
        #[source]
        source: LayerError,
    },
    /// Neither `manifest.json` nor `index.json` is in it.
    #[error("neither a docker-archive nor an OCI layout: manifest.json and index.json are missing")]
    Unknown,
    /// There is nothing in it.
    #[error("the archive is empty")]
    Empty,
    /// More entries than any image archive has.
    #[error("the archive has more than {0} entries")]
    TooManyEntries(u64),
    /// Something that is no tar archive, or an entry that is not acceptable.
    #[error("cannot read the archive")]
    Entry {
        /// What is wrong, and with which entry.
        #[source]
        source: LayerError,
    },
    /// A name or link target beyond every file system's limit.
    #[error("the archive has an entry with a name or target of more than 4095 bytes: {0}")]
    LongName(String),
    /// Names and link targets would take more memory than an archive gets.
    #[error("the names in the archive take more than {limit} bytes of memory, at entry {entry}")]
    TooMuchMemory {
        /// The entry at which the limit was passed.
        entry: String,
        /// The limit.
        limit: u64,
    },
    /// A name for an image that is none.
    #[error("invalid tag {name:?} in the archive")]
    BadTag {
        /// As the archive has it.
        name: String,
        /// What is wrong, where there is more to say.
        #[source]
        source: Option<ReferenceError>,
    },
    /// A name for an image that promises a digest.
    #[error("{name:?} in the archive: refusing to create a tag with a digest reference")]
    DigestAsTag {
        /// As the archive has it.
        name: String,
    },
    /// A file that a document names is not in it.
    #[error("the archive lacks {0}")]
    Missing(GuestText),
    /// A document of the archive cannot be parsed.
    #[error("{name} in the archive cannot be used")]
    Parse {
        /// The document.
        name: GuestText,
        /// Why.
        #[source]
        source: ManifestError,
    },
    /// A manifest, index or configuration that is not acceptable.
    #[error("{name} in the archive is not an image that can be used")]
    Document {
        /// The document.
        name: GuestText,
        /// Why.
        #[source]
        source: ManifestError,
    },
    /// Content differs from the digest that is its name.
    #[error("digest mismatch of {name} in the archive: its content is {actual}")]
    DigestMismatch {
        /// The file.
        name: GuestText,
        /// What its digest is.
        actual: Digest,
    },
    /// One of several images under one name, for another level of the processor.
    #[error("another image of that name fits the platform better")]
    BetterFit,
    /// Some of the images are damaged or refused; each was named when its turn came.
    #[error("{failed} of the {entries} images in the archive could not be loaded")]
    Incomplete {
        /// Images that are not loaded.
        failed: usize,
        /// Images that the archive says that it has.
        entries: usize,
    },
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<CopyError> for ArchiveError {
    fn from(error: CopyError) -> Self {
        match error {
            CopyError::Read(source) => Self::Read { source },
            CopyError::Store(error) => Self::Store(error),
        }
    }
}

impl ArchiveError {
    /// Whether the entry is sound but no image for this host: `load` goes on with the others then.
    pub(super) fn passes_over(&self) -> bool {
        match self {
            Self::Document { source, .. } => {
                source.is_no_image()
                    || matches!(
                        source,
                        ManifestError::NoPlatform { .. }
                            | ManifestError::TooDeep(_)
                            | ManifestError::SearchTooLong { .. }
                    )
            }
            Self::BetterFit => true,
            _ => false,
        }
    }

    /// Whether the entry alone is at fault, and not the archive as a whole, nor this host: `load` goes on with the
    /// others, and fails in the end.
    pub(super) fn is_of_entry(&self) -> bool {
        // Whatever it was that had no space, the next one has none either.
        if self.kind() == ErrorKind::NoSpace {
            return false;
        }
        match self {
            Self::Missing(_)
            | Self::Document { .. }
            | Self::DigestMismatch { .. }
            | Self::BadTag { .. }
            | Self::DigestAsTag { .. }
            | Self::Read { .. } => true,
            Self::Store(error) => matches!(
                error,
                StoreError::Document { .. }
                    | StoreError::Layer { .. }
                    | StoreError::Decompress { .. }
                    | StoreError::Disk { .. }
                    | StoreError::DigestMismatch { .. }
                    | StoreError::SizeMismatch { .. }
                    | StoreError::MissingBlob { .. }
                    | StoreError::FalseDigest { .. }
            ),
            _ => false,
        }
    }

    /// What is wrong with the archive's own list of what is in it.
    pub(super) fn parse(name: &str) -> impl FnOnce(ManifestError) -> Self {
        let name = name.into();
        move |source| Self::Parse { name, source }
    }

    /// What the tar reader complains about, at an entry or before the first.
    pub(super) fn entry(source: LayerError) -> Self {
        match source {
            LayerError::Read { source, .. } => Self::Read { source },
            source @ (LayerError::BadHeader { offset: 0 }
            | LayerError::Truncated { offset: ..512, .. }) => Self::NoArchive { source },
            source => Self::Entry { source },
        }
    }

    /// The class of the failure.
    pub fn kind(&self) -> ErrorKind {
        if let Some(kind) = ErrorKind::no_space_in(self) {
            return kind;
        }
        match self {
            Self::Store(error) => error.kind(),
            Self::Io { source, .. } | Self::Write { source } => ErrorKind::of_io(source),
            Self::DigestMismatch { .. } => ErrorKind::Corrupt,
            Self::Document {
                source: ManifestError::NoPlatform { .. },
                ..
            } => ErrorKind::NotFound,
            _ => ErrorKind::InvalidInput,
        }
    }

    /// What the user can do about it, where there is something.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Store(error) => error.hint(),
            Self::Target { .. } => Some(
                "without -o the archive goes to standard output: `bulkhead save IMAGE >TARGET`",
            ),
            Self::Unknown | Self::NoArchive { .. } | Self::Empty => Some(
                "`load` takes what `docker save`, `podman save` or `skopeo copy` write, a docker-archive or an OCI layout; \
                 a root file system is taken in with `bulkhead import`",
            ),
            _ => None,
        }
    }
}

/// Builds the error mapper for one operation on one path.
pub(super) fn io_error(
    operation: &'static str,
    path: &Path,
) -> impl FnOnce(io::Error) -> ArchiveError {
    let path = path.to_owned();
    move |source| ArchiveError::Io {
        operation,
        path,
        source,
    }
}
