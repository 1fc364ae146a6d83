//! The one interrupt line of a device: why it was raised, and the eventfd that raises it.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::virtio::queue::Notifier;

/// InterruptStatus: a buffer was used in at least one queue.
const USED_BUFFER: u32 = 1;
/// InterruptStatus: the configuration, or the status, has changed.
const CONFIGURATION: u32 = 2;

#[derive(Debug)]
pub(super) struct Interrupt {
    pending: AtomicU32,
    line: OwnedFd,
}

impl Interrupt {
    pub(super) fn new(line: OwnedFd) -> Self {
        Self {
            pending: AtomicU32::new(0),
            line,
        }
    }

    /// InterruptStatus.
    pub(super) fn pending(&self) -> u32 {
        self.pending.load(Ordering::SeqCst)
    }

    /// InterruptACK: the driver has seen `reasons`.
    pub(super) fn acknowledge(&self, reasons: u32) {
        self.pending.fetch_and(!reasons, Ordering::SeqCst);
    }

    /// The device was reset.
    pub(super) fn clear(&self) {
        self.pending.store(0, Ordering::SeqCst);
    }

    /// The device has stopped: its driver should look at the status.
    pub(super) fn configuration_changed(&self) -> io::Result<()> {
        self.raise(CONFIGURATION)
    }

    /// The reason is there before the interrupt is. The line is raised even if the reason was
    /// there already: an edge that the guest masked would otherwise be the last one ever.
    fn raise(&self, reason: u32) -> io::Result<()> {
        self.pending.fetch_or(reason, Ordering::SeqCst);
        match nix::unistd::write(&self.line, &1_u64.to_ne_bytes()) {
            // A full counter means that interrupts are waiting already.
            Ok(_) | Err(nix::errno::Errno::EAGAIN) => Ok(()),
            Err(errno) => Err(errno.into()),
        }
    }
}

/// Every queue of a device shares its line.
impl Notifier for Arc<Interrupt> {
    fn notify(&self) -> io::Result<()> {
        self.raise(USED_BUFFER)
    }
}
