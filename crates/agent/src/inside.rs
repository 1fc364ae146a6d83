//! Opens paths inside a container's root without ever leaving it: the image and the container may have
//! put symbolic links anywhere, and the kernel resolves them against the root (openat2(2)).

use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, open, openat2};
use nix::sys::stat::Mode;

/// A container's root directory.
#[derive(Debug)]
pub(crate) struct Inside(OwnedFd);

impl Inside {
    pub(crate) fn open(root: &Path) -> io::Result<Self> {
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        Ok(Self(open(root, flags, Mode::empty())?))
    }

    /// Opens what `path` names inside the root.
    pub(crate) fn resolve(&self, path: &str, flags: OFlag) -> nix::Result<OwnedFd> {
        let how = OpenHow::new()
            .flags(flags | OFlag::O_CLOEXEC)
            .resolve(ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_MAGICLINKS);
        openat2(self.0.as_fd(), path, how)
    }

    /// The contents of a regular file; empty where there is none. What is neither is an error, as is
    /// a file longer than `limit` bytes.
    pub(crate) fn read(&self, path: &str, limit: u64) -> io::Result<Vec<u8>> {
        // O_NONBLOCK: a FIFO in its place must not stop the agent.
        let flags = OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_NOCTTY;
        let mut file = match self.resolve(path, flags) {
            Ok(file) => std::fs::File::from(file),
            Err(Errno::ENOENT | Errno::ENOTDIR) => return Ok(Vec::new()),
            Err(errno) => return Err(errno.into()),
        };
        let metadata = file.metadata()?;
        if !metadata.is_file() {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "not a regular file",
            ));
        }
        if metadata.len() > limit {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "file too large"));
        }
        // One call for what is there now; looking for the end of file costs another.
        let mut bytes = vec![0; usize::try_from(metadata.len()).unwrap_or(0)];
        let mut filled = 0;
        while let Some(rest) = bytes.get_mut(filled..).filter(|rest| !rest.is_empty()) {
            match file.read(rest)? {
                0 => break,
                length => filled += length,
            }
        }
        bytes.truncate(filled);
        Ok(bytes)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn root() -> (tempfile::TempDir, Inside) {
        let top = tempfile::tempdir().unwrap();
        std::fs::write(top.path().join("secret"), "outside").unwrap();
        std::fs::create_dir_all(top.path().join("root/etc")).unwrap();
        let inside = Inside::open(&top.path().join("root")).unwrap();
        (top, inside)
    }

    #[test]
    fn links_and_dots_lead_nowhere_but_inside() {
        let (top, inside) = root();
        let etc = top.path().join("root/etc");
        symlink("../../secret", etc.join("up")).unwrap();
        symlink(top.path().join("secret"), etc.join("absolute")).unwrap();
        std::fs::write(top.path().join("root/secret"), "inside").unwrap();
        assert_eq!(inside.read("/etc/up", 100).unwrap(), b"inside");
        assert_eq!(inside.read("/../../secret", 100).unwrap(), b"inside");
        assert_eq!(inside.read("/etc/absolute", 100).unwrap(), b"");
    }

    #[test]
    fn what_is_no_file_or_too_long_is_an_error() {
        let (top, inside) = root();
        let fifo = top.path().join("root/etc/fifo");
        nix::unistd::mkfifo(&fifo, Mode::from_bits_truncate(0o600)).unwrap();
        assert!(inside.read("/etc/fifo", 100).is_err());
        assert!(inside.read("/etc", 100).is_err());
        std::fs::write(top.path().join("root/etc/passwd"), [b'x'; 11]).unwrap();
        assert!(inside.read("/etc/passwd", 10).is_err());
        assert_eq!(inside.read("/etc/passwd", 11).unwrap().len(), 11);
        assert_eq!(inside.read("/etc/none", 10).unwrap(), b"");
    }
}
