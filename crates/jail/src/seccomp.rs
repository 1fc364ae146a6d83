//! System call allowlists, one for each kind of thread, compiled at build time from `policy/*.json`.
//!
//! Each kind has two filters: the allowlist, which kills the process at anything else, and a list of
//! refusals, which answers an error where a program has a fallback of its own. Of two filters the
//! kernel takes the stricter answer.

use std::io;

use crate::sys;

include!(concat!(env!("OUT_DIR"), "/policy.rs"));

/// The kinds of thread in a sandbox process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Thread {
    /// The control side: sockets of clients, the agent's connection, the kernel process. It may start
    /// threads, so start those that need less before it is locked, or let them lock themselves.
    Control,
    /// One virtio device: guest memory, its queue descriptors, its disk or its streams.
    Device,
    /// One virtual CPU of a KVM machine: it runs guest code and answers its exits, from descriptors and memory
    /// that exist before it is locked. It cannot map memory, make sockets, start threads or change its machine.
    Vcpu,
    /// Maps pages of the image into a KVM machine before its guest touches them. It sees which pages of this process
    /// are mapped and has KVM map more of what the machine was shown; it reads, opens and changes nothing else.
    Ahead,
    /// Moves bytes between a guest stream and a client or a log.
    Stream,
}

/// Installs the filters for `thread` on the calling thread. Threads that it starts inherit them.
pub(crate) fn install(thread: Thread) -> io::Result<()> {
    let allowed: &'static [libc::sock_filter] = match thread {
        Thread::Control => &CONTROL,
        Thread::Device => &DEVICE,
        Thread::Vcpu => &VCPU,
        Thread::Ahead => &AHEAD,
        Thread::Stream => &STREAM,
    };
    #[cfg(all(debug_assertions, not(feature = "trespass")))]
    crate::violation::explain()?;
    sys::seccomp(&SANDBOX_REFUSALS)?;
    // seccomp(2) itself is not in the allowlist, so this one is last.
    sys::seccomp(allowed)
}

/// Installs the filters of the user-mode kernel process. Guest processes inherit them; that costs them
/// nothing, because their system calls are taken by ptrace before seccomp sees them.
pub(crate) fn install_kernel() -> io::Result<()> {
    sys::seccomp(&KERNEL_REFUSALS)?;
    sys::seccomp(&KERNEL)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_filter_fits_the_kernels_limit_and_ends_with_a_return() {
        for program in [
            CONTROL.as_slice(),
            &DEVICE,
            &VCPU,
            &AHEAD,
            &STREAM,
            &KERNEL,
            &SANDBOX_REFUSALS,
            &KERNEL_REFUSALS,
        ] {
            assert!(program.len() <= 4096);
            assert!(program.iter().any(|i| i.code == 0x06), "no return");
        }
    }
}
