//! A queue: the ring, the memory it lies in, and the way to notify its driver.

use std::fmt;
use std::io;
use std::sync::atomic::Ordering;

use virtio_queue::{Queue, QueueOwnedT, QueueT};
use vm_memory::{Address, Bytes, GuestAddress, GuestMemoryBackend};

use super::chain::Chain;
use super::error::QueueError;
use crate::memory::{GuestMemory, is_writable};

/// Each side says at which index it wants the next notification (section 2.7.7, 2.7.10).
pub const VIRTIO_F_RING_EVENT_IDX: u64 = 1 << 29;

/// Bit 0 of the available ring's flags: the driver wants no notification (section 2.7.6).
const AVAIL_NO_INTERRUPT: u16 = 1;

/// The largest ring the specification allows.
const MAX_SIZE: u16 = 32768;

/// How a device tells its driver that buffers were used.
pub trait Notifier: Send {
    /// Notify the driver of this queue. Must not block.
    fn notify(&self) -> io::Result<()>;
}

/// Where the driver put a ring.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RingLayout {
    /// Number of descriptors.
    pub size: u16,
    /// Guest physical address of the descriptor table.
    pub descriptors: u64,
    /// Guest physical address of the available ring.
    pub available: u64,
    /// Guest physical address of the used ring.
    pub used: u64,
    /// Index in the available ring at which to begin; the used ring continues at the same index.
    pub position: u16,
    /// Whether [`VIRTIO_F_RING_EVENT_IDX`] was negotiated.
    pub event_idx: bool,
}

impl RingLayout {
    /// Whether a ring can be like this: its size a power of two up to `limit`, its parts aligned
    /// (section 2.7) and in `memory`.
    ///
    /// # Errors
    /// [`QueueError::Size`], [`QueueError::Alignment`] or [`QueueError::Placement`].
    pub fn check(&self, memory: &GuestMemory, limit: u16) -> Result<(), QueueError> {
        if !self.size.is_power_of_two() || self.size > limit.min(MAX_SIZE) {
            return Err(QueueError::Size {
                size: self.size,
                limit,
            });
        }
        let size = usize::from(self.size);
        let parts = [
            ("descriptor table", self.descriptors, 16 * size, 16_u64),
            ("available ring", self.available, 6 + 2 * size, 2),
            ("used ring", self.used, 6 + 8 * size, 4),
        ];
        for (part, address, length, alignment) in parts {
            if address % alignment != 0 {
                return Err(QueueError::Alignment { part, address });
            }
            // Address zero is how the ring crate says "not set".
            if address == 0
                || !GuestMemoryBackend::check_range(memory, GuestAddress(address), length)
                || !is_writable(memory, address, length as u64)
            {
                return Err(QueueError::Placement { part, address });
            }
        }
        Ok(())
    }
}

/// A live split virtqueue.
pub struct VirtQueue {
    queue: Queue,
    memory: GuestMemory,
    notifier: Box<dyn Notifier>,
    used_since_notify: bool,
}

impl fmt::Debug for VirtQueue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("VirtQueue")
            .field("queue", &self.queue)
            .finish_non_exhaustive()
    }
}

fn ring_error(operation: &'static str) -> impl FnOnce(virtio_queue::Error) -> QueueError {
    move |source| QueueError::Ring { operation, source }
}

impl VirtQueue {
    /// Check `layout` against `memory` and take the ring into use.
    pub fn new(
        memory: &GuestMemory,
        layout: RingLayout,
        limit: u16,
        notifier: Box<dyn Notifier>,
    ) -> Result<Self, QueueError> {
        layout.check(memory, limit)?;
        let bad_size = |_| QueueError::Size {
            size: layout.size,
            limit,
        };
        let mut queue = Queue::new(limit.clamp(1, MAX_SIZE)).map_err(bad_size)?;
        queue.try_set_size(layout.size).map_err(bad_size)?;
        let set = |result: Result<(), virtio_queue::Error>| result.map_err(ring_error("place"));
        set(queue.try_set_desc_table_address(GuestAddress(layout.descriptors)))?;
        set(queue.try_set_avail_ring_address(GuestAddress(layout.available)))?;
        set(queue.try_set_used_ring_address(GuestAddress(layout.used)))?;
        queue.set_event_idx(layout.event_idx);
        queue.set_next_avail(layout.position);
        queue.set_next_used(layout.position);
        queue.set_ready(true);
        Ok(Self {
            queue,
            memory: memory.clone(),
            notifier,
            used_since_notify: false,
        })
    }

