//! Guest memory out of the descriptors of a memory table.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;

use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use vm_memory::{FileOffset, GuestAddress, GuestRegionMmap, MmapRegion};

use super::message::Region;
use crate::memory::GuestMemory;

/// Why an announced memory table cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RegionError {
    /// Not one descriptor per region.
    #[error("map guest memory: {regions} regions came with {descriptors} descriptors")]
    Count {
        /// Regions announced.
        regions: usize,
        /// Descriptors received.
        descriptors: usize,
    },
    /// A size or address that cannot be.
    #[error("map guest memory: region of {size:#x} bytes at {address:#x} is impossible")]
    Bounds {
        /// Guest physical address.
        address: u64,
        /// Length in bytes.
        size: u64,
    },
    /// The file is shorter than the region.
    #[error("map guest memory: a file of {file:#x} bytes for a region that ends at {end:#x}")]
    Short {
        /// Length of the file.
        file: u64,
        /// Where the region ends in it.
        end: u64,
    },
    /// The file's size could not be read.
    #[error("read the size of the guest memory file")]
    Size(#[source] io::Error),
    /// The file could not be mapped.
    #[error("map guest memory")]
    Map(#[source] vm_memory::mmap::FromRangesError),
    /// Regions overlap.
    #[error("map guest memory: arrange the regions")]
    Arrange(#[source] vm_memory::GuestRegionCollectionError),
}

/// The mapped table, with the front end's own addresses beside the guest's.
#[derive(Debug)]
pub(super) struct Regions {
    pub memory: GuestMemory,
    announced: Vec<Region>,
}

impl Regions {
    pub(super) fn map(
        announced: Vec<Region>,
        descriptors: Vec<OwnedFd>,
    ) -> Result<Self, RegionError> {
        if announced.len() != descriptors.len() {
            return Err(RegionError::Count {
                regions: announced.len(),
                descriptors: descriptors.len(),
            });
        }
        let mut mapped = Vec::with_capacity(announced.len());
        for (region, descriptor) in announced.iter().zip(descriptors) {
            mapped.push(map_one(region, descriptor)?);
        }
        mapped.sort_by_key(|region| vm_memory::GuestMemoryRegion::start_addr(region).0);
        let memory = GuestMemory::from_regions(mapped).map_err(RegionError::Arrange)?;
        Ok(Self { memory, announced })
    }

    /// Translate an address of the front end to a guest physical one.
    pub(super) fn guest_address(&self, user: u64) -> Option<u64> {
        self.announced.iter().find_map(|region| {
            let offset = user.checked_sub(region.user)?;
            (offset < region.size).then(|| region.guest.checked_add(offset))?
        })
    }
}

fn map_one(region: &Region, descriptor: OwnedFd) -> Result<GuestRegionMmap<()>, RegionError> {
    let bounds = || RegionError::Bounds {
        address: region.guest,
        size: region.size,
    };
    let end = region.offset.checked_add(region.size).ok_or_else(bounds)?;
    let size = usize::try_from(region.size).map_err(|_| bounds())?;
    if size == 0 || region.user.checked_add(region.size).is_none() {
        return Err(bounds());
    }
    // Works for a memfd only, see the module documentation of the transport; before the size is
    // looked at, so that what is seen stays true.
    let _ = fcntl(&descriptor, FcntlArg::F_ADD_SEALS(SealFlag::F_SEAL_SHRINK));
    let file = File::from(descriptor);
    let length = file.metadata().map_err(RegionError::Size)?.len();
    if end > length {
        return Err(RegionError::Short { file: length, end });
    }
    let offset = FileOffset::new(file, region.offset);
    let mapping = MmapRegion::from_file(offset, size)
        .map_err(|error| RegionError::Map(vm_memory::mmap::FromRangesError::from(error)))?;
    GuestRegionMmap::new(mapping, GuestAddress(region.guest)).ok_or_else(bounds)
}
