//! Advisory locks between processes, and between the threads of one.

use std::fs::{File, OpenOptions, TryLockError};
use std::os::unix::fs::OpenOptionsExt;

use super::owner::check;
use super::private::FILE;
use super::{Store, StoreError, io_error};

/// A held flock; dropping it, or dying, releases it.
#[derive(Debug)]
pub(crate) struct Lock(#[allow(dead_code, reason = "held for its lock")] File);

/// Keeps every image, layer and disk of the store in place: hold it from resolving an image until
/// the container that uses it is on record.
#[derive(Debug)]
pub struct Lease {
    _lease: Lock,
    _content: Lock,
}

impl Store {
    /// Takes a lease; removals wait for its end, so keep it short.
    ///
    /// # Errors
    /// [`StoreError::Io`].
    pub fn lease(&self) -> Result<Lease, StoreError> {
        Ok(Lease {
            _lease: self.lock_shared("lease")?,
            _content: self.lock_shared("content")?,
        })
    }

    /// Keeps what is being added from being swept before the index leads to it.
    pub(crate) fn using_content(&self) -> Result<Lock, StoreError> {
        self.lock_shared("content")
    }

    pub(crate) fn lock_shared(&self, name: &str) -> Result<Lock, StoreError> {
        let (file, path) = self.lock_file(name)?;
        file.lock_shared().map_err(io_error("lock", &path))?;
        Ok(Lock(file))
    }

    pub(crate) fn lock(&self, name: &str) -> Result<Lock, StoreError> {
        let (file, path) = self.lock_file(name)?;
        file.lock().map_err(io_error("lock", &path))?;
        Ok(Lock(file))
    }

    /// `None` while somebody else holds it.
    pub(crate) fn try_lock(&self, name: &str) -> Result<Option<Lock>, StoreError> {
        let (file, path) = self.lock_file(name)?;
        match file.try_lock() {
            Ok(()) => Ok(Some(Lock(file))),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(source)) => Err(io_error("lock", &path)(source)),
        }
    }

    fn lock_file(&self, name: &str) -> Result<(File, std::path::PathBuf), StoreError> {
        let path = self.root().join("locks").join(name);
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(FILE)
            .custom_flags(libc::O_NOFOLLOW)
            .open(&path)
            .map_err(io_error("open lock file", &path))?;
        let meta = file.metadata().map_err(io_error("look at", &path))?;
        check(&path, meta)?;
        Ok((file, path))
    }
}
