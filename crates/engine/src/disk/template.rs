//! The empty ext4 file system that every writable disk begins as.

use std::fs::{self, File};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use nix::fcntl::FlockArg;

use super::DiskError;
use crate::kind::FileError;
use crate::root::lock;

/// Raised when the options below change, so that old templates are not used any more.
const FORMAT: u32 = 1;
/// `mke2fs` and its kin are in directories that an ordinary user's `PATH` lacks.
const SYSTEM_DIRS: [&str; 4] = ["/usr/sbin", "/sbin", "/usr/local/sbin", "/usr/bin"];

/// All of them, starting from none, so that neither the host's configuration nor mke2fs's own
/// defaults decide.
const FEATURES: &str = "none,has_journal,ext_attr,dir_index,filetype,extent,flex_bg,sparse_super2,\
                        large_file,huge_file,uninit_bg,dir_nlink,extra_isize";
const EXTENDED: &str =
    "lazy_itable_init=0,lazy_journal_init=1,root_owner=0:0,packed_meta_blocks=1,num_backup_sb=0";

/// The template for disks of `size` bytes (whole 4 KiB blocks), made now if this is the first.
pub(crate) fn template(cache: &Path, size: u64) -> Result<PathBuf, DiskError> {
    let path = cache.join(format!("ext4-{FORMAT}-{size}.img"));
    if path.exists() {
        return Ok(path);
    }
    let _one_at_a_time = lock(cache, FlockArg::LockExclusive)?;
    if path.exists() {
        return Ok(path);
    }
    // Under the lock, so a leftover of that name belongs to a process that was killed.
    let temporary = cache.join("ext4-template.new");
    let _ = fs::remove_file(&temporary);
    let made = make(&temporary, size).and_then(|()| {
        fs::rename(&temporary, &path).map_err(FileError::at("create", &path))?;
        Ok(())
    });
    if made.is_err() {
        let _ = fs::remove_file(&temporary);
    }
    made.map(|()| path)
}

fn make(path: &Path, size: u64) -> Result<(), DiskError> {
    let mke2fs = find_tool("mke2fs").ok_or(DiskError::NoMke2fs)?;
    let file = File::options()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
        .map_err(FileError::at("create", path))?;
    file.set_len(size).map_err(|source| {
        if source.kind() == std::io::ErrorKind::FileTooLarge {
            DiskError::TooLarge {
                size,
                most: longest(|length| file.set_len(length).is_ok(), size),
                path: path.parent().unwrap_or(path).to_owned(),
            }
        } else {
            FileError::at("resize", path)(source).into()
        }
    })?;
    // 16 MiB of journal is enough for a container; a small disk gets what mke2fs finds right.
    let journal = if size >= 256 << 20 {
        "size=16"
    } else {
        "size=4"
    };
    let output = Command::new(&mke2fs)
        .args([
            "-q", "-F", "-t", "ext4", "-b", "4096", "-I", "256", "-i", "16384", "-m", "0",
        ])
        // What is not here is left out on purpose: growing, 64-bit block numbers and copies of the
        // superblock make tables larger; metadata checksums are computed in software in a guest,
        // while the host's own file system guards the file.
        .args(["-O", FEATURES, "-L", "bulkhead"])
        // Inode tables are marked as zeroed, which they are, being holes: otherwise a thread in
        // each guest would write 160 MiB of zeroes. Bitmaps and tables lie at the front in one
        // piece, so that a copy is a few ranges.
        .args(["-E", EXTENDED])
        .args(["-G", "256", "-J", journal])
        .arg(path)
        .env_clear()
        // A configuration file of the host must not change the format.
        .env("MKE2FS_CONFIG", "/dev/null")
        .env("LC_ALL", "C")
        .stdin(Stdio::null())
        .output()
        .map_err(|source| DiskError::Execute {
            program: mke2fs,
            source,
        })?;
    if !output.status.success() {
        let text = String::from_utf8_lossy(&output.stderr);
        let last = text
            .lines()
            .rev()
            .find(|line| !line.trim().is_empty())
            .unwrap_or("no output");
        return Err(DiskError::Mke2fs {
            size,
            output: last.trim().to_owned(),
        });
    }
    remove_lost_and_found(path);
    file.sync_all().map_err(FileError::at("write", path))?;
    Ok(())
}

