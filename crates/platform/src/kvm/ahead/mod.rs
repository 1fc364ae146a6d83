//! Mapping pages of the image before the guest touches them.
//!
//! A page that is shown to the guest (virtio-pmem) enters its nested page tables when it is first touched, by an exit
//! for every 4 KiB. A guest that reads on and on takes an exit for every page of it, where mapping many pages
//! at once costs a fraction of that for each. So a thread looks from time to time which pages are mapped, decides what
//! the guest will touch next ([`plan`]), and has KVM map that.
//!
//! ```text
//! the process uses processor time ──timer──▶ look: PAGEMAP_SCAN ─▶ plan ─▶ KVM_PRE_FAULT_MEMORY ─▶ timer again
//! ```
//!
//! A guest that sleeps uses no time, so nothing wakes the thread. KVM maps on behalf of a virtual CPU that is in no guest
//! at that moment: a spare one, which never is, and of which the guest is not told. All CPUs of a machine share their
//! page tables (`kvm_tdp_mmu_alloc_root()` in Linux's arch/x86/kvm/mmu/tdp_mmu.c).
//!
//! It is an accelerator. Whatever is missing or fails, the guest runs without it.

mod host;
mod plan;

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::raw::c_ulong;
use std::time::{Duration, Instant};

use bulkhead_devices::SharedMemory;
use bulkhead_jail::{Thread, ThreadLock};
use kvm_ioctls::{VcpuFd, VmFd};

use super::cpuid::Answers;
use super::kick;
use super::layout::PAGE;
use super::state::{End, State};
use host::Timer;
use plan::{CHUNK, Plan};

/// `KVM_CAP_PRE_FAULT_MEMORY` of linux/kvm.h, since Linux 6.11.
const PRE_FAULT_MEMORY: c_ulong = 236;

/// For less than this it is not worth a thread: some 4096 exits at most.
const LEAST: u64 = 16 << 20;

/// Stack of the thread; only what is touched costs memory.
pub(super) const STACK_BYTES: usize = 64 << 10;

/// A range of this process that the guest sees.
#[derive(Debug)]
struct Part {
    host: u64,
    guest: u64,
    plan: Plan,
}

/// Everything for the thread.
#[derive(Debug)]
pub(super) struct Ahead {
    spare: VcpuFd,
    page_map: File,
    parts: Vec<Part>,
}

impl Ahead {
    /// Prepares it for `shown`, each with its place in the guest, where that is large enough and the host can do it. To
    /// be called before the first of the `vcpus` other CPUs runs, because a CPU that is added later can cost the guest
    /// its clock (`use_master_clock` in Linux's arch/x86/kvm/x86.c).
    pub(super) fn prepare(
        vm: &VmFd,
        vcpus: u8,
        answers: &mut Answers,
        shown: &[(u64, SharedMemory)],
        page_map: Option<File>,
    ) -> Option<Self> {
        let parts: Vec<Part> = shown
            .iter()
            .filter(|(_, part)| part.bytes() >= LEAST)
            .map(|(guest, part)| Part {
                host: part.host_address(),
                guest: *guest,
                plan: Plan::new(part.bytes()),
            })
            .collect();
        if parts.is_empty() {
            return None;
        }
        let off = |reason: &str| {
            tracing::debug!("no page is mapped ahead of the guest: {reason}");
            None
        };
        let Some(page_map) = page_map else {
            return off("this process cannot see which of its pages are mapped");
        };
        if vm.check_extension_raw(PRE_FAULT_MEMORY) <= 0 {
            return off("the host's kernel cannot do it");
        }
        // Its number is the next after the others', and no table names it.
        let spare = match vm.create_vcpu(vcpus.into()) {
            Ok(spare) => spare,
            Err(error) => return off(&format!("KVM makes no further virtual CPU: {error}")),
        };
        // How many levels its page tables have depends on the processor that it says to be.
        if let Err(error) = answers.give(&spare, vcpus.into()) {
            return off(&error.to_string());
        }
        Some(Self {
            spare,
            page_map,
            parts,
        })
    }

    /// Works until the machine ends or everything is mapped, in the calling thread, which it locks first.
    pub(super) fn run(self, state: &State, lock: Option<ThreadLock>) {
        if kick::hold().is_err() {
            return;
        }
        let Ok(timer) = Timer::new() else {
            return;
        };
        // From here on the machine's end is told by a signal that waits until it is looked for.
        let _present = state.enter_helper();
        match lock.map_or(Ok(()), |lock| lock.lock(Thread::Ahead)) {
            // What fails here fails because the host cannot do it, for the whole life of the machine.
            Ok(()) => drop(self.serve(&timer, state)),
            Err(error) => state.end(End::Unlocked(error)),
        }
    }

    fn serve(mut self, timer: &Timer, state: &State) -> io::Result<()> {
        let mut pause = plan::pause(Duration::ZERO, true, Duration::ZERO);
        loop {
            timer.set(pause)?;
            if state.stopped() {
                return Ok(());
            }
            kick::wait();
            if state.stopped() {
                return Ok(());
            }
            let begun = Instant::now();
            let open = self.look()?;
            let cost = begun.elapsed();
            if !open {
                return Ok(());
            }
            let mut work = false;
            // While it works the signal interrupts it, and the timer is not set.
            kick::release()?;
            for part in &mut self.parts {
                while let Some(bytes) = part.plan.next() {
                    work = true;
                    let guest = part.guest + bytes.start..part.guest + bytes.end;
                    if !map(&self.spare, guest, state)? {
                        return Ok(());
                    }
                }
            }
            kick::hold()?;
            pause = plan::pause(pause, work, cost);
        }
    }

    /// Learns which pages are mapped. Returns whether there are any more that could be.
    fn look(&mut self) -> io::Result<bool> {
        let mut open = false;
        for Part { host, plan, .. } in &mut self.parts {
            plan.look();
            let mut offset = 0;
            while let Some(bytes) = plan.unmapped(offset) {
                open = true;
                offset = bytes.end;
                let addresses = *host + bytes.start..*host + bytes.end;
                host::scan(&self.page_map, addresses, |found| {
                    plan.mapped(found.start - *host..found.end - *host);
                })?;
            }
        }
        Ok(open)
    }
}

/// Maps `guest`, chunk by chunk, so that the machine's end need not wait for the whole; then it returns false.
fn map(vcpu: &VcpuFd, guest: Range<u64>, state: &State) -> io::Result<bool> {
    let mut start = guest.start;
    while start < guest.end {
        if state.stopped() {
            return Ok(false);
        }
        let end = guest.end.min(start + CHUNK);
        match host::map(vcpu, start..end) {
            Ok(0) => start = end,
            Ok(bytes) => start += bytes,
            Err(error) => match error.raw_os_error() {
                Some(libc::EINTR | libc::EAGAIN) => {}
                // A file that was shortened. Who touches that page will hear of it.
                Some(libc::EFAULT) => start = end,
                _ => return Err(error),
            },
        }
    }
    Ok(true)
}
