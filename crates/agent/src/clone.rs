//! Starts a process without copying the agent.
//!
//! A fork costs a user-mode kernel milliseconds: a new address space is a new process of the host.
//! So the child borrows the agent's memory on a stack of its own, and the calling thread stands still until
//! the child has executed its program or given up, as posix_spawn(3) does it. clone3 puts the child into
//! its cgroup and namespaces in the same call and hands back a pidfd.

use std::ffi::c_void;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use crate::child::{self, Plan};

/// Enough for two path buffers and the kernel's signal frames; only what is touched is backed by memory.
const STACK_SIZE: usize = 64 << 10;

/// clone(2), `struct clone_args`, up to `cgroup`.
#[repr(C)]
#[derive(Default)]
struct CloneArgs {
    flags: u64,
    pidfd: u64,
    child_tid: u64,
    parent_tid: u64,
    exit_signal: u64,
    stack: u64,
    stack_size: u64,
    tls: u64,
    set_tid: u64,
    set_tid_size: u64,
    cgroup: u64,
}

/// Runs the plan in a new process and returns its pidfd once the process has executed its program or
/// ended; which of the two, the plan's outcome says.
///
/// `namespaces` are `CLONE_NEW…` flags; without a cgroup the process stays in the agent's.
pub(crate) fn start(
    plan: &mut Plan<'_>,
    namespaces: u64,
    cgroup: Option<BorrowedFd<'_>>,
) -> io::Result<OwnedFd> {
    // Never initialised, so that untouched pages cost no memory.
    let mut stack: Vec<u128> = Vec::with_capacity(STACK_SIZE / size_of::<u128>());
    let mut pidfd: libc::c_int = -1;
    let flags = libc::CLONE_VM | libc::CLONE_VFORK | libc::CLONE_PIDFD;
    let mut args = CloneArgs {
        // Each flag is a bit below 2^32, some in the sign bit of an int.
        flags: u64::from(flags.cast_unsigned()) | namespaces | CLONE_CLEAR_SIGHAND,
        pidfd: (&raw mut pidfd) as u64,
        exit_signal: libc::SIGCHLD.unsigned_abs().into(),
        stack: stack.as_mut_ptr() as u64,
        stack_size: (stack.capacity() * size_of::<u128>()) as u64,
        ..CloneArgs::default()
    };
    if let Some(cgroup) = cgroup {
        args.flags |= CLONE_INTO_CGROUP;
        args.cgroup = cgroup.as_raw_fd().unsigned_abs().into();
    }
    // SAFETY: the arguments, the stack and the plan outlive the child's use of them, because
    // CLONE_VFORK stops this thread until the child has executed or ended. The child runs `child_main`
    // on its own stack and never returns. Other threads of the agent go on meanwhile; the child takes no lock that one of
    // them could hold, and changes nothing that they can see.
    let result = unsafe { clone3(&raw const args, child_main, (&raw mut *plan).cast()) };
    if result < 0 {
        return Err(io::Error::from_raw_os_error(
            i32::try_from(-result).unwrap_or(libc::EINVAL),
        ));
    }
    // SAFETY: the kernel has stored a new descriptor that nobody else knows of.
    Ok(unsafe { OwnedFd::from_raw_fd(pidfd) })
}

/// Resets handlers of the parent to the default in the child (`linux/sched.h`).
const CLONE_CLEAR_SIGHAND: u64 = 0x1_0000_0000;
/// Puts the child into the cgroup of `CloneArgs::cgroup` (`linux/sched.h`).
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

extern "C" fn child_main(plan: *mut c_void) -> ! {
    // SAFETY: `start` passes a pointer to a live plan that nobody else uses meanwhile.
    let plan = unsafe { &mut *plan.cast::<Plan<'_>>() };
    child::become_process(plan);
    // SAFETY: ends this process without running the agent's exit handlers.
    unsafe { libc::_exit(127) }
}

/// The bare system call: returns the child's number or a negative errno in the parent, and calls
/// `entry(argument)` in the child.
///
/// # Safety
///
/// `args` must be valid for clone3 with a stack, and `entry` must not return.
#[cfg(target_arch = "x86_64")]
unsafe fn clone3(
    args: *const CloneArgs,
    entry: extern "C" fn(*mut c_void) -> !,
    argument: *mut c_void,
) -> i64 {
    let result: i64;
    // SAFETY: in the child, `rsp` is the top of the new, 16-byte aligned stack and the other registers
    // are as in the parent; the call pushes onto that stack and does not return.
    unsafe {
        std::arch::asm!(
            "syscall",
            "test rax, rax",
            "jnz 2f",
            "xor ebp, ebp",
            "mov rdi, r13",
            "call r12",
            "ud2",
            "2:",
            inlateout("rax") libc::SYS_clone3 => result,
            in("rdi") args,
            in("rsi") size_of::<CloneArgs>(),
            in("r12") entry,
            in("r13") argument,
            lateout("rcx") _,
            lateout("r11") _,
        );
    }
    result
}
