//! What can go wrong with an archive.

use std::io;
use std::path::{Path, PathBuf};

use bulkhead_types::Digest;

use crate::kind::ErrorKind;
use crate::manifest::ManifestError;
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
    /// Neither `manifest.json` nor `index.json` is in it.
    #[error("neither a docker-archive nor an OCI layout: manifest.json and index.json are missing")]
    Unknown,
    /// There is nothing in it.
    #[error("the archive is empty")]
    Empty,
    /// More entries than any image archive has.
    #[error("the archive has more than {0} entries")]
    TooManyEntries(u64),
    /// A file that a document names is not in it.
    #[error("the archive lacks {0}")]
    Missing(String),
    /// A document of the archive cannot be parsed.
    #[error("cannot parse {name} in the archive")]
    Parse {
        /// The document.
        name: String,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// A manifest, index or configuration that is not acceptable.
    #[error("{name} in the archive is not an image that can be used")]
    Document {
        /// The document.
        name: String,
        /// Why.
        #[source]
        source: ManifestError,
    },
    /// Content differs from the digest that is its name.
    #[error("digest mismatch of {name} in the archive: its content is {actual}")]
    DigestMismatch {
        /// The file.
        name: String,
        /// What its digest is.
        actual: Digest,
    },
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl ArchiveError {
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
            Self::Unknown => Some("a root file system is taken in with `bulkhead import`"),
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
