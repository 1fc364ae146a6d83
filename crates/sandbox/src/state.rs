//! A container's recorded state. The monitor alone writes it, atomically; everyone may read it, and
//! reading compares it with the lock, because a monitor that was killed cannot write its last words.

use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use bulkhead_jail::JailReport;
use bulkhead_types::{ExitStatus, GuestText};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::lock::{self, LockWatch};
use crate::message::Exit;
use crate::replace::replace_file;
use crate::timings::Timings;
use crate::warning::{DiskFault, Warning};

/// Name of the state file in a container's directory.
pub const STATE_FILE: &str = "state.json";

/// Format of the file. A file without a version has version 1.
const VERSION: u32 = 1;
/// Empty; its modification time is the moment at which somebody noticed that a run had died unrecorded.
const NOTICED_FILE: &str = "died";

/// Least length of the file, in bytes: a page, which a file takes anyway. A state is shorter but for a long error.
const ROOM: usize = 4096;

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
    /// Format of this record.
    #[serde(default = "first_version")]
    pub version: u32,
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
    /// What went wrong around this run, or the last one, without ending it. No two of the same disk and kind.
    #[serde(default)]
    pub warnings: Vec<Warning>,
    /// This end is not in the file but in the run's last words: why it could not be written. See [`mend_state`].
    #[serde(skip)]
    pub unrecorded: Option<DiskFault>,
}

fn first_version() -> u32 {
    1
}

impl State {
    /// A container that never ran.
    pub fn created() -> Self {
        Self {
            version: VERSION,
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
            warnings: Vec::new(),
            unrecorded: None,
        }
    }

    /// Whether the guest's kernel killed a process for want of memory.
    pub fn oom_killed(&self) -> bool {
        self.exit.is_some_and(|exit| exit.oom_killed)
    }

    /// What is true of a run whose end is not in its record: what it left for those who wait, else that it was killed.
    fn ended_unrecorded(mut self, dir: &Path) -> Self {
        self.status = Status::Exited;
        self.monitor_pid = 0;
        self.pid = 0;
        let words = LockWatch::open(dir).and_then(|watch| watch.last_words());
        let exit = words
            .ok()
            .and_then(|words| serde_json::from_slice::<Exit>(&words).ok());
        if let Some(exit) = exit {
            self.exit = Some(exit.status);
            self.error = exit.error;
            self.finished_at = Some(exit.at);
            self.timings = exit.timings;
            self.warnings = exit.warnings;
            self.unrecorded = exit.unrecorded;
            return self;
        }
        self.exit = Some(ExitStatus::exited(KILLED));
        self.finished_at = Some(noticed(dir, self.started_at));
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
    /// A newer Bulkhead wrote it.
    #[error(
        "'{path}' was written by a newer bulkhead: it has version {version}, and this one knows {VERSION}",
        path = .path.display()
    )]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its version.
        version: u32,
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

impl StateError {
    /// What the host's disk has to do with it.
    pub(crate) fn fault(&self) -> DiskFault {
        match self {
            Self::Read { source, .. } | Self::Write { source, .. } | Self::Lock { source, .. } => {
                source.into()
            }
            Self::Missing(_) | Self::Newer { .. } => DiskFault::Io(0),
        }
    }
}

/// The state of the container in `dir`, corrected by what the lock says. A container without a state
/// file was created and never ran. A state file that cannot be parsed (the host lost power while it
/// was written, or somebody wrote into it) counts as a run that died; while somebody holds the lock the container runs
/// all the same, and nothing else is known.
///
/// # Errors
/// When the directory is missing or a file in it cannot be read.
pub fn read_state(dir: &Path) -> Result<State, StateError> {
    let first = read_file(dir)?;
    if !first.claims_running() {
        return Ok(first.into_state());
    }
    let running = lock::is_running(dir).map_err(|source| StateError::Lock {
        path: dir.join(lock::LOCK_FILE),
        source,
    })?;
    if running {
        return Ok(match first {
            Recorded::Garbage => State {
                status: Status::Running,
                ..State::created()
            },
            known => known.into_state(),
        });
    }
    // The monitor records the end before it lets go of the lock: read after the lock was seen free.
    let last = read_file(dir)?;
    let claims_running = last.claims_running();
    let state = last.into_state();
    Ok(if claims_running {
        state.ended_unrecorded(dir)
    } else {
        state
    })
}

/// Makes the record of the previous run true for good: a killed sandbox left its process ids in it. To be called at the
/// start of a run, under its lock, before the previous run's last words are wiped. Costs one read where nothing is to
/// be mended.
pub(crate) fn settle(dir: &Path) -> Result<(), StateError> {
    let recorded = read_file(dir)?;
    if recorded.claims_running() {
        write_state(dir, &recorded.into_state().ended_unrecorded(dir), false)?;
    }
    // It was about that run.
    match fs::remove_file(dir.join(NOTICED_FILE)) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(StateError::Write {
            path: dir.join(NOTICED_FILE),
            source: e,
        }),
        _ => Ok(()),
    }
}

