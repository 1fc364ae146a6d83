//! The kernel process's jail, attacked by a program that plays a hostile guest kernel.

use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::time::Duration;

use bulkhead_harness::cannot_run;
use bulkhead_jail::{
    Content, HostIds, JailReport, KernelCommand, KernelLimits, RootFile, VmRoot, VmRootSpec, Wall,
};
use nix::unistd::Pid;

use crate::{Test, exit_code, forbid_namespaces, in_a_copy};

const SIGSYS: i32 = 128 + libc::SIGSYS;

pub(crate) const TESTS: &[Test] = &[
    ("a kernel process runs, alone in its namespace", runs),
    ("a kernel process finds no file of the host", no_files),
    (
        "a kernel process has no descriptor of its starter",
        no_descriptors,
    ),
    ("a kernel process reaches no other process", no_processes),
    (
        "a kernel process reaches no abstract socket of the host",
        no_abstract_sockets,
    ),
    (
        "a kernel process cannot change what others start from",
        read_only,
    ),
    ("a kernel process's memory and files are bounded", bounded),
    (
        "a panic ends a kernel process at once although it cannot abort",
        panic_ends,
    ),
    (
        "what a kernel process has a fallback for is refused, not deadly",
        refused,
    ),
    ("everything else kills a kernel process", forbidden),
    (
        "where namespaces are forbidden the kernel process keeps the other walls",
        without_namespaces,
    ),
    (
        "where namespaces are forbidden a kernel process connects to its devices and then to nothing",
        connects_to_its_devices_only,
    ),
];

/// The hostile program, compiled once; `None` where there is no compiler.
fn program() -> Option<&'static File> {
    static PROGRAM: OnceLock<Option<File>> = OnceLock::new();
    PROGRAM
        .get_or_init(|| {
            let directory = tempfile::tempdir().expect("a directory");
            let binary = directory.path().join("hostile");
            let mut compiler = Command::new("cc")
                .args(["-O1", "-static", "-w", "-x", "c", "-", "-o"])
                .arg(&binary)
                .stdin(Stdio::piped())
                .spawn()
                .ok()?;
            let source = include_str!("../hostile.c");
            std::io::Write::write_all(&mut compiler.stdin.take()?, source.as_bytes()).ok()?;
            let compiled = compiler.wait().ok()?.success();
            compiled.then(|| File::open(&binary).expect("it was written"))
        })
        .as_ref()
}

/// What came of one attempt.
struct Outcome {
    code: i32,
    said: String,
    report: JailReport,
}

fn attempt(words: &[&str]) -> Option<Outcome> {
    attempt_admitted(words, 0)
}

/// As [`attempt`]; without a namespace around it the program may connect so many times.
fn attempt_admitted(words: &[&str], connections: usize) -> Option<Outcome> {
    let Some(program) = program() else {
        cannot_run!("there is no C compiler that links statically");
        return None;
    };
    let spec = VmRootSpec {
        bytes: 8 << 20,
        huge_pages: false,
        files: vec![RootFile {
            name: "initramfs".to_owned(),
            content: Content::Bytes(b"content".to_vec()),
            executable: false,
        }],
    };
    let root = VmRoot::unjailed(&spec, Some(HostIds::default())).expect("a root");
    let (read, write): (OwnedFd, OwnedFd) = nix::unistd::pipe().expect("a pipe");
    let arguments = ["hostile"]
        .iter()
        .chain(words)
        .map(|word| (*word).to_owned())
        .collect();
    let command = KernelCommand {
        program: program.as_fd(),
        libraries: Vec::new(),
        arguments,
        environment: Vec::new(),
        console: write.as_fd(),
        root: &root,
        cpu: Some(0),
        limits: KernelLimits {
            private_bytes: 32 << 20,
            ..KernelLimits::of(8 << 20)
        },
    };
    let mut process = command.spawn().expect("it starts");
    drop(write);
    process
        .admit(connections, Duration::from_secs(60))
        .expect("its connections are answered");
    let mut said = String::new();
    File::from(read).read_to_string(&mut said).expect("a pipe");
    Some(Outcome {
        code: exit_code(Pid::from_raw(process.pid)),
        said,
        report: process.report,
    })
}

/// Attempts `words`; `Some` only where the named wall stands, whose absence is said aloud.
fn attempt_behind(wall: Wall, words: &[&str]) -> Option<Outcome> {
    let outcome = attempt(words)?;
    if !outcome.report.stands(wall) {
        cannot_run!("{words:?}: {}", outcome.report);
        return None;
    }
    Some(outcome)
}

fn runs() {
    if let Some(outcome) = attempt_behind(Wall::PidNamespace, &["pid"]) {
        assert_eq!((outcome.code, outcome.said.as_str()), (0, "pid 1\n"));
    }
}

fn no_files() {
    for what in ["open", "climb"] {
        if let Some(outcome) = attempt_behind(Wall::EmptyRoot, &[what]) {
            assert_eq!(
                (outcome.code, outcome.said.as_str()),
                (1, "No such file or directory\n"),
                "{what}"
            );
        }
    }
}

