//! Tidying up after processes that were killed: creations that were never finished, containers with
//! `--rm` whose monitor could not remove them, names of containers that are gone.
//!
//! Nothing here is needed for correctness: leftovers are invisible and hold no name. It is called by
//! commands that look at all containers anyway, never while one starts.

use std::fs;

use bulkhead_sandbox::{KEEP_FILE, Status};
use bulkhead_types::ContainerId;
use nix::fcntl::FlockArg;

use super::remove::{discard, runs};
use super::{Container, record};
use crate::Engine;
use crate::error::Error;
use crate::root::lock;

impl Engine {
    /// Removes leftovers; returns how many directories went. Skips what another process is
    /// working on.
    pub fn sweep(&self) -> Result<usize, Error> {
        Ok(self.swept()?.0)
    }

    /// As [`Engine::sweep`], and the containers that stay, newest first.
    pub(crate) fn swept(&self) -> Result<(usize, Vec<Container>), Error> {
        let mut removed = self.sweep_unfinished()?;
        let mut containers = self.containers()?;
        let mut failure = None;
        for container in &containers {
            forget_restart(container);
        }
        containers.retain(|container| {
            let dead = container.record.host.auto_remove
                && container
                    .state()
                    .is_ok_and(|state| state.status == Status::Exited);
            match dead.then(|| self.remove_dead(container.id())) {
                Some(Ok(true)) => {
                    removed += 1;
                    false
                }
                Some(Err(error)) => {
                    failure = Some(error);
                    true
                }
                Some(Ok(false)) | None => true,
            }
        });
        if let Some(error) = failure {
            return Err(error);
        }
        self.names.sweep(|id| self.root.has(id))?;
        Ok((removed, containers))
    }

    /// Removes directories of creations and removals that were cut off. Everything else in the directory of
    /// containers stays: a file system's `lost+found`, somebody's notes, what a later version keeps there.
    pub(crate) fn sweep_unfinished(&self) -> Result<usize, Error> {
        let containers = self.root.containers();
        let unfinished = |name: &str| {
            discard::is_doomed(name)
                || name.parse::<ContainerId>().is_ok() && !record::exists(&containers.join(name))
        };
        let Ok(entries) = fs::read_dir(&containers) else {
            return Ok(0);
        };
        let names: Vec<String> = entries
            .flatten()
            .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
            .filter_map(|entry| entry.file_name().into_string().ok())
            .filter(|name| unfinished(name))
            .collect();
        if names.is_empty() {
            return Ok(0);
        }
        let Some(_nobody_creates) = self.root.sweeping()? else {
            return Ok(0);
        };
        let mut removed = 0;
        let mut failure = None;
        for name in names.iter().filter(|name| unfinished(name)) {
            match discard::remove_tree(&containers.join(name)) {
                Ok(()) => removed += 1,
                // One that cannot be removed does not keep the others.
                Err(error) => failure = Some(error),
            }
        }
        failure.map_or(Ok(removed), |error| Err(error.into()))
    }
}

/// A restart that was ended in the middle left word that this end is no reason to remove the container. The one who restarts
/// holds the container's lock.
fn forget_restart(container: &Container) {
    let keep = container.dir.join(KEEP_FILE);
    if !keep.exists() || !runs(container.id(), &container.dir).unwrap_or(false) {
        return;
    }
    if let Ok(_nobody_restarts) = lock(&container.dir, FlockArg::LockExclusiveNonblock) {
        // Where it stays, the container is removed by a later sweep.
        let _ = fs::remove_file(&keep);
    }
}
