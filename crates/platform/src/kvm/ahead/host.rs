//! What this asks of the host's kernel: which pages are mapped, to map more, and to be woken by the machine's work.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::ptr;
use std::time::Duration;

use kvm_bindings::{KVMIO, kvm_pre_fault_memory};
use kvm_ioctls::VcpuFd;
use nix::errno::Errno;
use vmm_sys_util::ioctl::ioctl_with_mut_ref;
use vmm_sys_util::ioctl_iowr_nr;

use super::super::kick;

ioctl_iowr_nr!(KVM_PRE_FAULT_MEMORY, KVMIO, 0xd5, kvm_pre_fault_memory);
ioctl_iowr_nr!(PAGEMAP_SCAN, b'f'.into(), 16, Scan);

/// `PAGE_IS_PRESENT` of linux/fs.h.
const PRESENT: u64 = 1 << 3;

/// Regions that one request tells of.
const REGIONS: usize = 64;

/// `struct pm_scan_arg` of linux/fs.h.
#[repr(C)]
#[derive(Default)]
struct Scan {
    size: u64,
    flags: u64,
    start: u64,
    end: u64,
    /// Where the scan stopped.
    walk_end: u64,
    regions: u64,
    most_regions: u64,
    most_pages: u64,
    inverted: u64,
    all_of: u64,
    any_of: u64,
    told: u64,
}

/// `struct page_region` of linux/fs.h.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Region {
    start: u64,
    end: u64,
    categories: u64,
}

/// Tells of each stretch of `addresses` of this process in which pages are mapped, in ascending order
/// (Documentation/admin-guide/mm/pagemap.rst, "Pagemap Scan IOCTL").
pub(super) fn scan(
    page_map: &File,
    addresses: Range<u64>,
    mut tell: impl FnMut(Range<u64>),
) -> io::Result<()> {
    let mut regions = [Region::default(); REGIONS];
    let mut start = addresses.start;
    while start < addresses.end {
        let mut scan = Scan {
            size: size_of::<Scan>() as u64,
            start,
            end: addresses.end,
            regions: regions.as_mut_ptr().addr() as u64,
            most_regions: REGIONS as u64,
            all_of: PRESENT,
            told: PRESENT,
            ..Scan::default()
        };
        // SAFETY: the argument has the request's type, and its regions are a live array of that many.
        let found = unsafe { ioctl_with_mut_ref(page_map, PAGEMAP_SCAN(), &mut scan) };
        let found = usize::try_from(found).map_err(|_| io::Error::last_os_error())?;
        for region in regions.iter().take(found) {
            tell(region.start..region.end);
        }
        if scan.walk_end <= start {
            return Err(io::ErrorKind::InvalidData.into());
        }
        start = scan.walk_end;
    }
    Ok(())
}

/// Has KVM map `guest`, physical addresses of the guest, from pages of the host that it brings in where they are not
/// there. Returns how many bytes of it it did (Documentation/virt/kvm/api.rst, 4.143).
pub(super) fn map(vcpu: &VcpuFd, guest: Range<u64>) -> io::Result<u64> {
    let size = guest.end - guest.start;
    let mut range = kvm_pre_fault_memory {
        gpa: guest.start,
        size,
        ..kvm_pre_fault_memory::default()
    };
    // SAFETY: the argument has the request's type. What it maps is what the machine was given as its memory.
    let result = unsafe { ioctl_with_mut_ref(vcpu, KVM_PRE_FAULT_MEMORY(), &mut range) };
    Errno::result(result)?;
    Ok(size.saturating_sub(range.size))
}

/// Sends [`kick`]'s signal to the thread that made it after this process has used some processor time.
#[derive(Debug)]
pub(super) struct Timer(libc::timer_t);

impl Timer {
    pub(super) fn new() -> io::Result<Self> {
        // SAFETY: an all-zero `sigevent` is valid.
        let mut event: libc::sigevent = unsafe { std::mem::zeroed() };
        event.sigev_notify = libc::SIGEV_THREAD_ID;
        event.sigev_signo = kick::signal();
        event.sigev_notify_thread_id = nix::unistd::gettid().as_raw();
        let mut timer = ptr::null_mut();
        // SAFETY: both are live.
        let result = unsafe {
            libc::timer_create(
                libc::CLOCK_PROCESS_CPUTIME_ID,
                &raw mut event,
                &raw mut timer,
            )
        };
        Errno::result(result)?;
        Ok(Self(timer))
    }

    /// Once, after so much time.
    pub(super) fn set(&self, after: Duration) -> io::Result<()> {
        // SAFETY: an all-zero `itimerspec` is valid, and means never.
        let mut time: libc::itimerspec = unsafe { std::mem::zeroed() };
        time.it_value.tv_sec = after.as_secs().try_into().unwrap_or(libc::time_t::MAX);
        time.it_value.tv_nsec = after.subsec_nanos().into();
        // SAFETY: the timer is ours, and the time is live.
        let result = unsafe { libc::timer_settime(self.0, 0, &raw const time, ptr::null_mut()) };
        Errno::result(result)?;
        Ok(())
    }
}

impl Drop for Timer {
    fn drop(&mut self) {
        // SAFETY: the timer is ours, and nobody uses it any more.
        unsafe { libc::timer_delete(self.0) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_requests_are_those_that_the_policy_allows() {
        let policy = include_str!("../../../../jail/policy/sandbox.json");
        for request in [KVM_PRE_FAULT_MEMORY(), PAGEMAP_SCAN()] {
            assert!(
                policy.contains(&format!("\"val\": {request}}}")),
                "{request}"
            );
        }
    }

    #[test]
    fn only_pages_that_were_touched_are_told_of() {
        const BYTES: usize = 4 << 20;
        const PAGE: usize = 4096;
        let page_map = File::open("/proc/self/pagemap").expect("it opens");
        // SAFETY: a fresh mapping touches nothing that exists.
        let start = unsafe {
            libc::mmap(
                ptr::null_mut(),
                BYTES,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
                -1,
                0,
            )
        };
        assert_ne!(start, libc::MAP_FAILED);
        // SAFETY: advice about that mapping.
        unsafe { libc::madvise(start, BYTES, libc::MADV_NOHUGEPAGE) };
        // More stretches than one request tells of.
        let touched: Vec<usize> = (0..3 * REGIONS).map(|n| n * 3).collect();
        for page in &touched {
            // SAFETY: within the mapping.
            unsafe { start.cast::<u8>().add(page * PAGE).write_volatile(1) };
        }
        let first = start.addr() as u64;
        let mut found = Vec::new();
        let result = scan(&page_map, first..first + BYTES as u64, |part| {
            let bytes = part.end - part.start;
            found.push(((part.start - first) as usize / PAGE, bytes as usize / PAGE));
        });
        // SAFETY: nobody uses it any more.
        unsafe { libc::munmap(start, BYTES) };
        match result {
            Err(error) if error.raw_os_error() == Some(libc::ENOTTY) => {
                bulkhead_harness::cannot_run!("this host's kernel cannot scan page maps");
            }
            result => {
                result.expect("a scan");
                let expected: Vec<_> = touched.into_iter().map(|page| (page, 1)).collect();
                assert_eq!(found, expected);
            }
        }
    }
}
