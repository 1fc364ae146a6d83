//! Taking a virtual CPU out of its guest.
//!
//! A signal ends KVM_RUN. One that arrives just before it would be lost: the handler therefore also sets
//! `immediate_exit` in the CPU's own `kvm_run`, with which KVM_RUN returns at once (Documentation/virt/kvm/api.rst, 5).
//! A thread that waits for work instead of running a CPU holds the signal and waits for it.
//! The byte is set by the thread that has the CPU, in its handler, so nobody else needs to know where it lies.

use std::cell::Cell;
use std::io;
use std::ptr;

use kvm_ioctls::VcpuFd;
use nix::errno::Errno;

thread_local! {
    /// `immediate_exit` of the CPU that this thread runs; null in every other thread.
    static IMMEDIATE_EXIT: Cell<*mut u8> = const { Cell::new(ptr::null_mut()) };
}

extern "C" fn handler(_: libc::c_int) {
    IMMEDIATE_EXIT.with(|place| {
        let place = place.get();
        if !place.is_null() {
            // SAFETY: set by `Kickable::new` to a byte of the mapped `kvm_run`, and cleared before that is unmapped; the
            // kernel reads it, nobody else in this process holds a reference while the guest runs.
            unsafe { place.write_volatile(1) };
        }
    });
}

/// Prepares the signal for this process.
pub(super) fn prepare() -> io::Result<()> {
    // SAFETY: an all-zero `sigaction` is valid; the handler only touches a byte that its own thread announced.
    let result = unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = handler as extern "C" fn(libc::c_int) as usize;
        // Without SA_RESTART: it is there to interrupt.
        libc::sigaction(signal(), &action, ptr::null_mut())
    };
    Errno::result(result).map(drop).map_err(io::Error::from)
}

/// The signal.
pub(super) fn signal() -> libc::c_int {
    libc::SIGRTMIN()
}

fn set() -> libc::sigset_t {
    // SAFETY: an all-zero set is valid, and is emptied and filled by calls that cannot fail for this signal.
    unsafe {
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut set);
        libc::sigaddset(&raw mut set, signal());
        set
    }
}

fn mask(how: libc::c_int) -> io::Result<()> {
    let set = set();
    // SAFETY: the set is live; only the calling thread is affected.
    match unsafe { libc::pthread_sigmask(how, &raw const set, ptr::null_mut()) } {
        0 => Ok(()),
        error => Err(io::Error::from_raw_os_error(error)),
    }
}

/// From here on the signal does not interrupt the calling thread; it stays until [`wait`] finds it.
pub(super) fn hold() -> io::Result<()> {
    mask(libc::SIG_BLOCK)
}

/// Undoes [`hold`].
pub(super) fn release() -> io::Result<()> {
    mask(libc::SIG_UNBLOCK)
}

/// Waits for the signal, which is held. May return earlier.
pub(super) fn wait() {
    let set = set();
    // SAFETY: the set is live, and nothing else is asked for.
    unsafe { libc::sigtimedwait(&raw const set, ptr::null_mut(), ptr::null()) };
}

/// Sends the signal to the thread `thread` of this process. A thread that has ended does not get it; one that has
/// got its number meanwhile takes no notice.
pub(super) fn kick(process: i32, thread: i32) {
    // SAFETY: plain numbers.
    unsafe { libc::syscall(libc::SYS_tgkill, process, thread, signal()) };
}

/// The calling thread's CPU, which [`kick`] takes out of KVM_RUN as long as this lives.
#[derive(Debug)]
pub(super) struct Kickable<'a> {
    pub(super) vcpu: &'a mut VcpuFd,
}

impl<'a> Kickable<'a> {
    pub(super) fn new(vcpu: &'a mut VcpuFd) -> Self {
        let place = &raw mut vcpu.get_kvm_run().immediate_exit;
        IMMEDIATE_EXIT.set(place);
        Self { vcpu }
    }

    /// After KVM_RUN was interrupted, before one looks for the reason: what is asked for later interrupts it again.
    pub(super) fn rearm(&mut self) {
        self.vcpu.set_kvm_immediate_exit(0);
    }
}

impl Drop for Kickable<'_> {
    fn drop(&mut self) {
        IMMEDIATE_EXIT.set(ptr::null_mut());
    }
}
