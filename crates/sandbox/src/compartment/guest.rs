//! What the lifecycle needs of a running kernel, so that it can be tested without one.

use std::io;
use std::os::fd::OwnedFd;

use super::walls::Walls;
use crate::streams::Ports;

/// The kernel could not be started; the whole chain of causes as text.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct BootError(pub String);

/// Starts the guest, once.
pub(crate) trait Boot {
    /// Starts the kernel with its devices; connections of the guest go to `ports`, its console to `console`.
    fn boot(
        self: Box<Self>,
        ports: Ports,
        console: OwnedFd,
        walls: &mut Walls,
    ) -> Result<Box<dyn Guest>, BootError>;
}

/// A running guest. Dropping it ends it.
pub(crate) trait Guest: Send {
    /// A descriptor that becomes readable when the guest has ended.
    fn exit_fd(&self) -> io::Result<OwnedFd>;
    /// Ends it at once.
    fn stop(&mut self);
    /// How it ended, for an error message; called after `exit_fd` became readable.
    fn describe_exit(&mut self) -> String;
}
