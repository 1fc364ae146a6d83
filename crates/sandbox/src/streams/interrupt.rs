//! Getting a thread out of a blocking system call. A signal with an empty handler makes read(2) and
//! write(2) return `EINTR`; because it may arrive just before the call, it is sent until the thread
//! has noticed.

use std::fs::File;
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};
use std::time::Duration;

use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};

const WAKE: Signal = Signal::SIGUSR1;

extern "C" fn on_wake(_: i32) {}

/// Installs the empty handler, and has writes to a vanished reader return `EPIPE`. Once per process.
pub(crate) fn install_handler() -> nix::Result<()> {
    let wake = SigAction::new(
        SigHandler::Handler(on_wake),
        SaFlags::empty(),
        SigSet::empty(),
    );
    let ignore = SigAction::new(SigHandler::SigIgn, SaFlags::empty(), SigSet::empty());
    // SAFETY: the handler does nothing, so it is safe at any point of any thread.
    unsafe {
        sigaction(WAKE, &wake)?;
        sigaction(Signal::SIGPIPE, &ignore)?;
    }
    Ok(())
}

/// A place where one thread blocks on a descriptor that another may want back.
#[derive(Debug, Default)]
pub(super) struct Blocking {
    cancelled: AtomicBool,
    busy: AtomicBool,
    thread: AtomicI32,
}

impl Blocking {
    /// Runs `call` unless cancelled. `call` must return when it is interrupted and
    /// [`Blocking::is_cancelled`] holds.
    pub fn run<T>(&self, call: impl FnOnce() -> T) -> Option<T> {
        self.thread.store(thread_id(), Ordering::SeqCst);
        self.busy.store(true, Ordering::SeqCst);
        let result = if self.is_cancelled() {
            None
        } else {
            Some(call())
        };
        self.busy.store(false, Ordering::SeqCst);
        result
    }

    pub fn is_cancelled(&self) -> bool {
        self.cancelled.load(Ordering::SeqCst)
    }

    /// Whether a call is going on.
    pub fn is_busy(&self) -> bool {
        self.busy.load(Ordering::SeqCst)
    }

    /// Forbids further calls and returns when none is going on.
    pub async fn cancel(&self) {
        self.cancelled.store(true, Ordering::SeqCst);
        while self.busy.load(Ordering::SeqCst) {
            wake(self.thread.load(Ordering::SeqCst));
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    /// Has a call that is going on return early, to be made again.
    pub fn nudge(&self) {
        if self.busy.load(Ordering::SeqCst) {
            wake(self.thread.load(Ordering::SeqCst));
        }
    }

    /// As [`Blocking::cancel`], without waiting.
    pub fn forbid(&self) {
        self.cancelled.store(true, Ordering::SeqCst);
        self.nudge();
    }
}

/// Bytes in the pipe behind `file` that nobody has read yet; 0 where the system does not tell.
pub(super) fn unread(file: &File) -> u64 {
    let mut count: libc::c_int = 0;
    // SAFETY: the request writes one int, which `count` is, and the descriptor is open as long as `file` is borrowed.
    let answer = unsafe { libc::ioctl(file.as_raw_fd(), libc::FIONREAD, &raw mut count) };
    if answer == 0 {
        u64::try_from(count).unwrap_or(0)
    } else {
        0
    }
}

fn thread_id() -> i32 {
    // SAFETY: takes nothing, cannot fail.
    unsafe { libc::gettid() }
}

fn wake(thread: i32) {
    // SAFETY: plain numbers; at worst the thread is gone (ESRCH), and the handler does nothing.
    unsafe {
        libc::syscall(libc::SYS_tgkill, libc::getpid(), thread, WAKE as i32);
    }
}
