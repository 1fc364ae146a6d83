//! `version`.

use serde::Serialize;

use super::host;
use crate::Engine;
use crate::guest::{choose, find_agent};

/// Versions of what takes part in running a container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct VersionInfo {
    /// Of this program; sandbox and agent are built with it.
    pub version: &'static str,
    /// `linux`.
    pub os: &'static str,
    /// As images name it.
    pub arch: &'static str,
    /// The host's `uname -r`.
    pub kernel_version: String,
    /// File of the guest kernel that new containers boot; `None` when there is none.
    pub guest_kernel: Option<String>,
    /// File of the agent; `None` when there is none.
    pub agent: Option<String>,
}

impl Engine {
    /// Versions. Missing parts are missing in the answer, never an error.
    pub fn version(&self) -> VersionInfo {
        let chosen = choose(self.settings.isolation, &self.kernel_search());
        VersionInfo {
            version: env!("CARGO_PKG_VERSION"),
            os: "linux",
            arch: host::architecture(),
            kernel_version: host::kernel().release,
            guest_kernel: chosen
                .ok()
                .map(|(_, kernel)| kernel.path.display().to_string()),
            agent: find_agent(&self.environment, &self.settings)
                .ok()
                .map(|path| path.display().to_string()),
        }
    }
}