/// Writes down an end that had no room in the record ([`State::unrecorded`]), and returns the record as it is then. To be
/// called where nobody can start the container meanwhile.
///
/// # Errors
/// As [`read_state`], and when there is no room yet.
pub fn mend_state(dir: &Path) -> Result<State, StateError> {
    let mut state = read_state(dir)?;
    if state.unrecorded.is_some() {
        write_state(dir, &state, true)?;
        state.unrecorded = None;
    }
    Ok(state)
}

/// Makes a record where there is none yet, so that what comes later has room to be written over it.
pub(crate) fn make_room(dir: &Path) -> Result<(), StateError> {
    match read_file(dir)? {
        Recorded::Nothing => write_state(dir, &State::created(), false),
        Recorded::State(_) | Recorded::Garbage => Ok(()),
    }
}

/// When it was first noticed that a run had died unrecorded: now, or when somebody noticed before us. Never before the
/// start of the run.
fn noticed(dir: &Path, started_at: Option<Timestamp>) -> Timestamp {
    let path = dir.join(NOTICED_FILE);
    let before = fs::metadata(&path)
        .and_then(|about| about.modified())
        .ok()
        .and_then(|time| Timestamp::try_from(time).ok());
    if let Some(before) = before.filter(|before| started_at.is_none_or(|start| *before >= start)) {
        return before;
    }
    let now = SystemTime::now();
    // Where it cannot be kept (somebody else's directory, no room), the next who looks notices later.
    let keep = || -> io::Result<()> {
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)?;
        file.set_modified(now)
    };
    let _ = keep();
    let now = Timestamp::try_from(now).unwrap_or_else(|_| Timestamp::now());
    // A clock that was set back.
    started_at.map_or(now, |start| start.max(now))
}

enum Recorded {
    Nothing,
    State(Box<State>),
    /// The host lost power while it was written.
    Garbage,
}

impl Recorded {
    /// Whether it is of a run that has not ended, unless nobody holds the lock.
    fn claims_running(&self) -> bool {
        match self {
            Self::State(state) => state.status == Status::Running,
            Self::Garbage => true,
            Self::Nothing => false,
        }
    }

