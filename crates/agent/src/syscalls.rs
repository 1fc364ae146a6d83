//! System calls that neither the standard library nor `nix` wraps, each as a safe function.
//!
//! Everything here is also called between clone and exec, so nothing allocates.

use std::ffi::{CStr, c_char, c_int};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

/// Turns the C convention (−1 and errno) into a result.
fn check(result: libc::c_long) -> io::Result<libc::c_long> {
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(result)
    }
}

/// Takes ownership of a descriptor that a system call returned.
fn owned(result: libc::c_long) -> io::Result<OwnedFd> {
    let fd = check(result)?;
    let fd = c_int::try_from(fd).map_err(|_| io::Error::from_raw_os_error(libc::EBADF))?;
    // SAFETY: the kernel has just created this descriptor and nobody else knows of it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// A detached copy of the mount at `path` (or of the directory inside it), to be attached elsewhere
/// with [`move_mount`], even after `path` is out of reach.
pub(crate) fn open_tree(path: &CStr) -> io::Result<OwnedFd> {
    let flags = libc::OPEN_TREE_CLONE | libc::OPEN_TREE_CLOEXEC;
    // SAFETY: `path` is a C string that outlives the call.
    owned(unsafe { libc::syscall(libc::SYS_open_tree, libc::AT_FDCWD, path.as_ptr(), flags) })
}

/// What the link at `path` names, put into `buffer`; returns its length. EINVAL where there is no link.
pub(crate) fn read_link(path: &CStr, buffer: &mut [u8]) -> nix::Result<usize> {
    // SAFETY: `path` is a C string, and the kernel writes no more than the buffer's length; both outlive the call.
    let length = unsafe { libc::readlink(path.as_ptr(), buffer.as_mut_ptr().cast(), buffer.len()) };
    nix::errno::Errno::result(length).map(isize::unsigned_abs)
}

/// Attaches a detached mount at `target`.
pub(crate) fn move_mount(tree: BorrowedFd<'_>, target: &CStr) -> io::Result<()> {
    // SAFETY: both paths are C strings that outlive the call.
    let result = unsafe {
        libc::syscall(
            libc::SYS_move_mount,
            tree.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_FDCWD,
            target.as_ptr(),
            libc::MOVE_MOUNT_F_EMPTY_PATH | libc::MOVE_MOUNT_T_SYMLINKS,
        )
    };
    check(result).map(drop)
}

/// Makes the loop device with this number, through an open /dev/loop-control (linux/loop.h, `LOOP_CTL_ADD`).
pub(crate) fn add_loop_device(control: &OwnedFd, number: u32) -> io::Result<()> {
    const LOOP_CTL_ADD: libc::c_ulong = 0x4C80;
    // SAFETY: all arguments are passed by value.
    let result = unsafe {
        libc::ioctl(
            control.as_raw_fd(),
            LOOP_CTL_ADD,
            libc::c_ulong::from(number),
        )
    };
    check(result.into()).map(drop)
}

/// Loads a kernel module from an open file.
pub(crate) fn finit_module(module: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: the parameters are an empty C string; the kernel only reads the file.
    let result =
        unsafe { libc::syscall(libc::SYS_finit_module, module.as_raw_fd(), c"".as_ptr(), 0) };
    check(result).map(drop)
}

/// Largest seed that one call takes.
pub(crate) const SEED_MAX: usize = 64;

/// Mixes a seed into the kernel's random number generator and credits it as entropy
/// (random(4), `RNDADDENTROPY`). Bytes beyond [`SEED_MAX`] are not used.
pub(crate) fn add_entropy(random: BorrowedFd<'_>, seed: &[u8]) -> io::Result<()> {
    #[repr(C)]
    struct Pool {
        entropy_bits: c_int,
        size: c_int,
        bytes: [u8; SEED_MAX],
    }
    /// `_IOW('R', 0x03, int[2])`.
    const RNDADDENTROPY: libc::c_ulong = 0x4008_5203;

    let mut pool = Pool {
        entropy_bits: 0,
        size: 0,
        bytes: [0; SEED_MAX],
    };
    for (to, from) in pool.bytes.iter_mut().zip(seed) {
        *to = *from;
        pool.size += 1;
    }
    pool.entropy_bits = pool.size * 8;
    // SAFETY: the kernel reads a `struct rand_pool_info`, which `Pool` mirrors, with `size` bytes
    // behind it, of which the array holds at least as many.
    check(unsafe { libc::ioctl(random.as_raw_fd(), RNDADDENTROPY, &raw const pool) }.into())
        .map(drop)
}

/// Brings the loopback interface up; the kernel then gives it 127.0.0.1 and ::1 itself.
pub(crate) fn loopback_up(socket: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: all-zero bytes are a valid `ifreq`.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(b"lo") {
        *to = *from as c_char;
    }
    request.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_RUNNING) as libc::c_short;
    // SAFETY: the request is a valid `ifreq` that outlives the call.
    let result = unsafe {
        libc::ioctl(
            socket.as_raw_fd(),
            libc::SIOCSIFFLAGS as _,
            &raw const request,
        )
    };
    check(result.into()).map(drop)
}

