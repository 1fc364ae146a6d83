//! `rm`: a container's directory goes, and with it its disks, logs and name.

use std::fs::File;
use std::path::Path;
use std::time::Duration;

use bulkhead_sandbox::{ClientError, Status, is_running, read_state, wait_free};
use bulkhead_types::{ContainerId, Signal};
use nix::fcntl::{Flock, FlockArg};

use super::{ContainerError, Record};
use crate::Engine;
use crate::error::Error;
use crate::root::lock;

/// A run takes its last steps within ten seconds of the record of its end: so often, and so long each time, one looks.
const LOOKS: u32 = 200;
const LOOK: Duration = Duration::from_millis(50);
/// How long a sandbox may take to answer at one look; a loaded host needs some milliseconds. One that never answers
/// counts as running after all looks.
const ANSWER: Duration = Duration::from_secs(1);

/// The flags of `rm`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RemoveOptions {
    /// `-f`: kill it first if it runs.
    pub force: bool,
}

impl Engine {
    /// Removes the container that `reference` names, even one whose record is damaged.
    pub fn remove(&self, reference: &str, options: RemoveOptions) -> Result<ContainerId, Error> {
        let id = self.find_id(reference)?;
        let dir = self.root.container(&id);
        if options.force {
            kill(&id, &dir)?;
        }
        let held = match lock_container(&id, &dir) {
            // Killed a moment ago by us, and removed by its own monitor (`--rm`): that is what was asked.
            Err(ContainerError::NotFound(_)) if options.force => {
                self.names.sweep(|owner| self.root.has(owner))?;
                return Ok(id);
            }
            other => other?,
        };
        if options.force {
            // One that was being restarted runs again by now.
            kill(&id, &dir)?;
        }
        if still_runs(&id, &dir)? {
            let name = Record::read(&dir).ok().flatten().map(|record| record.name);
            return Err(match name {
                Some(name) => ContainerError::RemoveRunning(name).into(),
                None => ContainerError::DidNotStop(id).into(),
            });
        }
        self.discard_locked(&id, &held)?;
        Ok(id)
    }

    /// Removes a container that is certainly not wanted any more, if it does not run and nobody is
    /// working on it.
    pub(crate) fn remove_dead(&self, id: &ContainerId) -> Result<bool, Error> {
        let dir = self.root.container(id);
        let Ok(held) = lock(&dir, FlockArg::LockExclusiveNonblock) else {
            return Ok(false);
        };
        if is_running(&dir).unwrap_or(true) {
            return Ok(false);
        }
        self.discard_locked(id, &held)?;
        Ok(true)
    }

    fn discard_locked(&self, id: &ContainerId, _held: &Flock<File>) -> Result<(), ContainerError> {
        let dir = self.root.container(id);
        let name = Record::read(&dir).ok().flatten().map(|record| record.name);
        discard::discard(&dir)?;
        match name {
            Some(name) => self.names.release(&name, id)?,
            None => self.names.sweep(|owner| self.root.has(owner))?,
        }
        Ok(())
    }
}

/// Takes the container's own lock: whoever starts or removes it holds it meanwhile.
pub(super) fn lock_container(id: &ContainerId, dir: &Path) -> Result<Flock<File>, ContainerError> {
    let gone = || ContainerError::NotFound(id.to_string());
    let held = match lock(dir, FlockArg::LockExclusive) {
        Ok(held) => held,
        Err(e) if e.source.kind() == std::io::ErrorKind::NotFound => return Err(gone()),
        Err(e) => return Err(e.into()),
    };
    // Whoever had the lock before may have removed what we have locked.
    if !dir.exists() {
        return Err(gone());
    }
    Ok(held)
}

/// Whether its sandbox is there. Asks the lock, not the state: a dying sandbox counts.
pub(super) fn runs(id: &ContainerId, dir: &Path) -> Result<bool, ContainerError> {
    is_running(dir).map_err(|source| unknown(id, dir, source))
}

/// As [`runs`], but a run that is about to let go is waited for. There are two of that kind. One has recorded its end:
/// people see the record, and a command that follows must find it true. The other's sandbox was killed and has not
/// recorded it yet. Such a sandbox does not answer.
pub(super) fn still_runs(id: &ContainerId, dir: &Path) -> Result<bool, ContainerError> {
    for _ in 0..LOOKS {
        if !runs(id, dir)? {
            return Ok(false);
        }
        // One that starts again has an old record too, for as long as it takes to boot.
        if read_state(dir).is_ok_and(|state| state.status != Status::Exited)
            && bulkhead_sandbox::Client::open(dir).is_ok_and(|client| client.answers(ANSWER))
        {
            return Ok(true);
        }
        wait_free(dir, LOOK).map_err(|source| unknown(id, dir, source))?;
    }
    Ok(true)
}

fn unknown(id: &ContainerId, dir: &Path, source: std::io::Error) -> ContainerError {
    ContainerError::State {
        id: id.clone(),
        source: bulkhead_sandbox::StateError::Lock {
            path: dir.to_owned(),
            source,
        },
    }
}

fn kill(id: &ContainerId, dir: &Path) -> Result<(), ContainerError> {
    if !runs(id, dir)? {
        return Ok(());
    }
    let client = |source| ContainerError::Client {
        id: id.clone(),
        source,
    };
    let sandbox = match bulkhead_sandbox::Client::open(dir) {
        Err(ClientError::Directory { .. }) => return Ok(()),
        other => other.map_err(client)?,
    };
    match sandbox.stop(Signal::KILL, None) {
        Ok(_) | Err(ClientError::NotRunning | ClientError::Directory { .. }) => Ok(()),
        Err(source) => Err(client(source)),
    }
}

pub(super) mod discard {
    //! Making a directory disappear at once, then for good.

    use std::fs;
    use std::io;
    use std::path::Path;

    use bulkhead_types::ContainerId;

    use crate::kind::FileError;

    /// Before the identifier of a container that is being deleted.
    const PREFIX: &str = ".removed-";

    /// Whether `name` is that of a container's directory on its way out: renamed here, or by the monitor of a
    /// container with `--rm`.
    pub(crate) fn is_doomed(name: &str) -> bool {
        let id = name
            .strip_prefix(PREFIX)
            .or_else(|| name.strip_suffix(bulkhead_sandbox::REMOVED_SUFFIX));
        id.is_some_and(|id| id.parse::<ContainerId>().is_ok())
    }

    /// From the rename on the container does not exist; a crash later leaves only what a sweep removes.
    pub(crate) fn discard(dir: &Path) -> Result<(), FileError> {
        let name = dir
            .file_name()
            .and_then(|name| name.to_str())
            .unwrap_or_default();
        let doomed = dir.with_file_name(format!("{PREFIX}{name}"));
        match fs::rename(dir, &doomed) {
            Ok(()) => remove_tree(&doomed),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(e) => Err(FileError::at("remove directory", dir)(e)),
        }
    }

    /// As `rm -rf`; that someone else is at it too is fine.
    pub(crate) fn remove_tree(dir: &Path) -> Result<(), FileError> {
        match fs::remove_dir_all(dir) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => {
                Err(FileError::at("remove directory", dir)(e))
            }
            _ => Ok(()),
        }
    }
}
