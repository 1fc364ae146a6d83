//! The sandbox's jail.

use std::fs::{self, File};
use std::io::Read;
use std::net::TcpStream;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use bulkhead_jail::{
    Content, Enclosure, HostIds, IdRange, JailError, JailReport, Missing, RootFile, SandboxJail,
    Thread, VmRootSpec, Wall, probe,
};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::{Test, exit_code, forbid_namespaces, in_a_copy};

const SIGSYS: i32 = 128 + libc::SIGSYS;
const SIGKILL: i32 = 128 + libc::SIGKILL;

pub(crate) const TESTS: &[Test] = &[
    ("every wall stands here, and the probe says so", probe_tells),
    ("a jailed process sees an empty root", empty_root),
    (
        "a jailed process is alone and the first of its namespace",
        alone,
    ),
    ("a jailed process has no network", no_network),
    (
        "a jailed process keeps no descriptor but those it was given",
        descriptors,
    ),
    ("a jailed process runs under an unprivileged host uid", uid),
    (
        "the kernel's root holds its files, read-only, and is bounded",
        vm_root,
    ),
    ("a forbidden system call kills a locked process", forbidden),
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
    ("a locked process has no capability left", no_capabilities),
    ("a jailed process dies with its parent", dies_with_parent),
    ("a process with threads is refused", threads_refused),
    ("where namespaces are forbidden orphans are swept up", swept),
    (
        "where namespaces are forbidden the rest stands and the report says why",
        forbidden_namespaces,
    ),
];

fn ids() -> HostIds {
    HostIds::stable(IdRange::default(), "walls")
}

/// Runs `body` in a jail; the jail's report and its exit code.
fn jailed(jail: &SandboxJail, body: impl FnOnce(Enclosure) -> i32) -> (JailReport, i32) {
    let jailed = jail.spawn(body).expect("a jail");
    let report = jailed.ready().expect("the jail is complete");
    (report, exit_code(Pid::from_raw(jailed.pid)))
}

fn plain() -> SandboxJail {
    SandboxJail {
        host_ids: Some(ids()),
        ..SandboxJail::default()
    }
}

fn probe_tells() {
    let report = probe();
    for Missing { wall, reason } in &report.missing {
        println!("SKIPPED what needs a {wall}: {reason}");
    }
    assert_eq!(
        report.standing.len() + report.missing.len(),
        Wall::ALL.len()
    );
    assert!(report.stands(Wall::Seccomp), "{report}");
    let root = nix::unistd::geteuid().is_root();
    assert_eq!(report.stands(Wall::DedicatedUid), root, "{report}");
}

fn empty_root() {
    let (report, code) = jailed(&plain(), |_| {
        let entries = fs::read_dir("/").map(Iterator::count).unwrap_or(99);
        let climbed =
            Path::new("/../../../etc/passwd").exists() || Path::new("../../etc/passwd").exists();
        let proc = Path::new("/proc/self").exists();
        i32::from(entries != 0) | i32::from(climbed) << 1 | i32::from(proc) << 2
    });
    if !report.stands(Wall::EmptyRoot) {
        println!("SKIPPED an empty root: {report}");
        return;
    }
    assert_eq!(code, 0);
}

fn alone() {
    let outside = i32::try_from(std::process::id()).expect("a pid");
    let (report, code) = jailed(&plain(), move |_| {
        let first = std::process::id() == 1;
        let reached = (2..outside + 100).any(|pid| kill(Pid::from_raw(pid), None).is_ok());
        i32::from(!first) | i32::from(reached) << 1
    });
    if !report.stands(Wall::PidNamespace) {
        println!("SKIPPED a process namespace: {report}");
        return;
    }
    assert_eq!(code, 0);
}

fn no_network() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a listener");
    let address = listener.local_addr().expect("an address");
    let (report, code) = jailed(&plain(), move |_| {
        i32::from(TcpStream::connect_timeout(&address, Duration::from_secs(1)).is_ok())
    });
    if report.stands(Wall::NetNamespace) {
        assert_eq!(code, 0);
    } else {
        println!("SKIPPED a network namespace: {report}");
    }
}

fn descriptors() {
    let secret = File::open("/etc/passwd").expect("a file");
    let (kept, _other) = UnixStream::pair().expect("a pair");
    let (secret_fd, kept_fd) = (secret.as_raw_fd(), kept.as_raw_fd());
    let jail = SandboxJail {
        keep: vec![kept_fd],
        ..plain()
    };
    let (_, code) = jailed(&jail, move |_| {
        // SAFETY: asks about numbers only.
        let open = |fd| unsafe { libc::fcntl(fd, libc::F_GETFD) } >= 0;
        i32::from(open(secret_fd)) | i32::from(!open(kept_fd)) << 1
    });
    assert_eq!(code, 0);
}

