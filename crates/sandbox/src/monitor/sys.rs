//! System calls of the monitor that nothing wraps.

use std::fs::File;
use std::os::fd::{AsRawFd, OwnedFd};

use nix::errno::Errno;

/// Closes every descriptor but 0, 1 and 2.
///
/// To be called as the first act of the process, whose values own no other descriptor yet.
pub(super) fn close_inherited() -> nix::Result<()> {
    // SAFETY: plain numbers. Nothing in this process owns what is closed, see above.
    Errno::result(unsafe { libc::syscall(libc::SYS_close_range, 3, u32::MAX, 0) }).map(drop)
}

/// Kills the process that `pidfd` refers to. That it is gone already is fine.
pub(super) fn kill(pidfd: &OwnedFd) {
    // SAFETY: plain numbers and a null pointer, which the call allows.
    unsafe {
        libc::syscall(
            libc::SYS_pidfd_send_signal,
            pidfd.as_raw_fd(),
            libc::SIGKILL,
            std::ptr::null::<libc::siginfo_t>(),
            0,
        );
    }
}

/// A descriptor of the process `pid`, a child of ours.
#[cfg(test)]
pub(super) fn pidfd_of(pid: i32) -> nix::Result<OwnedFd> {
    use std::os::fd::FromRawFd;
    // SAFETY: plain numbers.
    let fd = Errno::result(unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) })?;
    // SAFETY: a descriptor just made, owned by nobody else.
    Ok(unsafe { OwnedFd::from_raw_fd(i32::try_from(fd).unwrap_or(-1)) })
}

/// Sets the short name of the calling thread.
pub(super) fn set_comm(name: &std::ffi::CStr) {
    // SAFETY: a live C string.
    unsafe { libc::prctl(libc::PR_SET_NAME, name.as_ptr()) };
}

/// Overwrites the beginning of this process's command line, which is at `at` in its memory and at least as long as
/// `title`. There may be one thread only.
pub(super) fn overwrite_title(at: usize, title: &[u8]) {
    let at = std::ptr::with_exposed_provenance_mut::<u8>(at);
    // SAFETY: the kernel put the arguments there, in writable memory of the stack; the caller has seen that they are as
    // long, and no other thread reads them. Nothing of this program holds a reference: std copies each argument.
    unsafe { std::ptr::copy_nonoverlapping(title.as_ptr(), at, title.len()) };
}

/// Whether some process has `file` open for writing. `file` is open for reading only.
///
/// The answer is the kernel's own count: a read lease (fcntl(2), `F_SETLEASE`) is given only where nobody can write. It is
/// given back at once, so that it delays nobody. `false` on a file system that has no leases.
pub(super) fn has_writer(file: &File) -> bool {
    let lease = |kind: libc::c_int| {
        // SAFETY: a live descriptor and a number.
        Errno::result(unsafe { libc::fcntl(file.as_raw_fd(), libc::F_SETLEASE, kind) })
    };
    match lease(libc::F_RDLCK) {
        Ok(_) => {
            let _ = lease(libc::F_UNLCK);
            false
        }
        Err(e) => e == Errno::EAGAIN,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::OpenOptions;

    #[test]
    fn a_writer_is_seen_for_as_long_as_it_can_write() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let path = file.path().to_owned();
        let (_, kept) = file.keep().unwrap();
        let looked_at = File::open(&path).unwrap();
        let _another_reader = File::open(&path).unwrap();
        assert!(!has_writer(&looked_at));
        let writer = OpenOptions::new().write(true).open(&path).unwrap();
        assert!(has_writer(&looked_at));
        drop(writer);
        assert!(!has_writer(&looked_at));
        std::fs::remove_file(kept).unwrap();
    }
}
