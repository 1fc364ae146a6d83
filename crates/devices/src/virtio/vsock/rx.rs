//! The receive queue, seen from the guest: buffers that we fill.

use std::io;

use super::packet::{HEADER_LENGTH, Header};
use crate::device::DeviceError;
use crate::memory::GuestMemory;
use crate::virtio::queue::{Buffers, Chain, QueueError, VirtQueue};

/// Index of the queue.
pub(super) const RX: usize = 0;

/// Chains filled by one system call. Linux offers 256 of 3.7 KiB: a quarter of them at a time
/// leaves the guest some to refill while it works.
pub(super) const MAX_BURST: usize = 64;

/// Room for packets to the guest, several at a time.
#[derive(Debug)]
pub(super) struct Burst {
    chain: Chain,
    headers: Buffers,
    data: Buffers,
    taken: Vec<Taken>,
}

#[derive(Debug, Clone, Copy)]
struct Taken {
    head: u16,
    capacity: usize,
}

pub(super) fn queue_error(source: QueueError) -> DeviceError {
    DeviceError::Queue { queue: RX, source }
}

impl Burst {
    pub(super) fn new(memory: &GuestMemory) -> Self {
        Self {
            chain: Chain::new(memory),
            headers: Buffers::new(memory),
            data: Buffers::new(memory),
            taken: Vec::with_capacity(MAX_BURST),
        }
    }

    /// Take buffers until they hold `bytes` or there are `most`; the room they have.
    pub(super) fn take(
        &mut self,
        queue: &mut VirtQueue,
        most: usize,
        bytes: usize,
    ) -> Result<usize, DeviceError> {
        self.headers.clear();
        self.data.clear();
        self.taken.clear();
        while self.taken.len() < most && (self.data.len() < bytes || self.taken.is_empty()) {
            if !queue.pop(&mut self.chain).map_err(queue_error)? {
                break;
            }
            let room = &self.chain.writable;
            if room.len() <= HEADER_LENGTH || !self.chain.readable.is_empty() {
                return Err(DeviceError::Request {
                    queue: RX,
                    reason: "a receive buffer must be writable and hold more than a header",
                });
            }
            let capacity = room.len() - HEADER_LENGTH;
            // Both belong to the memory this burst was made for, so this cannot fail.
            self.headers.append(room, 0, HEADER_LENGTH);
            self.data.append(room, HEADER_LENGTH, capacity);
            self.taken.push(Taken {
                head: self.chain.head(),
                capacity,
            });
        }
        Ok(self.data.len())
    }

    /// Whether no buffer was taken.
    pub(super) fn is_empty(&self) -> bool {
        self.taken.is_empty()
    }

    /// Number of buffers taken.
    pub(super) fn count(&self) -> usize {
        self.taken.len()
    }

    /// Receive from a socket into the room taken, at most `limit` bytes.
    pub(super) fn receive(
        &mut self,
        socket: std::os::fd::BorrowedFd<'_>,
        limit: usize,
    ) -> io::Result<usize> {
        self.data.receive(socket, limit)
    }

    /// Return buffers to the guest that hold `length` bytes, each with `header` and its own share
    /// of them; those left over go back untouched. A `length` of zero returns one bare header.
    pub(super) fn finish(
        &mut self,
        queue: &mut VirtQueue,
        header: Header,
        length: usize,
    ) -> Result<usize, DeviceError> {
        let mut left = length;
        let mut used = 0;
        for taken in &self.taken {
            if left == 0 && (used > 0 || length > 0) {
                break;
            }
            let share = left.min(taken.capacity);
            let header = Header {
                length: share as u32,
                ..header
            };
            self.headers
                .write_at(used * HEADER_LENGTH, &header.encode());
            queue
                .push(taken.head, (HEADER_LENGTH + share) as u32)
                .map_err(queue_error)?;
            left -= share;
            used += 1;
        }
        self.give_back(queue, used);
        Ok(used)
    }

    /// Give all buffers back untouched.
    pub(super) fn cancel(&mut self, queue: &mut VirtQueue) {
        self.give_back(queue, 0);
    }

    fn give_back(&mut self, queue: &mut VirtQueue, used: usize) {
        queue.give_back((self.taken.len() - used) as u16);
        self.taken.clear();
    }
}