/// Sets a terminal's size; the kernel sends SIGWINCH to its foreground processes.
pub(crate) fn set_window_size(terminal: BorrowedFd<'_>, rows: u16, columns: u16) -> io::Result<()> {
    let size = libc::winsize {
        ws_row: rows,
        ws_col: columns,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    // SAFETY: the kernel reads a `winsize` that outlives the call.
    let result = unsafe { libc::ioctl(terminal.as_raw_fd(), libc::TIOCSWINSZ, &raw const size) };
    check(result.into()).map(drop)
}

/// Unlocks the slave side of a pseudo-terminal.
pub(crate) fn unlock_terminal(master: BorrowedFd<'_>) -> io::Result<()> {
    let locked: c_int = 0;
    // SAFETY: the kernel reads one int that outlives the call.
    let result = unsafe { libc::ioctl(master.as_raw_fd(), libc::TIOCSPTLCK, &raw const locked) };
    check(result.into()).map(drop)
}

/// The number of a pseudo-terminal under /dev/pts.
pub(crate) fn terminal_number(master: BorrowedFd<'_>) -> io::Result<u32> {
    let mut number: libc::c_uint = 0;
    // SAFETY: the kernel writes one int into a variable that outlives the call.
    let result = unsafe { libc::ioctl(master.as_raw_fd(), libc::TIOCGPTN, &raw mut number) };
    check(result.into())?;
    Ok(number)
}

/// Opens the slave side without a path, which a container could have replaced.
pub(crate) fn terminal_peer(master: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    let flags = libc::O_RDWR | libc::O_NOCTTY | libc::O_CLOEXEC;
    // SAFETY: the argument is passed by value.
    owned(unsafe { libc::ioctl(master.as_raw_fd(), libc::TIOCGPTPEER, flags) }.into())
}

/// Makes a terminal the controlling terminal of the calling session leader.
pub(crate) fn set_controlling_terminal(terminal: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: the argument is passed by value.
    check(unsafe { libc::ioctl(terminal.as_raw_fd(), libc::TIOCSCTTY, 0) }.into()).map(drop)
}

/// A descriptor for a process of our own, by its number.
pub(crate) fn pidfd_open(pid: libc::pid_t) -> io::Result<OwnedFd> {
    // SAFETY: all arguments are passed by value.
    owned(unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) })
}

/// Sends a signal to the process that a pidfd names, which cannot have been recycled.
pub(crate) fn pidfd_send_signal(pidfd: BorrowedFd<'_>, signal: c_int) -> io::Result<()> {
    // SAFETY: a null siginfo is allowed; the rest is passed by value.
    let result = unsafe {
        libc::syscall(
            libc::SYS_pidfd_send_signal,
            pidfd.as_raw_fd(),
            signal,
            std::ptr::null::<libc::siginfo_t>(),
            0,
        )
    };
    check(result).map(drop)
}

