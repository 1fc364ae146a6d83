//! What one archive or image may cost the host: memory while it is taken in, and free space that stays.
//!
//! Memory is charged where it is kept: tree nodes, names, extended attributes, link targets, maps of sparse files, and the
//! metadata of the image's disk. A charge is an upper estimate of what the allocator takes for it, so that the process
//! stays below the bound and not only a sum of lengths.

use std::fs::File;
use std::io;
use std::path::Path;

use nix::sys::statvfs::{Statvfs, fstatvfs, statvfs};

/// Bounds on what an image may cost the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// Memory of the process that takes an image in, in bytes; at least [`Bounds::LEAST_MEMORY`]. What needs more is
    /// refused.
    pub memory: u64,
    /// Per cent of the file system that stay free: writing stops before. 0 writes until it is full.
    pub keep_free: u8,
}

impl Bounds {
    /// Below this nothing would be left for the image itself, in bytes.
    pub const LEAST_MEMORY: u64 = 96 << 20;
    /// What the process has beside the image: the program (20 MiB), the names and documents of an archive that is
    /// loaded (16 and 8 MiB, and 32 MiB while one is parsed, which has bounds on its
    /// bytes and its values), and buffers. In bytes.
    const RESERVED: u64 = 64 << 20;

    /// The memory for one image.
    pub(crate) fn budget(&self) -> Budget {
        Budget {
            total: self.memory,
            left: self.memory.saturating_sub(Self::RESERVED),
        }
    }
}

impl Default for Bounds {
    /// 256 MiB are enough for an image of half a million files; 5 % are what a file system needs to work well.
    fn default() -> Self {
        Self {
            memory: 256 << 20,
            keep_free: 5,
        }
    }
}

/// More memory is needed than an image gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Exceeded {
    /// The bound that was passed, in bytes.
    pub(crate) limit: u64,
}

/// Memory that may still be taken for one image.
#[derive(Debug, Clone)]
pub struct Budget {
    /// The bound as it is configured, for messages.
    total: u64,
    left: u64,
}

impl Budget {
    /// So many bytes, and no more.
    pub fn of(bytes: u64) -> Self {
        Self {
            total: bytes,
            left: bytes,
        }
    }

    /// Takes `bytes` from it.
    pub(crate) fn charge(&mut self, bytes: u64) -> Result<(), Exceeded> {
        match self.left.checked_sub(bytes) {
            Some(left) => {
                self.left = left;
                Ok(())
            }
            None => Err(Exceeded { limit: self.total }),
        }
    }

    /// Gives back what was charged for something that is gone.
    pub(crate) fn release(&mut self, bytes: u64) {
        self.left = self.left.saturating_add(bytes);
    }

    /// What may still be taken.
    pub(crate) fn left(&self) -> u64 {
        self.left
    }

    /// The part of it that one of `sharers` at the same time gets.
    pub(crate) fn share(mut self, sharers: usize) -> Self {
        self.left /= sharers.max(1) as u64;
        self
    }
}

/// What the allocator takes for `bytes` bytes: a header of eight, whole units of sixteen, at least 32.
pub(crate) fn heap(bytes: usize) -> u64 {
    if bytes == 0 {
        return 0;
    }
    (bytes as u64 + 8).next_multiple_of(16).max(32)
}

/// What a `BTreeMap<K, V>` takes for one more entry when it has `entries`. A node has room for eleven and is
/// split when it is full; six for each, its share of the nodes above included, is what is left by the worst order.
pub(crate) fn map_entry<K, V>(entries: usize) -> u64 {
    if !entries.is_multiple_of(6) {
        return 0;
    }
    let leaf = 11 * (size_of::<K>() + size_of::<V>()) + 16;
    // One node above for six below; it has twelve pointers more.
    heap(leaf) + (leaf as u64 + 96) / 6
}

/// What a `BTreeMap<K, V>` with so many entries takes.
pub(crate) fn map<K, V>(entries: usize) -> u64 {
    entries.div_ceil(6) as u64 * map_entry::<K, V>(0)
}

