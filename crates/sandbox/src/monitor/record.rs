//! The container's directory as the monitor leaves it: state while there is one, nothing after
//! `--rm`, and last words in the lock file for those who wait.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use bulkhead_jail::JailReport;
use bulkhead_types::{ExitStatus, GuestText, chain};
use jiff::Timestamp;

use crate::client::CONTROL_SOCKET;
use crate::failure::StartFailure;
use crate::lock::RunLock;
use crate::message::{Exit, Started};
use crate::state::{State, Status, write_state};
use crate::timings::Timings;
use crate::warning::{MAX_WARNINGS, Warning};

/// Behind the identifier of a container that its own monitor removes (`--rm`).
pub const REMOVED_SUFFIX: &str = ".removed";
/// The working directory is the container's, whatever it is called by now.
pub(super) const HERE: &str = ".";

/// A file in a container's directory which says that this run's end is no reason to remove it, although it has `--rm`:
/// it is being restarted. Whoever makes it holds the container's lock, and takes it away before the next start.
pub const KEEP_FILE: &str = "restarting";

pub(super) struct Record {
    state: State,
    auto_remove: bool,
    lock: RunLock,
    /// The container's directory.
    dir: PathBuf,
}

impl Record {
    pub fn new(lock: RunLock, auto_remove: bool, dir: &Path) -> Self {
        Self {
            state: State::created(),
            auto_remove,
            lock,
            dir: dir.to_owned(),
        }
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
        };
        self.ended(&exit, 0);
        self.state.died_unexpectedly = true;
        self.keep_unless_removed();
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

    fn keep_unless_removed(&self) {
        if !self.auto_remove {
            self.write(true);
        }
    }

    fn write(&self, durable: bool) {
        // On a full disk the old state stays. Who reads it sees by the lock that it is not true any more, and takes the
        // end from the run's last words; the next start writes it down.
        if let Err(error) = write_state(&self.dir, &self.state, durable) {
            tracing::warn!("the state was not recorded: {}", chain(&error));
        }
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
