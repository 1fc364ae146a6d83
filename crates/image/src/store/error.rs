//! What can go wrong with the store.

use std::io;
use std::path::{Path, PathBuf};

use bulkhead_types::Digest;

use crate::disk::{DiskError, MergeError};
use crate::erofs::LayoutError;
use crate::kind::ErrorKind;
use crate::layer::{IndexError, LayerError};
use crate::manifest::ManifestError;

/// A failed operation on the image store.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// The file system failed; a full one has its own words.
    #[error("cannot {operation} {}{}", .path.display(), no_space(.source))]
    Io {
        /// What was tried.
        operation: &'static str,
        /// On what.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// A part of the state directory is somebody else's, who could change it or hold its locks.
    #[error("{} belongs to user {owner}, and this is user {user}", .path.display())]
    Foreign {
        /// The directory, file or link.
        path: PathBuf,
        /// Name and number of its owner.
        owner: String,
        /// Name and number of who runs this.
        user: String,
    },
    /// The state directory is one in which everybody may make files.
    #[error("{} is writable by others (mode {mode:o})", .path.display())]
    Shared {
        /// The directory.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
    },
    /// `oci-layout` names a version that this program does not know.
    #[error("{} is no OCI image layout of version 1.0.0", .path.display())]
    Layout {
        /// The marker file.
        path: PathBuf,
    },
    /// `index.json` cannot be parsed.
    #[error("cannot parse {}", .path.display())]
    Index {
        /// The file.
        path: PathBuf,
        /// What the parser says.
        #[source]
        source: serde_json::Error,
    },
    /// No image answers to the name, identifier or digest.
    #[error("no such image: {0}")]
    NotFound(String),
    /// A short identifier fits several images.
    #[error("identifier {prefix} is ambiguous: it fits {}", .candidates.join(", "))]
    Ambiguous {
        /// What was given.
        prefix: String,
        /// Short identifiers of what it fits.
        candidates: Vec<String>,
    },
    /// The image's last name goes only with the containers that need it.
    #[error(
        "conflict: unable to remove repository reference {name:?} (must force) - container {container} is using its \
         referenced image {image}"
    )]
    NameInUse {
        /// The name, as typed.
        name: String,
        /// Short identifier of the image.
        image: String,
        /// Short identifier of one of the containers.
        container: String,
    },
    /// Containers hold on to the image.
    #[error(
        "conflict: unable to delete {image} ({}) - image is being used by {} container {container}",
        if *.running { "cannot be forced" } else { "must be forced" },
        if *.running { "running" } else { "stopped" }
    )]
    InUse {
        /// Short identifier of the image.
        image: String,
        /// Short identifier of one of the containers.
        container: String,
        /// Whether it runs.
        running: bool,
    },
    /// Removal by identifier would take names of several repositories along.
    #[error(
        "conflict: unable to delete {image} (must be forced) - image is referenced in multiple repositories: {}",
        .names.join(", ")
    )]
    ManyNames {
        /// Short identifier.
        image: String,
        /// The names.
        names: Vec<String>,
    },
    /// A name with a digest cannot be given to an image.
    #[error("cannot tag with '{0}': a name for an image has no digest")]
    TagHasDigest(String),
    /// A name promises a digest that the image does not have.
    #[error("cannot give an image the name '{name}': its digest is {actual}")]
    FalseDigest {
        /// The name.
        name: String,
        /// The digest of the image's manifest.
        actual: Digest,
    },
    /// A blob that the image needs is not in the store.
    #[error("blob {digest} of image {image} is missing from the store")]
    MissingBlob {
        /// The blob.
        digest: Digest,
        /// Manifest or short identifier.
        image: String,
    },
    /// Content differs from its digest.
    #[error("digest mismatch of {what}: expected {expected}, got {actual}")]
    DigestMismatch {
        /// Which content.
        what: String,
        /// The digest that names it.
        expected: Digest,
        /// The digest that it has.
        actual: Digest,
    },
    /// Content is longer or shorter than its descriptor says.
    #[error("size mismatch of {what}: expected {expected} bytes, got {actual}")]
    SizeMismatch {
        /// Which content.
        what: String,
        /// Bytes.
        expected: u64,
        /// Bytes; where too long, as far as it was read.
        actual: u64,
    },
    /// A stored manifest or configuration is not acceptable.
    #[error("image document {digest} is not acceptable")]
    Document {
        /// Its digest.
        digest: Digest,
        /// Why.
        #[source]
        source: ManifestError,
    },
    /// A layer could not be converted.
    #[error("cannot convert layer {digest}{}", no_space_below(.source))]
    Layer {
        /// Digest of the (compressed) blob.
        digest: Digest,
        /// Why.
        #[source]
        source: LayerError,
    },
    /// A layer's bytes behind its tar stream could not be decompressed.
    #[error("cannot decompress layer {digest}")]
    Decompress {
        /// Digest of the (compressed) blob.
        digest: Digest,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The layers could not be merged into a disk.
    #[error("cannot merge the layers of image {image} into a disk{}", no_space_below(.source))]
    Disk {
        /// Short identifier.
        image: String,
        /// Why.
        #[source]
        source: DiskError,
    },
}

