//! `container prune`: every container that does not run goes.

use bulkhead_sandbox::Status;
use bulkhead_types::ContainerId;

use super::Filters;
use super::filter::prune_matcher;
use crate::Engine;
use crate::error::Error;

/// What `container prune` removed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PruneReport {
    /// The containers, newest first.
    pub removed: Vec<ContainerId>,
    /// Bytes of disks that were given back to the host.
    pub reclaimed: u64,
}

impl Engine {
    /// Removes containers that do not run and match (`until`, `label`, `label!`).
    pub fn prune_containers(&self, filters: &Filters) -> Result<PruneReport, Error> {
        let matcher = prune_matcher(filters)?;
        let mut report = PruneReport::default();
        for container in self.swept()?.1 {
            let Ok(state) = container.state() else {
                continue;
            };
            if state.status == Status::Running || !matcher.matches(&container, &state) {
                continue;
            }
            let size = container.disk_usage();
            if self.remove_dead(container.id())? {
                report.removed.push(container.id().clone());
                report.reclaimed += size;
            }
        }
        Ok(report)
    }
}
