//! The mapping, and the queue of flush requests.

use std::fs::File;
use std::num::NonZeroUsize;

use super::error::PmemError;
use crate::device::{Activation, Device, DeviceError, DeviceId, Work};
use crate::memory::{Layout, SharedMemory};
use crate::virtio::RING_FEATURES;
use crate::virtio::queue::Chain;
use crate::virtio::serve::serve;

const QUEUE: usize = 0;
const QUEUE_SIZES: [u16; 1] = [256];

/// Every part begins on such a boundary, as on the disk that the same files make.
const PART_ALIGNMENT: usize = 4096;
/// The guest makes page structures for the whole, and Linux does that in sections of 2 MiB:
/// `SUBSECTION_SIZE` in its `mmzone.h`. The end is filled up with zeros.
const TOTAL_ALIGNMENT: usize = 2 << 20;

/// Requests served before others get a turn.
const MAX_BATCH: usize = 64;

const REQUEST_LENGTH: usize = 4;
const RESPONSE_LENGTH: usize = 4;
/// Make earlier writes durable (section 5.19.6).
const T_FLUSH: u32 = 0;
const FLUSHED: u32 = 0;
const UNKNOWN_REQUEST: u32 = 1;

/// Read-only persistent memory.
#[derive(Debug)]
pub struct Pmem {
    memory: SharedMemory,
    /// Start and size.
    config: [u8; 16],
    active: Option<Active>,
}

#[derive(Debug)]
struct Active {
    activation: Activation,
    chain: Chain,
}

fn regular_size(file: &File, part: usize) -> Result<usize, PmemError> {
    let metadata = file
        .metadata()
        .map_err(|source| PmemError::Size { part, source })?;
    if metadata.is_file() {
        usize::try_from(metadata.len()).map_err(|_| PmemError::Total { what: "too large" })
    } else {
        Err(PmemError::NotRegular { part })
    }
}

impl Pmem {
    /// The `parts` end to end, each padded with zeros to a multiple of 4 KiB, all of them to a
    /// multiple of 2 MiB. A part may be empty, but not all of them.
    ///
    /// # Errors
    /// A part is no regular file, cannot be mapped, or they are too large for an address space.
    pub fn read_only(parts: Vec<File>) -> Result<Self, PmemError> {
        let too_large = || PmemError::Total { what: "too large" };
        let mut placed = Vec::with_capacity(parts.len());
        let mut end = 0_usize;
        for (part, file) in parts.into_iter().enumerate() {
            let bytes = regular_size(&file, part)?;
            placed.push((end, file, bytes));
            end = bytes
                .checked_next_multiple_of(PART_ALIGNMENT)
                .and_then(|padded| end.checked_add(padded))
                .ok_or_else(too_large)?;
        }
        let bytes = end
            .checked_next_multiple_of(TOTAL_ALIGNMENT)
            .ok_or_else(too_large)?;
        let total = NonZeroUsize::new(bytes).ok_or(PmemError::Total { what: "zero" })?;
        let mut layout =
            Layout::reserve(total).map_err(|source| PmemError::Reserve { bytes, source })?;
        for (part, (offset, file, bytes)) in placed.iter().enumerate() {
            if let Some(bytes) = NonZeroUsize::new(*bytes) {
                layout
                    .map(*offset, file, bytes)
                    .map_err(|source| PmemError::Map { part, source })?;
            }
        }
        let mut config = [0; 16];
        let (_, size) = config.split_at_mut(8);
        size.copy_from_slice(&(bytes as u64).to_le_bytes());
        Ok(Self {
            memory: layout.share(),
            config,
            active: None,
        })
    }
}

impl Active {
    fn serve(&mut self) -> Result<Work, DeviceError> {
        let queues = &mut self.activation.queues;
        serve(queues, QUEUE, &mut self.chain, MAX_BATCH, |chain| {
            let mut request = [0; REQUEST_LENGTH];
            let complete = chain.readable.read_at(0, &mut request) == REQUEST_LENGTH;
            if !complete || chain.writable.len() < RESPONSE_LENGTH {
                return Err(DeviceError::Request {
                    queue: QUEUE,
                    reason: "a request must be a readable word and a writable one",
                });
            }
            // Nothing is ever written, so there is nothing to flush.
            let response = match u32::from_le_bytes(request) {
                T_FLUSH => FLUSHED,
                _ => UNKNOWN_REQUEST,
            };
            Ok(chain.writable.write_at(0, &response.to_le_bytes()) as u32)
        })
    }
}

impl Device for Pmem {
    fn id(&self) -> DeviceId {
        DeviceId::Pmem
    }

    fn queue_sizes(&self) -> &[u16] {
        &QUEUE_SIZES
    }

    fn features(&self) -> u64 {
        RING_FEATURES
    }

    fn config(&self) -> &[u8] {
        &self.config
    }

    fn shared_memory(&self) -> Option<SharedMemory> {
        Some(self.memory.clone())
    }

    fn place(&mut self, guest_address: u64) {
        let (start, _) = self.config.split_at_mut(8);
        start.copy_from_slice(&guest_address.to_le_bytes());
    }

    fn activate(&mut self, activation: Activation) -> Result<(), DeviceError> {
        activation.expect_queues(QUEUE_SIZES.len())?;
        let chain = Chain::new(&activation.memory);
        self.active = Some(Active { activation, chain });
        Ok(())
    }

    fn queue_event(&mut self, _queue: usize) -> Result<Work, DeviceError> {
        self.active.as_mut().ok_or(DeviceError::NotActive)?.serve()
    }

    fn reset(&mut self) -> Option<Activation> {
        self.active.take().map(|active| active.activation)
    }
}
