//! Each kind of thread in the sandbox's jail: what it can do, and what it dies of.

use std::fs::File;
use std::os::fd::{FromRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use bulkhead_jail::Thread;

use crate::Test;
use crate::sandbox_walls::{SIGSYS, jailed, plain};

const KINDS: [Thread; 5] = [
    Thread::Control,
    Thread::Device,
    Thread::Vcpu,
    Thread::Ahead,
    Thread::Stream,
];

fn all_but(one: Thread) -> impl Iterator<Item = Thread> {
    KINDS.into_iter().filter(move |kind| *kind != one)
}

pub(crate) const TESTS: &[Test] = &[
    (
        "a locked control thread can run an async runtime and its threads",
        control_works,
    ),
    (
        "a locked device thread can do a device's work and no more",
        device_thread,
    ),
    (
        "a locked vCPU thread can run its vCPU and no more",
        vcpu_thread,
    ),
    (
        "a locked thread that maps ahead can do that and no more",
        ahead_thread,
    ),
    (
        "a locked thread of each kind can use and give back its heap",
        heap_shrinks,
    ),
    (
        "each kind of thread dies of what its kind has no use for",
        each_kind,
    ),
    (
        "a locked stream thread can move bytes and no more",
        stream_thread,
    ),
    (
        "a stream thread that the locked control thread starts can move bytes and no more",
        later_stream_thread,
    ),
];

fn control_works() {
    let (_, code) = jailed(&plain(), |enclosure| {
        if enclosure.lock().is_err() {
            return 2;
        }
        let Ok(runtime) = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
        else {
            return 3;
        };
        let echoed = runtime.block_on(async {
            use tokio::io::{AsyncReadExt, AsyncWriteExt};
            let (mut one, mut other) = tokio::net::UnixStream::pair().ok()?;
            let echo = tokio::spawn(async move {
                let mut buffer = [0; 4];
                other.read_exact(&mut buffer).await.ok()?;
                other.write_all(&buffer).await.ok()
            });
            tokio::time::sleep(Duration::from_millis(2)).await;
            one.write_all(b"ping").await.ok()?;
            let mut buffer = [0; 4];
            one.read_exact(&mut buffer).await.ok()?;
            echo.await.ok()??;
            let blocking = tokio::task::spawn_blocking(|| 5).await.ok()?;
            (buffer == *b"ping" && blocking == 5).then_some(())
        });
        let thread = std::thread::Builder::new()
            .name("worker".to_owned())
            .spawn(|| vec![0_u8; 1 << 22].len());
        let joined = thread.ok().and_then(|thread| thread.join().ok());
        if echoed.is_some() && joined == Some(1 << 22) {
            0
        } else {
            4
        }
    });
    assert_eq!(code, 0);
}

fn in_locked_thread(kind: Thread, body: impl FnOnce() -> i32 + Send + 'static) -> i32 {
    let (_, code) = jailed(&plain(), move |enclosure| {
        let lock = enclosure.thread_lock();
        let thread = std::thread::spawn(move || match lock.lock(kind) {
            Ok(()) => body(),
            Err(_) => 90,
        });
        thread.join().unwrap_or(91)
    });
    code
}

fn device_thread() {
    let work = || {
        let Ok((one, other)) = UnixStream::pair() else {
            return 1;
        };
        let _ = one.set_nonblocking(true);
        let Ok(epoll) =
            nix::sys::epoll::Epoll::new(nix::sys::epoll::EpollCreateFlags::EPOLL_CLOEXEC)
        else {
            return 2;
        };
        let event = nix::sys::epoll::EpollEvent::new(nix::sys::epoll::EpollFlags::EPOLLIN, 7);
        if epoll.add(&other, event).is_err() || nix::unistd::write(&one, b"x").is_err() {
            return 3;
        }
        let mut events = [nix::sys::epoll::EpollEvent::empty()];
        i32::from(epoll.wait(&mut events, 1000_u16) != Ok(1))
    };
    assert_eq!(in_locked_thread(Thread::Device, work), 0);
    assert_eq!(
        in_locked_thread(Thread::Device, || i32::from(File::open("/").is_ok())),
        SIGSYS
    );
    assert_eq!(
        in_locked_thread(Thread::Device, || i32::from(
            std::thread::Builder::new().spawn(|| ()).is_ok()
        )),
        SIGSYS
    );
}

/// What is attempted, and the attempt.
type Attempt = (&'static str, fn() -> i32);

/// `KVM_RUN`, `KVM_CREATE_VM` and `KVM_SET_USER_MEMORY_REGION` of linux/kvm.h.
const KVM_RUN: libc::c_ulong = 0xAE80;
const KVM_CREATE_VM: libc::c_ulong = 0xAE01;
const KVM_SET_USER_MEMORY_REGION: libc::c_ulong = 0x4020_AE46;

fn ioctl(request: libc::c_ulong) -> i32 {
    // SAFETY: a descriptor that no test has open; a request that got through finds nothing to act on.
    unsafe { libc::ioctl(-1, request, 0) }
}

fn vcpu_thread() {
    let work = || {
        // Not a vCPU: what matters is who answers, KVM's border or the filter.
        if ioctl(KVM_RUN) != -1 || nix::errno::Errno::last() != nix::errno::Errno::EBADF {
            return 1;
        }
        // Its own vCPU is closed at the end.
        // SAFETY: standard input, which nobody in this copy of the process uses.
        drop(unsafe { OwnedFd::from_raw_fd(0) });
        // An exit is answered with small values on the heap, across threads.
        let shared = std::sync::Arc::new(std::sync::Mutex::new(vec![0_u8; 600]));
        if shared.lock().is_ok_and(|bytes| bytes.len() != 600) {
            return 2;
        }
        let many: Vec<_> = (0..4096_u32).map(|n| vec![n; 64]).collect();
        // SAFETY: a live buffer of no bytes.
        let written = unsafe { libc::write(1, many.as_ptr().cast(), 0) };
        i32::from(written < 0) * 3
    };
    assert_eq!(in_locked_thread(Thread::Vcpu, work), 0);
    for request in [KVM_CREATE_VM, KVM_SET_USER_MEMORY_REGION, libc::TIOCSTI] {
        let code = in_locked_thread(Thread::Vcpu, move || ioctl(request));
        assert_eq!(code, SIGSYS, "{request:#x}");
    }
}

/// `KVM_PRE_FAULT_MEMORY` of linux/kvm.h and `PAGEMAP_SCAN` of linux/fs.h.
const KVM_PRE_FAULT_MEMORY: libc::c_ulong = 0xC040_AED5;
const PAGEMAP_SCAN: libc::c_ulong = 0xC060_6610;

fn ahead_thread() {
    let work = || {
        for request in [KVM_PRE_FAULT_MEMORY, PAGEMAP_SCAN] {
            if ioctl(request) != -1 || nix::errno::Errno::last() != nix::errno::Errno::EBADF {
                return 1;
            }
        }
        // SAFETY: all-zero values are valid: no signal, and no time to wait for it.
        let waited = unsafe {
            let set: libc::sigset_t = std::mem::zeroed();
            let none: libc::timespec = std::mem::zeroed();
            libc::sigtimedwait(&raw const set, std::ptr::null_mut(), &raw const none)
        };
        i32::from(waited != -1 || nix::errno::Errno::last() != nix::errno::Errno::EAGAIN) * 2
    };
    assert_eq!(in_locked_thread(Thread::Ahead, work), 0);
    for request in [KVM_RUN, KVM_SET_USER_MEMORY_REGION, libc::TIOCSTI] {
        let code = in_locked_thread(Thread::Ahead, move || ioctl(request));
        assert_eq!(code, SIGSYS, "{request:#x}");
    }
    for kind in all_but(Thread::Ahead) {
        for request in [KVM_PRE_FAULT_MEMORY, PAGEMAP_SCAN] {
            let code = in_locked_thread(kind, move || ioctl(request));
            assert_eq!(code, SIGSYS, "{kind:?}: {request:#x}");
        }
    }
}

/// glibc looks into /proc when the heap of a thread shrinks, unless all threads share one.
fn heap_shrinks() {
    for kind in KINDS {
        let work = || {
            for _ in 0..3 {
                let blocks: Vec<_> = (0..40_u8).map(|n| vec![n; 64 << 10]).collect();
                drop(std::hint::black_box(blocks));
            }
            0
        };
        assert_eq!(in_locked_thread(kind, work), 0, "{kind:?}");
    }
}

fn each_kind() {
    fn map(protection: libc::c_int) -> i32 {
        // SAFETY: a new anonymous mapping that nobody uses.
        let address = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                4096,
                protection,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
                -1,
                0,
            )
        };
        i32::from(address == libc::MAP_FAILED)
    }
    fn socket(domain: libc::c_int) -> i32 {
        // SAFETY: makes a descriptor or fails.
        i32::from(unsafe { libc::socket(domain, libc::SOCK_STREAM, 0) } < 0)
    }
    let nobody: [Attempt; 7] = [
        ("open a file", || i32::from(File::open("/").is_err())),
        ("make a network socket", || socket(libc::AF_INET)),
        ("make a netlink socket", || socket(libc::AF_NETLINK)),
        ("map code", || map(libc::PROT_READ | libc::PROT_EXEC)),
        ("create a machine", || ioctl(KVM_CREATE_VM)),
        ("trace a process", || {
            // SAFETY: a request without arguments.
            i32::from(unsafe { libc::ptrace(libc::PTRACE_TRACEME, 0, 0, 0) } < 0)
        }),
        ("execute a program", || {
            // SAFETY: live C strings, ended by a null pointer; on success nothing of this process goes on.
            unsafe { libc::execl(c"/bin/true".as_ptr(), c"true".as_ptr(), 0_usize) }
        }),
    ];
    for (what, attempt) in nobody {
        for kind in KINDS {
            assert_eq!(in_locked_thread(kind, attempt), SIGSYS, "{kind:?}: {what}");
        }
    }
    let nor_these: [Attempt; 6] = [
        ("map memory", || map(libc::PROT_READ)),
        ("read", || {
            // SAFETY: reads nothing into a live buffer.
            i32::from(unsafe { libc::read(-1, [0_u8; 1].as_mut_ptr().cast(), 1) } < 0)
        }),
        ("make a pair of sockets", || {
            i32::from(UnixStream::pair().is_err())
        }),
        ("receive a message", || {
            // SAFETY: asks for nothing.
            i32::from(unsafe { libc::recv(-1, std::ptr::null_mut(), 0, 0) } < 0)
        }),
        ("read a disk", || {
            // SAFETY: asks for nothing.
            i32::from(unsafe { libc::pread(-1, std::ptr::null_mut(), 0, 0) } < 0)
        }),
        ("change a signal's handler", || {
            // SAFETY: asks for the present handler only.
            unsafe { libc::sigaction(libc::SIGUSR1, std::ptr::null(), std::ptr::null_mut()) }
        }),
    ];
    for (what, attempt) in nor_these {
        for kind in [Thread::Vcpu, Thread::Ahead] {
            assert_eq!(in_locked_thread(kind, attempt), SIGSYS, "{kind:?}: {what}");
        }
    }
    let run = || ioctl(KVM_RUN);
    for kind in all_but(Thread::Vcpu) {
        assert_eq!(in_locked_thread(kind, run), SIGSYS, "{kind:?} is no vCPU");
    }
    let discard = || {
        // SAFETY: a null range of no bytes.
        i32::from(unsafe { libc::madvise(std::ptr::null_mut(), 0, libc::MADV_REMOVE) } < 0)
    };
    assert_ne!(in_locked_thread(Thread::Device, discard), SIGSYS);
    assert_eq!(in_locked_thread(Thread::Vcpu, discard), SIGSYS);
}

