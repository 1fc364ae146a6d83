//! Files and directories that appear complete or not at all.

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;

use super::private::{DIRECTORY, FILE};
use super::{Store, StoreError, io_error};

/// Everything of ours in `tmp/` has this prefix, so that sweeping spares what others keep there.
pub(super) const TEMP_PREFIX: &str = "image-";

/// A directory in `tmp/` that is removed when dropped, unless it was published.
#[derive(Debug)]
pub(crate) struct TempDir(tempfile::TempDir);

impl TempDir {
    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Store {
    /// A new directory on the store's file system.
    pub(crate) fn temp_dir(&self) -> Result<TempDir, StoreError> {
        let root = self.temp_root();
        let dir = tempfile::Builder::new()
            .prefix(TEMP_PREFIX)
            .tempdir_in(&root)
            .map_err(io_error("create a temporary directory in", &root))?;
        Ok(TempDir(dir))
    }

    /// A new unpublished file on the store's file system.
    pub(crate) fn temp_file(&self) -> Result<tempfile::NamedTempFile, StoreError> {
        let root = self.temp_root();
        tempfile::Builder::new()
            .prefix(TEMP_PREFIX)
            .permissions(std::os::unix::fs::PermissionsExt::from_mode(FILE))
            .tempfile_in(&root)
            .map_err(io_error("create a temporary file in", &root))
    }

    /// Gives `bytes` the name `path`, in place of what had it.
    pub(crate) fn replace_file(&self, path: &Path, bytes: &[u8]) -> Result<(), StoreError> {
        let mut file = self.temp_file()?;
        file.write_all(bytes).map_err(io_error("write", path))?;
        self.publish_file(file, path)
    }

    /// Syncs `file` and gives it the name `path`.
    pub(crate) fn publish_file(
        &self,
        file: tempfile::NamedTempFile,
        path: &Path,
    ) -> Result<(), StoreError> {
        file.as_file().sync_all().map_err(io_error("sync", path))?;
        file.persist(path)
            .map_err(|e| io_error("rename to", path)(e.error))?;
        sync_parent(path)
    }

    /// Syncs the files in `dir` (which has no subdirectories) and gives it the name `path`.
    pub(super) fn publish_dir(&self, dir: TempDir, path: &Path) -> Result<(), StoreError> {
        for entry in fs::read_dir(dir.path()).map_err(io_error("read directory", dir.path()))? {
            let file = entry
                .map_err(io_error("read directory", dir.path()))?
                .path();
            File::open(&file)
                .and_then(|f| f.sync_all())
                .map_err(io_error("sync", &file))?;
        }
        File::open(dir.path())
            .and_then(|f| f.sync_all())
            .map_err(io_error("sync", dir.path()))?;
        let mode = std::os::unix::fs::PermissionsExt::from_mode(DIRECTORY);
        fs::set_permissions(dir.path(), mode)
            .map_err(io_error("set permissions of", dir.path()))?;
        // A directory can replace only an empty one: what is left of a removal goes first.
        match fs::remove_dir_all(path) {
            Ok(()) => {}
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
            Err(source) => return Err(io_error("remove", path)(source)),
        }
        fs::rename(dir.path(), path).map_err(io_error("rename to", path))?;
        let _gone = dir.0.keep();
        sync_parent(path)
    }
}

/// Makes the name itself survive a crash.
pub(crate) fn sync_parent(path: &Path) -> Result<(), StoreError> {
    match path.parent() {
        Some(parent) => File::open(parent)
            .and_then(|d| d.sync_all())
            .map_err(io_error("sync directory", parent)),
        None => Ok(()),
    }
}
