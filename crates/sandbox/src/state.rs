//! A container's recorded state. The monitor alone writes it, atomically; everyone may read it, and
//! reading compares it with the lock, because a monitor that was killed cannot write its last words.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use bulkhead_jail::JailReport;
use bulkhead_types::{ExitStatus, GuestText};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::lock;
use crate::timings::Timings;

/// Name of the state file in a container's directory.
pub const STATE_FILE: &str = "state.json";

/// Exit code of a container whose sandbox was killed: as if by `SIGKILL`.
const KILLED: u8 = 137;

/// Where a container is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Status {
    /// Never ran, or its last start failed before the main process was executed.
    Created,
    /// Its main process runs.
    Running,
    /// Its main process has ended.
    Exited,
}

/// The recorded state of one container. Times are RFC 3339 with nanoseconds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct State {
    /// Where it is in its life.
    pub status: Status,
    /// The monitor's process, 0 when it does not run.
    #[serde(default)]
    pub monitor_pid: i32,
    /// The jailed sandbox process in the host's numbering (what `inspect` calls `Pid`), 0 when it does not run.
    #[serde(default)]
    pub pid: i32,
    /// When the main process was executed, last time.
    #[serde(default)]
    pub started_at: Option<Timestamp>,
    /// When it ended, or the start failed.
    #[serde(default)]
    pub finished_at: Option<Timestamp>,
    /// How the last run ended; a failed start has the exit code that `run` would give.
    #[serde(default)]
    pub exit: Option<ExitStatus>,
    /// What went wrong, ready to be shown; `None` when nothing did.
    #[serde(default)]
    pub error: Option<GuestText>,
    /// The last run ended without the monitor's record: it was killed, or the host went down.
    #[serde(default)]
    pub died_unexpectedly: bool,
    /// Bytes of output that could not be logged (full disk), in the last run.
    #[serde(default)]
    pub log_bytes_lost: u64,
    /// The guest's `uname -r`.
    #[serde(default)]
    pub kernel_release: GuestText,
    /// Where the last run's time went.
    #[serde(default)]
    pub timings: Timings,
    /// Which walls stand around this run, or stood around the last one.
    #[serde(default)]
    pub jail: JailReport,
}

impl State {
    /// A container that never ran.
    pub fn created() -> Self {
        Self {
            status: Status::Created,
            monitor_pid: 0,
            pid: 0,
            started_at: None,
            finished_at: None,
            exit: None,
            error: None,
            died_unexpectedly: false,
            log_bytes_lost: 0,
            kernel_release: GuestText::default(),
            timings: Timings::default(),
            jail: JailReport::default(),
        }
    }

    /// Whether the guest's kernel killed a process for want of memory.
    pub fn oom_killed(&self) -> bool {
        self.exit.is_some_and(|exit| exit.oom_killed)
    }

    /// What is true of a run whose monitor vanished.
    fn died(mut self, at: Option<Timestamp>) -> Self {
        self.status = Status::Exited;
        self.monitor_pid = 0;
        self.pid = 0;
        self.exit = Some(ExitStatus::exited(KILLED));
        self.finished_at = at;
        self.error = Some("sandbox died unexpectedly".into());
        self.died_unexpectedly = true;
        self
    }
}

/// The state cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// The directory does not exist: the container was removed.
    #[error("container directory '{path}' does not exist", path = .0.display())]
    Missing(PathBuf),
    /// Reading failed.
    #[error("read '{path}'", path = .path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Writing failed.
    #[error("write '{path}'", path = .path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Looking at the run lock failed.
    #[error("look at lock '{path}'", path = .path.display())]
    Lock {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// The state of the container in `dir`, corrected by what the lock says. A container without a state
/// file was created and never ran. A state file that cannot be parsed (the host lost power while it
/// was written) counts as a run that died.
///
/// # Errors
/// When the directory is missing or a file in it cannot be read.
pub fn read_state(dir: &Path) -> Result<State, StateError> {
    let first = read_file(dir)?;
    let claims_running =
        matches!(&first, Recorded::State(state, _) if state.status == Status::Running);
    if !claims_running && !matches!(first, Recorded::Garbage(_)) {
        return Ok(first.into_state());
    }
    let running = lock::is_running(dir).map_err(|source| StateError::Lock {
        path: dir.join(lock::LOCK_FILE),
        source,
    })?;
    if running {
        return Ok(first.into_state());
    }
    // The monitor records the end before it lets go of the lock: read after the lock was seen free.
    match read_file(dir)? {
        Recorded::State(state, modified) if state.status == Status::Running => {
            Ok(state.died(modified))
        }
        Recorded::Garbage(modified) => Ok(State::created().died(modified)),
        other => Ok(other.into_state()),
    }
}

enum Recorded {
    Nothing,
    State(Box<State>, Option<Timestamp>),
    Garbage(Option<Timestamp>),
}

impl Recorded {
    fn into_state(self) -> State {
        match self {
            Self::State(state, _) => *state,
            Self::Nothing | Self::Garbage(_) => State::created(),
        }
    }
}

fn read_file(dir: &Path) -> Result<Recorded, StateError> {
    let path = dir.join(STATE_FILE);
    let read = |source| StateError::Read {
        path: path.clone(),
        source,
    };
    let bytes = match fs::read(&path) {
        Ok(bytes) => bytes,
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            return if dir.is_dir() {
                Ok(Recorded::Nothing)
            } else {
                Err(StateError::Missing(dir.to_owned()))
            };
        }
        Err(e) => return Err(read(e)),
    };
    let modified = fs::metadata(&path)
        .and_then(|m| m.modified())
        .ok()
        .and_then(|t| Timestamp::try_from(t).ok());
    Ok(match serde_json::from_slice::<State>(&bytes) {
        Ok(state) => Recorded::State(Box::new(state), modified),
        Err(_) => Recorded::Garbage(modified),
    })
}