/// Removes a capability from the bounding set of the calling process.
pub(crate) fn drop_bounding(capability: u8) -> io::Result<()> {
    // SAFETY: all arguments are passed by value.
    let result = unsafe {
        libc::prctl(
            libc::PR_CAPBSET_DROP,
            libc::c_ulong::from(capability),
            0,
            0,
            0,
        )
    };
    check(result.into()).map(drop)
}

/// Sets the supplementary groups. The C library's function, like those for user and group, would also
/// signal all threads of the agent, whose memory the caller still shares.
pub(crate) fn set_groups(groups: &[u32]) -> io::Result<()> {
    // SAFETY: the kernel reads as many numbers as the slice has.
    check(unsafe { libc::syscall(libc::SYS_setgroups, groups.len(), groups.as_ptr()) }).map(drop)
}

/// Sets the real, effective and saved group.
pub(crate) fn set_group(gid: u32) -> io::Result<()> {
    // SAFETY: all arguments are passed by value.
    check(unsafe { libc::syscall(libc::SYS_setresgid, gid, gid, gid) }).map(drop)
}

/// Sets the real, effective and saved user, and with them gives up root's privileges.
pub(crate) fn set_user(uid: u32) -> io::Result<()> {
    // SAFETY: all arguments are passed by value.
    check(unsafe { libc::syscall(libc::SYS_setresuid, uid, uid, uid) }).map(drop)
}

/// From here on no exec grants privileges (setuid bits, file capabilities).
pub(crate) fn set_no_new_privileges() -> io::Result<()> {
    // SAFETY: all arguments are passed by value.
    check(unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) }.into()).map(drop)
}

/// Keeps other processes from tracing this one or reading its memory.
pub(crate) fn set_undumpable() -> io::Result<()> {
    // SAFETY: all arguments are passed by value.
    check(unsafe { libc::prctl(libc::PR_SET_DUMPABLE, 0, 0, 0, 0) }.into()).map(drop)
}

/// Sets a resource limit by its number.
pub(crate) fn set_limit(resource: u32, soft: u64, hard: u64) -> io::Result<()> {
    let limit = libc::rlimit {
        rlim_cur: soft,
        rlim_max: hard,
    };
    // SAFETY: the kernel reads an `rlimit` that outlives the call; an unknown number is an error.
    check(unsafe { libc::setrlimit(resource, &raw const limit) }.into()).map(drop)
}

/// A list of C strings as execve(2) takes it: pointers ending with a null.
pub(crate) struct CStrings<'a> {
    pointers: Vec<*const c_char>,
    strings: std::marker::PhantomData<&'a CStr>,
}

impl<'a> CStrings<'a> {
    /// Borrows every string for as long as the list lives.
    pub(crate) fn new(strings: impl IntoIterator<Item = &'a CStr>) -> Self {
        let pointers = strings
            .into_iter()
            .map(CStr::as_ptr)
            .chain([std::ptr::null()])
            .collect();
        Self {
            pointers,
            strings: std::marker::PhantomData,
        }
    }

    /// Replaces one string; an index beyond the list does nothing.
    pub(crate) fn replace(&mut self, index: usize, string: &'a CStr) {
        if index + 1 < self.pointers.len() {
            self.pointers[index] = string.as_ptr();
        }
    }
}

/// execve(2): returns only to say why it failed.
pub(crate) fn execute(path: &CStr, args: &CStrings<'_>, env: &CStrings<'_>) -> io::Error {
    // SAFETY: both lists end with a null and borrow strings that are still alive.
    unsafe { libc::execve(path.as_ptr(), args.pointers.as_ptr(), env.pointers.as_ptr()) };
    io::Error::last_os_error()
}

