//! What is wrong around a run that goes on, in words with a remedy.

use bulkhead_sandbox::{DiskFault, SANDBOX_LOG, WarnedDisk, Warning};

use super::Container;

impl Container {
    /// The recorded warnings of this run or the last one, in words; none where there is no record any more.
    pub fn run_warnings(&self) -> Vec<String> {
        self.state()
            .map(|state| self.describe_warnings(&state.warnings))
            .unwrap_or_default()
    }

    /// Warnings of a run of this container in words: what failed, why, and what to do.
    pub fn describe_warnings(&self, warnings: &[Warning]) -> Vec<String> {
        warnings
            .iter()
            .map(|warning| self.describe(warning))
            .collect()
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
