//! The walls around the sandbox and kernel processes: namespaces, seccomp, Landlock; policy as data.
//!
//! Two jails, one inside the other. [`SandboxJail`] holds the sandbox process, which parses what a guest sends and is
//! the last wall before the host. [`KernelCommand`] starts a user-mode kernel in a stricter one, on the assumption
//! that its guest is hostile and already runs code in it. System call policies are reviewed data under `policy/`,
//! with a reason beside each surprising entry, and are compiled when this crate is built.

mod error;
mod ids;
mod kernel;
mod landlock;
mod probe;
mod report;
mod sandbox;
mod seccomp;
mod sys;
#[cfg(feature = "trespass")]
mod trespass;
#[cfg(all(debug_assertions, not(feature = "trespass")))]
mod violation;
mod vm_root;

pub use error::JailError;
pub use ids::{HostIds, IdRange};
pub use kernel::{KernelCommand, KernelLimits, KernelProcess};
pub use probe::{landlock_version, probe};
pub use report::{JailReport, Missing, Wall};
pub use sandbox::{Enclosure, Jailed, SandboxJail, ThreadLock};
pub use seccomp::Thread;
pub use vm_root::{Content, RootFile, VmRoot, VmRootSpec};