/// execveat(2) of an open file: returns only to say why it failed.
pub(crate) fn execute_file(
    file: BorrowedFd<'_>,
    args: &CStrings<'_>,
    env: &CStrings<'_>,
) -> io::Error {
    // SAFETY: as in `execute`; the path is an empty C string, as AT_EMPTY_PATH wants it.
    unsafe {
        libc::syscall(
            libc::SYS_execveat,
            file.as_raw_fd(),
            c"".as_ptr(),
            args.pointers.as_ptr(),
            env.pointers.as_ptr(),
            libc::AT_EMPTY_PATH,
        )
    };
    io::Error::last_os_error()
}

/// dup2(2) onto one of the three standard descriptors of a process that is about to exec.
pub(crate) fn become_standard(fd: BorrowedFd<'_>, number: c_int) -> io::Result<()> {
    // SAFETY: only descriptors 0 to 2 are replaced, which no Rust object of this process owns.
    check(unsafe { libc::dup2(fd.as_raw_fd(), number) }.into()).map(drop)
}

/// Restores the default action of SIGPIPE; then every signal is blocked, or none.
pub(crate) fn reset_signals(blocked: bool) -> io::Result<()> {
    // SAFETY: all-zero bytes are a valid `sigset_t`, the empty set; SIG_DFL installs no handler.
    unsafe {
        if libc::signal(libc::SIGPIPE, libc::SIG_DFL) == libc::SIG_ERR {
            return Err(io::Error::last_os_error());
        }
        let mut mask: libc::sigset_t = std::mem::zeroed();
        if blocked {
            check(libc::sigfillset(&raw mut mask).into())?;
        }
        check(libc::sigprocmask(libc::SIG_SETMASK, &raw const mask, std::ptr::null_mut()).into())
            .map(drop)
    }
}

/// Waits for the child that a pidfd names, and says with which code it ended; the call does not block where the child
/// has ended.
pub(crate) fn reap(pidfd: &impl AsFd) -> io::Result<u8> {
    let id = pidfd.as_fd().as_raw_fd().unsigned_abs();
    let ended = wait(libc::P_PIDFD, id, libc::WEXITED)?;
    Ok(ended.map_or(u8::MAX, |(_, code)| code))
}

/// Reaps one child that has ended: its number, and the code with which it ended.
pub(crate) fn reap_any() -> io::Result<Option<(libc::pid_t, u8)>> {
    wait(libc::P_ALL, 0, libc::WEXITED | libc::WNOHANG)
}

/// Waits as waitid(2). The code is 0 to 255, or 128 and the signal's number. Not through `nix`, which takes a
/// real-time signal for an error.
fn wait(kind: libc::idtype_t, id: u32, flags: c_int) -> io::Result<Option<(libc::pid_t, u8)>> {
    // SAFETY: all-zero bytes are a valid `siginfo_t`, to which the kernel writes; the fields that are read are those of
    // a child's end, which waitid(2) fills, or zero.
    unsafe {
        let mut info: libc::siginfo_t = std::mem::zeroed();
        check(libc::waitid(kind, id, &raw mut info, flags).into())?;
        let status = info.si_status();
        let code = if info.si_code == libc::CLD_EXITED {
            status & 0xff
        } else {
            128 + status
        };
        Ok((info.si_pid() != 0).then(|| (info.si_pid(), u8::try_from(code).unwrap_or(u8::MAX))))
    }
}

/// Waits for one of the blocked signals of `set`, real-time signals included, and takes it.
pub(crate) fn take_signal(set: &nix::sys::signal::SigSet) -> io::Result<c_int> {
    // SAFETY: the set outlives the call, and a null pointer asks for no further information.
    let number = unsafe { libc::sigwaitinfo(set.as_ref(), std::ptr::null_mut()) };
    check(number.into()).map(|_| number)
}

