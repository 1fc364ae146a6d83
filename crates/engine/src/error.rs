//! The crate's error, a small kind for callers that must decide, and hints for people.
//!
//! Every module has an enum of its own; this one gathers them at the edge, so that a front end
//! matches on [`ErrorKind`] and never on text.

use bulkhead_types::exit_code;

use crate::container::ContainerError;
use crate::disk::DiskError;
use crate::guest::GuestError;
use crate::kind::{ErrorKind, FileError};
use crate::settings::SettingsError;

/// What went wrong in an engine call.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The configuration files or the root directory.
    #[error(transparent)]
    Settings(#[from] SettingsError),
    /// A container, or what was asked of it.
    #[error(transparent)]
    Container(#[from] ContainerError),
    /// A writable disk.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// Guest kernel, agent or initramfs.
    #[error(transparent)]
    Guest(#[from] GuestError),
    /// A file of the engine's own state.
    #[error(transparent)]
    File(#[from] FileError),
    /// No image of that name.
    #[error("No such image: {0}")]
    NoSuchImage(String),
    /// The image of that name is for another platform than the one asked for.
    #[error(
        "image with reference {name} was found but its platform ({actual}) does not match the specified platform ({wanted})"
    )]
    OtherPlatform {
        /// The image, as typed but familiar.
        name: String,
        /// What it is for.
        actual: String,
        /// What was asked for.
        wanted: String,
    },
    /// What cannot be the name of an image.
    #[error(transparent)]
    Reference(#[from] bulkhead_image::ReferenceError),
    /// The image store.
    #[error(transparent)]
    Store(#[from] bulkhead_image::StoreError),
}

impl Error {
    /// The coarse reason.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Settings(error) => error.kind(),
            Self::Container(error) => error.kind(),
            Self::Disk(error) => error.kind(),
            Self::Guest(error) => error.kind(),
            Self::File(error) => error.kind(),
            Self::NoSuchImage(_) | Self::OtherPlatform { .. } => ErrorKind::NotFound,
            Self::Reference(_) => ErrorKind::InvalidInput,
            Self::Store(error) => error.kind().into(),
        }
    }

    /// What a person can do about it, where we know: one sentence, ready to be shown.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Settings(error) => error.hint(),
            Self::Container(error) => error.hint(),
            Self::Disk(error) => error.hint(),
            Self::Guest(error) => error.hint(),
            Self::Store(error) => error.hint().map(str::to_owned),
            Self::NoSuchImage(_) | Self::OtherPlatform { .. } | Self::Reference(_) => None,
            Self::File(error) => error.hint().map(str::to_owned),
        }
    }

    /// The exit code of `run`, `exec` and `start -a` for this failure (Docker CLI reference,
    /// "docker run: exit status"); other verbs exit with 1.
    pub fn run_exit_code(&self) -> u8 {
        if let Self::Container(ContainerError::Launch { source, .. }) = self {
            return source.exit_code();
        }
        match self.kind() {
            ErrorKind::CommandNotFound => exit_code::NOT_FOUND,
            ErrorKind::CommandNotExecutable => exit_code::NOT_EXECUTABLE,
            _ => exit_code::ENGINE,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `ps` and `images` in somebody else's state directory told the error alone.
    #[test]
    fn a_state_directory_of_somebody_else_comes_with_a_hint_wherever_it_is_noticed() {
        let file = || FileError {
            action: "read directory",
            path: "/x".into(),
            source: std::io::ErrorKind::PermissionDenied.into(),
        };
        let store = bulkhead_image::StoreError::Io {
            operation: "open",
            path: "/x".into(),
            source: std::io::ErrorKind::PermissionDenied.into(),
        };
        for error in [
            Error::from(file()),
            ContainerError::from(file()).into(),
            ContainerError::from(crate::container::RecordError::from(file())).into(),
            store.into(),
        ] {
            let hint = error.hint().unwrap_or_default();
            assert!(hint.contains("--root"), "{error:?}: {hint}");
        }
    }

    #[test]
    fn a_full_disk_and_a_missing_right_are_told_apart() {
        let error = |kind: std::io::ErrorKind| {
            Error::from(FileError {
                action: "write",
                path: "/x".into(),
                source: kind.into(),
            })
        };
        assert_eq!(
            error(std::io::ErrorKind::StorageFull).kind(),
            ErrorKind::NoSpace
        );
        assert_eq!(
            error(std::io::ErrorKind::PermissionDenied).kind(),
            ErrorKind::PermissionDenied
        );
        assert_eq!(error(std::io::ErrorKind::Other).kind(), ErrorKind::Internal);
        assert!(error(std::io::ErrorKind::StorageFull).hint().is_some());
        assert_eq!(
            error(std::io::ErrorKind::StorageFull).run_exit_code(),
            exit_code::ENGINE
        );
    }
}
