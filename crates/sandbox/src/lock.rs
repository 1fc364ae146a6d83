//! The lock that means "this container runs". It is an open-file-description lock (fcntl(2)), not a
//! flock: whether it is held can be asked without taking it, so that no reader ever disturbs a start.
//! The monitor and its jailed child share it; it is free when both are gone, however they went.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};

/// Name of the lock file in a container's directory.
pub const LOCK_FILE: &str = "lock";

/// A held lock; dropping the last copy of its descriptor lets go.
#[derive(Debug)]
pub(crate) struct RunLock {
    file: File,
}

impl RunLock {
    /// Takes the lock.
    ///
    /// # Errors
    /// `WouldBlock` when the container runs.
    pub fn take(dir: &Path) -> io::Result<Self> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .custom_flags(libc::O_CLOEXEC)
            .open(dir.join(LOCK_FILE))?;
        match fcntl(&file, FcntlArg::F_OFD_SETLK(&request(libc::F_WRLCK))) {
            Ok(_) => {}
            Err(Errno::EAGAIN | Errno::EACCES) => return Err(io::ErrorKind::WouldBlock.into()),
            Err(e) => return Err(e.into()),
        }
        file.set_len(0)?;
        Ok(Self { file })
    }

    /// The descriptor; whoever else holds a copy of it prolongs the lock.
    pub fn descriptor(&self) -> RawFd {
        self.file.as_raw_fd()
    }

    /// Leaves the run's last words in the file, for those who wait with it open while the directory
    /// is removed.
    pub fn leave(&self, words: &[u8]) -> io::Result<()> {
        self.file.write_all_at(words, 0)
    }
}

/// Someone else's view of the lock.
#[derive(Debug)]
pub(crate) struct LockWatch {
    file: File,
}

impl LockWatch {
    pub fn open(dir: &Path) -> io::Result<Self> {
        Ok(Self {
            file: File::open(dir.join(LOCK_FILE))?,
        })
    }

    /// As [`LockWatch::open`], but before the first run has made the file: a run may be over, and its
    /// directory removed, before whoever launched it looks again.
    pub fn prepare(dir: &Path) -> io::Result<Self> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(dir.join(LOCK_FILE))?;
        Ok(Self { file })
    }

    pub fn held(&self) -> io::Result<bool> {
        let mut question = request(libc::F_WRLCK);
        fcntl(&self.file, FcntlArg::F_OFD_GETLK(&mut question))?;
        Ok(i32::from(question.l_type) != libc::F_UNLCK)
    }

    /// Blocks until nobody holds the lock, looking every millisecond at first and every ten later.
    /// Taking the lock instead would be simpler but would make a start that follows fail.
    pub fn wait_free(&self, timeout: Option<Duration>) -> io::Result<bool> {
        let mut waited = Duration::ZERO;
        while self.held()? {
            if timeout.is_some_and(|limit| waited >= limit) {
                return Ok(false);
            }
            let nap = Duration::from_millis(if waited < Duration::from_millis(50) {
                1
            } else {
                10
            });
            std::thread::sleep(nap);
            waited += nap;
        }
        Ok(true)
    }

    /// What the run left in the file.
    pub fn last_words(&self) -> io::Result<Vec<u8>> {
        const MOST: usize = 1 << 16;
        let mut bytes = vec![0; MOST];
        let mut filled = 0;
        while filled < MOST {
            let Some(rest) = bytes.get_mut(filled..) else {
                break;
            };
            match self.file.read_at(rest, filled as u64)? {
                0 => break,
                n => filled += n,
            }
        }
        bytes.truncate(filled);
        Ok(bytes)
    }
}

/// Whether a monitor or its jailed child is alive for the container in `dir`.
///
/// # Errors
/// When the lock file exists but cannot be asked.
pub fn is_running(dir: &Path) -> io::Result<bool> {
    wait_free(dir, Duration::ZERO).map(|free| !free)
}

/// Waits until nobody is alive for the container in `dir`; `false` when somebody still is after `timeout`.
///
/// # Errors
/// When the lock file exists but cannot be asked.
pub fn wait_free(dir: &Path, timeout: Duration) -> io::Result<bool> {
    match LockWatch::open(dir) {
        Ok(watch) => watch.wait_free(Some(timeout)),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(true),
        Err(e) => Err(e),
    }
}

fn request(kind: i32) -> libc::flock {
    #[allow(clippy::cast_possible_truncation)]
    libc::flock {
        l_type: kind as i16,
        l_whence: libc::SEEK_SET as i16,
        l_start: 0,
        l_len: 0,
        l_pid: 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_run_at_a_time_and_asking_never_disturbs() {
        let dir = tempfile::tempdir().unwrap();
        assert!(!is_running(dir.path()).unwrap());
        let lock = RunLock::take(dir.path()).unwrap();
        assert!(is_running(dir.path()).unwrap());
        assert_eq!(
            RunLock::take(dir.path()).unwrap_err().kind(),
            io::ErrorKind::WouldBlock
        );
        drop(lock);
        assert!(!is_running(dir.path()).unwrap());
        RunLock::take(dir.path()).unwrap();
    }

    #[test]
    fn waiting_ends_with_the_run_or_says_that_it_did_not() {
        let dir = tempfile::tempdir().unwrap();
        assert!(wait_free(dir.path(), Duration::ZERO).unwrap());
        let lock = RunLock::take(dir.path()).unwrap();
        assert!(!wait_free(dir.path(), Duration::from_millis(3)).unwrap());
        drop(lock);
        assert!(wait_free(dir.path(), Duration::ZERO).unwrap());
    }

    #[test]
    fn last_words_can_be_read_after_the_directory_is_gone() {
        let dir = tempfile::tempdir().unwrap();
        let lock = RunLock::take(dir.path()).unwrap();
        let watch = LockWatch::open(dir.path()).unwrap();
        assert!(!watch.wait_free(Some(Duration::from_millis(3))).unwrap());
        lock.leave(b"exit 3").unwrap();
        drop(dir);
        drop(lock);
        assert!(watch.wait_free(None).unwrap());
        assert_eq!(watch.last_words().unwrap(), b"exit 3");
    }
}
