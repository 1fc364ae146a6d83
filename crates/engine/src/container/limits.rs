//! Sizes and counts that a container may ask for, and what a guest needs beyond them.

use bulkhead_platform::KernelKind;
use bulkhead_types::{ByteSize, Isolation};

use super::OptionError;
use crate::guest::Guest;

/// Docker's smallest `--memory`.
pub const MIN_MEMORY: ByteSize = ByteSize(6 << 20);
/// Smallest `--disk`: ext4 with a journal of useful size, and room for something.
pub const MIN_DISK: ByteSize = ByteSize(32 << 20);
/// Largest `--disk`. What is more than [`MOST_BLOCKS`] of it is left out, a block of 4 KiB at most.
pub const MAX_DISK: ByteSize = ByteSize(16 << 40);
/// ext4 without 64-bit block numbers has no more blocks, and where the host has ext4 a file is no longer either.
const MOST_BLOCKS: u64 = u32::MAX as u64;

/// Guest memory is rounded up to this, a large page: the rest of one could only be mapped in small ones, and at the end of
/// memory lies the initramfs, whose pages would then come one fault at a time.
const MEMORY_STEP: u64 = 2 << 20;
/// A page descriptor of 64 bytes for each 4 KiB page.
const GUEST_PER_BYTE: u64 = 64;

/// What the guest's kernel and agent take before the first process of the container.
pub(crate) fn guest_fixed(guest: &Guest) -> u64 {
    match (guest.isolation, guest.kernel.kind) {
        // The kernel's text and tables (12 MiB), its caches and the agent (20 MiB), and so much that the smallest
        // limit makes a guest of the least size that the platform starts.
        (Isolation::UserMode, _) => 36 << 20,
        // More tables: for processors, interrupts and the memory map.
        (Isolation::Kvm, KernelKind::Tuned) => 48 << 20,
        // A kernel for every machine there is, and an initramfs full of modules that is unpacked beside its archive.
        (Isolation::Kvm, KernelKind::Distribution) => 144 << 20,
    }
}

/// Docker's `-m 0` is no limit.
pub(crate) fn memory_limit(wanted: Option<ByteSize>) -> Option<ByteSize> {
    wanted.filter(|size| size.0 > 0)
}

/// Docker's `--shm-size 0` is the default.
pub(crate) fn shm_size(wanted: Option<ByteSize>) -> ByteSize {
    wanted.filter(|size| size.0 > 0).unwrap_or(SHM_SIZE)
}

/// Docker's default for /dev/shm.
const SHM_SIZE: ByteSize = ByteSize(64 << 20);

/// Memory of the virtual machine for a container: with a limit, the limit plus what the guest
/// itself needs (`fixed`), so that the limit is the container's to use; without one, `default` in all. No more than
/// the `host` has, in bytes with its swap space: a guest that fills its memory must not be what the host dies of.
pub(crate) fn guest_memory(
    limit: Option<ByteSize>,
    default: ByteSize,
    fixed: u64,
    host: u64,
) -> Result<u64, OptionError> {
    let limit = memory_limit(limit);
    let total = match limit {
        None => Some(default.0.max(fixed + MIN_MEMORY.0)),
        Some(limit) if limit < MIN_MEMORY => return Err(OptionError::MemoryTooSmall),
        Some(limit) => limit
            .0
            .checked_add(fixed)
            .and_then(|n| n.checked_add(limit.0 / GUEST_PER_BYTE)),
    };
    total
        .and_then(|n| n.checked_next_multiple_of(MEMORY_STEP))
        .filter(|n| *n <= host)
        .ok_or(OptionError::MemoryTooLarge {
            asked: limit.unwrap_or(default),
            host: ByteSize(host),
        })
}

/// Virtual CPUs of a container that may use `nano_cpus`, of which one virtual CPU has 1,000,000,000; 0 leaves it to
/// `default`. No more than the host has, where a guest's CPUs would only wait for each other.
pub(crate) fn vcpus(isolation: Isolation, nano_cpus: u64, default: u32, host: usize) -> u32 {
    let host = u32::try_from(host).unwrap_or(u32::MAX).max(1);
    match (isolation, nano_cpus) {
        (Isolation::UserMode, _) => 1,
        (Isolation::Kvm, 0) => default.clamp(1, host),
        (Isolation::Kvm, n) => u32::try_from(n.div_ceil(ONE_CPU))
            .unwrap_or(u32::MAX)
            .min(host),
    }
}

/// The limit within the guest, in billionths of a virtual CPU's time, or 0 where the number of them is limit enough.
pub(crate) fn cpu_limit(nano_cpus: u64, vcpus: u32) -> u64 {
    if nano_cpus < u64::from(vcpus) * ONE_CPU {
        nano_cpus
    } else {
        0
    }
}

