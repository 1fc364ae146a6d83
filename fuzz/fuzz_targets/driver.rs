//! A driver on memory-mapped registers, steered by a fuzzer's bytes.
//!
//! Guest memory lies between pages that nobody may touch and has a read-only part, as a guest with
//! an image in persistent memory: an access of ours outside, or a write there, is a crash.

#![allow(dead_code)]

use std::fs::File;
use std::io::Write;
use std::os::fd::{FromRawFd, OwnedFd};

use bulkhead_devices::mmio::{self, Registers, Worker};
use bulkhead_devices::{Device, GuestMemory, Pmem, Work};
use vm_memory::{
    Bytes, GuestAddress, GuestMemoryBackend, GuestMemoryRegion, GuestRegionMmap, MmapRegion,
};

use crate::guest::{BASE, Input, REGION, Ring};

/// The read-only part, 2 MiB.
pub const SHOWN: u64 = 0x100_0000;

const MAGIC: u64 = 0x00;
const DEVICE_FEATURES: u64 = 0x10;
const DEVICE_FEATURES_SEL: u64 = 0x14;
const DRIVER_FEATURES: u64 = 0x20;
const DRIVER_FEATURES_SEL: u64 = 0x24;
const QUEUE_SEL: u64 = 0x30;
const QUEUE_SIZE_MAX: u64 = 0x34;
const QUEUE_SIZE: u64 = 0x38;
const QUEUE_READY: u64 = 0x44;
const QUEUE_NOTIFY: u64 = 0x50;
const INTERRUPT_STATUS: u64 = 0x60;
pub const STATUS: u64 = 0x70;
const QUEUE_DESC: u64 = 0x80;
const QUEUE_DRIVER: u64 = 0x90;
const QUEUE_DEVICE: u64 = 0xa0;

const ACKNOWLEDGE: u32 = 1;
const DRIVER: u32 = 2;
const DRIVER_OK: u32 = 4;
const FEATURES_OK: u32 = 8;
const NEEDS_RESET: u32 = 0x40;

const VERSION_1: u64 = 1 << 32;

/// More turns than any number of queues full of work can take.
const TURNS: u32 = 100_000;

/// An anonymous file with this content.
pub fn file(content: &[u8]) -> File {
    // SAFETY: the name is a valid C string and the descriptor is ours alone.
    let mut file = unsafe { File::from_raw_fd(libc::memfd_create(c"fuzz".as_ptr(), 0)) };
    file.write_all(content).unwrap();
    file
}

fn region(start: u64) -> GuestRegionMmap<()> {
    const GUARD: usize = 0x1_0000;
    let length = REGION as usize;
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
    let none = std::ptr::null_mut();
    // SAFETY: a new mapping at an address of the kernel's choice.
    let outer = unsafe { libc::mmap(none, length + 2 * GUARD, libc::PROT_NONE, flags, -1, 0) };
    assert_ne!(outer, libc::MAP_FAILED);
    let inner = outer.cast::<u8>().wrapping_add(GUARD);
    let protection = libc::PROT_READ | libc::PROT_WRITE;
    // SAFETY: the range lies inside the mapping made above, which is never unmapped.
    let mapping = unsafe {
        assert_eq!(libc::mprotect(inner.cast(), length, protection), 0);
        MmapRegion::build_raw(inner, length, protection, flags).unwrap()
    };
    GuestRegionMmap::new(mapping, GuestAddress(start)).unwrap()
}

thread_local! {
    /// What the driver may write, and what the device may see.
    static MEMORY: (GuestMemory, GuestMemory) = {
        let regions = vec![region(BASE), region(BASE + 2 * REGION)];
        let memory = GuestMemory::from_regions(regions).unwrap();
        let pmem = Pmem::read_only(vec![file(&[0x33; 10_000])]).unwrap();
        let seen = pmem.shared_memory().unwrap().join(&memory, SHOWN).unwrap();
        (memory, seen)
    };
}

/// The memory, as new: for the driver and for the device.
fn memory() -> (GuestMemory, GuestMemory) {
    let (memory, seen) = MEMORY.with(Clone::clone);
    for region in memory.iter() {
        let (start, length) = (region.as_ptr(), region.len() as usize);
        // SAFETY: the region is mapped, private and anonymous, and no reference to it exists.
        let cleared = unsafe { libc::madvise(start.cast(), length, libc::MADV_DONTNEED) };
        assert_eq!(cleared, 0);
    }
    (memory, seen)
}

/// An address that is usually inside memory, sometimes where it may only be read.
pub fn address(input: &mut Input<'_>) -> u64 {
    match input.u8() {
        0 => SHOWN + u64::from(input.u16()),
        1 => SHOWN + (2 << 20) - u64::from(input.u8()),
        _ => input.address(),
    }
}

/// Some descriptors of a chain.
pub fn pieces(input: &mut Input<'_>, most: u8) -> Vec<(u64, u32, u16)> {
    (0..input.u8() % (most + 1))
        .map(|_| {
            let direction = 2 * u16::from(input.u8() % 2);
            (address(input), input.length(), direction)
        })
        .collect()
}

/// A device and its driver, one step at a time.
pub struct Machine {
    pub registers: Registers,
    pub memory: GuestMemory,
    pub rings: Vec<Ring>,
    worker: Worker,
}

