//! A driver without an operating system, on registers: what a virtual CPU would write and read.
//!
//! Guest memory lies between pages that nobody may touch, so that an access of ours outside of it
//! kills the test.

#![allow(dead_code)]

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use bulkhead_devices::mmio::{self, Registers, Worker};
use bulkhead_devices::{Device, Handle};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::eventfd::{EfdFlags, EventFd};
use vm_memory::{GuestAddress, GuestMemoryMmap, GuestRegionMmap, MmapRegion};

use super::driver::Driver;

pub const MAGIC: u64 = 0x00;
pub const VERSION: u64 = 0x04;
pub const DEVICE_ID: u64 = 0x08;
pub const VENDOR_ID: u64 = 0x0c;
pub const DEVICE_FEATURES: u64 = 0x10;
pub const DEVICE_FEATURES_SEL: u64 = 0x14;
pub const DRIVER_FEATURES: u64 = 0x20;
pub const DRIVER_FEATURES_SEL: u64 = 0x24;
pub const QUEUE_SEL: u64 = 0x30;
pub const QUEUE_SIZE_MAX: u64 = 0x34;
pub const QUEUE_SIZE: u64 = 0x38;
pub const QUEUE_READY: u64 = 0x44;
pub const QUEUE_NOTIFY: u64 = 0x50;
pub const INTERRUPT_STATUS: u64 = 0x60;
pub const INTERRUPT_ACK: u64 = 0x64;
pub const STATUS: u64 = 0x70;
pub const QUEUE_DESC: u64 = 0x80;
pub const QUEUE_DRIVER: u64 = 0x90;
pub const QUEUE_DEVICE: u64 = 0xa0;
pub const CONFIG_GENERATION: u64 = 0xfc;
pub const CONFIG: u64 = 0x100;

pub const ACKNOWLEDGE: u32 = 1;
pub const DRIVER: u32 = 2;
pub const DRIVER_OK: u32 = 4;
pub const FEATURES_OK: u32 = 8;
pub const NEEDS_RESET: u32 = 0x40;
pub const FAILED: u32 = 0x80;

pub const USED_BUFFER: u32 = 1;
pub const CONFIGURATION: u32 = 2;

pub const VERSION_1: u64 = 1 << 32;
pub const EVENT_IDX: u64 = 1 << 29;

/// Where memory begins; nothing lies below.
pub const BASE: u64 = 0x1000;
/// Length of each of the two regions, and of the hole between them.
pub const REGION: u64 = 0x10_0000;
/// Buffers from here on; queues below.
pub const DATA: u64 = 0x8_0000;

/// Long enough for a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(20);

fn guarded(length: usize) -> MmapRegion<()> {
    const GUARD: usize = 0x1_0000;
    // SAFETY: a new mapping at an address of the kernel's choice.
    let outer = unsafe {
        libc::mmap(
            std::ptr::null_mut(),
            length + 2 * GUARD,
            libc::PROT_NONE,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
            -1,
            0,
        )
    };
    assert_ne!(outer, libc::MAP_FAILED);
    let inner = outer.cast::<u8>().wrapping_add(GUARD);
    let protection = libc::PROT_READ | libc::PROT_WRITE;
    // SAFETY: the range lies inside the mapping made above, which is never unmapped.
    unsafe {
        assert_eq!(libc::mprotect(inner.cast(), length, protection), 0);
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        MmapRegion::build_raw(inner, length, protection, flags).unwrap()
    }
}

/// Two regions with a hole between them.
pub fn memory() -> GuestMemoryMmap<()> {
    let region = |start| GuestRegionMmap::new(guarded(REGION as usize), GuestAddress(start));
    let regions = [BASE, BASE + 2 * REGION].map(|start| region(start).unwrap());
    GuestMemoryMmap::from_regions(regions.into()).unwrap()
}

/// The interrupt line, seen from the guest.
pub struct Line(EventFd);

impl Line {
    pub fn new() -> (Self, OwnedFd) {
        let flags = EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK;
        let line = EventFd::from_value_and_flags(0, flags).unwrap();
        let end = line.as_fd().try_clone_to_owned().unwrap();
        (Self(line), end)
    }

    /// Wait for an interrupt; `false` if none comes.
    pub fn interrupted(&self, patience: Duration) -> bool {
        let mut entries = [PollFd::new(self.0.as_fd(), PollFlags::POLLIN)];
        let timeout = PollTimeout::try_from(patience).unwrap();
        poll(&mut entries, timeout).unwrap() == 1 && self.0.read().is_ok()
    }
}

/// A device and its driver.
pub struct Guest {
    pub registers: Arc<Registers>,
    pub line: Line,
    pub memory: GuestMemoryMmap<()>,
    pub queues: Vec<Driver>,
}

impl Guest {
    pub fn spawn(device: impl Device + 'static) -> (Self, Handle) {
        Self::spawn_boxed(Box::new(device))
    }