impl StoreError {
    /// Whether a layer needs more memory than it got.
    pub(crate) fn exceeds_memory(&self) -> bool {
        let source = match self {
            Self::Layer { source, .. } => source,
            _ => return false,
        };
        matches!(source, LayerError::Memory { .. })
    }

    /// The class of the failure.
    pub fn kind(&self) -> ErrorKind {
        if let Some(kind) = ErrorKind::no_space_in(self) {
            return kind;
        }
        match self {
            Self::Io { source, .. } => match ErrorKind::of_io(source) {
                // The store's own files: their absence is not the caller's mistake.
                ErrorKind::NotFound | ErrorKind::InvalidInput => ErrorKind::Internal,
                kind => kind,
            },
            Self::Foreign { .. } | Self::Shared { .. } => ErrorKind::Denied,
            Self::NotFound(_) => ErrorKind::NotFound,
            Self::Ambiguous { .. } => ErrorKind::Ambiguous,
            Self::NameInUse { .. } | Self::InUse { .. } | Self::ManyNames { .. } => {
                ErrorKind::Conflict
            }
            Self::DigestMismatch { .. }
            | Self::FalseDigest { .. }
            | Self::SizeMismatch { .. }
            | Self::MissingBlob { .. }
            | Self::Index { .. }
            | Self::Layout { .. } => ErrorKind::Corrupt,
            Self::TagHasDigest(_)
            | Self::Document { .. }
            | Self::Layer { .. }
            | Self::Decompress { .. }
            | Self::Disk { .. } => ErrorKind::InvalidInput,
        }
    }

    /// What the user can do about it, where there is something.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::NameInUse { .. }
            | Self::InUse { running: false, .. }
            | Self::ManyNames { .. } => Some("remove the containers first, or use --force"),
            Self::InUse { running: true, .. } => Some("stop and remove the container first"),
            Self::Ambiguous { .. } => Some("give more digits"),
            Self::Layer {
                source: LayerError::Memory { .. },
                ..
            }
            | Self::Disk {
                source:
                    DiskError::Index {
                        source: IndexError::Memory { .. },
                        ..
                    }
                    | DiskError::Merge {
                        source: MergeError::Memory { .. },
                        ..
                    }
                    | DiskError::Layout {
                        source: LayoutError::Memory { .. },
                        ..
                    },
                ..
            } => Some("if you trust the image, raise `images.memory` in the configuration"),
            Self::Foreign { .. } => Some(
                "choose a directory of your own with --root or BULKHEAD_ROOT; if you made this one and trust what is in it, change its owner with chown(1), or run as its owner",
            ),
            Self::Shared { .. } => Some(
                "choose a directory of your own with --root or BULKHEAD_ROOT, or close this one: chmod 0700",
            ),
            Self::MissingBlob { .. } => Some("pull or load the image again"),
            _ if self.kind() == ErrorKind::Denied => {
                Some("choose a directory of your own with --root or BULKHEAD_ROOT")
            }
            _ if self.kind() == ErrorKind::NoSpace => Some(
                "free some space, for example with `bulkhead image prune`, or choose another --root",
            ),
            _ => None,
        }
    }
}

/// Builds the error mapper for one operation on one path.
pub(crate) fn io_error(
    operation: &'static str,
    path: &Path,
) -> impl FnOnce(io::Error) -> StoreError {
    let path = path.to_owned();
    move |source| StoreError::Io {
        operation,
        path,
        source,
    }
}

fn no_space(source: &io::Error) -> &'static str {
    if ErrorKind::of_io(source) == ErrorKind::NoSpace {
        ": no space left"
    } else {
        ""
    }
}

fn no_space_below(source: &(dyn std::error::Error + 'static)) -> &'static str {
    if ErrorKind::no_space_in(source).is_some() {
        ": no space left"
    } else {
        ""
    }
}
