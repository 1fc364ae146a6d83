//! What every error of this crate is made of: a coarse kind, and a failed operation on a file. It knows none of the
//! modules whose errors [`crate::Error`] gathers.

use std::path::{Path, PathBuf};

/// Why a call failed, coarsely: enough to choose an exit code, an HTTP status or a next step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// No such container, image or execution.
    NotFound,
    /// The object's state or name forbids it.
    Conflict,
    /// A value that the caller gave is not acceptable.
    InvalidInput,
    /// The command in the container was not found (exit code 127).
    CommandNotFound,
    /// The command in the container cannot be executed (exit code 126).
    CommandNotExecutable,
    /// Something that this host must provide is missing: platform, kernel, agent, a tool.
    Unavailable,
    /// The file system refused for want of permission.
    PermissionDenied,
    /// No room left on the file system.
    NoSpace,
    /// Another machine (a registry) or the network failed.
    Remote,
    /// An answer did not come in time.
    Timeout,
    /// Anything else.
    Internal,
}

impl From<bulkhead_image::ErrorKind> for ErrorKind {
    fn from(kind: bulkhead_image::ErrorKind) -> Self {
        use bulkhead_image::ErrorKind as Image;
        match kind {
            Image::NotFound => Self::NotFound,
            Image::Conflict => Self::Conflict,
            Image::InvalidInput | Image::Ambiguous => Self::InvalidInput,
            Image::Denied => Self::PermissionDenied,
            Image::NoSpace => Self::NoSpace,
            Image::Unauthorized | Image::RateLimited | Image::Unavailable => Self::Remote,
            Image::Unsupported => Self::Unavailable,
            _ => Self::Internal,
        }
    }
}

/// A failed operation on a file or directory of the engine's own.
#[derive(Debug, thiserror::Error)]
#[error("cannot {action} {}", path.display())]
pub struct FileError {
    /// Verb and object, for example `create directory`.
    pub action: &'static str,
    /// The file.
    pub path: PathBuf,
    /// The system's answer.
    #[source]
    pub source: std::io::Error,
}

impl FileError {
    /// For `map_err`: attaches what was being done to which file.
    pub(crate) fn at(action: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Self {
        move |source| Self {
            action,
            path: path.to_owned(),
            source,
        }
    }

    /// The coarse reason.
    pub fn kind(&self) -> ErrorKind {
        io_kind(&self.source)
    }

    /// What a person can do about it, where we know.
    pub(crate) fn hint(&self) -> Option<&'static str> {
        match self.kind() {
            ErrorKind::PermissionDenied => {
                Some("choose a directory of your own with --root or BULKHEAD_ROOT")
            }
            ErrorKind::NoSpace => Some(
                "free space on that file system; 'bulkhead container prune' and 'bulkhead image prune' remove what is unused",
            ),
            _ => None,
        }
    }
}

/// The coarse reason of a system error.
pub(crate) fn io_kind(error: &std::io::Error) -> ErrorKind {
    match error.kind() {
        std::io::ErrorKind::PermissionDenied | std::io::ErrorKind::ReadOnlyFilesystem => {
            ErrorKind::PermissionDenied
        }
        std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => ErrorKind::NoSpace,
        _ => ErrorKind::Internal,
    }
}
