//! One request of the driver: a descriptor chain, walked and checked to its end.

use virtio_queue::DescriptorChain;

use super::buffers::Buffers;
use super::error::QueueError;
use crate::memory::{GuestMemory, is_writable};

/// A chain's buffers, located in our address space. Made once and refilled for every request, so
/// that the hot path allocates nothing.
#[derive(Debug)]
pub struct Chain {
    pub(super) head: u16,
    /// What the driver wrote for the device.
    pub readable: Buffers,
    /// Where the device may write.
    pub writable: Buffers,
}

impl Chain {
    /// An empty chain over `memory`.
    pub fn new(memory: &GuestMemory) -> Self {
        Self {
            head: 0,
            readable: Buffers::new(memory),
            writable: Buffers::new(memory),
        }
    }

    /// Index of the first descriptor: what goes into the used ring.
    pub fn head(&self) -> u16 {
        self.head
    }

    /// Walk `descriptors` to the end and locate every byte.
    pub(super) fn fill(
        &mut self,
        descriptors: DescriptorChain<&GuestMemory>,
        limit: u16,
        memory: &GuestMemory,
    ) -> Result<(), QueueError> {
        let head = descriptors.head_index();
        self.head = head;
        self.readable.clear();
        self.writable.clear();
        let mut complete = false;
        for (count, descriptor) in descriptors.enumerate() {
            if count == usize::from(limit) {
                return Err(QueueError::LongChain { head, limit });
            }
            complete = !descriptor.has_next();
            let outside = || QueueError::OutsideMemory {
                head,
                address: descriptor.addr().0,
                length: descriptor.len(),
            };
            let list = if descriptor.is_write_only() {
                if !is_writable(memory, descriptor.addr().0, descriptor.len().into()) {
                    return Err(outside());
                }
                &mut self.writable
            } else if self.writable.pieces() > 0 {
                return Err(QueueError::Order { head });
            } else {
                &mut self.readable
            };
            list.push(descriptor.addr(), descriptor.len())
                .map_err(|_| outside())?;
        }
        if complete {
            Ok(())
        } else {
            Err(QueueError::BrokenChain { head })
        }
    }
}