/// Sends a signal by its number to a child that was not reaped yet.
pub(crate) fn signal_child(child: libc::pid_t, number: c_int) -> io::Result<()> {
    // SAFETY: all arguments are passed by value.
    check(unsafe { libc::kill(child, number) }.into()).map(drop)
}

/// Longest value of an extended attribute (xattr(7)).
const ATTRIBUTE_MAX: usize = 64 << 10;

/// Copies the extended attributes of a file, without following links. File systems that have none, or
/// not these, lose nothing.
pub(crate) fn copy_attributes(from: &std::path::Path, to: &std::path::Path) -> io::Result<()> {
    use std::os::unix::ffi::OsStrExt;
    let from = std::ffi::CString::new(from.as_os_str().as_bytes())?;
    let to = std::ffi::CString::new(to.as_os_str().as_bytes())?;
    let mut names = vec![0u8; ATTRIBUTE_MAX];
    // SAFETY: the kernel writes at most the buffer's length; the path is a C string.
    let length = unsafe { libc::llistxattr(from.as_ptr(), names.as_mut_ptr().cast(), names.len()) };
    if length <= 0 {
        let error = io::Error::last_os_error();
        let none = length == 0 || error.raw_os_error() == Some(libc::ENOTSUP);
        return if none { Ok(()) } else { Err(error) };
    }
    let mut value = vec![0u8; ATTRIBUTE_MAX];
    let used = names.get(..length.unsigned_abs()).unwrap_or(&[]);
    for name in used.split_inclusive(|byte| *byte == 0) {
        let Ok(name) = CStr::from_bytes_with_nul(name) else {
            continue;
        };
        // Overlayfs keeps its own book-keeping there.
        if name.to_bytes().starts_with(b"trusted.overlay.") {
            continue;
        }
        // SAFETY: the kernel writes at most the buffer's length; path and name are C strings.
        let length = check(unsafe {
            libc::lgetxattr(
                from.as_ptr(),
                name.as_ptr(),
                value.as_mut_ptr().cast(),
                value.len(),
            )
        } as libc::c_long)?;
        let length = length.unsigned_abs() as usize;
        // SAFETY: the kernel reads `length` bytes, which it has just written; the rest are C strings.
        let result = unsafe {
            libc::lsetxattr(to.as_ptr(), name.as_ptr(), value.as_ptr().cast(), length, 0)
        };
        match check(result.into()) {
            Err(error) if error.raw_os_error() == Some(libc::ENOTSUP) => {}
            result => result.map(drop)?,
        }
    }
    Ok(())
}

/// A descriptor that closes itself and never changes while it is owned.
pub(crate) trait Owned: std::os::fd::AsRawFd {}

impl Owned for OwnedFd {}
impl Owned for std::sync::Arc<OwnedFd> {}

/// Lets the event loop watch a descriptor. Needs a tokio runtime.
pub(crate) fn watch<T: Owned>(
    fd: T,
    interest: tokio::io::Interest,
) -> io::Result<tokio::io::unix::AsyncFd<T>> {
    // SAFETY: the types that implement `Owned` keep one descriptor open for as long as they live, and
    // the returned object holds `fd` until it is dropped.
    let watched = unsafe { tokio::io::unix::AsyncFd::register_with_interest(fd, interest) };
    watched.map_err(io::Error::from)
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::sys::signal::{SigSet, Signal};

    #[test]
    fn an_init_starts_with_every_signal_blocked_and_a_command_with_none() {
        // A mask belongs to a thread: the other tests keep theirs.
        std::thread::spawn(|| {
            reset_signals(true).unwrap();
            let mask = SigSet::thread_get_mask().unwrap();
            assert!(Signal::iterator().all(|signal| {
                matches!(signal, Signal::SIGKILL | Signal::SIGSTOP) || mask.contains(signal)
            }));
            reset_signals(false).unwrap();
            assert_eq!(SigSet::thread_get_mask().unwrap(), SigSet::empty());
        })
        .join()
        .unwrap();
    }
}
