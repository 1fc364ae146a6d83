//! The system calls that libc and nix do not wrap, or wrap with an allocation.
//!
//! Everything here may run between `clone` and `execve` in the copy of a process that had threads: nothing
//! allocates, takes a lock or unwinds.

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

/// Turns a system call's result into a `Result`.
fn check(result: libc::c_long) -> io::Result<libc::c_long> {
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(result)
    }
}

/// What `clone3` made, seen from the parent; the child sees `None`.
pub(crate) struct Child {
    pub(crate) pid: libc::pid_t,
    pub(crate) pidfd: OwnedFd,
}

/// `clone3` with `CLONE_PIDFD` and the given namespace flags; a copy of the calling thread.
pub(crate) fn clone(flags: u64) -> io::Result<Option<Child>> {
    let mut pidfd: RawFd = -1;
    let mut args = libc::clone_args {
        flags: flags | u64::from(libc::CLONE_PIDFD.unsigned_abs()),
        pidfd: (&raw mut pidfd) as u64,
        child_tid: 0,
        parent_tid: 0,
        exit_signal: u64::from(libc::SIGCHLD.unsigned_abs()),
        stack: 0,
        stack_size: 0,
        tls: 0,
        set_tid: 0,
        set_tid_size: 0,
        cgroup: 0,
    };
    // SAFETY: `args` is a valid clone_args whose pidfd points to a live integer. Without CLONE_VM the child has
    // its own copy of memory and goes on with this very stack frame.
    let pid = check(unsafe {
        libc::syscall(
            libc::SYS_clone3,
            &raw mut args,
            size_of::<libc::clone_args>(),
        )
    })?;
    if pid == 0 {
        return Ok(None);
    }
    // SAFETY: on success the kernel stored a new descriptor that nobody else owns.
    let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
    Ok(Some(Child {
        pid: i32::try_from(pid).unwrap_or(0),
        pidfd,
    }))
}

/// Ends the process without running destructors or exit handlers, which belong to the parent's copy.
pub(crate) fn exit(code: i32) -> ! {
    // SAFETY: _exit only ends the process.
    unsafe { libc::_exit(code) }
}

/// Kills this process when its parent thread ends.
pub(crate) fn die_with_parent() -> io::Result<()> {
    // SAFETY: PR_SET_PDEATHSIG takes a number.
    check(unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) }.into()).map(drop)
}

/// Makes this process the parent of its descendants' orphans.
pub(crate) fn adopt_orphans() -> io::Result<()> {
    // SAFETY: plain numbers.
    check(unsafe { libc::prctl(libc::PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) }.into()).map(drop)
}

/// No later execve may gain rights.
pub(crate) fn no_new_privileges() -> io::Result<()> {
    // SAFETY: plain numbers.
    check(unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) }.into()).map(drop)
}

/// Lets the owner of the process see it in /proc again after a change of ids.
pub(crate) fn dumpable() -> io::Result<()> {
    // SAFETY: plain numbers.
    check(unsafe { libc::prctl(libc::PR_SET_DUMPABLE, 1, 0, 0, 0) }.into()).map(drop)
}

/// Gives up every capability of this thread, in all three sets (and with them the ambient set).
pub(crate) fn drop_capabilities() -> io::Result<()> {
    #[repr(C)]
    struct Header {
        version: u32,
        pid: i32,
    }
    // _LINUX_CAPABILITY_VERSION_3: two 32-bit words for each set.
    let header = Header {
        version: 0x2008_0522,
        pid: 0,
    };
    let none = [0_u32; 6];
    // SAFETY: header and data have the layout of version 3 and live through the call.
    check(unsafe { libc::syscall(libc::SYS_capset, &raw const header, none.as_ptr()) }).map(drop)
}

/// Becomes `uid` and `gid` (real, effective, saved) with no supplementary group. `groups` tells whether the
/// namespace allows setgroups.
pub(crate) fn become_ids(uid: u32, gid: u32, groups: bool) -> io::Result<()> {
    // The raw calls, because glibc's wrappers signal every thread it believes to exist.
    if groups {
        // SAFETY: an empty list needs no memory.
        check(unsafe { libc::syscall(libc::SYS_setgroups, 0, std::ptr::null::<libc::gid_t>()) })?;
    }
    // SAFETY: plain numbers.
    check(unsafe { libc::syscall(libc::SYS_setresgid, gid, gid, gid) })?;
    // SAFETY: plain numbers.
    check(unsafe { libc::syscall(libc::SYS_setresuid, uid, uid, uid) }).map(drop)
}