    pub fn spawn_boxed(device: Box<dyn Device>) -> (Self, Handle) {
        let memory = memory();
        let (line, end) = Line::new();
        let started = mmio::spawn(device, memory.clone(), end, "test-device", || Ok(()));
        let (registers, handle) = started.unwrap();
        (Self::new(registers, line, memory), handle)
    }

    /// Without a thread.
    pub fn detached(device: Box<dyn Device>, memory: &GuestMemoryMmap<()>) -> (Self, Worker) {
        let (line, end) = Line::new();
        let (registers, worker) = mmio::detached(device, memory.clone(), end).unwrap();
        (Self::new(registers, line, memory.clone()), worker)
    }

    pub fn new(registers: Registers, line: Line, memory: GuestMemoryMmap<()>) -> Self {
        Self {
            registers: Arc::new(registers),
            line,
            memory,
            queues: Vec::new(),
        }
    }

    pub fn read(&self, offset: u64) -> u32 {
        let mut word = [0xa5; 4];
        self.registers.read(offset, &mut word);
        u32::from_le_bytes(word)
    }

    pub fn write(&self, offset: u64, value: u32) {
        self.registers.write(offset, &value.to_le_bytes());
    }

    pub fn write_pair(&self, offset: u64, value: u64) {
        self.write(offset, value as u32);
        self.write(offset + 4, (value >> 32) as u32);
    }

    pub fn status(&self) -> u32 {
        self.read(STATUS)
    }

    pub fn add_status(&self, bits: u32) {
        self.write(STATUS, self.status() | bits);
    }

    pub fn reset(&mut self) {
        self.write(STATUS, 0);
        self.queues.clear();
    }

    pub fn features(&self) -> u64 {
        self.write(DEVICE_FEATURES_SEL, 1);
        let high = u64::from(self.read(DEVICE_FEATURES));
        self.write(DEVICE_FEATURES_SEL, 0);
        high << 32 | u64::from(self.read(DEVICE_FEATURES))
    }

    pub fn accept(&self, features: u64) {
        self.write(DRIVER_FEATURES_SEL, 1);
        self.write(DRIVER_FEATURES, (features >> 32) as u32);
        self.write(DRIVER_FEATURES_SEL, 0);
        self.write(DRIVER_FEATURES, features as u32);
    }

    /// Up to the agreement about features, `mask` of those offered.
    pub fn greet(&self, mask: u64) -> bool {
        self.add_status(ACKNOWLEDGE);
        self.add_status(DRIVER);
        self.accept(self.features() & mask);
        self.add_status(FEATURES_OK);
        self.status() & FEATURES_OK != 0
    }

    pub fn set_up_queue(&mut self, index: u32, size: u16) {
        let at = self.queues.last().map_or(BASE, Driver::end);
        let queue = Driver::new(&self.memory, at.next_multiple_of(4096), size);
        self.write(QUEUE_SEL, index);
        assert_eq!(self.read(QUEUE_READY), 0);
        assert!(self.read(QUEUE_SIZE_MAX) >= u32::from(size));
        self.write(QUEUE_SIZE, u32::from(size));
        self.write_pair(QUEUE_DESC, queue.descriptors);
        self.write_pair(QUEUE_DRIVER, queue.available);
        self.write_pair(QUEUE_DEVICE, queue.used);
        self.write(QUEUE_READY, 1);
        self.queues.push(queue);
    }

    /// All of what a driver does until its device is live.
    pub fn boot(&mut self, mask: u64) {
        assert!(self.greet(mask));
        for index in 0.. {
            self.write(QUEUE_SEL, index);
            let limit = self.read(QUEUE_SIZE_MAX);
            if limit == 0 {
                break;
            }
            self.set_up_queue(index, limit.min(64) as u16);
        }
        self.add_status(DRIVER_OK);
        let ready = ACKNOWLEDGE | DRIVER | FEATURES_OK | DRIVER_OK;
        assert_eq!(self.status(), ready);
    }

    pub fn kick(&self, queue: u32) {
        self.write(QUEUE_NOTIFY, queue);
    }

    /// Wait until the device used a buffer of `queue`, as an interrupt handler would.
    pub fn wait_used(&mut self, queue: usize) -> (u16, u32) {
        loop {
            if let Some(used) = self.queues[queue].take_used() {
                return used;
            }
            self.queues[queue].listen();
            if self.queues[queue].has_used() {
                continue;
            }
            assert!(self.line.interrupted(PATIENCE), "the device used nothing");
            let reasons = self.read(INTERRUPT_STATUS);
            self.write(INTERRUPT_ACK, reasons);
        }
    }

    /// Wait until the device has stopped and said so.
    pub fn wait_broken(&self) {
        while self.status() & NEEDS_RESET == 0 {
            assert!(self.line.interrupted(PATIENCE), "the device goes on");
        }
        assert!(self.registers.broken());
    }
}