    /// The memory the ring lies in.
    pub fn memory(&self) -> &GuestMemory {
        &self.memory
    }

    /// Number of descriptors.
    pub fn size(&self) -> u16 {
        self.queue.size()
    }

    /// Index of the next chain to take from the available ring.
    pub fn position(&self) -> u16 {
        self.queue.next_avail()
    }

    /// Take the next available chain into `chain`; `false` if there is none.
    pub fn pop(&mut self, chain: &mut Chain) -> Result<bool, QueueError> {
        let limit = self.queue.size();
        let mut available = self
            .queue
            .iter(&self.memory)
            .map_err(ring_error("read available ring"))?;
        match available.next() {
            None => Ok(false),
            Some(descriptors) => {
                chain.fill(descriptors, limit, &self.memory)?;
                Ok(true)
            }
        }
    }

    /// Whether the driver has made chains available that were not taken yet.
    pub fn has_available(&self) -> Result<bool, QueueError> {
        let index = self
            .queue
            .avail_idx(&self.memory, Ordering::Acquire)
            .map_err(ring_error("read available index"))?;
        Ok(index.0 != self.queue.next_avail())
    }

    /// Give the last `count` chains taken back, as if they had never been taken.
    pub fn give_back(&mut self, count: u16) {
        let position = self.queue.next_avail().wrapping_sub(count);
        self.queue.set_next_avail(position);
    }

    /// Return the chain that begins at `head` to the driver, `written` bytes of it filled.
    pub fn push(&mut self, head: u16, written: u32) -> Result<(), QueueError> {
        self.used_since_notify = true;
        self.queue
            .add_used(&self.memory, head, written)
            .map_err(ring_error("write used ring"))
    }

    /// Notify the driver of what was pushed since the last call, if it wants to know.
    pub fn notify(&mut self) -> Result<(), QueueError> {
        if !self.used_since_notify {
            return Ok(());
        }
        self.used_since_notify = false;
        let wanted = self
            .queue
            .needs_notification(&self.memory)
            .map_err(ring_error("read used event index"))?;
        if wanted && !self.suppressed()? {
            self.notifier.notify().map_err(QueueError::Notify)?;
        }
        Ok(())
    }

    /// Ask the driver not to notify us of new buffers; a hint.
    pub fn disable_notifications(&mut self) -> Result<(), QueueError> {
        self.queue
            .disable_notification(&self.memory)
            .map_err(ring_error("disable notifications"))
    }

    /// Ask the driver to notify us of new buffers; `true` if some arrived before it could know.
    pub fn enable_notifications(&mut self) -> Result<bool, QueueError> {
        self.queue
            .enable_notification(&self.memory)
            .map_err(ring_error("enable notifications"))
    }

    /// Without event indexes a driver suppresses notifications by a flag.
    fn suppressed(&self) -> Result<bool, QueueError> {
        if self.queue.event_idx_enabled() {
            return Ok(false);
        }
        let address = GuestAddress(self.queue.avail_ring());
        let flags: u16 = self
            .memory
            .load(address, Ordering::Relaxed)
            .map_err(|source| QueueError::Ring {
                operation: "read available flags",
                source: virtio_queue::Error::GuestMemory(source),
            })?;
        debug_assert!(address.raw_value() != 0);
        Ok(u16::from_le(flags) & AVAIL_NO_INTERRUPT != 0)
    }
}
