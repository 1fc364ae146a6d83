//! The guest's RAM.

use std::ffi::c_void;
use std::io;
use std::ptr::NonNull;

use bulkhead_devices::GuestMemory;
use kvm_bindings::kvm_userspace_memory_region;
use kvm_ioctls::VmFd;
use vm_memory::mmap::MmapRegionBuilder;
use vm_memory::{GuestAddress, GuestMemoryBackend, GuestMemoryRegion, GuestRegionMmap};

use super::error::{KvmError, request};
use super::layout::{HIGH_RAM, LARGE_PAGE, PAGE, split};

/// Private anonymous memory of this process, aligned so that large pages of the host can be large pages of the guest.
/// Anonymous, so that pages which the guest gives back are freed by `MADV_DONTNEED`.
#[derive(Debug)]
struct Mapping {
    start: NonNull<c_void>,
    bytes: usize,
    /// Where the aligned part begins.
    aligned: NonNull<u8>,
}

// SAFETY: it names memory; nothing in it belongs to a thread.
unsafe impl Send for Mapping {}

impl Mapping {
    fn new(bytes: u64) -> Result<Self, KvmError> {
        let error = |source| KvmError::Memory { bytes, source };
        let size = bytes
            .checked_add(LARGE_PAGE)
            .and_then(|size| usize::try_from(size).ok())
            .ok_or_else(|| error(io::ErrorKind::OutOfMemory.into()))?;
        // SAFETY: a fresh anonymous mapping at an address of the kernel's choice touches nothing that exists.
        let start = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                size,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE,
                -1,
                0,
            )
        };
        if start == libc::MAP_FAILED {
            return Err(error(io::Error::last_os_error()));
        }
        let padding = (start as usize).next_multiple_of(LARGE_PAGE as usize) - start as usize;
        // SAFETY: the padding is less than a large page, by which the mapping was made larger than asked for.
        let aligned = unsafe { start.cast::<u8>().add(padding) };
        let (Some(start), Some(aligned)) = (NonNull::new(start), NonNull::new(aligned)) else {
            return Err(error(io::ErrorKind::OutOfMemory.into()));
        };
        // Fewer faults while the guest starts; where the host has no large pages it fails, and nothing is lost.
        // SAFETY: advice about a mapping that was just made.
        unsafe { libc::madvise(aligned.as_ptr().cast(), size - padding, libc::MADV_HUGEPAGE) };
        Ok(Self {
            start,
            bytes: size,
            aligned,
        })
    }
}

/// Guest memory with the mappings behind it.
#[derive(Debug)]
pub(super) struct Memory {
    /// What devices and loaders see.
    pub guest: GuestMemory,
    mappings: Vec<Mapping>,
}

impl Memory {
    /// RAM for a guest: below the hole and, what does not fit there, behind it. No page is touched.
    pub(super) fn allocate(bytes: u64) -> Result<Self, KvmError> {
        let bytes = bytes.next_multiple_of(PAGE);
        let (low, high) = split(bytes);
        let layout = |error: &dyn std::fmt::Display| KvmError::Layout(error.to_string());
        let mut mappings = Vec::new();
        let mut regions = Vec::new();
        for (address, bytes) in [(0, low), (HIGH_RAM, high)] {
            if bytes == 0 {
                continue;
            }
            let mapping = Mapping::new(bytes)?;
            let size = usize::try_from(bytes).map_err(|error| layout(&error))?;
            // SAFETY: the mapping has `size` bytes behind its aligned start, and stays until `Memory::release`, which
            // its caller only calls when nobody uses the memory any more.
            let region = unsafe {
                MmapRegionBuilder::new(size)
                    .with_mmap_prot(libc::PROT_READ | libc::PROT_WRITE)
                    .with_raw_mmap_pointer(mapping.aligned.as_ptr())
            };
            let region = region.build().map_err(|error| layout(&error))?;
            let region = GuestRegionMmap::new(region, GuestAddress(address))
                .ok_or_else(|| layout(&"an address beyond all"))?;
            regions.push(region);
            mappings.push(mapping);
        }
        Ok(Self {
            guest: GuestMemory::from_regions(regions).map_err(|error| layout(&error))?,
            mappings,
        })
    }

    /// Bytes of RAM below the hole.
    pub(super) fn low(&self) -> u64 {
        low(&self.guest)
    }

    /// The first address behind all RAM, at least 4 GiB.
    pub(super) fn end(&self) -> u64 {
        self.guest.last_addr().0.saturating_add(1).max(HIGH_RAM)
    }

    /// Makes it the machine's memory, one slot for each region. Returns the number of slots.
    pub(super) fn register(&self, vm: &VmFd) -> Result<u32, KvmError> {
        let mut slot = 0;
        for region in self.guest.iter() {
            let host = region
                .get_host_address(vm_memory::MemoryRegionAddress(0))
                .map_err(|error| KvmError::Layout(error.to_string()))?;
            let region = kvm_userspace_memory_region {
                slot,
                guest_phys_addr: region.start_addr().0,
                memory_size: region.len(),
                userspace_addr: host as u64,
                flags: 0,
            };
            // SAFETY: the mapping stays until the machine has ended, see `Memory::release`.
            unsafe { vm.set_user_memory_region(region) }
                .map_err(request("take memory for the guest"))?;
            slot += 1;
        }
        Ok(slot)
    }

    /// Gives the memory back to the host. Without this call it stays until the process ends, which in a sandbox is the
    /// same moment.
    ///
    /// # Safety
    /// No thread may use the guest's memory any more, through a device, a clone of [`Memory::guest`], or KVM.
    pub(super) unsafe fn release(self) {
        let Self { guest, mappings } = self;
        drop(guest);
        for mapping in mappings {
            // SAFETY: the mapping was made by `Mapping::new`; nobody uses it, says the caller.
            unsafe { libc::munmap(mapping.start.as_ptr(), mapping.bytes) };
        }
    }
}

/// Bytes of a guest's RAM below the hole.
pub(super) fn low(guest: &GuestMemory) -> u64 {
    let low = guest.find_region(GuestAddress(0));
    low.map_or(0, GuestMemoryRegion::len)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kvm::layout::HOLE;

    #[test]
    fn memory_is_aligned_alike_on_both_sides_and_has_the_hole() {
        let memory = Memory::allocate(HOLE + (64 << 20)).expect("address space");
        for region in memory.guest.iter() {
            let host = region
                .get_host_address(vm_memory::MemoryRegionAddress(0))
                .expect("an address") as u64;
            assert_eq!(host % LARGE_PAGE, region.start_addr().0 % LARGE_PAGE);
        }
        assert_eq!(memory.low(), HOLE);
        assert_eq!(memory.end(), HIGH_RAM + (64 << 20));
        assert!(memory.guest.find_region(GuestAddress(HOLE)).is_none());
        // SAFETY: nobody else has it.
        unsafe { memory.release() };
    }

    #[test]
    fn more_memory_than_there_are_addresses_is_an_error() {
        let error = Memory::allocate(1 << 60).expect_err("no such memory");
        assert!(matches!(error, KvmError::Memory { .. }), "{error:?}");
        assert!(Memory::allocate(u64::MAX - 8192).is_err());
    }
}