    fn into_state(self) -> State {
        match self {
            Self::State(state) => *state,
            Self::Nothing | Self::Garbage => State::created(),
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
    #[derive(Deserialize)]
    struct OnlyVersion {
        #[serde(default = "first_version")]
        version: u32,
    }
    // Before its contents, of which a newer one may have others.
    match serde_json::from_slice::<OnlyVersion>(&bytes) {
        Ok(OnlyVersion { version }) if version > VERSION => {
            return Err(StateError::Newer { path, version });
        }
        _ => {}
    }
    // Version 1 is the first: an older one would be brought up to date here, step by step.
    Ok(match serde_json::from_slice::<State>(&bytes) {
        Ok(state) => Recorded::State(Box::new(state)),
        Err(_) => Recorded::Garbage,
    })
}

/// Replaces the state file. `durable` also forces it to the disk; a running state does not need
/// that, because after a power cut no container runs whatever the file says.
///
/// Where that fails (a full disk) it is written over the old file, which has room for it: less safe against a power cut, and
/// true.
pub(crate) fn write_state(dir: &Path, state: &State, durable: bool) -> Result<(), StateError> {
    let path = dir.join(STATE_FILE);
    let anew = || replace_file(&path, &padded(state)?, durable);
    let over = || -> io::Result<()> {
        let mut bytes = padded(state)?;
        if bytes.len() > ROOM {
            // The long words are an error's.
            bytes = padded(&State {
                error: None,
                ..state.clone()
            })?;
        }
        let file = OpenOptions::new().write(true).open(&path)?;
        file.write_all_at(&bytes, 0)?;
        file.set_len(bytes.len() as u64)?;
        if durable {
            file.sync_data()?;
        }
        Ok(())
    };
    anew()
        .or_else(|source| {
            // Of the two reasons the first says more: where there is no old file, the second is that.
            over().map_err(|_| source)
        })
        .map_err(|source| StateError::Write { path, source })
}

/// The state as JSON with so many blanks behind it that the file has room for the next one.
fn padded(state: &State) -> io::Result<Vec<u8>> {
    let mut bytes = serde_json::to_vec(state)?;
    bytes.resize(bytes.len().max(ROOM), b' ');
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lock::RunLock;
    use crate::warning::{DiskFault, WarnedDisk};

    /// It counted as created: not in `ps`, and refused by `rm`.
    #[test]
    fn a_run_whose_record_is_garbage_runs() {
        let dir = tempfile::tempdir().unwrap();
        let lock = RunLock::take(dir.path()).unwrap();
        let path = dir.path().join(STATE_FILE);
        for garbage in ["garbage", ""] {
            fs::write(&path, garbage).unwrap();
            let state = read_state(dir.path()).unwrap();
            assert_eq!(state.status, Status::Running, "{garbage:?}");
            assert_eq!((state.pid, state.started_at), (0, None));
        }
        drop(lock);
        assert_eq!(read_state(dir.path()).unwrap().status, Status::Exited);
    }

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

    /// The end came to lie before the start, and `ps` counted from there; and it moved with each look.
    #[test]
    fn an_end_that_was_not_recorded_is_when_it_was_noticed() {
        let dir = tempfile::tempdir().unwrap();
        let lock = RunLock::take(dir.path()).unwrap();
        let mut state = running();
        write_state(dir.path(), &state, false).unwrap();
        // Written a moment before the process began, as a coarse clock has it.
        state.started_at = Some(Timestamp::now());
        drop(lock);
        write_state(dir.path(), &state, false).unwrap();
        let first = read_state(dir.path()).unwrap();
        assert!(first.finished_at >= first.started_at, "{first:?}");
        std::thread::sleep(std::time::Duration::from_millis(20));
        assert_eq!(read_state(dir.path()).unwrap(), first, "a second look");

        // The next run's death is not the moment at which this one's was noticed.
        let lock = RunLock::take(dir.path()).unwrap();
        settle(dir.path()).unwrap();
        let settled: State =
            serde_json::from_slice(&fs::read(dir.path().join(STATE_FILE)).unwrap()).unwrap();
        assert_eq!(settled, first, "a start leaves no old process id behind");
        state.started_at = Some(Timestamp::now());
        write_state(dir.path(), &state, false).unwrap();
        drop(lock);
        let second = read_state(dir.path()).unwrap();
        assert!(second.finished_at >= second.started_at && second.finished_at > first.finished_at);
    }

    /// On a full disk a run that ended with 0 counted as killed.
    #[test]
    fn an_end_that_had_no_room_in_the_record_is_read_from_the_last_words() {
        let dir = tempfile::tempdir().unwrap();
        let lock = RunLock::take(dir.path()).unwrap();
        lock.make_room().unwrap();
        write_state(dir.path(), &running(), false).unwrap();
        let warning = Warning {
            disk: WarnedDisk::Scratch,
            fault: DiskFault::OutOfSpace,
        };
        let exit = Exit {
            status: ExitStatus::exited(0),
            error: None,
            at: Timestamp::now(),
            timings: Timings::default(),
            warnings: vec![warning],
            unrecorded: None,
        };
        lock.leave(&serde_json::to_vec(&exit).unwrap()).unwrap();
        drop(lock);
        let state = read_state(dir.path()).unwrap();
        assert_eq!(
            (state.status, state.exit),
            (Status::Exited, Some(exit.status))
        );
        assert_eq!(state.finished_at, Some(exit.at));
        assert_eq!(state.warnings, [warning]);
        assert!(state.error.is_none());
        assert!(!state.died_unexpectedly);
        // The run after it has no words yet.
        let lock = RunLock::take(dir.path()).unwrap();
        settle(dir.path()).unwrap();
        lock.make_room().unwrap();
        let kept: State =
            serde_json::from_slice(&fs::read(dir.path().join(STATE_FILE)).unwrap()).unwrap();
        assert_eq!(kept, state);
        assert!(
            LockWatch::open(dir.path())
                .unwrap()
                .last_words()
                .unwrap()
                .trim_ascii()
                .is_empty()
        );
    }

    #[test]
    fn a_record_of_another_version_is_read_or_refused_by_name() {
        let dir = tempfile::tempdir().unwrap();
        let first = include_str!("../testdata/state.v1.json");
        fs::write(dir.path().join(STATE_FILE), first).unwrap();
        let state = read_state(dir.path()).unwrap();
        assert_eq!((state.version, state.status), (1, Status::Exited));
        assert_eq!(state.exit.unwrap().code, 3);
        assert_eq!(state.kernel_release, "6.12.117-bulkhead");
        assert_eq!(state.timings.finished, 12);
        assert!(state.warnings.is_empty());
        fs::write(
            dir.path().join(STATE_FILE),
            r#"{"version":99,"status":"hibernated"}"#,
        )
        .unwrap();
        let refused = read_state(dir.path()).unwrap_err().to_string();
        assert!(
            refused.contains("was written by a newer bulkhead: it has version 99"),
            "{refused}"
        );
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
