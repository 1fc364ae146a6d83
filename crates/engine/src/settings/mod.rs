//! Where the engine keeps its state and what its configuration files say.
//!
//! Two stages: [`written`] is what a file contains, key by key, with unknown keys refused;
//! [`Settings`] is what that means, validated, with every default filled in. Only the second
//! reaches the rest of the engine.

mod environment;
mod valid;
mod written;

use std::path::PathBuf;

pub use environment::{EngineConfig, Environment};
pub use valid::{JailStrength, LogLimits, Settings, parse_detach_keys};

use crate::kind::{ErrorKind, io_kind};

/// A configuration that cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SettingsError {
    /// The file exists but cannot be read.
    #[error("cannot read configuration file {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's answer.
        #[source]
        source: std::io::Error,
    },
    /// Not TOML, an unknown key, or a value of the wrong type.
    #[error("invalid configuration file {}", path.display())]
    Syntax {
        /// The file.
        path: PathBuf,
        /// Line, column and cause.
        #[source]
        source: Box<toml::de::Error>,
    },
    /// A value that is well-formed but cannot be used.
    #[error("invalid value for '{key}' in configuration file {}: {reason}", path.display())]
    Value {
        /// The file.
        path: PathBuf,
        /// The key as written.
        key: &'static str,
        /// What is wrong with it.
        reason: String,
    },
    /// An environment variable that cannot be used.
    #[error("invalid value of {variable}: {reason}")]
    Variable {
        /// Its name.
        variable: &'static str,
        /// What is wrong with it.
        reason: String,
    },
    /// An ordinary user without a home directory gave no root.
    #[error("cannot choose a state directory: neither HOME nor XDG_DATA_HOME is an absolute path")]
    NoHome,
    /// The root directory was given as a relative path that cannot be resolved.
    #[error("cannot resolve state directory {}", path.display())]
    Root {
        /// As given.
        path: PathBuf,
        /// The system's answer.
        #[source]
        source: std::io::Error,
    },
}

impl SettingsError {
    pub(crate) fn kind(&self) -> ErrorKind {
        match self {
            Self::Read { source, .. } | Self::Root { source, .. } => io_kind(source),
            Self::Syntax { .. } | Self::Value { .. } | Self::Variable { .. } | Self::NoHome => {
                ErrorKind::InvalidInput
            }
        }
    }

    pub(crate) fn hint(&self) -> Option<String> {
        matches!(self, Self::NoHome).then(|| "set --root or BULKHEAD_ROOT".to_owned())
    }
}