/// Sets both limits of `resource` to `value`, or to the hard limit where that is lower.
pub(crate) fn limit(resource: libc::__rlimit_resource_t, value: u64) -> io::Result<()> {
    let mut now = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: `now` is a valid rlimit.
    check(unsafe { libc::getrlimit(resource, &raw mut now) }.into())?;
    let value = value.min(now.rlim_max);
    let limit = libc::rlimit {
        rlim_cur: value,
        rlim_max: value,
    };
    // SAFETY: `limit` is a valid rlimit.
    check(unsafe { libc::setrlimit(resource, &raw const limit) }.into()).map(drop)
}

/// Closes descriptors `first..=last`.
pub(crate) fn close_range(first: u32, last: u32) -> io::Result<()> {
    if first > last {
        return Ok(());
    }
    // SAFETY: the caller means to close them; owners in this copy of the process are never dropped.
    check(unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) }).map(drop)
}

/// Closes every descriptor from 3 up except `keep`, which is sorted in place.
pub(crate) fn close_all_but(keep: &mut [RawFd]) -> io::Result<()> {
    keep.sort_unstable();
    let mut next = 3_u32;
    for fd in keep.iter().filter_map(|fd| u32::try_from(*fd).ok()) {
        if fd < next {
            continue;
        }
        close_range(next, fd.saturating_sub(1))?;
        next = fd.saturating_add(1);
    }
    close_range(next, u32::MAX)
}

/// Duplicates `from` onto the number `to`, which stays open across execve.
pub(crate) fn dup_onto(from: RawFd, to: RawFd) -> io::Result<()> {
    if from == to {
        // SAFETY: F_SETFD on a number; clears close-on-exec.
        return check(unsafe { libc::fcntl(to, libc::F_SETFD, 0) }.into()).map(drop);
    }
    // SAFETY: plain numbers; whatever `to` was is replaced on purpose.
    check(unsafe { libc::dup2(from, to) }.into()).map(drop)
}

/// Duplicates `from` to a number at or above `floor`, close-on-exec.
pub(crate) fn dup_above(from: RawFd, floor: RawFd) -> io::Result<RawFd> {
    // SAFETY: plain numbers.
    let fd = check(unsafe { libc::fcntl(from, libc::F_DUPFD_CLOEXEC, floor) }.into())?;
    Ok(i32::try_from(fd).unwrap_or(-1))
}

/// Executes the file that `program` refers to.
pub(crate) fn exec(
    program: RawFd,
    arguments: &[*const libc::c_char],
    environment: &[*const libc::c_char],
) -> io::Error {
    // SAFETY: both lists end with a null pointer (their builder adds it) and point to live C strings.
    unsafe {
        libc::syscall(
            libc::SYS_execveat,
            program,
            c"".as_ptr(),
            arguments.as_ptr(),
            environment.as_ptr(),
            libc::AT_EMPTY_PATH,
        );
    }
    io::Error::last_os_error()
}

/// `mount(2)`.
pub(crate) fn mount(
    source: &CStr,
    target: &CStr,
    kind: &CStr,
    flags: libc::c_ulong,
    options: Option<&CStr>,
) -> io::Result<()> {
    let data = options.map_or(std::ptr::null(), |o| o.as_ptr().cast());
    // SAFETY: all pointers are live C strings or null.
    check(
        unsafe { libc::mount(source.as_ptr(), target.as_ptr(), kind.as_ptr(), flags, data) }.into(),
    )
    .map(drop)
}

/// Makes the current directory, a mount point, the root, and lets go of the old root.
pub(crate) fn pivot_here() -> io::Result<()> {
    // SAFETY: live C strings. With both paths equal the old root is stacked on the new one at "/".
    check(unsafe { libc::syscall(libc::SYS_pivot_root, c".".as_ptr(), c".".as_ptr()) })?;
    // SAFETY: a live C string.
    check(unsafe { libc::umount2(c".".as_ptr(), libc::MNT_DETACH) }.into())?;
    chdir(c"/")
}

