//! What a guest boots: kernel, agent, initramfs.
//!
//! They are chosen when a container is created and again whenever it is started later: like a host's
//! kernel they belong to the installation, and an agent must be of the same version as the sandbox
//! that talks to it.

mod agent;

use std::path::PathBuf;

use bulkhead_platform::{
    InitramfsError, KernelError, KernelImage, KernelSearch, build_initramfs, find_kernel, probe,
};
use bulkhead_types::Isolation;

pub(crate) use agent::find_agent;

use crate::Engine;
use crate::error::ErrorKind;

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
    /// The platform that was asked for does not work here.
    #[error("isolation {isolation} does not work here: {}", obstacles.join("; "))]
    Platform {
        /// As asked.
        isolation: Isolation,
        /// Why not.
        obstacles: Vec<String>,
    },
}

impl GuestError {
    pub(crate) fn kind(&self) -> ErrorKind {
        match self {
            Self::Initramfs(InitramfsError::Write { source, .. }) => crate::error::io_kind(source),
            _ => ErrorKind::Unavailable,
        }
    }

    pub(crate) fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::NoAgent { .. } => {
                "install Bulkhead completely ('make install'), or name the agent with BULKHEAD_AGENT"
            }
            Self::Kernel(error) => return Some(error.remedy()),
            Self::Platform { .. } => "'bulkhead doctor' says which platforms work here",
            _ => return None,
        };
        Some(hint.to_owned())
    }
}

impl Engine {
    /// What a container boots on the platform that was asked for, else on the configured, else on
    /// the best that works.
    pub(crate) fn guest(&self, isolation: Option<Isolation>) -> Result<Guest, GuestError> {
        let isolation = isolation
            .or(self.settings.isolation)
            .unwrap_or(Isolation::UserMode);
        let search = self.kernel_search();
        if isolation == Isolation::Kvm {
            works(isolation, &search)?;
        }
        let kernel = find_kernel(isolation, &search)?;
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

/// A kernel is of no use where the platform is none, and the probe knows why.
fn works(isolation: Isolation, search: &KernelSearch) -> Result<(), GuestError> {
    let report = probe(search)
        .into_iter()
        .find(|report| report.isolation == isolation);
    match report {
        Some(report) if report.works() => Ok(()),
        report => Err(GuestError::Platform {
            isolation,
            obstacles: report.map(|report| report.obstacles).unwrap_or_default(),
        }),
    }
}