/// Why writing stopped before the file system was full.
#[derive(Debug, thiserror::Error)]
#[error(
    "{free} of the {total} bytes of the file system are free, and {percent} % stay free (`images.keep-free` in the configuration)"
)]
struct KeptFree {
    free: u64,
    total: u64,
    percent: u8,
}

/// How much is written between two looks at the free space, in bytes. A file system that is so small that it matters
/// is looked at each time, because a writer's buffers are as large.
const LOOK: u64 = 1 << 20;

/// Stops a writer while the file system still has some space.
#[derive(Debug, Clone)]
pub(crate) struct Space {
    percent: u8,
    /// Bytes that may be written before the next look.
    credit: u64,
}

impl Space {
    pub(crate) fn new(percent: u8) -> Self {
        Self { percent, credit: 0 }
    }

    /// To be called before `bytes` are written to `file`.
    pub(crate) fn take(&mut self, file: &File, bytes: u64) -> io::Result<()> {
        self.take_from(bytes, || fstatvfs(file))
    }

    fn take_from(
        &mut self,
        bytes: u64,
        look: impl FnOnce() -> nix::Result<Statvfs>,
    ) -> io::Result<()> {
        if self.percent == 0 {
            return Ok(());
        }
        if let Some(credit) = self.credit.checked_sub(bytes) {
            self.credit = credit;
            return Ok(());
        }
        let system = look()?;
        let room = room(&system, self.percent);
        if room.room < bytes {
            return Err(io::Error::new(io::ErrorKind::StorageFull, room.refusal));
        }
        self.credit = LOOK.min(room.room).saturating_sub(bytes);
        Ok(())
    }
}

/// Whether `bytes` may be written into the directory `dir`, leaving so many per cent free.
pub(crate) fn check_space(dir: &Path, bytes: u64, percent: u8) -> io::Result<()> {
    Space::new(percent).take_from(bytes, || statvfs(dir))
}

struct Room {
    /// Bytes that may be written.
    room: u64,
    refusal: KeptFree,
}

fn room(system: &Statvfs, percent: u8) -> Room {
    let unit = system.fragment_size();
    // As `df` counts: what is reserved for root is neither used nor free.
    let free = system.blocks_available().saturating_mul(unit);
    let used = system
        .blocks()
        .saturating_sub(system.blocks_free())
        .saturating_mul(unit);
    let total = used.saturating_add(free);
    Room {
        room: free.saturating_sub(total / 100 * u64::from(percent)),
        refusal: KeptFree {
            free,
            total,
            percent,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_budget_is_spent_once_and_given_back() {
        let mut budget = Budget::of(100);
        assert_eq!(budget.charge(60), Ok(()));
        assert_eq!(budget.charge(41), Err(Exceeded { limit: 100 }));
        assert_eq!(budget.charge(40), Ok(()));
        budget.release(10);
        assert_eq!(budget.left(), 10);
        assert_eq!(Budget::of(100).share(2).left(), 50);
    }

    #[test]
    fn writing_stops_while_the_file_system_has_space() {
        let file = tempfile::tempfile().unwrap();
        // Nothing has all of itself free beyond 100 %.
        let error = Space::new(100).take(&file, 1).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::StorageFull);
        assert!(error.to_string().contains("100 % stay free"), "{error}");
        Space::new(0).take(&file, u64::MAX).unwrap();
        let mut space = Space::new(1);
        assert!(space.take(&file, u64::MAX).is_err());
    }

    #[test]
    fn estimates_are_not_below_what_maps_take() {
        // Leaf nodes of eleven, in the order that leaves them emptiest.
        type Key = Box<[u8]>;
        let leaf = 11 * (size_of::<Key>() + size_of::<u32>()) as u64;
        for entries in [1, 6, 7, 1000, 100_000] {
            let nodes = (entries as u64).div_ceil(7);
            assert!(map::<Key, u32>(entries) >= nodes * leaf, "{entries}");
        }
        let total: u64 = (0..1000).map(map_entry::<Key, u32>).sum();
        assert_eq!(total, map::<Key, u32>(1000));
        assert_eq!(heap(0), 0);
        assert_eq!(heap(1), 32);
        assert_eq!(heap(4096), 4112);
    }
}
