//! Space that is set aside for the index, so that images can be removed when there is none left.
//!
//! Removing an image writes one file: the index without it. On a full file system that fails, and the remedy for a full
//! file system would be what does not work. So there is a file of the same use beside it whose blocks are there already. It is
//! written in place and changes places with the index, whose own blocks are the reserve from then on.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, FallocateFlags, RenameFlags, fallocate, renameat2};

use super::atomic::sync_parent;
use super::{Store, StoreError, io_error};

/// What the reserve has at least, in bytes: an index of some hundred names. A longer index has a reserve of twice
/// its length.
const LEAST: u64 = 64 << 10;

impl Store {
    fn reserve(&self) -> PathBuf {
        self.root().join("locks").join("index.reserve")
    }

    /// Sets space aside for an index as it is now. Call with the index locked. A failure is not told: nothing is
    /// wrong yet, and the next change of the index tries again.
    pub(super) fn keep_reserve(&self) {
        let length =
            fs::metadata(self.layout_dir().join("index.json")).map_or(0, |meta| meta.len());
        let wanted = LEAST.max(2 * length);
        let path = self.reserve();
        let have = fs::metadata(&path).map_or(0, |meta| meta.blocks() * 512);
        if have < wanted
            && let Err(error) = set_aside(&path, wanted)
        {
            tracing::debug!(%error, "no space is set aside for removing images");
        }
    }

    /// As [`Store::keep_reserve`] after something was removed, when there is space again.
    pub(super) fn renew_reserve(&self) {
        if let Ok(_lock) = self.lock("index") {
            self.keep_reserve();
        }
    }

    /// Gives the index these bytes without needing space; `false` where nothing was set aside. Call with the index
    /// locked, and with bytes that are not longer than the index was.
    pub(super) fn replace_from_reserve(
        &self,
        path: &Path,
        bytes: &[u8],
    ) -> Result<bool, StoreError> {
        let reserve = self.reserve();
        let length = bytes.len() as u64;
        match fs::metadata(&reserve) {
            Ok(meta) if meta.blocks() * 512 >= length => {}
            _ => return Ok(false),
        }
        let written = OpenOptions::new()
            .write(true)
            .open(&reserve)
            .and_then(|file| {
                file.write_all_at(bytes, 0)?;
                file.set_len(length)?;
                file.sync_all()
            });
        written.map_err(io_error("write", &reserve))?;
        let exchanged = renameat2(
            AT_FDCWD,
            &reserve,
            AT_FDCWD,
            path,
            RenameFlags::RENAME_EXCHANGE,
        );
        match exchanged {
            Ok(()) => {}
            // A file system that cannot exchange: the reserve is used up then.
            Err(Errno::EINVAL | Errno::ENOSYS | Errno::ENOENT) => {
                fs::rename(&reserve, path).map_err(io_error("rename to", path))?;
            }
            Err(error) => return Err(io_error("rename to", path)(error.into())),
        }
        sync_parent(path)?;
        Ok(true)
    }
}

/// Makes a file whose blocks are there. Where the file system cannot promise blocks, zeros are written.
fn set_aside(path: &Path, bytes: u64) -> io::Result<()> {
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(0o600)
        .open(path)?;
    let made = match fallocate(
        file.as_fd(),
        FallocateFlags::empty(),
        0,
        i64::try_from(bytes).unwrap_or(i64::MAX),
    ) {
        Ok(()) => Ok(()),
        Err(Errno::EOPNOTSUPP) => zeros(&file, bytes),
        Err(error) => Err(error.into()),
    };
    // Half a reserve is none.
    made.and_then(|()| file.sync_all()).inspect_err(|_| {
        let _ = fs::remove_file(path);
    })
}

fn zeros(mut file: &File, bytes: u64) -> io::Result<()> {
    let block = [0; 4096];
    for _ in 0..bytes.div_ceil(4096) {
        file.write_all(&block)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_index_is_replaced_with_the_space_that_was_set_aside() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let index = store.layout_dir().join("index.json");
        let reserve = fs::metadata(store.reserve()).unwrap();
        assert!(reserve.blocks() * 512 >= LEAST);
        let old = fs::read(&index).unwrap();
        let new = &old[..old.len() - 1];
        assert!(store.replace_from_reserve(&index, new).unwrap());
        assert_eq!(fs::read(&index).unwrap(), new);
        // The two files changed places: no block was given up.
        assert_eq!(fs::metadata(&index).unwrap().ino(), reserve.ino());
        assert!(store.replace_from_reserve(&index, &new[1..]).unwrap());
        assert_eq!(fs::read(&index).unwrap(), &new[1..]);
        store.keep_reserve();
        assert!(fs::metadata(store.reserve()).unwrap().blocks() * 512 >= LEAST);
        fs::remove_file(store.reserve()).unwrap();
        assert!(!store.replace_from_reserve(&index, new).unwrap());
    }
}
