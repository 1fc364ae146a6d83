//! A device while its transport serves it: which queues have work, and whether it is active.

use crate::device::{Activation, Device, DeviceError, Work};
use crate::memory::GuestMemory;
use crate::poll::{Poller, Readiness};
use crate::virtio::queue::VirtQueue;

/// A device and the queues that want a turn.
pub(super) struct Served {
    device: Box<dyn Device>,
    poller: Poller,
    active: bool,
    /// Queues given at activation.
    queues: usize,
    /// Queues that were kicked, or stopped at their bound, by bit.
    again: u64,
}

impl Served {
    pub(super) fn new(device: Box<dyn Device>, poller: Poller) -> Self {
        Self {
            device,
            poller,
            active: false,
            queues: 0,
            again: 0,
        }
    }

    pub(super) fn device(&self) -> &dyn Device {
        self.device.as_ref()
    }

    pub(super) fn poller(&self) -> &Poller {
        &self.poller
    }

    pub(super) fn is_active(&self) -> bool {
        self.active
    }

    /// Hand the device its queues. Kicks may have come before it was there to hear them, so all of
    /// the queues get a turn.
    pub(super) fn activate(
        &mut self,
        memory: GuestMemory,
        queues: Vec<VirtQueue>,
        features: u64,
    ) -> Result<(), DeviceError> {
        // No device comes near 64 queues, the number of bits in `again`.
        self.queues = queues.len().min(63);
        self.active = true;
        self.device.activate(Activation {
            memory,
            queues,
            features,
            poller: self.poller.clone(),
        })?;
        self.look_everywhere();
        Ok(())
    }

    /// Take the queues back, at the indexes they have come to; the device may be active or broken.
    pub(super) fn stop(&mut self) -> Vec<VirtQueue> {
        if !self.active {
            return Vec::new();
        }
        self.active = false;
        self.again = 0;
        let activation = self.device.reset();
        activation.map_or_else(Vec::new, |activation| activation.queues)
    }

    /// The driver kicked a queue.
    pub(super) fn kicked(&mut self, queue: usize) {
        if self.active && queue < self.queues {
            self.again |= 1 << queue;
        }
    }

    /// A descriptor of the device is ready.
    pub(super) fn source(&mut self, token: u64, ready: Readiness) -> Result<(), DeviceError> {
        if !self.active {
            return Ok(());
        }
        self.device.source_event(token, ready)
    }

    /// Serve the queues that were kicked, then let the device settle. [`Work::More`] asks to be
    /// called again after a look at other events.
    pub(super) fn serve(&mut self) -> Result<Work, DeviceError> {
        if !self.active {
            return Ok(Work::Done);
        }
        let mut kicked = std::mem::take(&mut self.again);
        while kicked != 0 {
            let queue = kicked.trailing_zeros();
            kicked &= kicked - 1;
            if self.device.queue_event(queue as usize)? == Work::More {
                self.again |= 1 << queue;
            }
        }
        let settled = self.device.settle()?;
        if self.again != 0 {
            return Ok(Work::More);
        }
        Ok(settled)
    }

    /// Give every queue a turn: kicks may have been lost.
    pub(super) fn look_everywhere(&mut self) {
        if self.active {
            self.again = (1_u64 << self.queues).wrapping_sub(1);
        }
    }

    /// Whether everything the guest handed over has reached the host.
    pub(super) fn drained(&self) -> bool {
        !self.active || self.device.drained()
    }
}
