//! The container's directory as the monitor leaves it: state while there is one, nothing after
//! `--rm`, and last words in the lock file for those who wait.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use bulkhead_jail::JailReport;
use bulkhead_types::{ExitStatus, GuestText, chain};
use jiff::Timestamp;

use crate::client::CONTROL_SOCKET;
use crate::failure::StartFailure;
use crate::lock::RunLock;
use crate::message::{Exit, Started};
use crate::state::{State, Status, write_state};
use crate::timings::Timings;
use crate::warning::{DiskFault, MAX_WARNINGS, Warning};

/// Behind the identifier of a container that its own monitor removes (`--rm`).
pub const REMOVED_SUFFIX: &str = ".removed";
/// The working directory is the container's, whatever it is called by now.
pub(super) const HERE: &str = ".";

/// A file in a container's directory which says that this run's end is no reason to remove it, although it has `--rm`:
/// it is being restarted. Whoever makes it holds the container's lock, and takes it away before the next start.
pub const KEEP_FILE: &str = "restarting";

/// How long after a failure the record of a container that runs on is tried again. Each try is a file of a page; who frees
/// space and looks finds it true a second later.
const TRY_AGAIN: Duration = Duration::from_secs(1);

pub(super) struct Record {
    state: State,
    auto_remove: bool,
    lock: RunLock,
    /// The container's directory.
    dir: PathBuf,
    /// The record on disk is older than `state`, and why.
    unwritten: Option<Unwritten>,
}

struct Unwritten {
    fault: DiskFault,
    /// When it is tried again, if the run still goes on then.
    again: Instant,
}

impl Record {
    pub fn new(lock: RunLock, auto_remove: bool, dir: &Path) -> Self {
        Self {
            state: State::created(),
            auto_remove,
            lock,
            dir: dir.to_owned(),
            unwritten: None,
        }
    }

    /// Why the record on disk is not what this was told last, where it is not.
    pub fn fault(&self) -> Option<DiskFault> {
        self.unwritten.as_ref().map(|unwritten| unwritten.fault)
    }

    /// How long until a record that could not be written is to be tried again.
    pub fn again_in(&self) -> Option<Duration> {
        let again = self.unwritten.as_ref()?.again;
        Some(again.saturating_duration_since(Instant::now()))
    }

    /// Writes what could not be written before.
    pub fn try_again(&mut self) {
        self.write(false);
    }

    /// Which walls stand around this run.
    pub fn set_walls(&mut self, walls: JailReport) {
        self.state.jail = walls;
    }

    /// What [`Record::set_walls`] was told.
    pub fn walls(&self) -> &JailReport {
        &self.state.jail
    }

    /// The main process runs. Written before anybody is told.
    pub fn started(&mut self, started: &Started, pid: i32) {
        self.state.status = Status::Running;
        self.state.monitor_pid = i32::try_from(std::process::id()).unwrap_or(0);
        self.state.pid = pid;
        self.state.started_at = Some(started.at);
        self.state
            .kernel_release
            .clone_from(&started.kernel_release);
        self.state.timings = started.timings;
        self.write(false);
    }

    /// Something is wrong around the run, and it goes on. What was said of the same disk before says it already.
    pub fn warned(&mut self, warning: Warning) {
        let warnings = &mut self.state.warnings;
        if warnings.len() >= MAX_WARNINGS || warnings.iter().any(|said| said.is_like(&warning)) {
            return;
        }
        warnings.push(warning);
        // Before the process runs there is nothing that is true to write; what comes then has this.
        if self.state.status == Status::Running {
            self.write(false);
        }
    }

    /// What [`Record::warned`] was told.
    pub fn warnings(&self) -> &[Warning] {
        &self.state.warnings
    }

