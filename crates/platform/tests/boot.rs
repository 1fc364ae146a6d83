//! Boots every kernel that is on this machine with a tiny guest, as root and as an ordinary user, in and out of a
//! sandbox's jail, and looks at what is left afterwards.
//!
//! A program of its own (no test harness), because a jail must be entered from a process with one thread. Arguments
//! filter the tests by name. What cannot run here says so on a line that begins with `CANNOT RUN`.

use std::fs::{self, File};
use std::io::Read;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use bulkhead_harness::{cannot_run, named};
use bulkhead_jail::{HostIds, IdRange, Jailed, SandboxJail, VmRoot, Wall};
use bulkhead_platform::{
    Boot, KernelImage, KernelKind, KernelSearch, Machine, MachineExit, VmConfig, VmDevice,
    build_initramfs, find_kernel, platform,
};
use bulkhead_types::Isolation;

const MEMORY: u64 = 128 << 20;

type Test = fn(&Rig);

/// One kernel with the guest's initramfs.
struct Rig {
    kernel: KernelImage,
    initramfs: PathBuf,
}

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args()
        .skip(1)
        .filter(|word| !word.starts_with("--"))
        .collect();
    let Some(guest) = build_guest() else {
        named("boot", || {
            cannot_run!("there is no C compiler that links statically")
        });
        return ExitCode::SUCCESS;
    };
    let tests: [(&str, Test); 11] = [
        ("a guest that powers off is told apart", powers_off),
        ("a guest that restarts ends", restarts),
        (
            "a panic is told apart and its reason is on the console",
            panics,
        ),
        (
            "a killed kernel is told apart and leaves no process",
            killed,
        ),
        ("a stopped machine leaves no process", stopped),
        ("a dropped machine leaves no process", dropped),
        (
            "in a sandbox's jail every wall stands and the guest runs",
            jailed,
        ),
        (
            "in a sandbox's jail the guest finds its devices",
            jailed_device,
        ),
        (
            "where namespaces are forbidden the guest runs behind the other walls",
            without_namespaces,
        ),
        (
            "when the sandbox is killed its guest goes with it",
            sandbox_killed,
        ),
        (
            "guest root that mounts hostfs finds nothing of the host",
            hostfs,
        ),
    ];
    let mut failed = 0;
    for rig in rigs(&guest) {
        for (name, test) in &tests {
            let name = format!(
                "{:?} kernel, uid {}: {name}",
                rig.kernel.kind,
                nix::unistd::geteuid()
            );
            if !words.is_empty() && !words.iter().any(|word| name.contains(word.as_str())) {
                continue;
            }
            let started = Instant::now();
            let body = std::panic::AssertUnwindSafe(|| test(&rig));
            let result = named(&name, || std::panic::catch_unwind(body));
            let verdict = if result.is_ok() { "ok" } else { "FAILED" };
            failed += u32::from(result.is_err());
            println!(
                "test {name} ... {verdict} ({} ms)",
                started.elapsed().as_millis()
            );
        }
    }
    failed += again_as_an_ordinary_user(&words);
    ExitCode::from(u8::from(failed > 0))
}

/// The kernels that are here: the one that a search prefers, and the distribution's.
fn rigs(guest: &Guest) -> Vec<Rig> {
    let mut found: Vec<KernelImage> = Vec::new();
    let mut absent = String::from("none is here");
    let preferred = KernelSearch::from_environment(None);
    let distribution = KernelSearch {
        distribution: preferred.distribution.clone(),
        distribution_modules: preferred.distribution_modules.clone(),
        ..KernelSearch::default()
    };
    for search in [preferred, distribution] {
        match find_kernel(Isolation::UserMode, &search) {
            Ok(kernel) if !found.contains(&kernel) => found.push(kernel),
            Ok(_) => {}
            Err(error) => absent = error.to_string(),
        }
    }
    for kind in [KernelKind::Tuned, KernelKind::Distribution] {
        if !found.iter().any(|kernel| kernel.kind == kind) {
            named(&format!("{kind:?} kernel"), || cannot_run!("{absent}"));
        }
    }
    found
        .into_iter()
        .map(|kernel| {
            let initramfs = build_initramfs(&guest.binary, &kernel, guest.directory.path())
                .expect("an initramfs");
            Rig { kernel, initramfs }
        })
        .collect()
}

struct Guest {
    directory: tempfile::TempDir,
    binary: PathBuf,
}

fn build_guest() -> Option<Guest> {
    let directory = tempfile::tempdir().expect("a directory");
    let binary = directory.path().join("init");
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/guest.c");
    // The source is handed over on standard input: an ordinary user may not be able to reach its path.
    let mut compiler = Command::new("cc")
        .args(["-O1", "-static", "-x", "c", "-", "-o"])
        .arg(&binary)
        .stdin(File::open(source).ok()?)
        .spawn()
        .ok()?;
    compiler
        .wait()
        .ok()?
        .success()
        .then_some(Guest { directory, binary })
}