fn uid() {
    let (ready, mut told) = UnixStream::pair().expect("a pair");
    let jail = SandboxJail {
        keep: vec![ready.as_raw_fd()],
        ..plain()
    };
    let jailed = jail
        .spawn(move |_| {
            let _keep = &ready;
            std::thread::sleep(Duration::from_secs(30));
            0
        })
        .expect("a jail");
    let report = jailed.ready().expect("the jail is complete");
    let status = fs::read_to_string(format!("/proc/{}/status", jailed.pid)).expect("its status");
    let uid: u32 = status
        .lines()
        .find_map(|line| line.strip_prefix("Uid:"))
        .and_then(|line| line.split_whitespace().next())
        .and_then(|word| word.parse().ok())
        .expect("a uid");
    kill(Pid::from_raw(jailed.pid), Signal::SIGKILL).expect("it lives");
    assert_eq!(exit_code(Pid::from_raw(jailed.pid)), SIGKILL);
    let _ = told.set_read_timeout(Some(Duration::from_millis(10)));
    let _ = told.read(&mut [0]);
    let expected = match nix::unistd::geteuid() {
        root if root.is_root() => ids().uid,
        user => user.as_raw(),
    };
    assert_eq!(uid, expected, "{report}");
}

fn vm_root() {
    let file = tempfile::Builder::new()
        .permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666))
        .tempfile()
        .expect("a file");
    fs::write(file.path(), b"initramfs").expect("a file");
    let source: OwnedFd = File::open(file.path()).expect("a file").into();
    let keep = vec![source.as_raw_fd()];
    let jail = SandboxJail {
        keep,
        vm_root: Some(VmRootSpec {
            bytes: 1 << 20,
            huge_pages: false,
            files: vec![
                RootFile {
                    name: "initramfs".to_owned(),
                    content: Content::File(std::sync::Arc::new(source)),
                    executable: false,
                },
                RootFile {
                    name: "proc/cpuinfo".to_owned(),
                    content: Content::Bytes(b"flags".to_vec()),
                    executable: false,
                },
            ],
        }),
        ..plain()
    };
    let (report, code) = jailed(&jail, |mut enclosure| {
        let Some(root) = enclosure.take_vm_root() else {
            return 1;
        };
        if fs::read(root.path().join("initramfs")).unwrap_or_default() != b"initramfs" {
            return 2;
        }
        if fs::read(root.path().join("proc/cpuinfo")).unwrap_or_default() != b"flags" {
            return 3;
        }
        if root.is_enclosed() {
            if fs::write(root.path().join("initramfs"), b"changed").is_ok() {
                return 4;
            }
            if fs::write(root.path().join("big"), vec![1; 2 << 20]).is_ok() {
                return 5;
            }
        }
        0
    });
    assert_eq!(code, 0, "{report}");
    assert_eq!(fs::read(file.path()).expect("the file"), b"initramfs");
}

fn forbidden() {
    let attempts: [(&str, fn()); 4] = [
        ("open", || drop(File::open("/etc/passwd"))),
        ("socket", || drop(TcpStream::connect("127.0.0.1:1"))),
        ("execute", || {
            drop(std::process::Command::new("/bin/true").status())
        }),
        ("unshare", || {
            let _ = nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWUSER);
        }),
    ];
    for (what, attempt) in attempts {
        let (_, code) = jailed(&plain(), move |enclosure| {
            if enclosure.lock().is_err() {
                return 2;
            }
            attempt();
            0
        });
        assert_eq!(code, SIGSYS, "{what}");
    }
}

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

