//! Copying a sparse file in the time its data takes, not its size.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

use nix::errno::Errno;
use nix::unistd::{Whence, lseek};

use super::DiskError;

/// Data of a template comes in a few pieces of a few pages.
const CHUNK: usize = 64 << 10;

/// Makes `to` (which must not exist) a copy of `from`: shared extents where the file system can,
/// else only the ranges that hold data. `durable` forces the copy to the disk.
pub(crate) fn copy(from: &Path, to: &Path, durable: bool) -> Result<(), DiskError> {
    let fail = |source| DiskError::Copy {
        path: to.to_owned(),
        source,
    };
    let source = File::open(from).map_err(fail)?;
    let target = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(to)
        .map_err(fail)?;
    if !clone(&source, &target) {
        copy_data(&source, &target).map_err(fail)?;
    }
    if durable {
        target.sync_data().map_err(fail)?;
    }
    Ok(())
}

/// FICLONE: one call on btrfs, XFS and bcachefs; refused by the rest.
fn clone(source: &File, target: &File) -> bool {
    use std::os::fd::AsRawFd;
    // SAFETY: FICLONE takes a descriptor by value and touches no memory of ours; both descriptors
    // are open for the duration of the call.
    let result = unsafe {
        libc::ioctl(
            target.as_fd().as_raw_fd(),
            libc::FICLONE,
            source.as_fd().as_raw_fd(),
        )
    };
    result == 0
}

fn copy_data(source: &File, target: &File) -> io::Result<()> {
    let size = source.metadata()?.len();
    target.set_len(size)?;
    let mut buffer = vec![0u8; CHUNK];
    let mut offset = 0i64;
    loop {
        let start = match lseek(source, offset, Whence::SeekData) {
            Ok(start) => start,
            // No data up to the end of the file.
            Err(Errno::ENXIO) => return Ok(()),
            // A file system without the notion: everything is data.
            Err(Errno::EINVAL) if offset == 0 => 0,
            Err(e) => return Err(e.into()),
        };
        let end = match lseek(source, start, Whence::SeekHole) {
            Ok(end) => end,
            Err(Errno::EINVAL) => i64::try_from(size).map_err(io::Error::other)?,
            Err(e) => return Err(e.into()),
        };
        copy_range(
            source,
            target,
            start.unsigned_abs(),
            end.unsigned_abs(),
            &mut buffer,
        )?;
        offset = end;
        if offset.unsigned_abs() >= size {
            return Ok(());
        }
    }
}

fn copy_range(
    source: &File,
    target: &File,
    start: u64,
    end: u64,
    buffer: &mut [u8],
) -> io::Result<()> {
    let mut at = start;
    while at < end {
        let wanted = usize::try_from(end - at)
            .unwrap_or(usize::MAX)
            .min(buffer.len());
        let Some(part) = buffer.get_mut(..wanted) else {
            return Ok(());
        };
        match source.read_at(part, at)? {
            0 => return Ok(()),
            n => {
                let Some(part) = part.get(..n) else {
                    return Ok(());
                };
                target.write_all_at(part, at)?;
                at += n as u64;
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;

    fn sparse(path: &Path, size: u64, data: &[(u64, &[u8])]) {
        let file = File::create(path).unwrap();
        file.set_len(size).unwrap();
        for (offset, bytes) in data {
            file.write_all_at(bytes, *offset).unwrap();
        }
    }

    #[test]
    fn a_copy_is_equal_and_stays_sparse() {
        let dir = tempfile::tempdir().unwrap();
        let (from, to) = (dir.path().join("from"), dir.path().join("to"));
        let big = vec![7u8; 200_000];
        sparse(
            &from,
            64 << 20,
            &[(0, b"start"), (1 << 20, &big), ((64 << 20) - 3, b"end")],
        );
        copy(&from, &to, true).unwrap();
        assert_eq!(std::fs::read(&from).unwrap(), std::fs::read(&to).unwrap());
        assert!(std::fs::metadata(&to).unwrap().blocks() * 512 < 1 << 20);
    }

    #[test]
    fn files_without_data_and_empty_files_copy() {
        let dir = tempfile::tempdir().unwrap();
        for size in [0, 1, 10 << 30] {
            let (from, to) = (
                dir.path().join(format!("f{size}")),
                dir.path().join(format!("t{size}")),
            );
            sparse(&from, size, &[]);
            copy(&from, &to, true).unwrap();
            let copied = std::fs::metadata(&to).unwrap();
            assert_eq!(copied.len(), size);
            assert_eq!(copied.blocks(), 0);
        }
    }

    #[test]
    fn an_existing_disk_is_never_overwritten() {
        let dir = tempfile::tempdir().unwrap();
        let (from, to) = (dir.path().join("from"), dir.path().join("to"));
        std::fs::write(&from, "new").unwrap();
        std::fs::write(&to, "old").unwrap();
        assert!(copy(&from, &to, true).is_err());
        assert_eq!(std::fs::read_to_string(&to).unwrap(), "old");
    }
}
