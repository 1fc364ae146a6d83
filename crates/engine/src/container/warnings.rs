//! What is wrong around a run that goes on, in words with a remedy.

use bulkhead_sandbox::{DiskFault, Exit, SANDBOX_LOG, State, WarnedDisk, Warning};

use bulkhead_types::ByteSize;

use super::Container;

/// Sizes as `--memory` takes them.
fn mebibytes(size: ByteSize) -> u64 {
    size.0.div_ceil(1 << 20)
}

impl Container {
    /// The recorded warnings of this run or the last one, in words; none where there is no record any more.
    pub fn run_warnings(&self) -> Vec<String> {
        self.state()
            .map(|state| self.state_warnings(&state))
            .unwrap_or_default()
    }

    /// That the end of the last run is not in the record, in words, where it cannot be put there now either.
    pub fn record_warning(&self) -> Option<String> {
        let fault = self.state().ok()?.unrecorded?;
        Some(fault.of_record(&self.dir))
    }

    /// The warnings of a run that ended so, in words; those of the record, where its end was told by the jailed half, which
    /// knows of none.
    pub fn exit_warnings(&self, exit: &Exit) -> Vec<String> {
        let mut told = match (exit.warnings.as_slice(), exit.unrecorded) {
            ([], None) => self
                .state()
                .map(|state| self.describe_all(&state.warnings, state.unrecorded))
                .unwrap_or_default(),
            (warnings, unrecorded) => self.describe_all(warnings, unrecorded),
        };
        told.extend(exit.status.oom_killed.then(|| self.memory_warning()));
        told
    }

    /// The warnings in a record, in words.
    pub(super) fn state_warnings(&self, state: &State) -> Vec<String> {
        let mut told = self.describe_all(&state.warnings, state.unrecorded);
        told.extend(state.oom_killed().then(|| self.memory_warning()));
        told
    }

    /// Which limit a process was killed at, and how to raise it.
    fn memory_warning(&self) -> String {
        match self.record.sandbox.memory_limit {
            Some(limit) => format!(
                "a process was killed: the container's memory of {} MiB was full; give it more with '--memory'",
                mebibytes(limit)
            ),
            None => format!(
                "a process was killed: the {} MiB of memory that the container and its kernel have without '--memory' were \
                 full; give it more with '--memory', or all containers with 'memory' in the configuration",
                mebibytes(self.record.sandbox.memory)
            ),
        }
    }

    /// What failed, why, and what to do.
    fn describe_all(&self, warnings: &[Warning], unrecorded: Option<DiskFault>) -> Vec<String> {
        let unrecorded = unrecorded.map(|fault| fault.of_record(&self.dir));
        let warnings = warnings.iter().map(|warning| self.describe(warning));
        warnings.chain(unrecorded).collect()
    }

    fn describe(&self, warning: &Warning) -> String {
        let Warning { disk, fault } = warning;
        let own = || self.dir.display().to_string();
        let (what, place) = match disk {
            WarnedDisk::Image => ("the image's disk".to_owned(), own()),
            WarnedDisk::Scratch => ("the container's disk".to_owned(), own()),
            WarnedDisk::Volume(index) => {
                let volume = self.record.sandbox.volumes.get(usize::from(*index));
                volume.map_or_else(
                    || (format!("the disk of volume {index}"), own()),
                    |volume| {
                        let file = volume.path.as_path();
                        let directory = file.parent().unwrap_or(file);
                        (
                            format!("the disk of volume '{}'", volume.target),
                            directory.display().to_string(),
                        )
                    },
                )
            }
        };
        match fault {
            DiskFault::OutOfSpace => format!(
                "the host's disk is full: writes to {what} failed with '{fault}'; free space in {place}"
            ),
            DiskFault::Io(_) => format!(
                "the host failed a request to {what}: {fault}; see {}/{SANDBOX_LOG} and the host's kernel log",
                own()
            ),
        }
    }
}
