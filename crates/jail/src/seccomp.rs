//! System call allowlists, one for each kind of thread, compiled at build time from `policy/*.json`.
//!
//! Each kind has two filters: the allowlist, which kills the process at anything else, and a list of
//! refusals, which answers an error where a program has a fallback of its own. Of two filters the
//! kernel takes the stricter answer.

use std::io;
use std::os::fd::OwnedFd;

use crate::sys;

include!(concat!(env!("OUT_DIR"), "/policy.rs"));

/// The instruction that compares with a constant: `BPF_JMP | BPF_JEQ | BPF_K`.
const COMPARE: u16 = 0x15;

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
    #[cfg(all(debug_assertions, not(feature = "trespass")))]
    crate::violation::explain()?;
    sys::seccomp(&SANDBOX_REFUSALS)?;
    narrow(thread)
}

/// Adds the allowlist of `thread` to whatever filters the calling thread has. Of all policies only the control thread's
/// has seccomp(2), and that only to add a filter.
pub(crate) fn narrow(thread: Thread) -> io::Result<()> {
    let mut allowed = match thread {
        Thread::Control => CONTROL.to_vec(),
        Thread::Device => DEVICE.to_vec(),
        Thread::Vcpu => VCPU.to_vec(),
        Thread::Ahead => AHEAD.to_vec(),
        Thread::Stream => STREAM.to_vec(),
    };
    name_self(&mut allowed, sys::own_pid());
    sys::seccomp(&allowed)
}

/// Puts `pid` where a policy says `self`.
fn name_self(filter: &mut [libc::sock_filter], pid: u32) {
    for instruction in filter {
        if instruction.code == COMPARE && instruction.k == SELF {
            instruction.k = pid;
        }
    }
}

/// Installs the filters of the user-mode kernel process. Guest processes inherit them; that costs them nothing, because
/// their system calls are taken by ptrace before seccomp sees them.
pub(crate) fn install_kernel() -> io::Result<()> {
    sys::seccomp(&KERNEL_REFUSALS)?;
    // On the stack: between clone and exec nothing may be allocated.
    let mut allowed = KERNEL;
    name_self(&mut allowed, sys::own_pid());
    sys::seccomp(&allowed)
}

/// Installs what a user-mode kernel process has in addition where no namespace separates it from its user's other
/// processes; to be called first. The descriptor hears of its connections, which wait for an answer and fail once it is
/// closed.
pub(crate) fn install_exposed() -> io::Result<OwnedFd> {
    let connections = sys::seccomp_heard(&CONNECTIONS)?;
    sys::seccomp(&EXPOSED)?;
    Ok(connections)
}

/// Leaves the decision about connect(2) to whoever listens. The other architectures of the processor end in the
/// allowlist.
static CONNECTIONS: [libc::sock_filter; 4] = [
    // The call's number: the first word of seccomp_data.
    instruction(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, 0),
    instruction(COMPARE as u32, libc::SYS_connect as u32, 0, 1),
    instruction(
        libc::BPF_RET | libc::BPF_K,
        libc::SECCOMP_RET_USER_NOTIF,
        0,
        0,
    ),
    instruction(libc::BPF_RET | libc::BPF_K, libc::SECCOMP_RET_ALLOW, 0, 0),
];

const fn instruction(code: u32, k: u32, jt: u8, jf: u8) -> libc::sock_filter {
    libc::sock_filter {
        code: code as u16,
        jt,
        jf,
        k,
    }
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
            &EXPOSED,
            &SANDBOX_REFUSALS,
            &KERNEL_REFUSALS,
        ] {
            assert!(program.len() <= 4096);
            assert!(program.iter().any(|i| i.code == 0x06), "no return");
        }
    }
}