fn stream_thread() {
    let (_, code) = jailed(&plain(), |enclosure| {
        let lock = enclosure.thread_lock();
        let Ok((one, other)) = UnixStream::pair() else {
            return 89;
        };
        let thread = std::thread::spawn(move || match lock.lock(Thread::Stream) {
            Ok(()) => moves(one, other),
            Err(_) => 90,
        });
        thread.join().unwrap_or(91)
    });
    assert_eq!(code, 0);
    let pair = || i32::from(UnixStream::pair().is_ok());
    assert_eq!(
        in_locked_thread(Thread::Stream, pair),
        SIGSYS,
        "a stream makes no sockets"
    );
}

/// The exit code of `body`, which gets a pair of sockets, in a thread that the locked control thread started and that
/// then took the stream policy.
fn in_narrowed_thread(body: impl FnOnce(UnixStream, UnixStream) -> i32 + Send + 'static) -> i32 {
    let (_, code) = jailed(&plain(), move |enclosure| {
        let lock = enclosure.thread_lock();
        if enclosure.lock().is_err() {
            return 88;
        }
        let Ok((one, other)) = UnixStream::pair() else {
            return 89;
        };
        let thread = std::thread::Builder::new().spawn(move || match lock.narrow(Thread::Stream) {
            Ok(()) => body(one, other),
            Err(_) => 90,
        });
        thread
            .ok()
            .and_then(|thread| thread.join().ok())
            .unwrap_or(91)
    });
    code
}

fn later_stream_thread() {
    assert_eq!(in_narrowed_thread(moves), 0);
    // The control thread may make sockets; a stream has no use for them.
    let makes = |_, _| i32::from(UnixStream::pair().is_err());
    assert_eq!(in_narrowed_thread(makes), SIGSYS);
}

/// 0 if four bytes went through the pair.
fn moves(one: UnixStream, other: UnixStream) -> i32 {
    use std::io::{Read, Write};
    let mut buffer = [0; 4];
    let moved = (&one).write_all(b"ping").is_ok() && (&other).read_exact(&mut buffer).is_ok();
    i32::from(!moved || buffer != *b"ping")
}