/// `chdir(2)`.
pub(crate) fn chdir(path: &CStr) -> io::Result<()> {
    // SAFETY: a live C string.
    check(unsafe { libc::chdir(path.as_ptr()) }.into()).map(drop)
}

/// `mkdir(2)`; a directory that exists is fine.
pub(crate) fn mkdir(path: &CStr, mode: libc::mode_t) -> io::Result<()> {
    // SAFETY: a live C string.
    match check(unsafe { libc::mkdir(path.as_ptr(), mode) }.into()) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        other => other.map(drop),
    }
}

/// Writes `content` to the existing file `path` in one call.
pub(crate) fn write_file(path: &CStr, content: &[u8]) -> io::Result<()> {
    // SAFETY: a live C string.
    let fd = check(unsafe { libc::open(path.as_ptr(), libc::O_WRONLY | libc::O_CLOEXEC) }.into())?;
    // SAFETY: a descriptor just opened, owned by nobody else.
    let fd = unsafe { OwnedFd::from_raw_fd(i32::try_from(fd).unwrap_or(-1)) };
    // SAFETY: the buffer is live for its length.
    check(
        unsafe { libc::write(fd.as_raw_fd(), content.as_ptr().cast(), content.len()) }
            as libc::c_long,
    )
    .map(drop)
}

/// Restricts the calling thread to a Landlock rule set.
pub(crate) fn landlock_restrict(ruleset: RawFd) -> io::Result<()> {
    // SAFETY: plain numbers.
    check(unsafe { libc::syscall(libc::SYS_landlock_restrict_self, ruleset, 0) }).map(drop)
}

/// The Landlock version of this kernel.
pub(crate) fn landlock_version() -> io::Result<i64> {
    // SAFETY: with LANDLOCK_CREATE_RULESET_VERSION (1) no memory is read.
    check(unsafe {
        libc::syscall(
            libc::SYS_landlock_create_ruleset,
            std::ptr::null::<libc::c_void>(),
            0,
            1,
        )
    })
}

/// Adds a seccomp filter to the calling thread.
pub(crate) fn seccomp(program: &[libc::sock_filter]) -> io::Result<()> {
    seccomp_with(program, 0).map(drop)
}

/// Adds a seccomp filter to the calling thread. The descriptor, close-on-exec, hears of the calls for which the filter
/// answers that somebody else decides.
pub(crate) fn seccomp_heard(program: &[libc::sock_filter]) -> io::Result<OwnedFd> {
    let fd = seccomp_with(program, libc::SECCOMP_FILTER_FLAG_NEW_LISTENER)?;
    // SAFETY: a descriptor just made, owned by nobody else.
    Ok(unsafe { OwnedFd::from_raw_fd(i32::try_from(fd).unwrap_or(-1)) })
}

fn seccomp_with(program: &[libc::sock_filter], flags: libc::c_ulong) -> io::Result<libc::c_long> {
    let program = libc::sock_fprog {
        len: u16::try_from(program.len()).map_err(|_| io::ErrorKind::InvalidInput)?,
        filter: program.as_ptr().cast_mut(),
    };
    // SAFETY: the kernel only reads the program, which lives through the call.
    check(unsafe {
        libc::syscall(
            libc::SYS_seccomp,
            libc::SECCOMP_SET_MODE_FILTER,
            flags,
            &raw const program,
        )
    })
}

/// Lets one system call go on that waits at the seccomp listener `fd`; to be called when that is readable.
pub(crate) fn seccomp_let_go(fd: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: plain data, for which zero is valid, as the kernel demands of the first.
    let (mut call, mut answer): (libc::seccomp_notif, libc::seccomp_notif_resp) =
        unsafe { std::mem::zeroed() };
    // SECCOMP_IOCTL_NOTIF_RECV and _SEND of linux/seccomp.h.
    // SAFETY: the kernel fills a seccomp_notif, of whose size the request tells.
    check(unsafe { libc::ioctl(fd.as_raw_fd(), 0xc050_2100, &raw mut call) }.into())?;
    answer.id = call.id;
    answer.flags = libc::SECCOMP_USER_NOTIF_FLAG_CONTINUE as u32;
    // SAFETY: the kernel reads a seccomp_notif_resp, of whose size the request tells.
    check(unsafe { libc::ioctl(fd.as_raw_fd(), 0xc018_2101, &raw mut answer) }.into()).map(drop)
}

