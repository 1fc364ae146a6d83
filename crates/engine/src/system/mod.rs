//! What the engine says about itself and its host: `info`, `version`, `doctor`.

mod doctor;
mod host;
mod info;
mod version;

pub use doctor::{Check, CheckStatus};
pub use info::{Component, SystemInfo};
pub use version::VersionInfo;
