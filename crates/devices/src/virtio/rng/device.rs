//! One queue of writable buffers, filled with random bytes.

use crate::device::{Activation, Device, DeviceError, DeviceId, Work};
use crate::virtio::RING_FEATURES;
use crate::virtio::queue::{Chain, QueueError};

const QUEUE: usize = 0;
/// User-mode Linux sets up 256 entries whatever a device says, so no queue may be smaller.
const QUEUE_SIZES: [u16; 1] = [256];

/// Bytes given per request. A driver may ask with a buffer of gigabytes; the specification lets
/// the device fill less (5.4.6), and a bound keeps one request from occupying a host CPU.
const MAX_BYTES: usize = 4096;

/// Requests served before others get a turn.
const MAX_BATCH: usize = 64;

/// The entropy device.
#[derive(Debug, Default)]
pub struct Rng {
    active: Option<Active>,
}

#[derive(Debug)]
struct Active {
    activation: Activation,
    chain: Chain,
}

impl Rng {
    /// A device that draws from the host kernel's generator.
    pub fn new() -> Self {
        Self::default()
    }
}

fn queue_error(source: QueueError) -> DeviceError {
    DeviceError::Queue {
        queue: QUEUE,
        source,
    }
}

impl Active {
    fn serve(&mut self) -> Result<Work, DeviceError> {
        let queue = self
            .activation
            .queues
            .first_mut()
            .ok_or(DeviceError::NotActive)?;
        let mut bytes = [0_u8; MAX_BYTES];
        let mut served = 0;
        loop {
            queue.disable_notifications().map_err(queue_error)?;
            while queue.pop(&mut self.chain).map_err(queue_error)? {
                if !self.chain.readable.is_empty() || self.chain.writable.is_empty() {
                    return Err(DeviceError::Request {
                        queue: QUEUE,
                        reason: "an entropy request must be one writable buffer",
                    });
                }
                let length = self.chain.writable.len().min(MAX_BYTES);
                let random = bytes.get_mut(..length).unwrap_or_default();
                getrandom::fill(random).map_err(DeviceError::Entropy)?;
                let written = self.chain.writable.write_at(0, random);
                queue
                    .push(self.chain.head(), written as u32)
                    .map_err(queue_error)?;
                served += 1;
                if served == MAX_BATCH {
                    queue.notify().map_err(queue_error)?;
                    return Ok(Work::More);
                }
            }
            queue.notify().map_err(queue_error)?;
            if !queue.enable_notifications().map_err(queue_error)? {
                return Ok(Work::Done);
            }
        }
    }
}

impl Device for Rng {
    fn id(&self) -> DeviceId {
        DeviceId::Rng
    }

    fn queue_sizes(&self) -> &[u16] {
        &QUEUE_SIZES
    }

    fn features(&self) -> u64 {
        RING_FEATURES
    }

    fn config(&self) -> &[u8] {
        &[]
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
