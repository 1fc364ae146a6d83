//! The sandbox's jail.

use std::fs::{self, File};
use std::io::Read;
use std::net::TcpStream;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use bulkhead_harness::cannot_run;
use bulkhead_jail::{
    Content, Enclosure, HostIds, IdRange, JailError, JailReport, Missing, RootFile, SandboxJail,
    VmRootSpec, Wall, probe,
};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::{Test, exit_code, forbid_namespaces, in_a_copy};

pub(crate) const SIGSYS: i32 = 128 + libc::SIGSYS;
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
    (
        "a jailed process can see which of its pages are mapped, and not where",
        page_map,
    ),
    ("a jailed process runs under an unprivileged host uid", uid),
    (
        "the kernel's root holds its files, read-only, and is bounded",
        vm_root,
    ),
    ("a forbidden system call kills a locked process", forbidden),
    ("a locked process has no capability left", no_capabilities),
    ("a jailed process dies with its parent", dies_with_parent),
    ("a process with threads is refused", threads_refused),
    ("where namespaces are forbidden orphans are swept up", swept),
    (
        "where namespaces are forbidden a jail that was not weakened is refused",
        weak_jail_is_refused,
    ),
    (
        "where namespaces are forbidden the kernel's root goes with its sandbox",
        unjailed_root_goes,
    ),
    (
        "a jailed process does not know its host's name",
        no_host_name,
    ),
    (
        "where namespaces are forbidden the rest stands and the report says why",
        forbidden_namespaces,
    ),
];

fn ids() -> HostIds {
    HostIds::stable(IdRange::default(), "walls")
}

/// Runs `body` in a jail; the jail's report and its exit code.
pub(crate) fn jailed(jail: &SandboxJail, body: impl FnOnce(Enclosure) -> i32) -> (JailReport, i32) {
    let jailed = jail.spawn(body).expect("a jail");
    let report = jailed.ready().expect("the jail is complete");
    (report, exit_code(Pid::from_raw(jailed.pid)))
}

pub(crate) fn plain() -> SandboxJail {
    SandboxJail {
        host_ids: Some(ids()),
        ..SandboxJail::default()
    }
}

fn probe_tells() {
    let report = probe();
    let root = nix::unistd::geteuid().is_root();
    for Missing { wall, reason } in &report.missing {
        // An ordinary user has no second uid to give away: that is no fault of the host's.
        if root || *wall != Wall::DedicatedUid {
            cannot_run!("what needs a {wall}: {reason}");
        }
    }
    assert_eq!(
        report.standing.len() + report.missing.len(),
        Wall::ALL.len()
    );
    assert!(report.stands(Wall::Seccomp), "{report}");
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
        cannot_run!("an empty root: {report}");
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
        cannot_run!("a process namespace: {report}");
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
        cannot_run!("a network namespace: {report}");
    }
}

fn page_map() {
    let jail = SandboxJail {
        page_map: true,
        ..plain()
    };
    let (_, code) = jailed(&jail, |mut enclosure| {
        let Some(map) = enclosure.take_page_map() else {
            return 1;
        };
        let page = [1_u8; 1];
        let mut entry = [0; 8];
        let at = page.as_ptr().addr() as u64 / 4096 * 8;
        if map.read_exact_at(&mut entry, at).is_err() {
            return 2;
        }
        // Present, and a number of a physical page that reads as zero (Documentation/admin-guide/mm/pagemap.rst).
        let entry = u64::from_ne_bytes(entry);
        i32::from(entry >> 63 != 1) | i32::from(entry << 9 != 0) << 1
    });
    assert_eq!(code, 0);
    let (_, code) = jailed(&plain(), |mut enclosure| {
        i32::from(enclosure.take_page_map().is_some())
    });
    assert_eq!(code, 0, "it was not asked for");
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
            weakened: true,
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

fn weak_jail_is_refused() {
    let code = in_a_copy(|| {
        forbid_namespaces();
        let refused = plain().spawn(|_| 0);
        let error = refused.and_then(|jailed| jailed.ready());
        let error = error.expect_err("walls are missing");
        assert!(matches!(error, JailError::Weak(_)), "{error:?}");
        let text = error.to_string();
        assert!(text.contains("user namespace"), "{text}");
        assert!(text.contains("the host refuses it"), "{text}");
        0
    });
    assert_eq!(code, 0);
}

fn unjailed_root_goes() {
    let (tell, told) = UnixStream::pair().expect("a pair");
    let code = in_a_copy(|| {
        forbid_namespaces();
        let jail = SandboxJail {
            keep: vec![tell.as_raw_fd()],
            weakened: true,
            vm_root: Some(VmRootSpec {
                bytes: 1 << 20,
                huge_pages: false,
                files: Vec::new(),
            }),
            ..plain()
        };
        let jailed = jail.spawn(|mut enclosure| {
            let root = enclosure.take_vm_root().expect("it was asked for");
            let path = root.path().as_os_str().as_encoded_bytes();
            let _ = nix::unistd::write(&tell, path);
            // As a sandbox that is killed: without a destructor.
            std::mem::forget(root);
            0
        });
        let jailed = jailed.expect("a jail");
        jailed.ready().expect("the jail is complete");
        assert_eq!(exit_code(Pid::from_raw(jailed.pid)), 0);
        let mut path = [0; 256];
        let length = nix::unistd::read(&told, &mut path).expect("it tells");
        let path = String::from_utf8_lossy(path.get(..length).expect("a part"));
        assert!(Path::new(&*path).is_dir(), "{path}");
        jailed.sweep();
        assert!(!Path::new(&*path).exists(), "{path}");
        0
    });
    assert_eq!(code, 0);
}

fn no_host_name() {
    let host = nix::unistd::gethostname().expect("a name");
    let (report, code) = jailed(&plain(), move |_| {
        let name = nix::unistd::gethostname().unwrap_or_default();
        i32::from(name == host || name != "bulkhead")
    });
    if report.stands(Wall::UtsNamespace) {
        assert_eq!(code, 0);
    }
}

fn forbidden_namespaces() {
    let code = in_a_copy(|| {
        forbid_namespaces();
        let weakened = SandboxJail {
            weakened: true,
            ..plain()
        };
        let (report, code) = jailed(&weakened, |enclosure| {
            if enclosure.lock().is_err() {
                return 2;
            }
            drop(File::open("/etc/passwd"));
            0
        });
        assert_eq!(code, SIGSYS, "{report}");
        let weaknesses = report.describe_weaknesses();
        assert!(weaknesses.contains("process namespace"), "{weaknesses}");
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