/// This process's own id. The raw call, because a libc may remember its parent's.
pub(crate) fn own_pid() -> u32 {
    // SAFETY: takes nothing and cannot fail.
    let pid = unsafe { libc::syscall(libc::SYS_getpid) };
    u32::try_from(pid).unwrap_or(0)
}

/// Names the host of this UTS namespace.
pub(crate) fn set_host_name(name: &str) -> io::Result<()> {
    // SAFETY: the buffers are live for their length.
    check(unsafe { libc::sethostname(name.as_ptr().cast(), name.len()) }.into())?;
    // SAFETY: as above.
    check(unsafe { libc::setdomainname(name.as_ptr().cast(), 0) }.into()).map(drop)
}

/// Two connected sockets that keep messages apart, close-on-exec.
pub(crate) fn message_pair() -> io::Result<(OwnedFd, OwnedFd)> {
    let mut fds = [-1; 2];
    let kind = libc::SOCK_SEQPACKET | libc::SOCK_CLOEXEC;
    // SAFETY: room for two descriptors.
    check(unsafe { libc::socketpair(libc::AF_UNIX, kind, 0, fds.as_mut_ptr()) }.into())?;
    let [one, other] = fds;
    // SAFETY: two descriptors just made, owned by nobody else.
    Ok(unsafe { (OwnedFd::from_raw_fd(one), OwnedFd::from_raw_fd(other)) })
}

/// A control message with one descriptor, as large and as aligned as the kernel wants it.
#[repr(C)]
struct DescriptorMessage {
    header: libc::cmsghdr,
    fd: RawFd,
    _padding: u32,
}

/// Sends `bytes` as one message, with a descriptor.
pub(crate) fn send_with(
    socket: BorrowedFd<'_>,
    bytes: &[u8],
    fd: BorrowedFd<'_>,
) -> io::Result<()> {
    let mut control = DescriptorMessage {
        header: libc::cmsghdr {
            cmsg_len: size_of::<libc::cmsghdr>() + size_of::<RawFd>(),
            cmsg_level: libc::SOL_SOCKET,
            cmsg_type: libc::SCM_RIGHTS,
        },
        fd: fd.as_raw_fd(),
        _padding: 0,
    };
    let mut part = libc::iovec {
        iov_base: bytes.as_ptr().cast_mut().cast(),
        iov_len: bytes.len(),
    };
    // SAFETY: msghdr is plain data, for which zero is valid.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_iov = &raw mut part;
    message.msg_iovlen = 1;
    message.msg_control = (&raw mut control).cast();
    message.msg_controllen = size_of::<DescriptorMessage>();
    // SAFETY: everything that the message points to lives through the call.
    check(unsafe { libc::sendmsg(socket.as_raw_fd(), &raw const message, 0) } as libc::c_long)
        .map(drop)
}

/// Receives one message of at most `buffer`'s length, and the descriptor that came with it. No byte: the other end is
/// closed.
pub(crate) fn receive_with(
    socket: BorrowedFd<'_>,
    buffer: &mut [u8],
) -> io::Result<(usize, Option<OwnedFd>)> {
    // SAFETY: both are plain data, for which zero is valid.
    let (mut control, mut message): (DescriptorMessage, libc::msghdr) =
        unsafe { std::mem::zeroed() };
    let mut part = libc::iovec {
        iov_base: buffer.as_mut_ptr().cast(),
        iov_len: buffer.len(),
    };
    message.msg_iov = &raw mut part;
    message.msg_iovlen = 1;
    message.msg_control = (&raw mut control).cast();
    message.msg_controllen = size_of::<DescriptorMessage>();
    let got = loop {
        // SAFETY: everything that the message points to lives through the call.
        let got =
            unsafe { libc::recvmsg(socket.as_raw_fd(), &raw mut message, libc::MSG_CMSG_CLOEXEC) };
        match check(got as libc::c_long) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            other => break other?,
        }
    };
    let sent = message.msg_controllen >= size_of::<libc::cmsghdr>() + size_of::<RawFd>()
        && control.header.cmsg_type == libc::SCM_RIGHTS;
    // SAFETY: the kernel just made this descriptor for us.
    let fd = sent.then(|| unsafe { OwnedFd::from_raw_fd(control.fd) });
    Ok((usize::try_from(got).unwrap_or(0), fd))
}

