//! What a driver has written so far: features, queues, and the status with its order (3.1.1).
//!
//! Plain values and rules, no I/O. A rule the driver breaks is returned as a [`Violation`].

use crate::virtio::VIRTIO_F_VERSION_1;
use crate::virtio::queue::{RingLayout, VIRTIO_F_RING_EVENT_IDX};

/// The driver knows that there is a device (section 2.1).
pub(super) const ACKNOWLEDGE: u32 = 1;
/// The driver knows how to drive it.
pub(super) const DRIVER: u32 = 2;
/// The driver is ready: queues are live.
pub(super) const DRIVER_OK: u32 = 4;
/// The features the driver accepted are agreed on.
pub(super) const FEATURES_OK: u32 = 8;
/// The device asks to be reset.
pub(super) const DEVICE_NEEDS_RESET: u32 = 0x40;
/// The driver gave up.
pub(super) const FAILED: u32 = 0x80;

/// A rule of the specification that the driver broke, in words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Violation(pub &'static str);

/// Low or high half of a 64-bit value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Half {
    Low,
    High,
}

impl Half {
    fn set(self, target: &mut u64, value: u32) {
        let value = u64::from(value);
        *target = match self {
            Self::Low => *target & !0xffff_ffff | value,
            Self::High => *target & 0xffff_ffff | value << 32,
        };
    }
}

/// Which part of a ring an address register is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Part {
    Descriptors,
    Available,
    Used,
}

#[derive(Debug, Clone, Copy)]
struct Queue {
    limit: u16,
    size: u32,
    ready: bool,
    descriptors: u64,
    available: u64,
    used: u64,
}

impl Queue {
    fn new(limit: u16) -> Self {
        Self {
            limit,
            size: u32::from(limit),
            ready: false,
            descriptors: 0,
            available: 0,
            used: 0,
        }
    }
}

/// The state of the registers that a driver sets a device up with.
#[derive(Debug)]
pub(super) struct Setup {
    offered: u64,
    status: u32,
    device_features_select: u32,
    driver_features_select: u32,
    accepted: u64,
    /// Bits from 64 on were accepted; none is ever offered.
    accepted_beyond: bool,
    queue_select: u32,
    queues: Vec<Queue>,
    /// The queues were handed to the device's thread.
    pub(super) live: bool,
}

/// What a write to the status register leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    Nothing,
    /// Take the device into use.
    Start,
}

impl Setup {
    pub(super) fn new(offered: u64, limits: &[u16]) -> Self {
        Self {
            offered,
            status: 0,
            device_features_select: 0,
            driver_features_select: 0,
            accepted: 0,
            accepted_beyond: false,
            queue_select: 0,
            queues: limits.iter().copied().map(Queue::new).collect(),
            live: false,
        }
    }

    /// Back to the state at power-on.
    pub(super) fn reset(&mut self) {
        let limits: Vec<u16> = self.queues.iter().map(|queue| queue.limit).collect();
        *self = Self::new(self.offered, &limits);
    }

    pub(super) fn status(&self) -> u32 {
        self.status
    }

    pub(super) fn accepted(&self) -> u64 {
        self.accepted
    }

    pub(super) fn select_device_features(&mut self, half: u32) {
        self.device_features_select = half;
    }

    pub(super) fn device_features(&self) -> u32 {
        match self.device_features_select {
            0 => self.offered as u32,
            1 => (self.offered >> 32) as u32,
            _ => 0,
        }
    }

    pub(super) fn select_driver_features(&mut self, half: u32) {
        self.driver_features_select = half;
    }

    pub(super) fn accept_features(&mut self, value: u32) -> Result<(), Violation> {
        if self.status & FEATURES_OK != 0 {
            return Err(Violation("features written after FEATURES_OK"));
        }
        match self.driver_features_select {
            0 => Half::Low.set(&mut self.accepted, value),
            1 => Half::High.set(&mut self.accepted, value),
            _ => self.accepted_beyond |= value != 0,
        }
        Ok(())
    }

    pub(super) fn select_queue(&mut self, queue: u32) {
        self.queue_select = queue;
    }

    fn queue(&self) -> Option<&Queue> {
        self.queues.get(self.queue_select as usize)
    }

    /// Zero for a queue that does not exist (section 4.2.2).
    pub(super) fn queue_size_limit(&self) -> u32 {
        self.queue().map_or(0, |queue| u32::from(queue.limit))
    }

    pub(super) fn queue_ready(&self) -> u32 {
        self.queue().map_or(0, |queue| u32::from(queue.ready))
    }