/// The whole program again as an ordinary user, when it runs as root.
fn again_as_an_ordinary_user(words: &[String]) -> u32 {
    if !nix::unistd::geteuid().is_root() {
        return 0;
    }
    // Copied, because the build directory may not be reachable for that user.
    let directory = tempfile::Builder::new()
        .prefix("bulkhead-boot-")
        .permissions(std::os::unix::fs::PermissionsExt::from_mode(0o755))
        .tempdir()
        .expect("a directory");
    let copy = directory.path().join("boot");
    fs::copy(std::env::current_exe().expect("a path"), &copy).expect("a copy");
    let mut command = Command::new(&copy);
    command
        .args(words)
        .env("HOME", "/nonexistent")
        .uid(65_534)
        .gid(65_534);
    if let Ok(kernel) = find_kernel(Isolation::UserMode, &KernelSearch::from_environment(None)) {
        let reachable = directory.path().join("linux");
        if kernel.kind == KernelKind::Tuned && fs::copy(&kernel.path, &reachable).is_ok() {
            command.env("BULKHEAD_KERNEL", reachable);
        }
    }
    let status = command.status().expect("the copy runs");
    u32::from(!status.success())
}

struct Started {
    machine: Box<dyn Machine>,
    console: OwnedFd,
}

fn config(rig: &Rig, boot: Boot, root: Option<VmRoot>, console: OwnedFd, word: &str) -> VmConfig {
    let _ = rig;
    VmConfig {
        memory_bytes: MEMORY,
        vcpus: 1,
        boot,
        root,
        console,
        devices: Vec::new(),
        arguments: vec![format!("test={word}")],
        thread_lock: None,
        page_map: None,
    }
}

fn start(rig: &Rig, word: &str) -> Started {
    let boot =
        Boot::open(Isolation::UserMode, &rig.kernel, &rig.initramfs).expect("the files open");
    let root = boot.root(MEMORY).expect("a root is asked for");
    let root = VmRoot::unjailed(&root, Some(HostIds::default())).expect("a root");
    let (console, write) = nix::unistd::pipe().expect("a pipe");
    let config = config(rig, boot, Some(root), write, word);
    let machine = platform(Isolation::UserMode)
        .expect("the platform")
        .start(config)
        .expect("a machine");
    Started { machine, console }
}

/// Everything on the console until its last writer is gone.
fn drain(console: OwnedFd) -> String {
    let mut text = Vec::new();
    File::from(console)
        .read_to_end(&mut text)
        .expect("the console is a pipe");
    String::from_utf8_lossy(&text).into_owned()
}

/// Waits for a line on the console; what was read so far is returned.
fn wait_for(console: &OwnedFd, line: &str) -> String {
    let mut text = Vec::new();
    let mut buffer = [0; 4096];
    let deadline = Instant::now() + Duration::from_secs(20);
    while !String::from_utf8_lossy(&text).contains(line) {
        assert!(
            Instant::now() < deadline,
            "no '{line}' on the console: {}",
            String::from_utf8_lossy(&text)
        );
        let count = nix::unistd::read(console.as_fd(), &mut buffer).expect("the console is a pipe");
        assert!(
            count > 0,
            "the console ended before '{line}': {}",
            String::from_utf8_lossy(&text)
        );
        text.extend_from_slice(&buffer[..count]);
    }
    String::from_utf8_lossy(&text).into_owned()
}

/// Processes of this machine whose executable or command is a guest kernel's.
fn kernels() -> Vec<i32> {
    let mut pids = Vec::new();
    for entry in fs::read_dir("/proc").expect("proc").filter_map(Result::ok) {
        let Ok(pid) = entry.file_name().to_string_lossy().parse::<i32>() else {
            continue;
        };
        let command = fs::read(entry.path().join("cmdline")).unwrap_or_default();
        if command.starts_with(b"linux\0mem=") {
            pids.push(pid);
        }
    }
    pids
}

