//! The driver's side of a split virtqueue, for tests: writes descriptors, reads used buffers.
//!
//! Depends on guest memory only, so that unit tests and integration tests share it.

#![allow(dead_code)]

use std::sync::atomic::Ordering;

use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

/// The chain goes on at `next`.
pub const NEXT: u16 = 1;
/// The device may write.
pub const WRITE: u16 = 2;
/// The buffer is a table of descriptors.
pub const INDIRECT: u16 = 4;

/// A queue as its driver sees it.
#[derive(Debug)]
pub struct Driver {
    pub memory: GuestMemoryMmap<()>,
    pub size: u16,
    pub descriptors: u64,
    pub available: u64,
    pub used: u64,
    next_descriptor: u16,
    available_index: u16,
    used_index: u16,
}

impl Driver {
    /// A ring of `size` entries at `base`, everything zero.
    pub fn new(memory: &GuestMemoryMmap<()>, base: u64, size: u16) -> Self {
        let descriptors = base;
        let available = descriptors + 16 * u64::from(size);
        let used = (available + 6 + 2 * u64::from(size)).next_multiple_of(4);
        let driver = Self {
            memory: memory.clone(),
            size,
            descriptors,
            available,
            used,
            next_descriptor: 0,
            available_index: 0,
            used_index: 0,
        };
        let zeros = vec![0; (driver.end() - base) as usize];
        memory.write_slice(&zeros, GuestAddress(base)).unwrap();
        driver
    }

    /// First address after the ring.
    pub fn end(&self) -> u64 {
        self.used + 6 + 8 * u64::from(self.size)
    }

    /// Write one descriptor of a table at `table`.
    pub fn describe(&self, table: u64, index: u16, buffer: (u64, u32), flags: u16, next: u16) {
        let mut raw = [0; 16];
        raw[..8].copy_from_slice(&buffer.0.to_le_bytes());
        raw[8..12].copy_from_slice(&buffer.1.to_le_bytes());
        raw[12..14].copy_from_slice(&flags.to_le_bytes());
        raw[14..].copy_from_slice(&next.to_le_bytes());
        let address = GuestAddress(table + 16 * u64::from(index));
        self.memory.write_slice(&raw, address).unwrap();
    }

    /// Make the chain at `head` available.
    pub fn offer(&mut self, head: u16) {
        let slot = u64::from(self.available_index % self.size);
        let entry = GuestAddress(self.available + 4 + 2 * slot);
        self.memory.write_obj(head, entry).unwrap();
        self.available_index = self.available_index.wrapping_add(1);
        self.set_available_index(self.available_index);
    }

    /// Write any index, also a false one.
    pub fn set_available_index(&self, index: u16) {
        self.memory
            .store(index, GuestAddress(self.available + 2), Ordering::Release)
            .unwrap();
    }

    /// Make a chain of `(address, length, writable)` buffers available; its head.
    pub fn add(&mut self, buffers: &[(u64, u32, bool)]) -> u16 {
        let head = self.next_descriptor;
        for (position, (address, length, writable)) in buffers.iter().enumerate() {
            let index = self.next_descriptor;
            self.next_descriptor = (self.next_descriptor + 1) % self.size;
            let last = position + 1 == buffers.len();
            let flags = if last { 0 } else { NEXT } | if *writable { WRITE } else { 0 };
            let next = if last { 0 } else { self.next_descriptor };
            self.describe(self.descriptors, index, (*address, *length), flags, next);
        }
        self.offer(head);
        head
    }

    /// Whether there is a used chain to take.
    pub fn has_used(&self) -> bool {
        let address = GuestAddress(self.used + 2);
        let index: u16 = self.memory.load(address, Ordering::Acquire).unwrap();
        index != self.used_index
    }

    /// The next used chain: head and length.
    pub fn take_used(&mut self) -> Option<(u16, u32)> {
        if !self.has_used() {
            return None;
        }
        let slot = u64::from(self.used_index % self.size);
        let entry = self.used + 4 + 8 * slot;
        let head: u32 = self.memory.read_obj(GuestAddress(entry)).unwrap();
        let length: u32 = self.memory.read_obj(GuestAddress(entry + 4)).unwrap();
        self.used_index = self.used_index.wrapping_add(1);
        Some((head as u16, length))
    }

    /// Say at which used index to be notified next.
    pub fn set_used_event(&self, index: u16) {
        let address = self.available + 4 + 2 * u64::from(self.size);
        self.memory.write_obj(index, GuestAddress(address)).unwrap();
    }

    /// Ask to be notified of the next used buffer.
    pub fn listen(&self) {
        self.set_used_event(self.used_index);
        std::sync::atomic::fence(Ordering::SeqCst);
    }

    /// Suppress notifications the old way.
    pub fn set_available_flags(&self, flags: u16) {
        self.memory
            .write_obj(flags, GuestAddress(self.available))
            .unwrap();
    }

    /// Copy `data` to guest memory.
    pub fn write(&self, address: u64, data: &[u8]) {
        self.memory
            .write_slice(data, GuestAddress(address))
            .unwrap();
    }

    /// Copy from guest memory.
    pub fn read(&self, address: u64, length: usize) -> Vec<u8> {
        let mut data = vec![0; length];
        self.memory
            .read_slice(&mut data, GuestAddress(address))
            .unwrap();
        data
    }
}