    /// The selected queue, if the driver may set it up.
    fn change_queue(&mut self) -> Result<&mut Queue, Violation> {
        match self.queues.get_mut(self.queue_select as usize) {
            None => Err(Violation("a queue was set up that does not exist")),
            Some(queue) if queue.ready => Err(Violation("a queue was changed while it was ready")),
            Some(queue) => Ok(queue),
        }
    }

    pub(super) fn set_queue_size(&mut self, size: u32) -> Result<(), Violation> {
        self.change_queue()?.size = size;
        Ok(())
    }

    pub(super) fn set_queue_address(
        &mut self,
        part: Part,
        half: Half,
        value: u32,
    ) -> Result<(), Violation> {
        let queue = self.change_queue()?;
        let target = match part {
            Part::Descriptors => &mut queue.descriptors,
            Part::Available => &mut queue.available,
            Part::Used => &mut queue.used,
        };
        half.set(target, value);
        Ok(())
    }

    /// Make the selected queue ready, if `check` (layout, size limit) finds it sound.
    pub(super) fn enable_queue(
        &mut self,
        check: impl FnOnce(&RingLayout, u16) -> bool,
    ) -> Result<(), Violation> {
        if self.status & FEATURES_OK == 0 || self.status & DRIVER_OK != 0 {
            return Err(Violation(
                "a queue was made ready outside FEATURES_OK to DRIVER_OK",
            ));
        }
        let event_idx = self.event_idx();
        let queue = self.change_queue()?;
        match layout(queue, event_idx) {
            Some(layout) if check(&layout, queue.limit) => {
                queue.ready = true;
                Ok(())
            }
            _ => Err(Violation("a queue has an impossible size or place")),
        }
    }

    /// Take the selected queue out of use.
    pub(super) fn disable_queue(&mut self) {
        if let Some(queue) = self.queues.get_mut(self.queue_select as usize) {
            queue.ready = false;
        }
    }

    fn event_idx(&self) -> bool {
        self.accepted & VIRTIO_F_RING_EVENT_IDX != 0
    }

    /// The ready queues, and their size limits. They must be the first ones: a device may work
    /// without its last queues, and says so when it is activated.
    pub(super) fn ready_queues(&self) -> Result<Vec<(RingLayout, u16)>, Violation> {
        let count = self.queues.iter().take_while(|queue| queue.ready).count();
        if count == 0 || self.queues.iter().skip(count).any(|queue| queue.ready) {
            return Err(Violation("DRIVER_OK while a needed queue is not ready"));
        }
        let event_idx = self.event_idx();
        let ready = self.queues.iter().take(count);
        Ok(ready
            .filter_map(|queue| Some((layout(queue, event_idx)?, queue.limit)))
            .collect())
    }

    /// A write other than zero to the status register.
    pub(super) fn advance(&mut self, value: u32) -> Result<Step, Violation> {
        let known = ACKNOWLEDGE | DRIVER | FEATURES_OK | DRIVER_OK | FAILED;
        let wanted = value & known;
        if self.status & !wanted != 0 {
            return Err(Violation("a status bit was cleared without a reset"));
        }
        if (self.status | wanted) & FAILED != 0 {
            // The driver has given up; whatever else it says means nothing until it resets.
            self.status |= FAILED;
            return Ok(Step::Nothing);
        }
        for (bit, before) in [
            (ACKNOWLEDGE, 0),
            (DRIVER, ACKNOWLEDGE),
            (FEATURES_OK, DRIVER),
            (DRIVER_OK, FEATURES_OK),
        ] {
            if wanted & bit == 0 || self.status & bit != 0 {
                continue;
            }
            if self.status & before != before {
                return Err(Violation("a status bit was set out of order"));
            }
            match bit {
                // The driver finds out by reading the status back (section 3.1.1, step 6).
                FEATURES_OK if !self.acceptable() => (),
                DRIVER_OK => {
                    self.status |= DRIVER_OK;
                    return Ok(Step::Start);
                }
                _ => self.status |= bit,
            }
        }
        Ok(Step::Nothing)
    }

    fn acceptable(&self) -> bool {
        let offered = self.accepted & !self.offered == 0 && !self.accepted_beyond;
        offered && self.accepted & VIRTIO_F_VERSION_1 != 0
    }
}

fn layout(queue: &Queue, event_idx: bool) -> Option<RingLayout> {
    Some(RingLayout {
        size: u16::try_from(queue.size).ok()?,
        descriptors: queue.descriptors,
        available: queue.available,
        used: queue.used,
        position: 0,
        event_idx,
    })
}