    /// Nothing was executed.
    pub fn failed(&mut self, failure: &StartFailure, timings: Timings) {
        self.state = State {
            jail: std::mem::take(&mut self.state.jail),
            warnings: std::mem::take(&mut self.state.warnings),
            ..State::created()
        };
        self.state.exit = Some(ExitStatus::exited(failure.exit_code()));
        self.state.error = Some(GuestText::lines(&failure.to_string()));
        self.state.finished_at = Some(Timestamp::now());
        self.state.timings = timings;
        self.keep_unless_removed();
    }

    /// The run has ended.
    pub fn ended(&mut self, exit: &Exit, log_bytes_lost: u64) {
        // Whoever ended it to start it again needs what `--rm` would take away.
        self.auto_remove &= !Path::new(KEEP_FILE).exists();
        self.state.status = Status::Exited;
        self.state.monitor_pid = 0;
        self.state.pid = 0;
        self.state.exit = Some(exit.status);
        self.state.error.clone_from(&exit.error);
        self.state.finished_at = Some(exit.at);
        self.state.log_bytes_lost = log_bytes_lost;
        self.state.timings = exit.timings;
        self.keep_unless_removed();
    }

    /// The jailed half is gone without a word. `None` when the main process had not been executed.
    pub fn died(&mut self, how: &str) -> Option<Exit> {
        if self.state.status != Status::Running {
            return None;
        }
        let exit = Exit {
            status: ExitStatus::signaled(9),
            error: Some(format!("sandbox died unexpectedly: {how}").into()),
            at: Timestamp::now(),
            timings: self.state.timings,
            warnings: self.state.warnings.clone(),
            unrecorded: None,
        };
        self.state.died_unexpectedly = true;
        self.ended(&exit, 0);
        Some(exit)
    }

    /// Everything is gone: leaves last words, takes what is to be removed out of sight and lets go of
    /// the lock. What is out of sight is still to be removed.
    pub fn close(self, exit: Option<&Exit>) -> Option<Unlinked> {
        if let Some(exit) = exit {
            self.leave(exit);
        }
        if !self.auto_remove {
            let _ = fs::remove_file(self.dir.join(CONTROL_SOCKET));
            return None;
        }
        // Without a working directory somebody was faster.
        Unlinked::new(&std::env::current_dir().ok()?).ok()
    }

    /// There is room for these words since the start, whatever the disk has left by now.
    fn leave(&self, exit: &Exit) {
        let words = |exit: &Exit| serde_json::to_vec(exit).unwrap_or_default();
        if self.lock.leave(&words(exit)).is_err() {
            let short = Exit {
                error: None,
                ..exit.clone()
            };
            // A host whose disk fails has no better place.
            let _ = self.lock.leave(&words(&short));
        }
    }

    fn keep_unless_removed(&mut self) {
        if self.auto_remove {
            // The record goes with its directory.
            self.unwritten = None;
        } else {
            self.write(true);
        }
    }

    fn write(&mut self, durable: bool) {
        // Where it cannot be written the old state stays. Who reads it sees by the lock that it is not true any more, and
        // takes the end from the run's last words; the next command writes it down.
        let Err(error) = write_state(&self.dir, &self.state, durable) else {
            self.unwritten = None;
            return;
        };
        let fault = error.fault();
        if self.fault() != Some(fault) {
            tracing::warn!("the state was not recorded: {}", chain(&error));
        }
        let again = Instant::now() + TRY_AGAIN;
        self.unwritten = Some(Unwritten { fault, again });
    }
}

/// A container's directory under a name that is no container's: it is gone for everybody at once, and
/// what a kill leaves of it is found by the engine's sweep.
pub(super) struct Unlinked(PathBuf);

impl Unlinked {
    fn new(directory: &Path) -> io::Result<Self> {
        let mut name = directory.file_name().unwrap_or_default().to_owned();
        name.push(REMOVED_SUFFIX);
        let aside = directory.with_file_name(name);
        fs::rename(directory, &aside)?;
        Ok(Self(aside))
    }

    /// Frees the space.
    pub fn remove(self) {
        // What cannot be removed now is removed by the sweep.
        let _ = fs::remove_dir_all(self.0);
    }
}