/// glibc looks into /proc when the heap of a thread shrinks, unless all threads share one.
fn heap_shrinks() {
    for kind in [
        Thread::Control,
        Thread::Device,
        Thread::Vcpu,
        Thread::Stream,
    ] {
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
    let all = [
        Thread::Control,
        Thread::Device,
        Thread::Vcpu,
        Thread::Stream,
    ];
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
        for kind in all {
            assert_eq!(in_locked_thread(kind, attempt), SIGSYS, "{kind:?}: {what}");
        }
    }
    let not_a_vcpu: [Attempt; 6] = [
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
    for (what, attempt) in not_a_vcpu {
        assert_eq!(in_locked_thread(Thread::Vcpu, attempt), SIGSYS, "{what}");
    }
    let run = || ioctl(KVM_RUN);
    for kind in [Thread::Control, Thread::Device, Thread::Stream] {
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
    let work = || {
        let Ok((read, write)) = nix::unistd::pipe() else {
            return 1;
        };
        let Ok((read_2, write_2)) = nix::unistd::pipe() else {
            return 1;
        };
        if nix::unistd::write(&write, b"abc").is_err() {
            return 2;
        }
        let moved = nix::fcntl::splice(
            &read,
            None,
            &write_2,
            None,
            3,
            nix::fcntl::SpliceFFlags::empty(),
        );
        let mut buffer = [0; 3];
        i32::from(
            moved != Ok(3) || nix::unistd::read(&read_2, &mut buffer) != Ok(3) || buffer != *b"abc",
        )
    };
    assert_eq!(in_locked_thread(Thread::Stream, work), 0);
    let pair = || i32::from(UnixStream::pair().is_ok());
    assert_eq!(
        in_locked_thread(Thread::Stream, pair),
        SIGSYS,
        "a stream makes no sockets"
    );
}

fn no_capabilities() {
    // Read by the parent: the locked process can open nothing.
    let (tell, told) = UnixStream::pair().expect("a pair");
    let jail = SandboxJail {
        keep: vec![tell.as_raw_fd()],
        ..plain()
    };
    let jailed = jail
        .spawn(move |enclosure| {
            let locked = enclosure.lock().is_ok();
            let _ = nix::unistd::write(&tell, &[u8::from(locked)]);
            std::thread::sleep(Duration::from_secs(30));
            0
        })
        .expect("a jail");
    let mut locked = [0];
    nix::unistd::read(&told, &mut locked).expect("it tells");
    let status = fs::read_to_string(format!("/proc/{}/status", jailed.pid)).expect("its status");
    let oom = fs::read_to_string(format!("/proc/{}/oom_score_adj", jailed.pid));
    kill(Pid::from_raw(jailed.pid), Signal::SIGKILL).expect("it lives");
    exit_code(Pid::from_raw(jailed.pid));
    let oom: i32 = oom.expect("its score").trim().parse().expect("a number");
    assert!(oom >= 300, "the host's own services live longer: {oom}");
    assert_eq!(locked, [1]);
    for set in ["CapInh:", "CapPrm:", "CapEff:", "CapAmb:"] {
        let value = status
            .lines()
            .find_map(|line| line.strip_prefix(set))
            .expect("the set")
            .trim();
        assert_eq!(value, "0000000000000000", "{set}");
    }
    assert!(status.contains("NoNewPrivs:\t1"), "{status}");
    assert!(status.contains("Seccomp:\t2"), "{status}");
}

fn dies_with_parent() {
    let (held, watch) = UnixStream::pair().expect("a pair");
    let code = in_a_copy(|| {
        let jail = SandboxJail {
            keep: vec![held.as_raw_fd()],
            ..plain()
        };
        let jailed = jail.spawn(|_| {
            std::thread::sleep(Duration::from_secs(60));
            0
        });
        // Ends at once, without a word to the jail.
        i32::from(jailed.and_then(|jailed| jailed.ready()).is_err())
    });
    assert_eq!(code, 0);
    drop(held);
    watch
        .set_read_timeout(Some(Duration::from_secs(5)))
        .expect("a timeout");
    let mut watch = watch;
    // The jailed process held the other end: end of file means that it is gone.
    assert_eq!(watch.read(&mut [0]).expect("it died within the time"), 0);
}

fn threads_refused() {
    let in_one_thread = probe().standing;
    let (stop, wait) = std::sync::mpsc::channel::<()>();
    let thread = std::thread::spawn(move || wait.recv().is_ok());
    let error = plain().spawn(|_| 0).expect_err("there are two threads");
    assert!(matches!(error, JailError::Threads(2)), "{error:?}");
    assert_eq!(probe().standing, in_one_thread, "the probe works there too");
    drop(stop);
    thread.join().expect("it ends");
}

fn swept() {
    let (held, watch) = UnixStream::pair().expect("a pair");
    let code = in_a_copy(|| {
        forbid_namespaces();
        let jail = SandboxJail {
            keep: vec![held.as_raw_fd()],
            ..plain()
        };
        let jailed = jail.spawn(|_| {
            // SAFETY: the jailed process has one thread.
            if let Ok(nix::unistd::ForkResult::Child) = unsafe { nix::unistd::fork() } {
                std::thread::sleep(Duration::from_secs(60));
            }
            0
        });
        let jailed = jailed.expect("a jail");
        assert_eq!(exit_code(Pid::from_raw(jailed.pid)), 0);
        jailed.sweep();
        let left = nix::sys::wait::waitpid(Pid::from_raw(-1), None);
        i32::from(left != Err(nix::errno::Errno::ECHILD))
    });
    assert_eq!(code, 0);
    drop(held);
    watch
        .set_read_timeout(Some(Duration::from_secs(5)))
        .expect("a timeout");
    let mut watch = watch;
    assert_eq!(watch.read(&mut [0]).expect("the orphan is gone"), 0);
}

fn forbidden_namespaces() {
    let code = in_a_copy(|| {
        forbid_namespaces();
        let (report, code) = jailed(&plain(), |enclosure| {
            if enclosure.lock().is_err() {
                return 2;
            }
            drop(File::open("/etc/passwd"));
            0
        });
        assert_eq!(code, SIGSYS, "{report}");
        for wall in [
            Wall::UserNamespace,
            Wall::EmptyRoot,
            Wall::PidNamespace,
            Wall::NetNamespace,
        ] {
            let missing = report.missing.iter().find(|missing| missing.wall == wall);
            let reason = &missing.expect("it is named").reason;
            assert!(reason.contains("the host refuses it"), "{reason}");
        }
        assert!(
            report.stands(Wall::Landlock) && report.stands(Wall::Seccomp),
            "{report}"
        );
        0
    });
    assert_eq!(code, 0);
}
