//! A device under test: memory, queues, a count of notifications.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use vm_memory::GuestAddress;

use super::driver::Driver;
use super::{Notifier, QueueError, RingLayout, VIRTIO_F_RING_EVENT_IDX, VirtQueue};
use crate::device::{Activation, Device};
use crate::memory::GuestMemory;
use crate::poll::Poller;

/// Counts.
#[derive(Debug, Clone, Default)]
pub(crate) struct Counter(Arc<AtomicUsize>);

impl Counter {
    pub(crate) fn get(&self) -> usize {
        self.0.load(Ordering::SeqCst)
    }
}

impl Notifier for Counter {
    fn notify(&self) -> io::Result<()> {
        self.0.fetch_add(1, Ordering::SeqCst);
        Ok(())
    }
}

/// Two regions with a hole between them, 1 MiB and 16 MiB.
pub(crate) fn memory() -> GuestMemory {
    let regions = [
        (GuestAddress(0x1000), 0x10_0000 - 0x1000),
        (GuestAddress(0x100_0000), 0x100_0000),
    ];
    GuestMemory::from_ranges(&regions).unwrap()
}

pub(crate) fn layout(driver: &Driver) -> RingLayout {
    RingLayout {
        size: driver.size,
        descriptors: driver.descriptors,
        available: driver.available,
        used: driver.used,
        position: 0,
        event_idx: true,
    }
}

pub(crate) fn queue(driver: &Driver) -> Result<(VirtQueue, Counter), QueueError> {
    let counter = Counter::default();
    let notifier = Box::new(counter.clone());
    let queue = VirtQueue::new(&driver.memory, layout(driver), 256, notifier)?;
    Ok((queue, counter))
}

/// Activate `device`; its queues' drivers and notification counters, and its poller.
pub(crate) fn activate(device: &mut dyn Device) -> (Vec<Driver>, Vec<Counter>, Poller) {
    let memory = memory();
    let poller = Poller::new().unwrap();
    let mut base = 0x1000;
    let mut drivers = Vec::new();
    let mut counters = Vec::new();
    let mut queues = Vec::new();
    for size in device.queue_sizes() {
        let driver = Driver::new(&memory, base, *size);
        base = driver.end().next_multiple_of(4096);
        let (queue, counter) = queue(&driver).unwrap();
        queues.push(queue);
        counters.push(counter);
        drivers.push(driver);
    }
    let activation = Activation {
        memory,
        queues,
        features: VIRTIO_F_RING_EVENT_IDX,
        poller: poller.clone(),
    };
    device.activate(activation).unwrap();
    (drivers, counters, poller)
}