/// `--cpus` is an upper limit: what a platform cannot give of it is said and does not stop the container.
pub(crate) fn cpu_warning(nano_cpus: u64, vcpus: u32) -> Option<String> {
    #[allow(clippy::cast_precision_loss)]
    let cpus = nano_cpus as f64 / 1e9;
    (nano_cpus > u64::from(vcpus) * ONE_CPU).then(|| {
        format!(
            "a user-mode compartment has one CPU: {cpus} CPUs were asked for, the container gets {vcpus}"
        )
    })
}

/// In Docker's `NanoCpus`.
const ONE_CPU: u64 = 1_000_000_000;

/// Checks `--disk`; whole 4 KiB blocks.
pub(crate) fn disk_size(wanted: Option<ByteSize>, default: ByteSize) -> Result<u64, OptionError> {
    let size = wanted.unwrap_or(default);
    if size < MIN_DISK || size > MAX_DISK {
        return Err(OptionError::DiskSize(size.0));
    }
    Ok((size.0 / 4096).min(MOST_BLOCKS) * 4096)
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
        let of = |limit: Option<u64>| {
            guest_memory(limit.map(ByteSize), ByteSize(512 << 20), 32 << 20, 8 << 30)
        };
        assert_eq!(of(None).unwrap(), 512 << 20);
        assert_eq!(of(Some(0)).unwrap(), 512 << 20, "no limit, as in Docker");
        // In the unit that `-m 100g` was meant in, and that `info` tells the host's memory in.
        let said = of(Some(100 << 30)).unwrap_err().to_string();
        assert!(
            said.starts_with("memory of 100GiB ") && said.contains("more than the 8GiB "),
            "{said}"
        );
        // One more for page descriptors, and then whole large pages.
        assert_eq!(of(Some(64 << 20)).unwrap(), (64 + 32 + 2) << 20);
        assert!(matches!(
            of(Some(5 << 20)),
            Err(OptionError::MemoryTooSmall)
        ));
        for more_than_the_host in [u64::MAX, 1 << 60, 8 << 30] {
            let error = of(Some(more_than_the_host)).unwrap_err();
            assert!(
                matches!(error, OptionError::MemoryTooLarge { host, .. } if host.0 == 8 << 30),
                "{error}"
            );
        }
        assert!(of(Some(7 << 30)).is_ok(), "what the host has is to be had");
        let small = guest_memory(None, ByteSize(6 << 20), 32 << 20, 8 << 30).unwrap();
        assert_eq!(
            small,
            38 << 20,
            "a small default leaves room for the kernel"
        );
    }

    #[test]
    fn a_kvm_compartment_has_the_cpus_that_the_limit_rounds_up_to() {
        let kvm = |nano, default| vcpus(Isolation::Kvm, nano, default, 4);
        assert_eq!(kvm(0, 1), 1);
        assert_eq!(kvm(0, 9), 4, "no more than the host has");
        assert_eq!(kvm(10_000_000, 1), 1);
        assert_eq!(kvm(2_000_000_000, 1), 2);
        assert_eq!(kvm(2_500_000_000, 1), 3);
        assert_eq!(vcpus(Isolation::UserMode, 2_000_000_000, 3, 4), 1);
    }

    #[test]
    fn a_part_of_a_cpu_is_limited_in_the_guest_and_what_it_cannot_have_is_said() {
        let of = |isolation, nano| {
            let vcpus = vcpus(isolation, nano, 1, 4);
            let warning = cpu_warning(nano, vcpus).unwrap_or_default();
            (cpu_limit(nano, vcpus), warning)
        };
        for isolation in [Isolation::Kvm, Isolation::UserMode] {
            assert_eq!(of(isolation, 0), (0, String::new()));
            assert_eq!(of(isolation, ONE_CPU), (0, String::new()));
            assert_eq!(of(isolation, ONE_CPU / 2), (ONE_CPU / 2, String::new()));
        }
        assert_eq!(of(Isolation::Kvm, 3 * ONE_CPU).0, 0);
        let half = ONE_CPU * 5 / 2;
        assert_eq!(of(Isolation::Kvm, half), (half, String::new()));
        let (limit, warning) = of(Isolation::UserMode, half);
        assert!(limit == 0 && warning.contains("gets 1"), "{warning}");
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
        assert_eq!(
            disk_size(Some(MAX_DISK), ByteSize(0)).unwrap(),
            (16 << 40) - 4096,
            "the largest file of ext4"
        );
        assert!(disk_size(Some(ByteSize(1 << 20)), ByteSize(0)).is_err());
        assert!(disk_size(Some(ByteSize(1 << 50)), ByteSize(0)).is_err());
    }
}
