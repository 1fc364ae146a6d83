//! Tidying up after processes that were killed: creations that were never finished, containers with
//! `--rm` whose monitor could not remove them, names of containers that are gone.
//!
//! Nothing here is needed for correctness: leftovers are invisible and hold no name. It is called by
//! commands that look at all containers anyway, never while one starts.

use std::fs;

use bulkhead_sandbox::Status;

use super::record;
use super::remove::discard;
use crate::Engine;
use crate::error::Error;

impl Engine {
    /// Removes leftovers; returns how many directories went. Skips what another process is
    /// working on.
    pub fn sweep(&self) -> Result<usize, Error> {
        let mut removed = self.sweep_unfinished()?;
        for container in self.containers()? {
            if container.record.host.auto_remove
                && container
                    .state()
                    .is_ok_and(|state| state.status == Status::Exited)
                && self.remove_dead(container.id())?
            {
                removed += 1;
            }
        }
        self.names.sweep(|id| self.root.has(id))?;
        Ok(removed)
    }

    /// Removes directories of creations and removals that were cut off.
    pub(crate) fn sweep_unfinished(&self) -> Result<usize, Error> {
        let containers = self.root.containers();
        let unfinished = |name: &str| {
            name.starts_with(discard::PREFIX) || !containers.join(name).join(record::FILE).exists()
        };
        let Ok(entries) = fs::read_dir(&containers) else {
            return Ok(0);
        };
        let names: Vec<String> = entries
            .flatten()
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
        for name in names.iter().filter(|name| unfinished(name)) {
            discard::remove_tree(&containers.join(name))?;
            removed += 1;
        }
        Ok(removed)
    }
}
