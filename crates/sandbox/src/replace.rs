//! Small files that are replaced as a whole.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// Gives `bytes` the name `path`, in place of what had it: who reads sees the old file or the new one, and a failure leaves
/// the old one alone. `durable` forces the file and its name to the disk; without it a power cut can leave an empty file.
/// Two writers of one file at a time are not expected.
///
/// # Errors
/// When the new file cannot be made, written or renamed.
pub fn replace_file(path: &Path, bytes: &[u8], durable: bool) -> io::Result<()> {
    let temporary = temporary(path);
    let replace = || -> io::Result<()> {
        let mut file = File::create(&temporary)?;
        file.write_all(bytes)?;
        if durable {
            file.sync_data()?;
        }
        drop(file);
        fs::rename(&temporary, path)?;
        match path.parent().filter(|_| durable) {
            Some(directory) => File::open(directory)?.sync_all(),
            None => Ok(()),
        }
    };
    replace().inspect_err(|_| {
        // Empty, or half of it. What cannot be removed is written over by the next try.
        let _ = fs::remove_file(&temporary);
    })
}

/// What the file is called before it is complete.
pub(crate) fn temporary(path: &Path) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(".new");
    name.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_replaced_whole_or_not_at_all() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        for durable in [false, true] {
            replace_file(&path, b"old, and longer", durable).unwrap();
            replace_file(&path, b"new", durable).unwrap();
            assert_eq!(fs::read(&path).unwrap(), b"new");
        }
        fs::create_dir(temporary(&path)).unwrap();
        replace_file(&path, b"never", true).unwrap_err();
        assert_eq!(fs::read(&path).unwrap(), b"new");

        // What cannot take the place leaves nothing of itself.
        let place = dir.path().join("place");
        fs::create_dir_all(place.join("full")).unwrap();
        replace_file(&place, b"never", false).unwrap_err();
        assert!(!temporary(&place).exists());
    }
}