/// Runs the calling thread on one CPU only.
pub(crate) fn pin(cpu: usize) -> io::Result<()> {
    // SAFETY: cpu_set_t is plain bits, for which zero is valid.
    let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    if cpu >= libc::CPU_SETSIZE.unsigned_abs() as usize {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    // SAFETY: `cpu` is below CPU_SETSIZE.
    unsafe { libc::CPU_SET(cpu, &mut set) };
    // SAFETY: `set` is a valid cpu_set_t.
    check(
        unsafe { libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &raw const set) }.into(),
    )
    .map(drop)
}

/// Same addresses at every start. See [`crate::KernelCommand`] for why.
pub(crate) fn no_address_randomisation() -> io::Result<()> {
    // SAFETY: plain numbers.
    check(unsafe { libc::personality(libc::ADDR_NO_RANDOMIZE as libc::c_ulong) }.into()).map(drop)
}

/// Default actions for all signals and an empty mask: an ignored or blocked signal would survive execve.
pub(crate) fn reset_signals() {
    for signal in 1..=64 {
        // SAFETY: SIG_DFL needs no code; for signals that cannot be changed the call fails harmlessly.
        unsafe { libc::signal(signal, libc::SIG_DFL) };
    }
    // SAFETY: sigset_t is plain bits; an empty set is valid.
    unsafe {
        let mut none: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut none);
        libc::sigprocmask(libc::SIG_SETMASK, &raw const none, std::ptr::null_mut());
    }
}

/// Reads until `buffer` is full or the other end is closed; the number of bytes read.
pub(crate) fn read_full(fd: BorrowedFd<'_>, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while let Some(rest) = buffer.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        // SAFETY: the buffer is live for its length.
        let read = unsafe { libc::read(fd.as_raw_fd(), rest.as_mut_ptr().cast(), rest.len()) };
        match usize::try_from(read) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(_) => {
                let error = io::Error::last_os_error();
                if error.kind() != io::ErrorKind::Interrupted {
                    return Err(error);
                }
            }
        }
    }
    Ok(filled)
}

/// Writes all of `bytes`.
pub(crate) fn write_full(fd: BorrowedFd<'_>, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        // SAFETY: the buffer is live for its length.
        let written = unsafe { libc::write(fd.as_raw_fd(), bytes.as_ptr().cast(), bytes.len()) };
        match usize::try_from(written) {
            Ok(count) => bytes = bytes.get(count..).unwrap_or_default(),
            Err(_) => {
                let error = io::Error::last_os_error();
                if error.kind() != io::ErrorKind::Interrupted {
                    return Err(error);
                }
            }
        }
    }
    Ok(())
}

/// Whether the other end of the pipe `fd` is closed.
pub(crate) fn hung_up(fd: BorrowedFd<'_>) -> bool {
    let mut poll = libc::pollfd {
        fd: fd.as_raw_fd(),
        events: 0,
        revents: 0,
    };
    // SAFETY: one valid pollfd, no wait.
    unsafe { libc::poll(&raw mut poll, 1, 0) };
    poll.revents & libc::POLLHUP != 0
}

/// Lets all threads of this process share one heap. To be called while there is one thread and was never a second,
/// whose heap would be handed on; a sandbox is executed for the purpose and forks its jailed half first.
///
/// With a heap for each thread glibc reads /proc/sys/vm/overcommit_memory when one first shrinks, which no policy
/// allows; and the first heap grows with brk, so that a locked thread needs no mmap. It is smaller, too.
pub(crate) fn one_heap() {
    // SAFETY: sets a parameter of malloc. It fails for unknown parameters only.
    unsafe { libc::mallopt(libc::M_ARENA_MAX, 1) };
}

/// Makes the mount at `path` read-only.
pub(crate) fn mount_read_only(path: &CStr) -> io::Result<()> {
    let attributes = libc::mount_attr {
        attr_set: libc::MOUNT_ATTR_RDONLY,
        attr_clr: 0,
        propagation: 0,
        userns_fd: 0,
    };
    // SAFETY: a live C string and a valid mount_attr of the given size.
    check(unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            libc::AT_FDCWD,
            path.as_ptr(),
            0,
            &raw const attributes,
            size_of::<libc::mount_attr>(),
        )
    })
    .map(drop)
}