/// Guest kernels that were not there `before` and are still there after a moment's grace.
fn left_over(before: &[i32]) -> Vec<i32> {
    let deadline = Instant::now() + Duration::from_secs(5);
    loop {
        let left: Vec<i32> = kernels()
            .into_iter()
            .filter(|pid| !before.contains(pid))
            .collect();
        if left.is_empty() || Instant::now() > deadline {
            return left;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn powers_off(rig: &Rig) {
    let before = kernels();
    let mut started = start(rig, "features");
    let exit = started.machine.wait().expect("it ends");
    let console = drain(started.console);
    assert_eq!(exit, MachineExit::PoweredOff, "{console}");
    assert!(console.contains("TEST init reached"), "{console}");
    assert!(console.contains("TEST child exited with 7"), "{console}");
    if rig.kernel.kind == KernelKind::Tuned {
        assert!(!console.contains(": no"), "{console}");
    }
    assert_eq!(
        started.machine.wait().expect("it ended"),
        exit,
        "a second wait tells the same"
    );
    assert_eq!(left_over(&before), Vec::<i32>::new());
}

fn restarts(rig: &Rig) {
    let mut started = start(rig, "restart");
    let exit = started.machine.wait().expect("it ends");
    assert_eq!(exit, MachineExit::PoweredOff, "{}", drain(started.console));
}

fn panics(rig: &Rig) {
    let before = kernels();
    let mut started = start(rig, "panic");
    let exit = started.machine.wait().expect("it ends");
    let console = drain(started.console);
    assert_eq!(exit, MachineExit::Panicked, "{console}");
    assert!(console.contains("Kernel panic - not syncing"), "{console}");
    assert_eq!(left_over(&before), Vec::<i32>::new());
}

fn killed(rig: &Rig) {
    let before = kernels();
    let mut started = start(rig, "spin");
    wait_for(&started.console, "TEST child exited");
    let pid = started.machine.pids()[0];
    nix::sys::signal::kill(
        nix::unistd::Pid::from_raw(pid),
        nix::sys::signal::Signal::SIGKILL,
    )
    .expect("it lives");
    assert_eq!(
        started.machine.wait().expect("it ends"),
        MachineExit::Killed(libc::SIGKILL)
    );
    assert_eq!(left_over(&before), Vec::<i32>::new());
}

fn stopped(rig: &Rig) {
    let before = kernels();
    let mut started = start(rig, "hang");
    wait_for(&started.console, "TEST child exited");
    started.machine.pause().expect("it lives");
    started.machine.resume().expect("it lives");
    started.machine.stop().expect("it lives");
    assert_eq!(
        started.machine.wait().expect("it ends"),
        MachineExit::Killed(libc::SIGKILL)
    );
    started
        .machine
        .stop()
        .expect("stopping what has ended is fine");
    assert_eq!(left_over(&before), Vec::<i32>::new());
}

fn dropped(rig: &Rig) {
    let before = kernels();
    let started = start(rig, "hang");
    wait_for(&started.console, "TEST child exited");
    drop(started.machine);
    assert_eq!(left_over(&before), Vec::<i32>::new());
    drop(started.console);
}

/// Runs the guest from within a sandbox's jail; the jail's exit code is 0 if the machine ended as `expected`.
fn in_jail(rig: &Rig, word: &'static str, expected: Option<MachineExit>) -> (Jailed, OwnedFd) {
    let boot =
        Boot::open(Isolation::UserMode, &rig.kernel, &rig.initramfs).expect("the files open");
    let (console, write) = nix::unistd::pipe().expect("a pipe");
    let mut keep = boot.descriptors();
    keep.push(write.as_raw_fd());
    let jail = SandboxJail {
        host_ids: Some(HostIds::stable(IdRange::default(), word)),
        keep,
        vm_root: boot.root(MEMORY),
        weakened: false,
        page_map: false,
    };
    let jailed = jail
        .spawn(move |mut enclosure| {
            let Some(root) = enclosure.take_vm_root() else {
                return 10;
            };
            let mut config = config(rig, boot, Some(root), write, word);
            config.thread_lock = Some(enclosure.thread_lock());
            if word == "device" {
                config.devices.push(VmDevice {
                    name: "rng".to_owned(),
                    device: Box::new(bulkhead_devices::Rng::new()),
                });
            }
            let started = platform(Isolation::UserMode).and_then(|platform| platform.start(config));
            let mut machine = match started {
                Ok(machine) => machine,
                Err(error) => {
                    eprintln!(
                        "in the jail: {error}: {:?}",
                        std::error::Error::source(&error)
                    );
                    return 11;
                }
            };
            if enclosure.lock().is_err() {
                return 12;
            }
            let exit = machine.wait();
            if machine
                .finish_devices()
                .iter()
                .any(|end| end.outcome.is_err())
            {
                return 15;
            }
            match (exit, expected) {
                (Ok(exit), Some(expected)) if exit == expected => 0,
                (Ok(_), _) => 13,
                (Err(_), _) => 14,
            }
        })
        .expect("a jail");
    (jailed, console)
}

fn jailed(rig: &Rig) {
    let before = kernels();
    let (jail, console) = in_jail(rig, "features", Some(MachineExit::PoweredOff));
    let report = jail.ready().expect("the jail is complete");
    let console = drain(console);
    let status =
        nix::sys::wait::waitpid(nix::unistd::Pid::from_raw(jail.pid), None).expect("it ends");
    assert!(
        matches!(status, nix::sys::wait::WaitStatus::Exited(_, 0)),
        "{status:?} {report}\n{console}"
    );
    assert!(console.contains("TEST child exited with 7"), "{console}");
    if !report.is_whole() && nix::unistd::geteuid().is_root() {
        cannot_run!("some walls: {report}");
    }
    assert!(report.stands(Wall::Seccomp), "{report}");
    assert_eq!(left_over(&before), Vec::<i32>::new());
}

fn jailed_device(rig: &Rig) {
    let (jail, console) = in_jail(rig, "device", Some(MachineExit::PoweredOff));
    let console = drain(console);
    let status = nix::sys::wait::waitpid(nix::unistd::Pid::from_raw(jail.pid), None);
    assert!(
        console.contains("TEST virtio device: there"),
        "{status:?} {console}"
    );
    assert!(
        matches!(status, Ok(nix::sys::wait::WaitStatus::Exited(_, 0))),
        "{status:?}"
    );
}

/// Runs the guest from a user namespace in which nobody can make another and this process has no capability.
fn without_namespaces(rig: &Rig) {
    // SAFETY: this program has one thread.
    let child = match unsafe { nix::unistd::fork() }.expect("a copy") {
        nix::unistd::ForkResult::Parent { child } => child,
        nix::unistd::ForkResult::Child => {
            let passed = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                forbid_namespaces();
                let before = kernels();
                let mut started = start(rig, "hang");
                wait_for(&started.console, "TEST child exited");
                let report = started
                    .machine
                    .jail()
                    .expect("a process of its own")
                    .clone();
                assert!(!report.stands(Wall::EmptyRoot), "{report}");
                assert!(report.stands(Wall::Landlock), "{report}");
                started.machine.stop().expect("it lives");
                let exit = started.machine.wait().expect("it ends");
                assert_eq!(exit, MachineExit::Killed(libc::SIGKILL));
                assert_eq!(left_over(&before), Vec::<i32>::new());
            }));
            // SAFETY: ends the copy without running the original's destructors.
            unsafe { libc::_exit(i32::from(passed.is_err())) }
        }
    };
    let status = nix::sys::wait::waitpid(child, None).expect("it ends");
    assert!(
        matches!(status, nix::sys::wait::WaitStatus::Exited(_, 0)),
        "{status:?}"
    );
}

