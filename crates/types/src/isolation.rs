//! Which platform runs a compartment's kernel.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// How a guest kernel is run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Isolation {
    /// A virtual machine on the host's hardware virtualization.
    Kvm,
    /// A Linux kernel that is an ordinary, jailed process.
    UserMode,
}

/// A text that names no isolation.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown isolation '{0}': expected kvm or user-mode")]
pub struct ParseIsolationError(pub String);

impl Isolation {
    /// The word that `--isolation` takes.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Kvm => "kvm",
            Self::UserMode => "user-mode",
        }
    }
}

impl FromStr for Isolation {
    type Err = ParseIsolationError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "kvm" => Ok(Self::Kvm),
            "user-mode" => Ok(Self::UserMode),
            other => Err(ParseIsolationError(other.to_owned())),
        }
    }
}

impl fmt::Display for Isolation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
