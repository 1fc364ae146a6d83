//! Sizes and counts that a container may ask for, and what a guest needs beyond them.

use bulkhead_types::ByteSize;

use super::OptionError;

/// Docker's smallest `--memory`.
pub const MIN_MEMORY: ByteSize = ByteSize(6 << 20);
/// Smallest `--disk`: ext4 with a journal of useful size, and room for something.
pub const MIN_DISK: ByteSize = ByteSize(32 << 20);
/// Largest `--disk`: ext4 with 4 KiB blocks and 32-bit block numbers ends here.
pub const MAX_DISK: ByteSize = ByteSize(16 << 40);

/// Guest memory is rounded up to this, because kernels count in larger pages too.
const MEMORY_STEP: u64 = 1 << 20;
/// What the guest's kernel and agent take before the first process of the container: the kernel's
/// text and tables (12 MiB), its caches and the agent (20 MiB).
const GUEST_FIXED: u64 = 32 << 20;
/// A page descriptor of 64 bytes for each 4 KiB page.
const GUEST_PER_BYTE: u64 = 64;

/// Memory of the virtual machine for a container: with a limit, the limit plus what the guest
/// itself needs, so that the limit is the container's to use; without one, `default` in all.
pub(crate) fn guest_memory(limit: Option<ByteSize>, default: ByteSize) -> Result<u64, OptionError> {
    let Some(limit) = limit else {
        return Ok(default.0.max(GUEST_FIXED).next_multiple_of(MEMORY_STEP));
    };
    if limit < MIN_MEMORY {
        return Err(OptionError::MemoryTooSmall);
    }
    let total = limit
        .0
        .checked_add(GUEST_FIXED)
        .and_then(|n| n.checked_add(limit.0 / GUEST_PER_BYTE));
    // Above 2^46 no Linux user process has the address space to hold a guest.
    total
        .filter(|n| *n < 1 << 46)
        .map(|n| n.next_multiple_of(MEMORY_STEP))
        .ok_or(OptionError::MemoryTooLarge(limit.0))
}

/// Checks `--disk`; whole 4 KiB blocks.
pub(crate) fn disk_size(wanted: Option<ByteSize>, default: ByteSize) -> Result<u64, OptionError> {
    let size = wanted.unwrap_or(default);
    if size < MIN_DISK || size > MAX_DISK {
        return Err(OptionError::DiskSize(size.0));
    }
    Ok(size.0 / 4096 * 4096)
}

/// Checks `--cpus`, in thousandths of a millionth of a CPU, as Docker's API counts (`NanoCpus`).
pub(crate) fn nano_cpus(wanted: Option<f64>, host: usize) -> Result<u64, OptionError> {
    let Some(wanted) = wanted else { return Ok(0) };
    #[allow(clippy::cast_precision_loss)]
    let most = host.max(1) as f64;
    if wanted == 0.0 {
        return Ok(0);
    }
    if !(0.01..=most).contains(&wanted) {
        return Err(OptionError::Cpus(host.max(1)));
    }
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    Ok((wanted * 1e9).round() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_memory_limit_is_the_containers_own_and_the_guest_gets_more() {
        let default = ByteSize(512 << 20);
        assert_eq!(guest_memory(None, default).unwrap(), 512 << 20);
        let guest = guest_memory(Some(ByteSize(64 << 20)), default).unwrap();
        assert_eq!(guest, (64 + 32 + 1) << 20);
        assert!(matches!(
            guest_memory(Some(ByteSize(5 << 20)), default),
            Err(OptionError::MemoryTooSmall)
        ));
        assert!(guest_memory(Some(ByteSize(u64::MAX)), default).is_err());
        assert!(guest_memory(Some(ByteSize(1 << 60)), default).is_err());
    }

    #[test]
    fn cpus_follow_dockers_range() {
        assert_eq!(nano_cpus(None, 2).unwrap(), 0);
        assert_eq!(nano_cpus(Some(0.0), 2).unwrap(), 0);
        assert_eq!(nano_cpus(Some(1.5), 2).unwrap(), 1_500_000_000);
        for bad in [-1.0, 0.001, 2.5, f64::NAN, f64::INFINITY] {
            assert!(nano_cpus(Some(bad), 2).is_err(), "{bad}");
        }
    }

    #[test]
    fn disks_have_bounds() {
        assert_eq!(disk_size(None, ByteSize(10 << 30)).unwrap(), 10 << 30);
        assert_eq!(
            disk_size(Some(ByteSize((64 << 20) + 1)), ByteSize(0)).unwrap(),
            64 << 20
        );
        assert!(disk_size(Some(ByteSize(1 << 20)), ByteSize(0)).is_err());
        assert!(disk_size(Some(ByteSize(1 << 50)), ByteSize(0)).is_err());
    }
}