/// Replaces the state file. `durable` also forces it to the disk; a running state does not need
/// that, because after a power cut no container runs whatever the file says.
pub(crate) fn write_state(dir: &Path, state: &State, durable: bool) -> Result<(), StateError> {
    let path = dir.join(STATE_FILE);
    let temporary = dir.join("state.json.new");
    let write = || -> io::Result<()> {
        let mut file = File::create(&temporary)?;
        file.write_all(&serde_json::to_vec(state)?)?;
        if durable {
            file.sync_data()?;
        }
        drop(file);
        fs::rename(&temporary, &path)?;
        if durable {
            File::open(dir)?.sync_all()?;
        }
        Ok(())
    };
    write().map_err(|source| StateError::Write {
        path: path.clone(),
        source,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lock::RunLock;

    fn running() -> State {
        State {
            status: Status::Running,
            pid: 7,
            started_at: Some(Timestamp::now()),
            ..State::created()
        }
    }

    #[test]
    fn a_directory_without_a_state_file_is_a_created_container() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(read_state(dir.path()).unwrap().status, Status::Created);
        assert!(matches!(
            read_state(&dir.path().join("gone")),
            Err(StateError::Missing(_))
        ));
    }

    #[test]
    fn running_is_believed_only_while_the_lock_is_held() {
        let dir = tempfile::tempdir().unwrap();
        let lock = RunLock::take(dir.path()).unwrap();
        write_state(dir.path(), &running(), false).unwrap();
        assert_eq!(read_state(dir.path()).unwrap().status, Status::Running);
        drop(lock);
        let state = read_state(dir.path()).unwrap();
        assert_eq!(state.status, Status::Exited);
        assert_eq!(state.exit.unwrap().code, 137);
        assert!(state.died_unexpectedly);
        assert_eq!(state.pid, 0);
        assert!(state.finished_at.is_some());
    }

    /// A record may be older than the cleaning, or written by somebody else.
    #[test]
    fn what_a_guest_wrote_is_cleaned_when_it_is_read_too() {
        let dir = tempfile::tempdir().unwrap();
        let text = r#"{"status":"exited","error":"a\u001b]52;c;aGk=\u0007b\nc","kernel_release":"6.12\u009b31m"}"#;
        fs::write(dir.path().join(STATE_FILE), text).unwrap();
        let state = read_state(dir.path()).unwrap();
        assert_eq!(state.error.unwrap(), "a\u{fffd}]52;c;aGk=\u{fffd}b\nc");
        assert_eq!(state.kernel_release, "6.12\u{fffd}31m");
    }

    #[test]
    fn a_torn_state_file_is_a_run_that_died() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(STATE_FILE), b"{\"status\":\"runn").unwrap();
        let state = read_state(dir.path()).unwrap();
        assert_eq!(state.status, Status::Exited);
        assert!(state.died_unexpectedly);
    }

    #[test]
    fn a_state_survives_writing_and_reading_with_nanoseconds() {
        let dir = tempfile::tempdir().unwrap();
        let at: Timestamp = "2024-05-06T07:08:09.123456789Z".parse().unwrap();
        let state = State {
            status: Status::Exited,
            started_at: Some(at),
            finished_at: Some(at),
            exit: Some(ExitStatus::exited(3)),
            error: Some("no".into()),
            ..State::created()
        };
        write_state(dir.path(), &state, true).unwrap();
        assert_eq!(read_state(dir.path()).unwrap(), state);
        let text = fs::read_to_string(dir.path().join(STATE_FILE)).unwrap();
        assert!(text.contains("2024-05-06T07:08:09.123456789Z"), "{text}");
    }
}
