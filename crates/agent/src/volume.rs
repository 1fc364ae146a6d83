//! Anonymous volumes: writable disks of their own, filled once with what the image has at their place.
//!
//! The container sees the directory `data` of the disk, so that a new volume is truly empty (no
//! lost+found). It is filled under another name and renamed when complete: a crash in between fills it
//! anew, and a volume that the container emptied stays empty.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, AtFlags, OFlag};
use nix::sys::stat::{Mode, SFlag, UtimensatFlags, mknod, utimensat};
use nix::sys::time::TimeSpec;
use nix::unistd::{Gid, Uid, fchownat};

use crate::inside::Inside;
use crate::syscalls;

/// What could not be done with a volume.
#[derive(Debug, thiserror::Error)]
pub(crate) enum VolumeError {
    #[error("cannot fill the volume for {target} from the image: {operation} {path}")]
    Fill {
        target: String,
        operation: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("cannot look up {target} in the image")]
    Look {
        target: String,
        #[source]
        source: io::Error,
    },
}

/// Fills the volume mounted at `disk` if it is new; returns the directory that the container sees.
pub(crate) fn fill_once(disk: &Path, root: &Inside, target: &str) -> Result<PathBuf, VolumeError> {
    let data = disk.join("data");
    let fresh = disk.join("data.new");
    let failed = |failure: CopyFailure| VolumeError::Fill {
        target: target.to_owned(),
        operation: failure.operation,
        path: failure.path,
        source: failure.source,
    };
    if data.symlink_metadata().is_ok() {
        return Ok(data);
    }
    if fresh.symlink_metadata().is_ok() {
        step("removing", &fresh, std::fs::remove_dir_all(&fresh)).map_err(failed)?;
    }
    step("creating", &fresh, std::fs::create_dir(&fresh)).map_err(failed)?;
    match root.resolve(target, OFlag::O_RDONLY | OFlag::O_DIRECTORY) {
        Ok(directory) => copy_tree(&directory, &fresh).map_err(failed)?,
        Err(Errno::ENOENT | Errno::ENOTDIR) => {
            let mode = std::fs::Permissions::from_mode(0o755);
            step(
                "setting the mode of",
                &fresh,
                std::fs::set_permissions(&fresh, mode),
            )
            .map_err(failed)?;
        }
        Err(errno) => {
            return Err(VolumeError::Look {
                target: target.to_owned(),
                source: errno.into(),
            });
        }
    }
    step("renaming", &fresh, std::fs::rename(&fresh, &data)).map_err(failed)?;
    Ok(data)
}

struct CopyFailure {
    operation: &'static str,
    path: PathBuf,
    source: io::Error,
}

fn step<T, E: Into<io::Error>>(
    operation: &'static str,
    path: &Path,
    result: Result<T, E>,
) -> Result<T, CopyFailure> {
    result.map_err(|error| CopyFailure {
        operation,
        path: path.to_owned(),
        source: error.into(),
    })
}

/// Copies everything below an open directory, with owner, mode, times and extended attributes.
/// Nothing runs in the container yet, so the tree cannot change underneath; links are never followed.
fn copy_tree(source: &OwnedFd, target: &Path) -> Result<(), CopyFailure> {
    // Through the descriptor, so that what was resolved inside the root is what is read.
    let top = PathBuf::from(format!("/proc/self/fd/{}", source.as_raw_fd()));
    // Directories get their times last, when nothing is put into them any more.
    let mut finished = Vec::new();
    let mut links = std::collections::HashMap::new();
    let mut pending = vec![PathBuf::new()];
    while let Some(relative) = pending.pop() {
        let from = top.join(&relative);
        for entry in step("reading", &from, std::fs::read_dir(&from))? {
            let entry = step("reading", &from, entry)?;
            let path = relative.join(entry.file_name());
            let (from, to) = (top.join(&path), target.join(&path));
            let metadata = step("reading", &from, from.symlink_metadata())?;
            if !metadata.is_dir() && metadata.nlink() > 1 {
                if let Some(first) = links.get(&(metadata.dev(), metadata.ino())) {
                    step("linking", &to, std::fs::hard_link(first, &to))?;
                    continue;
                }
                links.insert((metadata.dev(), metadata.ino()), to.clone());
            }
            create_like(&metadata, &from, &to)?;
            if metadata.is_dir() {
                pending.push(path);
            } else {
                apply(&metadata, &from, &to)?;
                set_times(&metadata, &to)?;
            }
        }
        finished.push(relative);
    }
    for relative in finished.into_iter().rev() {
        let (from, to) = (top.join(&relative), target.join(&relative));
        let metadata = step("reading", &from, std::fs::metadata(&from))?;
        apply(&metadata, &from, &to)?;
        set_times(&metadata, &to)?;
    }
    Ok(())
}

