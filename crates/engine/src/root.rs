//! The layout of the state directory.

use std::fs::{self, DirBuilder, File, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use bulkhead_image::StoreError;
use bulkhead_types::ContainerId;
use nix::fcntl::{Flock, FlockArg};

use crate::error::Error;
use crate::kind::FileError;

/// The permissions of everybody but the owner.
const OTHERS: u32 = 0o077;

/// The directories right below the state directory, beside those of the image store.
const PIECES: [&str; 3] = ["containers", "names", "cache"];

/// Paths below the state directory.
#[derive(Debug, Clone)]
pub(crate) struct Root {
    path: PathBuf,
}

impl Root {
    /// The directory at `path`, which need not exist.
    pub(crate) fn new(path: PathBuf) -> Self {
        Self { path }
    }

    /// Refuses a state directory, or a part of one, that is somebody else's: see [`bulkhead_image::claim`].
    pub(crate) fn claim(&self) -> Result<(), StoreError> {
        bulkhead_image::claim(&self.path, &PIECES)
    }

    /// Makes what is missing, and takes from everybody else what they may do with it. When everything is there this
    /// costs a system call for each directory.
    ///
    /// The directory itself may have been there before, with the mode that its maker wanted; the ones below it are ours,
    /// and their owner's alone.
    pub(crate) fn create(&self) -> Result<(), Error> {
        // First: what is somebody else's is not to be changed either.
        self.claim()?;
        // Made last, so its presence says that the others are there.
        let last = self.names();
        if fs::metadata(&last).is_ok_and(|meta| meta.is_dir() && meta.mode() & OTHERS == 0) {
            return Ok(());
        }
        for dir in [self.path.clone(), self.containers(), self.cache(), last] {
            DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(&dir)
                .map_err(FileError::at("create directory", &dir))?;
            if dir == self.path {
                // Again: only now nobody else can put anything into it.
                self.claim()?;
            } else {
                fs::set_permissions(&dir, Permissions::from_mode(0o700))
                    .map_err(FileError::at("take from others the permissions of", &dir))?;
            }
        }
        Ok(())
    }

    /// Whether anybody has made it.
    pub(crate) fn exists(&self) -> bool {
        self.path.exists()
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn containers(&self) -> PathBuf {
        self.path.join("containers")
    }

    pub(crate) fn container(&self, id: &ContainerId) -> PathBuf {
        self.containers().join(id.as_str())
    }

    pub(crate) fn names(&self) -> PathBuf {
        self.path.join("names")
    }

    pub(crate) fn cache(&self) -> PathBuf {
        self.path.join("cache")
    }

    /// Whether a container's directory exists, finished or not. A stray file of that name is no container.
    pub(crate) fn has(&self, id: &ContainerId) -> bool {
        self.container(id).is_dir()
    }

    /// Held by everyone who creates a container, so that a sweep can tell what was abandoned from
    /// what is not finished yet.
    pub(crate) fn creating(&self) -> Result<Flock<File>, FileError> {
        lock(&self.containers(), FlockArg::LockShared)
    }

    /// Held by a sweep; `None` while anybody creates.
    pub(crate) fn sweeping(&self) -> Result<Option<Flock<File>>, FileError> {
        match lock(&self.containers(), FlockArg::LockExclusiveNonblock) {
            Ok(lock) => Ok(Some(lock)),
            Err(e) if e.source.kind() == io::ErrorKind::WouldBlock => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// The identifiers for which there is a directory, finished or not, in no order.
    pub(crate) fn ids(&self) -> Result<Vec<ContainerId>, FileError> {
        let dir = self.containers();
        let entries = match fs::read_dir(&dir) {
            Ok(entries) => entries,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(e) => return Err(FileError::at("read directory", &dir)(e)),
        };
        Ok(entries
            .flatten()
            .filter(|entry| !entry.file_type().is_ok_and(|kind| kind.is_file()))
            .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
            .collect())
    }
}

/// A lock on a directory, released on drop.
pub(crate) fn lock(dir: &Path, how: FlockArg) -> Result<Flock<File>, FileError> {
    let mut file = File::open(dir).map_err(FileError::at("open directory", dir))?;
    loop {
        match Flock::lock(file, how) {
            Ok(lock) => return Ok(lock),
            Err((same, nix::errno::Errno::EINTR)) => file = same,
            Err((_, e)) => return Err(FileError::at("lock", dir)(e.into())),
        }
    }
}
