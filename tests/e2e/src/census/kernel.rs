//! Counts what a user-mode kernel and all of its processes call. They cannot be traced, because the kernel itself traces
//! its guest processes. So a filter is slipped under those of the jail: it allows nothing, and has the host tell of each
//! call that the jail's filters let through.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::thread::JoinHandle;

use super::{Calls, Watched};

/// `BPF_RET | BPF_K`.
const RETURN: u16 = 0x06;

/// What leaves a stopped process to the listener, as one instruction: every call is told.
const TELL: libc::sock_filter = libc::sock_filter {
    code: RETURN,
    jt: 0,
    jf: 0,
    k: libc::SECCOMP_RET_USER_NOTIF,
};

/// Below the words that a function may keep under its stack pointer (128 bytes), with room for what is written.
const UNDER_STACK: u64 = 1024;

/// The length of the instruction that makes a call.
const SYSCALL_LENGTH: u64 = 2;

/// A kernel process whose calls are told.
pub(super) struct Told(JoinHandle<Calls>);

impl Told {
    /// Adds the filter to process `pid`, which this thread traces and which has stopped before a call of `seccomp`, lets
    /// it go on with that call and traces it no longer.
    pub(super) fn begin(pid: i32, watched: Watched) -> io::Result<Self> {
        let before = registers(pid)?;
        // A program of one instruction, then its description: a length and a pointer.
        let program = (before.rsp - UNDER_STACK) & !0xf;
        write(pid, program, instruction_word())?;
        write(pid, program + 8, 1)?;
        write(pid, program + 16, program)?;
        let flags =
            libc::SECCOMP_FILTER_FLAG_NEW_LISTENER | libc::SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV;
        let mut changed = before;
        changed.rdi = libc::SECCOMP_SET_MODE_FILTER.into();
        changed.rsi = flags;
        changed.rdx = program + 8;
        set_registers(pid, &changed)?;
        // To the end of the call.
        // SAFETY: lets a stopped tracee go on, and waits for it alone.
        unsafe {
            libc::ptrace(libc::PTRACE_SYSCALL, pid, 0, 0);
            let mut status = 0;
            if libc::waitpid(pid, &raw mut status, libc::__WALL) != pid {
                return Err(io::Error::last_os_error());
            }
        }
        let after = registers(pid)?;
        let theirs = after.rax.cast_signed();
        if theirs < 0 {
            let errno = i32::try_from(-theirs).unwrap_or(libc::EIO);
            return Err(io::Error::from_raw_os_error(errno));
        }
        let listener = descriptor_of(pid, theirs)?;
        let told = Self(std::thread::spawn(move || listen(&listener, &watched)));
        // Once more, now as it was meant.
        let mut again = before;
        again.rax = before.orig_rax;
        again.rip -= SYSCALL_LENGTH;
        set_registers(pid, &again)?;
        // SAFETY: ends the tracing of a stopped tracee.
        unsafe { libc::ptrace(libc::PTRACE_DETACH, pid, 0, 0) };
        Ok(told)
    }

    /// Waits for the end of the kernel and of its last process.
    pub(super) fn finish(self) -> Calls {
        self.0.join().expect("the listening thread")
    }
}

/// [`TELL`] as a word of memory.
fn instruction_word() -> u64 {
    u64::from(TELL.code) | u64::from(TELL.k) << 32
}

fn listen(listener: &OwnedFd, watched: &Watched) -> Calls {
    let mut calls = Calls::new();
    loop {
        let mut poll = libc::pollfd {
            fd: listener.as_raw_fd(),
            events: libc::POLLIN,
            revents: 0,
        };
        // SAFETY: one live structure.
        if unsafe { libc::poll(&raw mut poll, 1, -1) } < 0 {
            continue;
        }
        if poll.revents & libc::POLLIN == 0 {
            // Nobody has the filter any more.
            return calls;
        }
        // SAFETY: plain data, for which zero is valid; the host wants it so.
        let mut notice: libc::seccomp_notif = unsafe { std::mem::zeroed() };
        // SAFETY: the host fills the structure.
        let heard = unsafe {
            libc::ioctl(
                listener.as_raw_fd(),
                libc::SECCOMP_IOCTL_NOTIF_RECV,
                &raw mut notice,
            )
        };
        if heard < 0 {
            // A signal came before its call was told, and it calls again; or it was killed.
            continue;
        }
        let number = u64::from(notice.data.nr.cast_unsigned());
        calls.insert(watched.reduce((number, notice.data.args)));
        let answer = libc::seccomp_notif_resp {
            id: notice.id,
            val: 0,
            error: 0,
            flags: libc::SECCOMP_USER_NOTIF_FLAG_CONTINUE as u32,
        };
        // SAFETY: the host reads the structure. Fails where the process was killed meanwhile.
        unsafe {
            libc::ioctl(
                listener.as_raw_fd(),
                libc::SECCOMP_IOCTL_NOTIF_SEND,
                &raw const answer,
            )
        };
    }
}

/// A copy of descriptor `number` of process `pid`.
fn descriptor_of(pid: i32, number: i64) -> io::Result<OwnedFd> {
    let own = |fd: libc::c_long| {
        let fd = i32::try_from(fd).unwrap_or(-1);
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the host has just made it for this process.
        Ok(unsafe { OwnedFd::from_raw_fd(fd) })
    };
    // SAFETY: numbers.
    let process = own(unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) })?;
    // SAFETY: numbers.
    own(unsafe { libc::syscall(libc::SYS_pidfd_getfd, process.as_raw_fd(), number, 0) })
}

fn registers(pid: i32) -> io::Result<libc::user_regs_struct> {
    // SAFETY: plain data, for which zero is valid.
    let mut registers: libc::user_regs_struct = unsafe { std::mem::zeroed() };
    // SAFETY: the host fills the structure.
    let got = unsafe { libc::ptrace(libc::PTRACE_GETREGS, pid, 0, &raw mut registers) };
    (got == 0)
        .then_some(registers)
        .ok_or_else(io::Error::last_os_error)
}

fn set_registers(pid: i32, registers: &libc::user_regs_struct) -> io::Result<()> {
    // SAFETY: the host reads the structure.
    let set = unsafe { libc::ptrace(libc::PTRACE_SETREGS, pid, 0, registers) };
    (set == 0)
        .then_some(())
        .ok_or_else(io::Error::last_os_error)
}

/// Writes a word into the memory of a stopped tracee.
fn write(pid: i32, address: u64, word: u64) -> io::Result<()> {
    // SAFETY: the host checks the address, which is the tracee's.
    let written = unsafe { libc::ptrace(libc::PTRACE_POKEDATA, pid, address, word) };
    (written == 0)
        .then_some(())
        .ok_or_else(io::Error::last_os_error)
}