fn create_like(metadata: &std::fs::Metadata, from: &Path, to: &Path) -> Result<(), CopyFailure> {
    let kind = metadata.file_type();
    if kind.is_dir() {
        step("creating", to, std::fs::create_dir(to))
    } else if kind.is_symlink() {
        let link = step("reading", from, std::fs::read_link(from))?;
        step("linking", to, symlink(link, to))
    } else if kind.is_file() {
        step("copying", from, std::fs::copy(from, to)).map(drop)
    } else {
        let special = if kind.is_fifo() {
            SFlag::S_IFIFO
        } else if kind.is_socket() {
            SFlag::S_IFSOCK
        } else if kind.is_block_device() {
            SFlag::S_IFBLK
        } else {
            SFlag::S_IFCHR
        };
        step(
            "creating",
            to,
            mknod(to, special, Mode::empty(), metadata.rdev()),
        )
    }
}

/// Owner first: changing it clears the set-user-ID bit and file capabilities.
fn apply(metadata: &std::fs::Metadata, from: &Path, to: &Path) -> Result<(), CopyFailure> {
    let owner = Some(Uid::from_raw(metadata.uid()));
    let group = Some(Gid::from_raw(metadata.gid()));
    let flags = AtFlags::AT_SYMLINK_NOFOLLOW;
    step(
        "setting the owner of",
        to,
        fchownat(AT_FDCWD, to, owner, group, flags),
    )?;
    if !metadata.is_symlink() {
        let mode = std::fs::Permissions::from_mode(metadata.mode() & 0o7777);
        step(
            "setting the mode of",
            to,
            std::fs::set_permissions(to, mode),
        )?;
    }
    step(
        "copying attributes of",
        from,
        syscalls::copy_attributes(from, to),
    )
}

fn set_times(metadata: &std::fs::Metadata, to: &Path) -> Result<(), CopyFailure> {
    let accessed = TimeSpec::new(metadata.atime(), metadata.atime_nsec());
    let modified = TimeSpec::new(metadata.mtime(), metadata.mtime_nsec());
    let flag = UtimensatFlags::NoFollowSymlink;
    step(
        "setting times of",
        to,
        utimensat(AT_FDCWD, to, &accessed, &modified, flag),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fixture() -> (tempfile::TempDir, Inside, PathBuf) {
        let top = tempfile::tempdir().unwrap();
        let place = top.path().join("root/var/lib");
        std::fs::create_dir_all(place.join("sub")).unwrap();
        std::fs::create_dir(top.path().join("disk")).unwrap();
        std::fs::write(place.join("file"), "content").unwrap();
        std::fs::set_permissions(place.join("file"), std::fs::Permissions::from_mode(0o640))
            .unwrap();
        std::fs::hard_link(place.join("file"), place.join("sub/same")).unwrap();
        symlink("/etc/shadow", place.join("link")).unwrap();
        std::fs::set_permissions(&place, std::fs::Permissions::from_mode(0o750)).unwrap();
        nix::unistd::mkfifo(&place.join("fifo"), Mode::from_bits_truncate(0o600)).unwrap();
        let inside = Inside::open(&top.path().join("root")).unwrap();
        let disk = top.path().join("disk");
        (top, inside, disk)
    }

    #[test]
    fn a_new_volume_gets_what_the_image_has_there() {
        let (_top, inside, disk) = fixture();
        let data = fill_once(&disk, &inside, "/var/lib").unwrap();
        assert_eq!(std::fs::read(data.join("file")).unwrap(), b"content");
        assert_eq!(
            std::fs::metadata(data.join("file")).unwrap().mode() & 0o7777,
            0o640
        );
        assert_eq!(std::fs::metadata(&data).unwrap().mode() & 0o7777, 0o750);
        assert_eq!(
            std::fs::read_link(data.join("link")).unwrap(),
            Path::new("/etc/shadow")
        );
        assert!(
            std::fs::symlink_metadata(data.join("fifo"))
                .unwrap()
                .file_type()
                .is_fifo()
        );
        let first = std::fs::metadata(data.join("file")).unwrap();
        let second = std::fs::metadata(data.join("sub/same")).unwrap();
        assert_eq!((first.ino(), first.nlink()), (second.ino(), 2));
    }

    #[test]
    fn a_volume_is_filled_only_once() {
        let (_top, inside, disk) = fixture();
        let data = fill_once(&disk, &inside, "/var/lib").unwrap();
        std::fs::remove_file(data.join("file")).unwrap();
        let again = fill_once(&disk, &inside, "/var/lib").unwrap();
        assert!(!again.join("file").exists());
    }

    #[test]
    fn a_filling_that_was_cut_short_starts_over() {
        let (_top, inside, disk) = fixture();
        std::fs::create_dir(disk.join("data.new")).unwrap();
        std::fs::write(disk.join("data.new/half"), "").unwrap();
        let data = fill_once(&disk, &inside, "/var/lib").unwrap();
        assert!(data.join("file").exists() && !data.join("half").exists());
    }

    #[test]
    fn a_place_that_the_image_lacks_is_an_empty_volume() {
        let (_top, inside, disk) = fixture();
        let data = fill_once(&disk, &inside, "/nowhere/at/all").unwrap();
        assert_eq!(std::fs::read_dir(&data).unwrap().count(), 0);
        assert_eq!(std::fs::metadata(&data).unwrap().mode() & 0o7777, 0o755);
    }
}