fn forbid_namespaces() {
    let (uid, gid) = (nix::unistd::geteuid(), nix::unistd::getegid());
    nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWUSER).expect("a namespace");
    fs::write("/proc/self/setgroups", "deny").expect("setgroups");
    fs::write("/proc/self/gid_map", format!("1000 {gid} 1")).expect("a map");
    fs::write("/proc/self/uid_map", format!("1000 {uid} 1")).expect("a map");
    fs::write("/proc/sys/user/max_user_namespaces", "0").expect("the namespace's own limit");
    let none = [0_u32; 6];
    let header = [0x2008_0522_u32, 0];
    // SAFETY: header and data have the layout of version 3.
    let result = unsafe { libc::syscall(libc::SYS_capset, header.as_ptr(), none.as_ptr()) };
    assert_eq!(result, 0, "capabilities can be dropped");
}

fn sandbox_killed(rig: &Rig) {
    let before = kernels();
    let (jail, console) = in_jail(rig, "spin", None);
    wait_for(&console, "TEST child exited");
    let seen = kernels()
        .into_iter()
        .filter(|pid| !before.contains(pid))
        .count();
    assert!(seen > 0, "the guest kernel was never seen");
    nix::sys::signal::kill(
        nix::unistd::Pid::from_raw(jail.pid),
        nix::sys::signal::Signal::SIGKILL,
    )
    .expect("it lives");
    nix::sys::wait::waitpid(nix::unistd::Pid::from_raw(jail.pid), None).expect("it ends");
    assert_eq!(left_over(&before), Vec::<i32>::new());
}

fn hostfs(rig: &Rig) {
    let (jail, console) = in_jail(rig, "hostfs", Some(MachineExit::PoweredOff));
    let console = drain(console);
    nix::sys::wait::waitpid(nix::unistd::Pid::from_raw(jail.pid), None).expect("it ends");
    match rig.kernel.kind {
        KernelKind::Tuned => assert!(console.contains("TEST hostfs: not there"), "{console}"),
        KernelKind::Distribution => assert!(
            console.contains("TEST hostfs: 0 of the host's files"),
            "{console}"
        ),
    }
}
