//! A sandbox built to be caught: a thread of the kind that `BULKHEAD_TRESPASS` names (`control`, `device`, `vcpu`,
//! `ahead` or `stream`) makes a forbidden system call as soon as it is locked. Only in builds with the feature `trespass`, which
//! exist for the end-to-end test of the walls; their policy is the release's.

use crate::seccomp::Thread;

/// Opens a file, which no policy allows, if this kind of thread was told to.
pub(crate) fn attempt(thread: Thread) {
    let word = match thread {
        Thread::Control => "control",
        Thread::Device => "device",
        Thread::Vcpu => "vcpu",
        Thread::Ahead => "ahead",
        Thread::Stream => "stream",
    };
    if std::env::var_os("BULKHEAD_TRESPASS").is_some_and(|told| told == word) {
        // SAFETY: a live C string; whatever it returns is not used.
        unsafe { libc::openat(libc::AT_FDCWD, c"/etc/passwd".as_ptr(), libc::O_RDONLY) };
    }
}
