//! The seam between a virtio device and whatever carries its queues.

use crate::memory::{GuestMemory, SharedMemory};
use crate::poll::{Poller, Readiness};
use crate::virtio::queue::{QueueError, VirtQueue};

/// Virtio device type, section 5 of the virtio specification.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u32)]
#[non_exhaustive]
pub enum DeviceId {
    /// Block device, section 5.2.
    Block = 2,
    /// Entropy device, section 5.4.
    Rng = 4,
    /// Memory balloon, section 5.5.
    Balloon = 5,
    /// Socket device, section 5.10.
    Vsock = 19,
    /// Persistent memory, section 5.19.
    Pmem = 27,
}

impl DeviceId {
    /// The number by which a driver knows the type.
    pub fn number(self) -> u32 {
        self as u32
    }
}

/// Everything a device needs once its driver is ready.
#[derive(Debug)]
pub struct Activation {
    /// The guest's memory.
    pub memory: GuestMemory,
    /// One queue per entry of [`Device::queue_sizes`], in the same order. Over registers a driver
    /// may leave out the last ones; a device that needs them refuses.
    pub queues: Vec<VirtQueue>,
    /// The feature bits the driver accepted, a subset of [`Device::features`].
    pub features: u64,
    /// Where the device registers descriptors of its own.
    pub poller: Poller,
}

impl Activation {
    /// Checks that the transport brought as many queues as the device has.
    ///
    /// # Errors
    /// [`DeviceError::QueueCount`].
    pub fn expect_queues(&self, wanted: usize) -> Result<(), DeviceError> {
        let given = self.queues.len();
        if given == wanted {
            Ok(())
        } else {
            Err(DeviceError::QueueCount { given, wanted })
        }
    }
}

/// Whether a call finished what there was to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum Work {
    /// Nothing is left; the next event will say when there is.
    Done,
    /// The call stopped at its bound so that others get a turn: call again.
    More,
}

/// Why a device stopped serving its guest. The device is broken until it is reset.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DeviceError {
    /// The transport offered another number of queues than the device has.
    #[error("activate device: {given} queues given, {wanted} needed")]
    QueueCount {
        /// Queues in the activation.
        given: usize,
        /// Queues the device has.
        wanted: usize,
    },
    /// An event arrived for a device that is not active.
    #[error("handle device event: the device is not active")]
    NotActive,
    /// The driver broke the rules of a queue.
    #[error("use virtqueue {queue}")]
    Queue {
        /// Index of the queue.
        queue: usize,
        /// The violation.
        #[source]
        source: QueueError,
    },
    /// The driver sent a request whose shape the specification does not allow.
    #[error("parse request on virtqueue {queue}: {reason}")]
    Request {
        /// Index of the queue.
        queue: usize,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// A descriptor of the device could not be watched.
    #[error("watch a descriptor of the device")]
    Poll(#[source] std::io::Error),
    /// The host gave no random bytes.
    #[error("read random bytes from the host")]
    Entropy(#[source] getrandom::Error),
}

/// One virtio device; owned by exactly one thread (the transport's), so it needs no locks.
///
/// Calls come in this order: `activate`, then any number of `queue_event`, `source_event` and
/// `settle`, then `reset`, after which it may be activated again. A call that returns an error
/// leaves the device broken: only `reset` may follow.
pub trait Device: Send {
    /// What kind of device it is.
    fn id(&self) -> DeviceId;

    /// The largest size of each queue, a power of two.
    fn queue_sizes(&self) -> &[u16];

    /// Feature bits the device offers, its own and the ring's.
    fn features(&self) -> u64;

    /// The configuration space, little endian. Reads past its end are zeros.
    fn config(&self) -> &[u8];

    /// Memory of the host that is to appear in the guest's physical memory, if the device has any.
    /// Whoever runs the guest maps it and says where by [`Device::place`], before the driver starts.
    fn shared_memory(&self) -> Option<SharedMemory> {
        None
    }

    /// The device's [`SharedMemory`] begins at this guest physical address.
    fn place(&mut self, guest_address: u64) {
        let _ = guest_address;
    }

    /// The driver is ready: memory, queues and accepted features are known.
    fn activate(&mut self, activation: Activation) -> Result<(), DeviceError>;

    /// The driver made buffers available on `queue`, or the transport found out that it may have.
    fn queue_event(&mut self, queue: usize) -> Result<Work, DeviceError>;

    /// A descriptor registered through [`Activation::poller`] is ready. A token of a descriptor
    /// that the device has meanwhile removed may still arrive and must be ignored.
    fn source_event(&mut self, token: u64, ready: Readiness) -> Result<(), DeviceError> {
        let _ = (token, ready);
        Ok(())
    }

    /// All events of one wake-up have been delivered: do what is better done once for all of them.
    fn settle(&mut self) -> Result<Work, DeviceError> {
        Ok(Work::Done)
    }

    /// Whether everything the guest handed over has reached the host. After the guest is gone the
    /// transport keeps delivering `source_event` until this holds.
    fn drained(&self) -> bool {
        true
    }

    /// Forget all state that came from the driver and hand back what `activate` gave.
    fn reset(&mut self) -> Option<Activation>;
}
