//! The three queues.

use vm_memory::GuestAddress;

use crate::device::{Activation, Device, DeviceError, DeviceId, Work};
use crate::log_gate::LogGate;
use crate::memory::{GuestMemory, is_writable};
use crate::virtio::RING_FEATURES;
use crate::virtio::queue::{Buffers, Chain};
use crate::virtio::serve::serve;

/// Pages for the host, as numbers.
const INFLATE: usize = 0;
/// Pages taken back, as numbers.
const DEFLATE: usize = 1;
/// Free pages, as buffers. The specification counts the queues of features that were not offered
/// (5.5.2); Linux and everything that serves it do not, which makes this the third.
const REPORTING: usize = 2;
const QUEUE_SIZES: [u16; 3] = [256; 3];

const F_REPORTING: u64 = 1 << 5;

/// A page of the balloon, whatever the pages of guest and host are (section 5.5.6).
const PAGE_SHIFT: u32 = 12;
const PAGE_BYTES: u32 = 1 << PAGE_SHIFT;
/// The highest page number whose address fits 64 bits is beyond 32 bits, so no number overflows.
const NUMBER_BYTES: usize = 4;
/// Numbers read in one go.
const NUMBERS: usize = 256;

/// Chains served before others get a turn. Freeing 32 ranges of 4 MiB, as Linux reports them, takes
/// about ten milliseconds.
const MAX_BATCH: usize = 8;

/// The memory balloon.
#[derive(Debug, Default)]
pub struct Balloon {
    log: LogGate,
    active: Option<Active>,
}

#[derive(Debug)]
struct Active {
    activation: Activation,
    chain: Chain,
    pages: Buffers,
}

impl Balloon {
    /// A balloon that asks for nothing and takes what it is given.
    pub fn new() -> Self {
        Self::default()
    }
}

/// A host that does not take pages is no fault of the guest's, which keeps its memory and goes on.
fn give_back(pages: &mut Buffers, log: &mut LogGate) {
    if let Err(error) = pages.give_back()
        && let Some(suppressed) = log.pass()
    {
        tracing::warn!(%error, suppressed, "the host did not take pages of the guest back");
    }
}

impl Active {
    fn serve(&mut self, index: usize, log: &mut LogGate) -> Result<Work, DeviceError> {
        let Self {
            activation,
            chain,
            pages,
        } = self;
        let Activation { queues, memory, .. } = activation;
        serve(queues, index, chain, MAX_BATCH, |chain| {
            match index {
                INFLATE => inflate(memory, chain, pages, log)?,
                // The buffers of a report are the free pages.
                REPORTING => give_back(&mut chain.writable, log),
                // A page taken back comes back by itself when it is touched.
                _ => (),
            }
            Ok(0)
        })
    }
}

/// The chain's content are the numbers of pages.
fn inflate(
    memory: &GuestMemory,
    chain: &Chain,
    pages: &mut Buffers,
    log: &mut LogGate,
) -> Result<(), DeviceError> {
    let refused = |reason| DeviceError::Request {
        queue: INFLATE,
        reason,
    };
    let mut numbers = [0; NUMBERS * NUMBER_BYTES];
    let mut start = 0;
    loop {
        let read = chain.readable.read_at(start, &mut numbers);
        if read == 0 {
            return Ok(());
        }
        start += read;
        pages.clear();
        for number in numbers.get(..read).unwrap_or_default().chunks(NUMBER_BYTES) {
            let number = <[u8; NUMBER_BYTES]>::try_from(number)
                .map_err(|_| refused("the last page number is cut off"))?;
            let address = u64::from(u32::from_le_bytes(number)) << PAGE_SHIFT;
            let own = is_writable(memory, address, PAGE_BYTES.into());
            let pushed = pages.push(GuestAddress(address), PAGE_BYTES);
            if !own || pushed.is_err() {
                return Err(refused("a page outside guest memory"));
            }
        }
        give_back(pages, log);
    }
}

impl Device for Balloon {
    fn id(&self) -> DeviceId {
        DeviceId::Balloon
    }

    fn queue_sizes(&self) -> &[u16] {
        &QUEUE_SIZES
    }

    fn features(&self) -> u64 {
        RING_FEATURES | F_REPORTING
    }

    /// No page is wanted, and how many the guest says it gave is not kept.
    fn config(&self) -> &[u8] {
        &[0; 8]
    }

    fn activate(&mut self, activation: Activation) -> Result<(), DeviceError> {
        // A guest that fills free pages with a pattern cannot report them, and sets up no queue.
        let wanted = if activation.features & F_REPORTING == 0 {
            DEFLATE + 1
        } else {
            REPORTING + 1
        };
        if activation.queues.len() < wanted {
            activation.expect_queues(wanted)?;
        }
        let memory = activation.memory.clone();
        self.active = Some(Active {
            chain: Chain::new(&memory),
            pages: Buffers::new(&memory),
            activation,
        });
        Ok(())
    }

    fn queue_event(&mut self, queue: usize) -> Result<Work, DeviceError> {
        let active = self.active.as_mut().ok_or(DeviceError::NotActive)?;
        active.serve(queue, &mut self.log)
    }

    fn reset(&mut self) -> Option<Activation> {
        self.active.take().map(|active| active.activation)
    }
}
