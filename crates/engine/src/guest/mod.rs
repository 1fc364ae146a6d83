//! What a guest boots: kernel, agent, initramfs.

mod agent;

use std::path::PathBuf;

use bulkhead_types::Isolation;

pub(crate) use agent::find_agent;

use crate::error::ErrorKind;

/// The files that a compartment boots from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Guest {
    pub isolation: Isolation,
    pub kernel: PathBuf,
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
    /// No guest kernel was found.
    #[error("cannot find a guest kernel for isolation {isolation}")]
    NoKernel {
        /// The platform that was asked for.
        isolation: Isolation,
    },
}

impl GuestError {
    pub(crate) fn kind(&self) -> ErrorKind {
        ErrorKind::Unavailable
    }

    pub(crate) fn hint(&self) -> Option<String> {
        match self {
            Self::NoKernel { .. } => {
                Some("install one: apt-get install user-mode-linux, or 'make kernel'".to_owned())
            }
            Self::NoAgent { .. } => {
                Some("install Bulkhead completely ('make install'), or name the agent with BULKHEAD_AGENT".to_owned())
            }
        }
    }
}

impl crate::Engine {
    /// What a new container boots.
    pub(crate) fn guest(&self, isolation: Option<Isolation>) -> Result<Guest, GuestError> {
        let isolation = isolation
            .or(self.settings.isolation)
            .unwrap_or(Isolation::UserMode);
        let _agent = find_agent(&self.environment, &self.settings)?;
        // The kernel's search and the initramfs are the platform's, which is being built.
        Err(GuestError::NoKernel { isolation })
    }
}
