//! The locks that mean "this container runs". They are open-file-description locks (fcntl(2)), not
//! flocks: whether one is held can be asked without taking it, so that no reader ever disturbs a start.
//!
//! | file | who holds it | how it is open there |
//! |---|---|---|
//! | `lock` | the monitor alone | for reading and writing: the run's last words go into it |
//! | `alive` | the jailed half alone | for reading |
//!
//! A container runs while either is held. Code that broke into the jailed half can let go of `alive`, and of no more:
//! while the monitor lives the container counts as running, and the monitor's death is the jailed half's (see
//! decision 0017).

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
/// Name of the file that the jailed half holds locked.
const ALIVE_FILE: &str = "alive";
/// How long a start waits for the jailed half of a run whose monitor is gone. The kernel kills it with the monitor, and
/// it is gone in milliseconds unless the host's disk holds it up; a start that finds it after this says so.
const DYING_WITHIN: Duration = Duration::from_secs(10);

/// Room for a run's last words in the lock file, in bytes, taken at its start: a disk that is full at the run's end then
/// still takes them. A page, which is what every file system gives out at least. An exit with a longer error goes without the
/// error.
const WORDS: usize = 4096;

/// The monitor's lock; dropping it lets go. No copy of its descriptor may reach the jailed half.
#[derive(Debug)]
pub(crate) struct RunLock {
    file: File,
}

/// The jailed half's lock, on a descriptor that can write nothing. Made by the monitor, whose copy is closed once the
/// jailed half has its own.
#[derive(Debug)]
pub(crate) struct Alive {
    file: File,
}

impl Alive {
    /// Locks the file of the container in `dir`. To be called while the [`RunLock`] is held.
    pub fn hold(dir: &Path) -> io::Result<Self> {
        let file = open_alive(dir)?;
        fcntl(&file, FcntlArg::F_OFD_SETLK(&request(libc::F_RDLCK)))?;
        Ok(Self { file })
    }
}

impl AsRawFd for Alive {
    fn as_raw_fd(&self) -> RawFd {
        self.file.as_raw_fd()
    }
}

/// Opens the monitor's file, made where it is missing.
fn open_lock(dir: &Path) -> io::Result<File> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(dir.join(LOCK_FILE))
}

/// Opens the file, made where it is missing: the second descriptor is for reading in any case.
fn open_alive(dir: &Path) -> io::Result<File> {
    let path = dir.join(ALIVE_FILE);
    match File::open(&path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            OpenOptions::new()
                .write(true)
                .create(true)
                .truncate(false)
                .mode(0o600)
                .open(&path)?;
            File::open(&path)
        }
        other => other,
    }
}

impl RunLock {
    /// Takes the lock, and waits for the jailed half of a run whose monitor was killed.
    ///
    /// # Errors
    /// `WouldBlock` when the container runs, `TimedOut` when only its jailed half is left and does not go.
    pub fn take(dir: &Path) -> io::Result<Self> {
        Self::take_within(dir, DYING_WITHIN)
    }

    fn take_within(dir: &Path, dying: Duration) -> io::Result<Self> {
        let file = open_lock(dir)?;
        match fcntl(&file, FcntlArg::F_OFD_SETLK(&request(libc::F_WRLCK))) {
            Ok(_) => {}
            Err(Errno::EAGAIN | Errno::EACCES) => return Err(io::ErrorKind::WouldBlock.into()),
            Err(e) => return Err(e.into()),
        }
        let watch = LockWatch {
            files: vec![open_alive(dir)?],
        };
        if !watch.wait_free(Some(dying))? {
            return Err(io::Error::new(
                io::ErrorKind::TimedOut,
                "processes of the last run are still there",
            ));
        }
        Ok(Self { file })
    }

    /// Wipes the last words of the run before and makes room for those of this one: in the same place, so that a restart
    /// needs no room that was not there.
    ///
    /// # Errors
    /// `StorageFull` when the disk has no room for them: then the end of a run could not be recorded.
    pub fn make_room(&self) -> io::Result<()> {
        // JSON skips blanks.
        self.file.write_all_at(&[b' '; WORDS], 0)?;
        self.file.set_len(WORDS as u64)
    }