impl Machine {
    pub fn new(device: Box<dyn Device>) -> Self {
        let (memory, seen) = memory();
        // SAFETY: the call takes no pointers and the descriptor is ours alone.
        let line = unsafe { OwnedFd::from_raw_fd(libc::eventfd(0, libc::EFD_NONBLOCK)) };
        let (registers, worker) = mmio::detached(device, seen, line).unwrap();
        Self {
            registers,
            memory,
            rings: Vec::new(),
            worker,
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

    fn write_pair(&self, offset: u64, value: u64) {
        self.write(offset, value as u32);
        self.write(offset + 4, (value >> 32) as u32);
    }

    /// What a sound driver writes, `mask` of the features, queues of the sizes that `size` says.
    fn set_up(&mut self, mask: u64, mut size: impl FnMut() -> u16) {
        self.write(STATUS, 0);
        self.write(STATUS, ACKNOWLEDGE | DRIVER);
        let mut offered = 0;
        for half in [0, 1] {
            self.write(DEVICE_FEATURES_SEL, half);
            offered |= u64::from(self.read(DEVICE_FEATURES)) << (32 * half);
        }
        let accepted = offered & mask | VERSION_1;
        for half in [0, 1] {
            self.write(DRIVER_FEATURES_SEL, half);
            self.write(DRIVER_FEATURES, (accepted >> (32 * half)) as u32);
        }
        self.write(STATUS, ACKNOWLEDGE | DRIVER | FEATURES_OK);
        self.rings.clear();
        for index in 0..8 {
            self.write(QUEUE_SEL, index);
            if self.read(QUEUE_SIZE_MAX) == 0 {
                break;
            }
            let ring = Ring::new(&self.memory, index.into(), size());
            ring.clear();
            let layout = ring.layout();
            self.write(QUEUE_SIZE, layout.size.into());
            self.write_pair(QUEUE_DESC, layout.descriptors);
            self.write_pair(QUEUE_DRIVER, layout.available);
            self.write_pair(QUEUE_DEVICE, layout.used);
            self.write(QUEUE_READY, 1);
            self.rings.push(ring);
        }
        self.write(STATUS, ACKNOWLEDGE | DRIVER | FEATURES_OK | DRIVER_OK);
    }

    /// Set up by a driver with choices of its own.
    pub fn boot(&mut self, input: &mut Input<'_>) {
        let mask = match input.u8() {
            0 => input.u64(),
            _ => u64::MAX,
        };
        self.set_up(mask, || 256 >> (input.u8() % 9));
        self.turn();
    }

    /// One access of a virtual CPU.
    pub fn poke(&mut self, input: &mut Input<'_>) {
        let kind = input.u8();
        let offset = match kind & 7 {
            0 => input.u64(),
            1 => u64::from(input.u16()) % 0x1100,
            _ => 4 * u64::from(input.u8() % 66),
        };
        let width = match kind >> 3 & 7 {
            0 => usize::from(input.u8() % 17),
            1 => 8,
            2 => 2,
            3 => 1,
            _ => 4,
        };
        if kind >> 6 == 0 {
            self.registers.read(offset, &mut vec![0xa5; width]);
        } else {
            let mut data = input.take(width);
            data.resize(width, 0);
            self.registers.write(offset, &data);
        }
    }

    /// What any driver can do to any device.
    pub fn disturb(&mut self, input: &mut Input<'_>) {
        match input.u8() % 8 {
            0 => self.poke(input),
            1 | 2 => {
                let ring = usize::from(input.u8() % 3);
                if let Some(ring) = self.rings.get(ring) {
                    ring.scribble(input);
                }
            }
            3 => {
                let at = GuestAddress(input.address());
                let count = usize::from(input.u8());
                let _ = self.memory.write_slice(&input.take(count), at);
            }
            4 => self.boot(input),
            5 => self.kick(u32::from(input.u8() % 4)),
            _ => self.turn(),
        }
    }

    pub fn kick(&self, queue: u32) {
        self.write(QUEUE_NOTIFY, queue);
    }

    /// Make a chain available and see it served.
    pub fn ask(&mut self, queue: usize, pieces: &[(u64, u32, u16)]) {
        if let Some(ring) = self.rings.get_mut(queue) {
            if !pieces.is_empty() {
                ring.add(pieces);
            }
            self.kick(queue as u32);
            self.turn();
        }
    }

    /// The device works until it has nothing to do.
    pub fn turn(&mut self) {
        for _ in 0..TURNS {
            if self.worker.turn().unwrap() == Work::Done {
                return;
            }
        }
        panic!("the device works without end");
    }

    /// Whatever happened, the next driver finds the device as new.
    pub fn finish(mut self) {
        self.write(STATUS, 0);
        self.turn();
        assert_eq!(self.read(MAGIC).to_le_bytes(), *b"virt");
        assert_eq!((self.read(STATUS), self.read(INTERRUPT_STATUS)), (0, 0));
        assert!(!self.registers.broken());
        self.set_up(u64::MAX, || 64);
        for queue in 0..self.rings.len() {
            self.kick(queue as u32);
        }
        self.turn();
        let ready = ACKNOWLEDGE | DRIVER | FEATURES_OK | DRIVER_OK;
        assert_eq!(self.read(STATUS), ready);
        self.registers.guest_ended();
        assert!(self.worker.turn().is_ok());
    }

    /// Status bits that must not be there together with what the driver has said.
    pub fn check(&self, features: u64, offered: u64) {
        let status = self.read(STATUS);
        if status & FEATURES_OK != 0 {
            assert_eq!(features & !offered, 0);
            assert_ne!(features & VERSION_1, 0);
        }
        if status & DRIVER_OK != 0 {
            assert_ne!(status & FEATURES_OK, 0);
        }
        assert_eq!(status & NEEDS_RESET != 0, self.registers.broken());
    }
}
