//! A guest steered by a fuzzer's bytes: memory, rings, and a supply of numbers.

#![allow(dead_code)]

use std::io;

use bulkhead_devices::{
    Activation, Device, GuestMemory, Notifier, Poller, RingLayout, VIRTIO_F_RING_EVENT_IDX,
    VirtQueue,
};
use vm_memory::{Bytes, GuestAddress};

/// First address of guest memory; what lies below does not exist.
pub const BASE: u64 = 0x1000;
/// Length of each of the two regions, with a hole as long between them.
pub const REGION: u64 = 0x4_0000;
/// Rings lie here, one per 16 KiB.
const RINGS: u64 = 0x2000;
/// Data begins here.
pub const DATA: u64 = 0x1_8000;

/// The fuzzer's bytes, taken off the front; zeros when they are used up.
pub struct Input<'a>(pub &'a [u8]);

impl Input<'_> {
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn bytes<const N: usize>(&mut self) -> [u8; N] {
        let mut out = [0; N];
        let count = N.min(self.0.len());
        out[..count].copy_from_slice(&self.0[..count]);
        self.0 = &self.0[count..];
        out
    }

    pub fn u8(&mut self) -> u8 {
        u8::from_le_bytes(self.bytes())
    }

    pub fn u16(&mut self) -> u16 {
        u16::from_le_bytes(self.bytes())
    }

    pub fn u32(&mut self) -> u32 {
        u32::from_le_bytes(self.bytes())
    }

    pub fn u64(&mut self) -> u64 {
        u64::from_le_bytes(self.bytes())
    }

    pub fn take(&mut self, count: usize) -> Vec<u8> {
        let (head, rest) = self.0.split_at(count.min(self.0.len()));
        self.0 = rest;
        head.to_vec()
    }

    /// An address that is usually inside memory.
    pub fn address(&mut self) -> u64 {
        match self.u8() {
            0 => self.u64(),
            1 => BASE + REGION - u64::from(self.u8()),
            _ => DATA + u64::from(self.u16()),
        }
    }

    /// A length that is usually small.
    pub fn length(&mut self) -> u32 {
        match self.u8() {
            0 => self.u32(),
            1..=60 => 512 * u32::from(self.u8() % 32),
            other => u32::from(other),
        }
    }
}

struct Silent;

impl Notifier for Silent {
    fn notify(&self) -> io::Result<()> {
        Ok(())
    }
}

pub fn memory() -> GuestMemory {
    let regions = [
        (GuestAddress(BASE), REGION as usize),
        (GuestAddress(BASE + 2 * REGION), REGION as usize),
    ];
    GuestMemory::from_ranges(&regions).unwrap()
}

/// One queue of the guest's driver.
pub struct Ring {
    memory: GuestMemory,
    base: u64,
    size: u16,
    next: u16,
    available: u16,
}

impl Ring {
    pub fn new(memory: &GuestMemory, index: u64, size: u16) -> Self {
        Self {
            memory: memory.clone(),
            base: RINGS + index * 0x4000,
            size,
            next: 0,
            available: 0,
        }
    }

    pub fn layout(&self) -> RingLayout {
        let available = self.base + 16 * u64::from(self.size);
        RingLayout {
            size: self.size,
            descriptors: self.base,
            available,
            used: available + 0x1000,
            position: 0,
            event_idx: true,
        }
    }

    pub fn queue(&self) -> VirtQueue {
        VirtQueue::new(&self.memory, self.layout(), 256, Box::new(Silent)).unwrap()
    }

    /// Make a chain available; flags, links and all may be overwritten by later input.
    pub fn add(&mut self, pieces: &[(u64, u32, u16)]) {
        let head = self.next;
        for (position, (address, length, flags)) in pieces.iter().enumerate() {
            let slot = self.next;
            self.next = (self.next + 1) % self.size;
            let more = u16::from(position + 1 < pieces.len());
            let mut raw = Vec::with_capacity(16);
            raw.extend(address.to_le_bytes());
            raw.extend(length.to_le_bytes());
            raw.extend((flags | more).to_le_bytes());
            raw.extend(self.next.to_le_bytes());
            let at = GuestAddress(self.base + 16 * u64::from(slot));
            let _ = self.memory.write_slice(&raw, at);
        }
        let layout = self.layout();
        let entry = layout.available + 4 + 2 * u64::from(self.available % self.size);
        let _ = self.memory.write_obj(head, GuestAddress(entry));
        self.available = self.available.wrapping_add(1);
        let index = GuestAddress(layout.available + 2);
        let _ = self.memory.write_obj(self.available, index);
    }

    /// Overwrite everything with zeros.
    pub fn clear(&self) {
        let _ = self
            .memory
            .write_slice(&[0; 0x3000], GuestAddress(self.base));
    }

    /// Overwrite any bytes of the ring.
    pub fn scribble(&self, input: &mut Input<'_>) {
        let at = self.base + u64::from(input.u16() % 0x3000);
        let count = usize::from(input.u8() % 17);
        let _ = self
            .memory
            .write_slice(&input.take(count), GuestAddress(at));
    }
}

/// Activate `device` over fresh memory.
pub fn activate(device: &mut dyn Device) -> (GuestMemory, Vec<Ring>, Poller) {
    let memory = memory();
    let poller = Poller::new().unwrap();
    let sizes = device.queue_sizes().to_vec();
    let rings: Vec<Ring> = sizes
        .iter()
        .zip(0..)
        .map(|(size, index)| Ring::new(&memory, index, *size))
        .collect();
    let activation = Activation {
        memory: memory.clone(),
        queues: rings.iter().map(Ring::queue).collect(),
        features: VIRTIO_F_RING_EVENT_IDX,
        poller: poller.clone(),
    };
    device.activate(activation).unwrap();
    (memory, rings, poller)
}
