//! What a guest boots: kernel, agent, initramfs.
//!
//! They are chosen when a container is created and again whenever it is started later: like a host's
//! kernel they belong to the installation, and an agent must be of the same version as the sandbox
//! that talks to it.

mod agent;
mod choice;

use std::path::PathBuf;

use bulkhead_platform::{
    InitramfsError, KernelError, KernelImage, KernelSearch, KvmObstacle, build_initramfs,
};
use bulkhead_types::Isolation;

pub(crate) use agent::find_agent;
pub(crate) use choice::choose;

use crate::Engine;
use crate::kind::ErrorKind;

/// The files that a compartment boots from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Guest {
    pub isolation: Isolation,
    pub kernel: KernelImage,
    pub initramfs: PathBuf,
}

/// A guest cannot be put together.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum GuestError {
    /// The agent's binary was not found.
    #[error("cannot find the agent: looked for {}", looked.iter().map(|p| p.display().to_string()).collect::<Vec<_>>().join(", "))]
    NoAgent {
        /// The places.
        looked: Vec<PathBuf>,
    },
    /// No usable guest kernel.
    #[error("cannot find a guest kernel")]
    Kernel(#[from] KernelError),
    /// The initramfs cannot be made.
    #[error("cannot prepare the guest's initramfs")]
    Initramfs(#[from] InitramfsError),
    /// KVM was asked for and does not work here.
    #[error("isolation kvm does not work here: {}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
    Kvm(Vec<KvmObstacle>),
}

impl GuestError {
    pub(crate) fn kind(&self) -> ErrorKind {
        match self {
            Self::Initramfs(InitramfsError::Write { source, .. }) => crate::kind::io_kind(source),
            _ => ErrorKind::Unavailable,
        }
    }

    pub(crate) fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::NoAgent { .. } => {
                "install Bulkhead completely ('make install'), or name the agent with BULKHEAD_AGENT"
            }
            Self::Kernel(error) => return Some(error.remedy()),
            Self::Kvm(obstacles) => {
                let remedy = obstacles.first().map(KvmObstacle::remedy)?;
                return Some(format!(
                    "{remedy}; or take the other platform: '--isolation user-mode'"
                ));
            }
            _ => return None,
        };
        Some(hint.to_owned())
    }
}

impl Engine {
    /// What a container boots on the platform that was asked for, else on the configured, else on
    /// the best that works.
    pub(crate) fn guest(&self, isolation: Option<Isolation>) -> Result<Guest, GuestError> {
        let named = isolation.or(self.settings.isolation);
        let (isolation, kernel) = choose(named, &self.kernel_search())?;
        let agent = find_agent(&self.environment, &self.settings)?;
        let initramfs = build_initramfs(&agent, &kernel, &self.root.cache())?;
        Ok(Guest {
            isolation,
            kernel,
            initramfs,
        })
    }

    pub(crate) fn kernel_search(&self) -> KernelSearch {
        let chosen = self
            .environment
            .kernel
            .as_ref()
            .or(self.settings.kernel.as_ref());
        KernelSearch::from_environment(chosen.cloned())
    }
}
