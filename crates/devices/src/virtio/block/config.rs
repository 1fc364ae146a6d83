//! Configuration space (section 5.2.4) and feature bits (5.2.3).

use crate::virtio::RING_FEATURES;

/// Entries of the one request queue.
pub(super) const QUEUE_SIZE: u16 = 256;
/// Data segments in one request: the queue's entries less header and status.
const SEGMENTS: u32 = QUEUE_SIZE as u32 - 2;
/// Ranges in one discard or write-zeroes request.
pub(super) const MAX_RANGES: u32 = 64;
/// Sectors in one such range: 1 GiB. The host's file system frees or zeroes it without writing it, or the request is
/// answered as unsupported, so that none holds the device's thread for long.
pub(super) const MAX_RANGE_SECTORS: u32 = 1 << 21;
/// Host file systems free space in blocks of 4 KiB: eight sectors.
const DISCARD_ALIGNMENT: u32 = 8;
/// Physical block of 4 KiB as a power-of-two multiple of the 512-byte sector.
const PHYSICAL_BLOCK_EXPONENT: u8 = 3;
/// A Linux guest reads ahead twice the optimal request size: 512 KiB, in sectors.
const OPTIMAL_SECTORS: u32 = 1024;

const F_SEG_MAX: u64 = 1 << 2;
const F_RO: u64 = 1 << 5;
const F_FLUSH: u64 = 1 << 9;
const F_TOPOLOGY: u64 = 1 << 10;
const F_DISCARD: u64 = 1 << 13;
const F_WRITE_ZEROES: u64 = 1 << 14;

/// Length up to and including `write_zeroes_may_unmap` and its padding.
pub(super) const CONFIG_LENGTH: usize = 60;

/// Features of a disk. The block size is not offered: it is 512, the default, and each feature
/// with a configuration field costs the guest a round trip when it boots.
pub(super) fn features(read_only: bool) -> u64 {
    let own = if read_only {
        F_RO
    } else {
        F_FLUSH | F_DISCARD | F_WRITE_ZEROES
    };
    RING_FEATURES | F_SEG_MAX | F_TOPOLOGY | own
}

/// The configuration space of a disk of `sectors` sectors.
pub(super) fn space(sectors: u64) -> [u8; CONFIG_LENGTH] {
    let mut space = [0_u8; CONFIG_LENGTH];
    let mut put = |offset: usize, bytes: &[u8]| {
        if let Some(field) = space.get_mut(offset..offset + bytes.len()) {
            field.copy_from_slice(bytes);
        }
    };
    put(0, &sectors.to_le_bytes());
    put(12, &SEGMENTS.to_le_bytes());
    put(20, &512_u32.to_le_bytes());
    put(24, &[PHYSICAL_BLOCK_EXPONENT]);
    put(26, &8_u16.to_le_bytes());
    put(28, &OPTIMAL_SECTORS.to_le_bytes());
    put(36, &MAX_RANGE_SECTORS.to_le_bytes());
    put(40, &MAX_RANGES.to_le_bytes());
    put(44, &DISCARD_ALIGNMENT.to_le_bytes());
    put(48, &MAX_RANGE_SECTORS.to_le_bytes());
    put(52, &MAX_RANGES.to_le_bytes());
    put(56, &[1]);
    space
}
