//! What kind of trouble an error is, so that callers choose exit codes, status codes and advice
//! without matching on every variant of every module.

use std::io;

/// The class of a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The image, tag, digest or file does not exist.
    NotFound,
    /// A registry wants credentials, or rejects those it got.
    Unauthorized,
    /// A registry knows who is asking and says no.
    Denied,
    /// What was given is malformed, hostile or unsupported.
    InvalidInput,
    /// Content does not have the digest or size that names it.
    Corrupt,
    /// The file system is full, or a quota is reached.
    NoSpace,
    /// Something else holds on to the object.
    Conflict,
    /// More than one object answers to the name.
    Ambiguous,
    /// The registry asks to slow down.
    RateLimited,
    /// The network or the far side failed; trying again may help.
    Unavailable,
    /// A program or feature that is needed is absent on this host.
    Unsupported,
    /// The host failed in another way.
    Internal,
}

impl ErrorKind {
    /// The class of an operating system error.
    pub fn of_io(error: &io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::NoSpace,
            io::ErrorKind::NotFound => Self::NotFound,
            io::ErrorKind::PermissionDenied => Self::Denied,
            io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof => Self::InvalidInput,
            _ => Self::Internal,
        }
    }

    /// Walks an error's sources for a full file system, which outranks every other explanation.
    pub(crate) fn no_space_in(error: &(dyn std::error::Error + 'static)) -> Option<Self> {
        let mut next = Some(error);
        while let Some(current) = next {
            if let Some(io) = current.downcast_ref::<io::Error>()
                && Self::of_io(io) == Self::NoSpace
            {
                return Some(Self::NoSpace);
            }
            next = current.source();
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_is_recognised_below_other_errors() {
        let full = io::Error::from_raw_os_error(nix::libc::ENOSPC);
        assert_eq!(ErrorKind::of_io(&full), ErrorKind::NoSpace);
        #[derive(Debug, thiserror::Error)]
        #[error("cannot write")]
        struct Outer(#[source] io::Error);
        assert_eq!(
            ErrorKind::no_space_in(&Outer(full)),
            Some(ErrorKind::NoSpace)
        );
        assert_eq!(ErrorKind::no_space_in(&Outer(io::Error::other("x"))), None);
    }
}
