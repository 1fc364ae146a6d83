//! What a device sees of the guest's memory, and what it may show the guest of the host's.
//!
//! The pages are shared with a guest that runs at the same time and may change any byte at any
//! moment. So nothing here hands out a Rust reference to guest memory: bytes are copied once and
//! judged in the copy, or passed by address to the kernel.

use std::ffi::c_void;
use std::fs::File;
use std::io;
use std::num::NonZeroUsize;
use std::ptr::NonNull;
use std::sync::Arc;

use nix::sys::mman::{MapFlags, ProtFlags, mmap, mmap_anonymous, munmap};
use vm_memory::{
    Address, GuestAddress, GuestMemoryBackend, GuestMemoryRegion, GuestRegionMmap, MmapRegion,
};

/// The guest's physical memory: mapped regions, looked up by guest physical address. A clone
/// shares the mappings and keeps them alive.
pub type GuestMemory = vm_memory::GuestMemoryMmap<()>;

/// Whether a device may write all of `length` bytes at `address`, as far as they are memory: what
/// [`SharedMemory::join`] added may only be read.
pub(crate) fn is_writable(memory: &GuestMemory, address: u64, length: u64) -> bool {
    let end = address.saturating_add(length);
    let mut overlapping = memory.iter().filter(|region| {
        let start = region.start_addr().raw_value();
        start < end && address < start.saturating_add(region.len())
    });
    overlapping.all(|region| region.prot() & libc::PROT_WRITE != 0)
}

/// Memory of this process that is to become memory of the guest, which may only read it. A clone
/// shares the mapping and keeps it alive: whoever gives its address to a hypervisor keeps one.
#[derive(Debug, Clone)]
pub struct SharedMemory {
    mapping: Arc<Mapping>,
}

#[derive(Debug)]
struct Mapping {
    address: NonNull<c_void>,
    length: NonZeroUsize,
}

// SAFETY: a mapping is an address range; it is changed only while it is built and when it ends,
// both with exclusive access, and nothing in this process reads or writes through it.
unsafe impl Send for Mapping {}
// SAFETY: as above.
unsafe impl Sync for Mapping {}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the range was mapped by `SharedMemory::reserve` and belongs to this value alone;
        // no reference into it was ever made.
        let _ = unsafe { munmap(self.address, self.length.get()) };
    }
}

/// Why shared memory cannot lie where it should.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum JoinError {
    /// It would reach beyond the end of the address space.
    #[error("show {bytes} bytes to devices at {address:#x}: beyond the guest's address space")]
    Bounds {
        /// Guest physical address asked for.
        address: u64,
        /// Length in bytes.
        bytes: usize,
    },
    /// Another region is there.
    #[error("show shared memory to devices: arrange it with the guest's memory")]
    Arrange(#[source] vm_memory::GuestRegionCollectionError),
    /// It is no region.
    #[error("show shared memory to devices")]
    Region(#[source] vm_memory::mmap::MmapRegionError),
}

/// A reservation of address space that files are laid into; done when it becomes [`SharedMemory`].
pub(crate) struct Layout {
    mapping: Mapping,
}

impl Layout {
    /// `length` bytes that read as zeros.
    pub(crate) fn reserve(length: NonZeroUsize) -> io::Result<Self> {
        let flags = MapFlags::MAP_PRIVATE | MapFlags::MAP_NORESERVE;
        // SAFETY: a new mapping at an address of the kernel's choice touches no existing memory.
        let address = unsafe { mmap_anonymous(None, length, ProtFlags::PROT_READ, flags) }?;
        Ok(Self {
            mapping: Mapping { address, length },
        })
    }

    /// Show the first `length` bytes of `file` at `offset`, a multiple of the page size; the rest
    /// of its last page reads as zeros.
    pub(crate) fn map(
        &mut self,
        offset: usize,
        file: &File,
        length: NonZeroUsize,
    ) -> io::Result<()> {
        let end = offset.checked_add(length.get());
        if end.is_none_or(|end| end > self.mapping.length.get()) {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let at = NonZeroUsize::new(self.mapping.address.as_ptr().addr().saturating_add(offset));
        let flags = MapFlags::MAP_SHARED | MapFlags::MAP_FIXED;
        // SAFETY: the range lies in our own reservation (checked above), which nothing else uses
        // yet, so replacing a part of it harms nobody.
        unsafe { mmap(at, length, ProtFlags::PROT_READ, flags, file, 0) }?;
        Ok(())
    }

    pub(crate) fn share(self) -> SharedMemory {
        SharedMemory {
            mapping: Arc::new(self.mapping),
        }
    }
}

impl SharedMemory {
    /// Where it begins in this process.
    pub fn host_address(&self) -> u64 {
        self.mapping.address.as_ptr().addr() as u64
    }

    /// Length in bytes.
    pub fn bytes(&self) -> u64 {
        self.mapping.length.get() as u64
    }

    /// `memory` with this memory in it at `guest_address`, for the devices of a guest that has it
    /// there: a guest may have a disk or a socket read directly from a file that it maps. Devices
    /// only ever read it.
    ///
    /// A region cannot hold the mapping, so from here on it stays until the process ends.
    ///
    /// # Errors
    /// [`JoinError`].
    pub fn join(&self, memory: &GuestMemory, guest_address: u64) -> Result<GuestMemory, JoinError> {
        let address = self.mapping.address.as_ptr().cast();
        let length = self.mapping.length.get();
        // SAFETY: the mapping is a whole one of our own, of this protection, and is made to last
        // as long as the process right below.
        let region =
            unsafe { MmapRegion::build_raw(address, length, libc::PROT_READ, libc::MAP_SHARED) };
        std::mem::forget(self.clone());
        let region = region.map_err(JoinError::Region)?;
        let region = GuestRegionMmap::new(region, GuestAddress(guest_address));
        let region = region.ok_or(JoinError::Bounds {
            address: guest_address,
            bytes: length,
        })?;
        memory
            .insert_region(Arc::new(region))
            .map_err(JoinError::Arrange)
    }
}