/// The most bytes, in whole 4 KiB blocks, that a file can be made long; `fits` says whether it can be made so long, and
/// `too_long` cannot be reached.
fn longest(fits: impl Fn(u64) -> bool, too_long: u64) -> u64 {
    let (mut most, mut beyond) = (0, too_long / 4096);
    while beyond - most > 1 {
        let middle = most + (beyond - most) / 2;
        if fits(middle * 4096) {
            most = middle;
        } else {
            beyond = middle;
        }
    }
    most * 4096
}

/// A fresh volume must look empty, as in Docker. Without debugfs it does not, and nothing else is wrong.
fn remove_lost_and_found(path: &Path) {
    let Some(debugfs) = find_tool("debugfs") else {
        return;
    };
    let removed = Command::new(debugfs)
        .args(["-w", "-R", "rmdir lost+found"])
        .arg(path)
        .env_clear()
        .stdin(Stdio::null())
        .output();
    if let Err(error) = removed {
        tracing::debug!(%error, "lost+found stays in the disk template");
    }
}

/// A program in `PATH` or in the directories for administrators.
pub(crate) fn find_tool(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(SYSTEM_DIRS.iter().map(PathBuf::from))
        .filter(|dir| dir.is_absolute())
        .map(|dir| dir.join(name))
        .find(|candidate| candidate.is_file())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;

    #[test]
    fn the_bound_of_a_file_system_is_found() {
        for bound in [0, 4096, (2 << 30) - 4096, (16 << 40) - 8192] {
            let found = longest(|length| length <= bound, (16 << 40) - 4096);
            assert_eq!(found, bound);
        }
    }

    #[test]
    fn a_template_is_sparse_clean_and_made_once() {
        let dir = tempfile::tempdir().unwrap();
        for size in [32 << 20, 64 << 20, 10 << 30, 64u64 << 30] {
            let path = template(dir.path(), size).unwrap();
            let made = fs::metadata(&path).unwrap();
            assert_eq!(made.len(), size);
            assert!(
                made.blocks() * 512 < 1 << 20,
                "{size}: {} bytes",
                made.blocks() * 512
            );
            let check = Command::new(find_tool("e2fsck").unwrap())
                .args(["-f", "-n"])
                .arg(&path)
                .output()
                .unwrap();
            assert!(
                check.status.success(),
                "{}",
                String::from_utf8_lossy(&check.stdout)
            );
            assert_eq!(template(dir.path(), size).unwrap(), path);
            assert_eq!(fs::metadata(&path).unwrap().ino(), made.ino());
        }
    }

    #[test]
    fn the_root_of_a_template_is_roots_and_empty() {
        let dir = tempfile::tempdir().unwrap();
        let path = template(dir.path(), 64 << 20).unwrap();
        let debugfs = |command: &str| {
            let output = Command::new(find_tool("debugfs").unwrap())
                .args(["-R", command])
                .arg(&path)
                .output()
                .unwrap();
            String::from_utf8(output.stdout).unwrap()
        };
        let root = debugfs("stat /");
        assert!(root.contains("Mode:  0755"), "{root}");
        assert!(root.contains("User:     0   Group:     0"), "{root}");
        assert!(!debugfs("ls -p /").contains("lost+found"));
    }

    #[test]
    fn many_who_need_the_same_template_make_it_once() {
        let dir = tempfile::tempdir().unwrap();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| template(dir.path(), 64 << 20).unwrap());
            }
        });
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_failed_attempt_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        assert!(template(dir.path(), 4096).is_err());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