fn no_descriptors() {
    let _open = File::open("/etc/passwd").expect("a file");
    if let Some(outcome) = attempt(&["descriptors"]) {
        assert_eq!(outcome.code, 1, "{}", outcome.said);
    }
}

fn no_processes() {
    if let Some(outcome) = attempt_behind(Wall::PidNamespace, &["signal"]) {
        assert_eq!((outcome.code, outcome.said.as_str()), (1, "reached 0\n"));
    }
    if let Some(outcome) = attempt_behind(Wall::PidNamespace, &["trace"]) {
        assert_eq!(outcome.code, 1, "{}", outcome.said);
    }
}

fn no_abstract_sockets() {
    let name = format!("bulkhead-walls-{}", std::process::id());
    let address = SocketAddr::from_abstract_name(&name).expect("a name");
    let _listener = UnixListener::bind_addr(&address).expect("a listener");
    if let Some(outcome) = attempt_behind(Wall::NetNamespace, &["abstract", &name]) {
        assert_eq!(outcome.code, 1, "{}", outcome.said);
    }
}

fn read_only() {
    let Some(outcome) = attempt(&["read-initramfs"]) else {
        return;
    };
    assert_eq!(outcome.code, 0, "{}", outcome.said);
    // That its mount and mode forbid it too, the sandbox's tests look at.
    let outcome = attempt(&["write-initramfs"]).expect("it ran before");
    assert_eq!(outcome.code, SIGSYS, "{}", outcome.said);
}

fn bounded() {
    if let Some(outcome) = attempt(&["hoard"]) {
        let said: u64 = outcome
            .said
            .split_whitespace()
            .nth(1)
            .and_then(|n| n.parse().ok())
            .expect("a number");
        assert!(said <= 32 << 10, "{}", outcome.said);
    }
    if let Some(outcome) = attempt(&["shared-memory"]) {
        assert_eq!(
            (outcome.code, outcome.said.as_str()),
            (1, "Operation not permitted\n")
        );
    }
}

fn panic_ends() {
    if let Some(outcome) = attempt_behind(Wall::PidNamespace, &["abort"]) {
        assert_eq!(outcome.code, 127, "{}", outcome.said);
    }
}

fn refused() {
    if let Some(outcome) = attempt(&["execve"]) {
        assert_eq!(
            (outcome.code, outcome.said.as_str()),
            (1, "Operation not permitted\n")
        );
    }
}

fn forbidden() {
    let calls = [
        "inet",
        "netlink",
        "vsock",
        "unshare",
        "clone-user",
        "setns",
        "mount",
        "bpf",
        "io_uring",
        "perf",
        "keyctl",
        "memfd",
        "userfaultfd",
        "truncate",
        "shrink",
        "setuid",
        "chroot",
        "pidfd",
        "reboot",
        "sethostname",
        "tiocsti",
        "chmod",
        "listen",
        "own-limit",
        "signal-another",
        "lock",
        "reserve",
    ];
    for call in calls {
        if let Some(outcome) = attempt(&[call]) {
            assert_eq!(outcome.code, SIGSYS, "{call}: {}", outcome.said);
        }
    }
}

fn without_namespaces() {
    if program().is_none() {
        return;
    }
    let code = in_a_copy(|| {
        forbid_namespaces();
        let outcome = attempt(&["open"]).expect("there is a program");
        assert!(
            !outcome.report.stands(Wall::EmptyRoot),
            "{}",
            outcome.report
        );
        assert!(outcome.report.stands(Wall::Landlock), "{}", outcome.report);
        assert_eq!(
            (outcome.code, outcome.said.as_str()),
            (1, "Permission denied\n")
        );
        let outcome = attempt(&["inet"]).expect("there is a program");
        assert_eq!(outcome.code, SIGSYS);
        let outcome = attempt(&["limit-parent"]).expect("there is a program");
        assert_eq!(outcome.code, SIGSYS);
        let outcome = attempt(&["trace-parent"]).expect("there is a program");
        assert_eq!(
            (outcome.code, outcome.said.as_str()),
            (1, "Operation not permitted\n")
        );
        0
    });
    assert_eq!(code, 0);
}

fn connects_to_its_devices_only() {
    if program().is_none() {
        return;
    }
    let directory = tempfile::Builder::new()
        .permissions(PermissionsExt::from_mode(0o755))
        .tempdir()
        .expect("a directory");
    let path = directory.path().join("socket");
    let code = in_a_copy(|| {
        forbid_namespaces();
        let _listener = UnixListener::bind(&path).expect("a listener");
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o777)).expect("its mode");
        let words = ["connect", path.to_str().expect("a plain name")];
        let said = |admitted| {
            let outcome = attempt_admitted(&words, admitted).expect("there is a program");
            outcome.said
        };
        assert_eq!(said(0), "Function not implemented\n".repeat(2));
        assert_eq!(said(1), "it worked\nFunction not implemented\n");
        0
    });
    assert_eq!(code, 0);
}
