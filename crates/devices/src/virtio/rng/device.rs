//! One queue of writable buffers, filled with random bytes.

use crate::device::{Activation, Device, DeviceError, DeviceId, Work};
use crate::virtio::RING_FEATURES;
use crate::virtio::queue::Chain;
use crate::virtio::serve::serve;

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

impl Active {
    fn serve(&mut self) -> Result<Work, DeviceError> {
        let mut bytes = [0_u8; MAX_BYTES];
        let queues = &mut self.activation.queues;
        serve(queues, QUEUE, &mut self.chain, MAX_BATCH, |chain| {
            if !chain.readable.is_empty() || chain.writable.is_empty() {
                return Err(DeviceError::Request {
                    queue: QUEUE,
                    reason: "an entropy request must be one writable buffer",
                });
            }
            let length = chain.writable.len().min(MAX_BYTES);
            let random = bytes.get_mut(..length).unwrap_or_default();
            getrandom::fill(random).map_err(DeviceError::Entropy)?;
            Ok(chain.writable.write_at(0, random) as u32)
        })
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
