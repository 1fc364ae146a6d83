//! Containers: what they are on disk, how they are made, found, run, ended and shown.
//!
//! ```text
//!            create                start                    main process ends
//!  (nothing) ──────▶ created ───────────────▶ running ───────────────────────▶ exited
//!                       │    ◀─ start failed ─┘   ▲                              │
//!                       │ remove                  └──────────── start ───────────┤
//!                       ▼                                                        ▼ remove (or --rm)
//!                   (nothing)                                                (nothing)
//! ```
//! The left side of every arrow is checked under a lock on the container's directory where two
//! commands could disagree (start, remove); the sandbox's own lock decides what "running" means.

mod attach;
mod capabilities;
mod create;
mod error;
mod exec;
mod filter;
mod inspect;
mod lifecycle;
pub(crate) mod limits;
mod list;
mod merge;
mod mounts;
mod options;
mod prune;
mod record;
mod remove;
mod resolve;
mod rlimits;
mod security;
mod sweep;
#[cfg(test)]
mod tests;
mod warnings;

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use bulkhead_sandbox::{Client, ClientError, State, mend_state, read_state};
use bulkhead_types::{ContainerId, ContainerName};
use nix::fcntl::FlockArg;

pub use create::random_id;
pub use error::ContainerError;
pub use exec::ExecOptions;
pub use filter::Filters;
pub use lifecycle::{StartOptions, StartedContainer, StopOptions};
pub use list::{ListOptions, Summary, status_text};
pub use merge::{ContainerConfig, HostOptions};
pub use options::{CreateOptions, OptionError};
pub use prune::PruneReport;
pub use record::{Record, RecordError};
pub use remove::RemoveOptions;
pub use rlimits::check_ulimit;
pub use security::DeviceMapping;

use crate::root::lock;

/// An existing container: its record, as read once, and the way to what changes.
#[derive(Debug, Clone)]
pub struct Container {
    dir: PathBuf,
    record: Record,
    warnings: Vec<String>,
    /// Kernel and initramfs in the record were looked up by this process.
    guest_is_current: bool,
}

impl Container {
    /// Identifier.
    pub fn id(&self) -> &ContainerId {
        &self.record.id
    }

    /// Name.
    pub fn name(&self) -> &ContainerName {
        &self.record.name
    }

    /// Everything that was decided at creation.
    pub fn record(&self) -> &Record {
        &self.record
    }

    /// The container's directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// What creation has to say to the user, one line each (as `docker create` prints
    /// `WARNING: …`); empty for a container that was looked up.
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// The state now: running, exited…, true even after a crash. An end that its monitor could not record is recorded
    /// where there is room by now.
    pub fn state(&self) -> Result<State, ContainerError> {
        let state = read_state(&self.dir).map_err(|source| self.lost(source))?;
        if state.unrecorded.is_none() {
            return Ok(state);
        }
        Ok(self.mended().unwrap_or(state))
    }

    /// The state after its record was mended; `None` where that cannot be done now.
    fn mended(&self) -> Option<State> {
        // A file of root's would be in the way of the container's owner.
        if std::fs::metadata(&self.dir).ok()?.uid() != nix::unistd::geteuid().as_raw() {
            return None;
        }
        // Who starts or removes it holds this, and sees to the record itself.
        let _held = lock(&self.dir, FlockArg::LockExclusiveNonblock).ok()?;
        mend_state(&self.dir).ok()
    }

    /// What went wrong with its sandbox, with its name.
    pub fn sandbox_error(&self, source: ClientError) -> ContainerError {
        ContainerError::Client {
            id: self.id().clone(),
            source,
        }
    }

    /// The sandbox's control socket: signals, resizing, waiting.
    pub fn client(&self) -> Result<Client, ContainerError> {
        Client::open(&self.dir).map_err(|source| self.sandbox_error(source))
    }

    /// A state error, or the plain fact that the container is gone.
    fn lost(&self, source: bulkhead_sandbox::StateError) -> ContainerError {
        match source {
            bulkhead_sandbox::StateError::Missing(_) => {
                ContainerError::NotFound(self.id().to_string())
            }
            source => ContainerError::State {
                id: self.id().clone(),
                source,
            },
        }
    }
}
