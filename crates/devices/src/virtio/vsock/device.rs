//! The three queues.

use std::fmt;

use super::muxer::{Acceptor, Muxer};
use super::packet::{HEADER_LENGTH, Header};
use super::rx::{self, Burst, RX};
use crate::device::{Activation, Device, DeviceError, DeviceId, Work};
use crate::memory::GuestMemory;
use crate::poll::Readiness;
use crate::virtio::RING_FEATURES;
use crate::virtio::queue::{Chain, QueueError};

/// From the guest.
const TX: usize = 1;
/// Events; there is none to report, because a guest never moves to another host.
const EVENT: usize = 2;
const QUEUE_SIZES: [u16; 3] = [256; 3];

/// Packets taken from the guest, and turns given to connections, before other events get a turn.
const MAX_BATCH: usize = 512;

/// The socket device.
pub struct Vsock {
    config: [u8; 8],
    muxer: Muxer,
    active: Option<Active>,
}

struct Active {
    activation: Activation,
    packet: Chain,
    burst: Burst,
    /// Packets wait in the send queue until the guest has taken some resets.
    tx_waits: bool,
}

impl fmt::Debug for Vsock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Vsock").finish_non_exhaustive()
    }
}

fn tx_error(source: QueueError) -> DeviceError {
    DeviceError::Queue { queue: TX, source }
}

impl Vsock {
    /// A device for the guest with address `guest_cid` (3 or above). `acceptor` decides about every
    /// connection the guest asks for.
    pub fn new(guest_cid: u64, acceptor: Box<dyn Acceptor>) -> Self {
        Self {
            config: guest_cid.to_le_bytes(),
            muxer: Muxer::new(guest_cid, acceptor),
            active: None,
        }
    }
}

impl Active {
    fn new(activation: Activation) -> Self {
        let memory: GuestMemory = activation.memory.clone();
        Self {
            activation,
            packet: Chain::new(&memory),
            burst: Burst::new(&memory),
            tx_waits: false,
        }
    }

    /// Take packets from the guest.
    fn serve_tx(&mut self, muxer: &mut Muxer) -> Result<Work, DeviceError> {
        let poller = &self.activation.poller;
        let queue = self.activation.queues.get_mut(TX);
        let queue = queue.ok_or(DeviceError::NotActive)?;
        let mut taken = 0;
        loop {
            queue.disable_notifications().map_err(tx_error)?;
            loop {
                if muxer.is_congested() {
                    self.tx_waits = true;
                    queue.notify().map_err(tx_error)?;
                    return Ok(Work::Done);
                }
                if taken == MAX_BATCH {
                    queue.notify().map_err(tx_error)?;
                    return Ok(Work::More);
                }
                if !queue.pop(&mut self.packet).map_err(tx_error)? {
                    break;
                }
                taken += 1;
                let header = parse(&self.packet)?;
                muxer
                    .guest_packet(&header, &mut self.packet.readable, HEADER_LENGTH, poller)
                    .map_err(DeviceError::Poll)?;
                queue.push(self.packet.head(), 0).map_err(tx_error)?;
            }
            queue.notify().map_err(tx_error)?;
            if !queue.enable_notifications().map_err(tx_error)? {
                return Ok(Work::Done);
            }
        }
    }

    /// Give the guest what there is for it, as far as it has buffers.
    fn serve_rx(&mut self, muxer: &mut Muxer) -> Result<Work, DeviceError> {
        let queue = self.activation.queues.get_mut(RX);
        let queue = queue.ok_or(DeviceError::NotActive)?;
        let mut turns = 0;
        while muxer.has_work() {
            if turns == MAX_BATCH {
                queue.notify().map_err(rx::queue_error)?;
                return Ok(Work::More);
            }
            turns += 1;
            if muxer.send_some(queue, &mut self.burst)? {
                continue;
            }
            // Out of buffers: hear of new ones, and look again for some that just came.
            if !queue.enable_notifications().map_err(rx::queue_error)? {
                break;
            }
        }
        queue.notify().map_err(rx::queue_error)?;
        Ok(Work::Done)
    }
}

/// The header of a packet whose data is all there.
fn parse(packet: &Chain) -> Result<Header, DeviceError> {
    let malformed = |reason| DeviceError::Request { queue: TX, reason };
    let mut raw = [0; HEADER_LENGTH];
    if packet.readable.read_at(0, &mut raw) < HEADER_LENGTH {
        return Err(malformed("the packet is shorter than its header"));
    }
    let header = Header::parse(&raw);
    if header.length as usize != packet.readable.len() - HEADER_LENGTH {
        return Err(malformed("the packet's length is not that of its data"));
    }
    Ok(header)
}

impl Device for Vsock {
    fn id(&self) -> DeviceId {
        DeviceId::Vsock
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

    fn activate(&mut self, activation: Activation) -> Result<(), DeviceError> {
        activation.expect_queues(QUEUE_SIZES.len())?;
        self.active = Some(Active::new(activation));
        Ok(())
    }

    fn queue_event(&mut self, queue: usize) -> Result<Work, DeviceError> {
        let active = self.active.as_mut().ok_or(DeviceError::NotActive)?;
        match queue {
            TX => active.serve_tx(&mut self.muxer),
            // Buffers to receive into are used in `settle`; event buffers never.
            RX | EVENT => Ok(Work::Done),
            _ => Err(DeviceError::NotActive),
        }
    }

    fn source_event(&mut self, token: u64, ready: Readiness) -> Result<(), DeviceError> {
        self.muxer.stream_event(token, ready);
        Ok(())
    }

    fn settle(&mut self) -> Result<Work, DeviceError> {
        let active = self.active.as_mut().ok_or(DeviceError::NotActive)?;
        let work = active.serve_rx(&mut self.muxer)?;
        if active.tx_waits && !self.muxer.is_congested() {
            active.tx_waits = false;
            let _ = active.serve_tx(&mut self.muxer)?;
            return Ok(Work::More);
        }
        Ok(work)
    }

    fn drained(&self) -> bool {
        self.muxer.drained()
    }

    fn reset(&mut self) -> Option<Activation> {
        self.muxer.clear();
        self.active.take().map(|active| active.activation)
    }
}
