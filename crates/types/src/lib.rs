//! Words that every Bulkhead crate shares: identifiers, digests, sizes, signals, exit statuses, and an error with
//! its causes on one line.
//!
//! Nothing here does I/O. Each type is parsed once, at the border, and its constructor rejects what
//! is not valid, so that code behind the border never meets a bad value.

mod capability;
mod chain;
mod digest;
mod exit;
mod guest_text;
mod id;
mod isolation;
mod process;
mod rlimit;
mod signal;
mod size;
mod tmpfs;

pub use capability::{Capabilities, UnknownCapability};
pub use chain::{chain, without_codes};
pub use digest::{Digest, ParseDigestError};
pub use exit::{ExitStatus, exit_code};
pub use guest_text::GuestText;
pub use id::{ContainerId, ContainerName, ParseIdError};
pub use isolation::{Isolation, ParseIsolationError};
pub use process::{ProcessSpec, TerminalSize};
pub use rlimit::{Resource, Rlimit, UnknownResource};
pub use signal::{ParseSignalError, Signal};
pub use size::{ByteSize, ParseByteSizeError};
pub use tmpfs::{InvalidTmpfsOption, TmpfsOptions};
