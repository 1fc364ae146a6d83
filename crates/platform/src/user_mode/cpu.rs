//! The CPU a kernel process is pinned to.
//!
//! The kernel and the guest process it runs hand over to each other at every system call of the guest; across CPUs that
//! costs four times as much (71 µs against 18 µs).

use nix::sched::{CpuSet, sched_getaffinity};
use nix::unistd::Pid;

/// One of the CPUs that this process may use. Compartments know nothing of each other, so the choice is random:
/// that spreads many of them evenly.
pub(super) fn choose() -> Option<usize> {
    let allowed = sched_getaffinity(Pid::from_raw(0)).ok()?;
    let cpus: Vec<usize> = (0..CpuSet::count())
        .filter(|cpu| allowed.is_set(*cpu).unwrap_or(false))
        .collect();
    let mut random = [0_u8; 4];
    // SAFETY: the buffer is live for its length.
    let got = unsafe { libc::getrandom(random.as_mut_ptr().cast(), random.len(), 0) };
    let index = if got == 4 {
        u32::from_ne_bytes(random) as usize
    } else {
        std::process::id() as usize
    };
    cpus.get(index.checked_rem(cpus.len())?).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_chosen_cpu_is_one_that_this_process_may_use() {
        let allowed = sched_getaffinity(Pid::from_raw(0)).expect("affinity can be read");
        for _ in 0..20 {
            let cpu = choose().expect("there is a CPU");
            assert!(allowed.is_set(cpu).expect("a valid number"));
        }
    }
}
