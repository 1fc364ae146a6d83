//! What works on this host, and exactly why the rest does not. `doctor` and `info` print it.

mod kvm;
mod user_mode;

use bulkhead_types::Isolation;
use serde::{Deserialize, Serialize};

use crate::kernel::KernelSearch;

pub use kvm::{KvmObstacle, kvm_obstacles};

/// The verdict on one platform.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlatformReport {
    /// Which platform.
    pub isolation: Isolation,
    /// Why it cannot be used, one line each; empty where it works.
    pub obstacles: Vec<String>,
    /// What to do about the obstacles, one line each.
    #[serde(default)]
    pub remedies: Vec<String>,
    /// What is worth knowing although it works, one line each.
    pub notes: Vec<String>,
}

impl PlatformReport {
    /// Whether machines can be started.
    pub fn works(&self) -> bool {
        self.obstacles.is_empty()
    }
}

/// Judges every platform, the preferred one first.
pub fn probe(search: &KernelSearch) -> Vec<PlatformReport> {
    vec![kvm::probe(search), user_mode::probe(search)]
}
