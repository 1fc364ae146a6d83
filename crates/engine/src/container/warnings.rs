//! What is wrong around a run that goes on, in words with a remedy.

use bulkhead_sandbox::{DiskFault, Exit, SANDBOX_LOG, State, WarnedDisk, Warning};

use super::Container;

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
        match (exit.warnings.as_slice(), exit.unrecorded) {
            ([], None) => self.run_warnings(),
            (warnings, unrecorded) => self.describe_all(warnings, unrecorded),
        }
    }

    /// The warnings in a record, in words.
    pub(super) fn state_warnings(&self, state: &State) -> Vec<String> {
        self.describe_all(&state.warnings, state.unrecorded)
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