    /// Leaves the run's last words in the file: for those who wait with it open while the directory is removed, and for
    /// those who read a state that could not be written.
    ///
    /// # Errors
    /// `InvalidInput` for words that are longer than the room for them.
    pub fn leave(&self, words: &[u8]) -> io::Result<()> {
        if words.len() > WORDS {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        self.file.write_all_at(words, 0)
    }
}

/// Someone else's view of the locks.
#[derive(Debug)]
pub(crate) struct LockWatch {
    /// `lock`, and `alive` once it exists.
    files: Vec<File>,
}

impl LockWatch {
    /// # Errors
    /// `NotFound` when the container never ran.
    pub fn open(dir: &Path) -> io::Result<Self> {
        let mut files = vec![File::open(dir.join(LOCK_FILE))?];
        match File::open(dir.join(ALIVE_FILE)) {
            Ok(file) => files.push(file),
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(e) => return Err(e),
        }
        Ok(Self { files })
    }

    /// As [`LockWatch::open`], but before the first run has made the file: a run may be over, and its
    /// directory removed, before whoever launched it looks again.
    pub fn prepare(dir: &Path) -> io::Result<Self> {
        Ok(Self {
            files: vec![open_lock(dir)?, open_alive(dir)?],
        })
    }

    pub fn held(&self) -> io::Result<bool> {
        for file in &self.files {
            let mut question = request(libc::F_WRLCK);
            fcntl(file, FcntlArg::F_OFD_GETLK(&mut question))?;
            if i32::from(question.l_type) != libc::F_UNLCK {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Blocks until nobody holds a lock, looking every millisecond at first and every ten later.
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
        let Some(lock) = self.files.first() else {
            return Ok(Vec::new());
        };
        let mut bytes = vec![0; WORDS];
        let mut filled = 0;
        while filled < WORDS {
            let Some(rest) = bytes.get_mut(filled..) else {
                break;
            };
            match lock.read_at(rest, filled as u64)? {
                0 => break,
                n => filled += n,
            }
        }
        bytes.truncate(filled);
        Ok(bytes)
    }
}

/// Whether a monitor or its jailed half is alive for the container in `dir`.
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
    use std::os::unix::fs::MetadataExt;

    /// As [`RunLock::take`]. A process that another test is starting has a copy of every descriptor until it executes its
    /// program, and with it every lock.
    fn take_in_the_end(dir: &Path) -> io::Result<RunLock> {
        for _ in 0..1000 {
            match RunLock::take(dir) {
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                    std::thread::sleep(Duration::from_millis(10));
                }
                other => return other,
            }
        }
        RunLock::take(dir)
    }

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
        drop(take_in_the_end(dir.path()).unwrap());
        assert!(wait_free(dir.path(), DYING_WITHIN).unwrap());
    }

    #[test]
    fn a_jailed_half_that_outlives_its_monitor_keeps_the_container_running() {
        let dir = tempfile::tempdir().unwrap();
        let lock = RunLock::take(dir.path()).unwrap();
        let alive = Alive::hold(dir.path()).unwrap();
        drop(lock);
        assert!(is_running(dir.path()).unwrap());
        let refused = RunLock::take_within(dir.path(), Duration::from_millis(3)).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::TimedOut);
        // A start right after the monitor's death waits for the rest of the run to die.
        let path = dir.path().to_owned();
        let start = std::thread::spawn(move || take_in_the_end(&path));
        std::thread::sleep(Duration::from_millis(20));
        drop(alive);
        let _lock = start.join().unwrap().unwrap();
    }

    /// The jailed half held the monitor's own lock: by unlocking it, its code made a second kernel start on the disk.
    #[test]
    fn the_jailed_halfs_descriptor_neither_frees_the_container_nor_writes_its_last_words() {
        let dir = tempfile::tempdir().unwrap();
        let lock = RunLock::take(dir.path()).unwrap();
        lock.leave(b"truth").unwrap();
        let alive = Alive::hold(dir.path()).unwrap();
        fcntl(&alive.file, FcntlArg::F_OFD_SETLK(&request(libc::F_UNLCK))).unwrap();
        assert!(is_running(dir.path()).unwrap());
        assert_eq!(
            RunLock::take(dir.path()).unwrap_err().kind(),
            io::ErrorKind::WouldBlock
        );
        assert!(alive.file.write_all_at(b"a lie", 0).is_err());
        let words = LockWatch::open(dir.path()).unwrap().last_words().unwrap();
        assert_eq!(words.trim_ascii(), b"truth");
        assert_ne!(
            std::fs::metadata(dir.path().join(LOCK_FILE)).unwrap().ino(),
            alive.file.metadata().unwrap().ino()
        );
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
        assert_eq!(watch.last_words().unwrap().trim_ascii(), b"exit 3");
    }
}
