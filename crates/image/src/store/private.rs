//! Modes: the store belongs to one user.
//!
//! The state directory may be older than Bulkhead, with a mode that lets others in. Whoever can open a lock can
//! hold it, and whoever can open a layer reads the image. So every directory of the store is its owner's alone,
//! whatever the one above says.

use std::fs::{self, DirBuilder, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};

use super::owner::{claim, look};
use super::{Store, StoreError, io_error};

/// What only the owner may, as directories have it.
pub(super) const DIRECTORY: u32 = 0o700;
/// As files have it.
pub(super) const FILE: u32 = 0o600;
/// The bits of everybody else.
const OTHERS: u32 = 0o077;

/// The directories right below the state directory.
pub(super) const TOP: [&str; 6] = ["image", "layers", "disks", "tmp", "partial", "locks"];

/// What is in those and decides over all the rest.
pub(super) const INSIDE: [&str; 4] = [
    "image/blobs",
    "image/blobs/sha256",
    "image/index.json",
    "image/oci-layout",
];

impl Store {
    /// Refuses a store that somebody else owns a part of.
    pub(super) fn claim(&self) -> Result<(), StoreError> {
        claim(self.root(), &[])
    }

    /// Makes the directories that are missing.
    pub(super) fn make_directories(&self) -> Result<(), StoreError> {
        let root = self.root();
        DirBuilder::new()
            .recursive(true)
            .mode(DIRECTORY)
            .create(root)
            .map_err(io_error("create directory", root))?;
        // Again: only now nobody else can put anything into it.
        self.claim()?;
        for name in TOP.iter().chain(&["image/blobs", "image/blobs/sha256"]) {
            let dir = self.root().join(name);
            DirBuilder::new()
                .recursive(true)
                .mode(DIRECTORY)
                .create(&dir)
                .map_err(io_error("create directory", &dir))?;
        }
        self.make_private()
    }

    /// Takes from everybody else what they may do with the store. Costs one system call where there is nothing to take.
    pub(super) fn make_private_if_public(&self) -> Result<(), StoreError> {
        let locks = self.root().join("locks");
        match fs::metadata(&locks) {
            Ok(meta) if meta.mode() & OTHERS == 0 => Ok(()),
            _ => self.make_private(),
        }
    }

    /// The locks come last, so that a repair that was cut off is done again.
    fn make_private(&self) -> Result<(), StoreError> {
        let locks = self.root().join("locks");
        // Who holds one of these open keeps it; nobody else gets it any more.
        let files = fs::read_dir(&locks).map(|entries| entries.flatten().map(|entry| entry.path()));
        let files = files.into_iter().flatten().map(|path| (path, FILE));
        let dirs = TOP.iter().map(|name| (self.root().join(name), DIRECTORY));
        for (path, mode) in files.chain(dirs) {
            look(&path)?;
            let change = match fs::symlink_metadata(&path) {
                Ok(meta) if meta.is_symlink() || meta.mode() & OTHERS == 0 => Ok(()),
                Ok(_) => fs::set_permissions(&path, Permissions::from_mode(mode)),
                Err(error) => Err(error),
            };
            match change {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(io_error("take from others the permissions of", &path)(
                        error,
                    ));
                }
                _ => {}
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_store_that_others_could_enter_is_closed() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("root");
        fs::create_dir(&root).unwrap();
        fs::set_permissions(&root, Permissions::from_mode(0o755)).unwrap();
        let mode = |name: &str| fs::metadata(root.join(name)).unwrap().mode() & 0o777;
        let closed = |what: &str| {
            for name in TOP {
                assert_eq!(mode(name), 0o700, "{what}: {name}");
            }
            assert_eq!(mode("locks/index"), 0o600, "{what}");
        };
        Store::open(&root).unwrap();
        closed("new");
        // As an older version made it.
        for name in TOP {
            fs::set_permissions(root.join(name), Permissions::from_mode(0o755)).unwrap();
        }
        fs::set_permissions(root.join("locks/index"), Permissions::from_mode(0o644)).unwrap();
        Store::open(&root).unwrap();
        closed("older");
    }
}
