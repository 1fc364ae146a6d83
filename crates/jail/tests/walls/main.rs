//! Raises the jails for real, as root and as an ordinary user, and attacks them from inside.
//!
//! A program of its own (no test harness), because a jail must be entered from a process with one thread. Arguments
//! filter the tests by name. What cannot run here says so on a line that begins with `CANNOT RUN`.

mod kernel_walls;
mod sandbox_walls;
mod thread_walls;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};

use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid, fork};

type Test = (&'static str, fn());

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args()
        .skip(1)
        .filter(|word| !word.starts_with("--"))
        .collect();
    let mut failed = 0;
    // Threads first: like a sandbox they want a process that never had a second thread.
    let tests = thread_walls::TESTS
        .iter()
        .chain(sandbox_walls::TESTS)
        .chain(kernel_walls::TESTS);
    for (name, test) in tests {
        let name = format!("uid {}: {name}", nix::unistd::geteuid());
        if !words.is_empty() && !words.iter().any(|word| name.contains(word.as_str())) {
            continue;
        }
        let passed = bulkhead_harness::named(&name, || std::panic::catch_unwind(test)).is_ok();
        failed += u32::from(!passed);
        println!("test {name} ... {}", if passed { "ok" } else { "FAILED" });
    }
    failed += again_as_an_ordinary_user(&words);
    ExitCode::from(u8::from(failed > 0))
}

/// The whole program again as an ordinary user, when it runs as root.
fn again_as_an_ordinary_user(words: &[String]) -> u32 {
    if !nix::unistd::geteuid().is_root() {
        return 0;
    }
    // Copied, because the build directory may not be reachable for that user.
    let directory = tempfile::Builder::new()
        .prefix("bulkhead-walls-")
        .permissions(PermissionsExt::from_mode(0o755))
        .tempdir()
        .expect("a directory");
    let copy = directory.path().join("walls");
    fs::copy(std::env::current_exe().expect("a path"), &copy).expect("a copy");
    let status = Command::new(&copy)
        .args(words)
        .uid(65_534)
        .gid(65_534)
        .status();
    u32::from(!status.expect("the copy runs").success())
}

/// Runs `body` in a copy of this process and returns its exit code.
fn in_a_copy(body: impl FnOnce() -> i32) -> i32 {
    // SAFETY: this program has one thread.
    match unsafe { fork() }.expect("a copy") {
        ForkResult::Child => {
            let code = std::panic::catch_unwind(std::panic::AssertUnwindSafe(body)).unwrap_or(101);
            // SAFETY: ends the copy without running the original's destructors.
            unsafe { libc::_exit(code) }
        }
        ForkResult::Parent { child } => exit_code(child),
    }
}

/// Waits for `child`; a signal counts as 128 and its number.
fn exit_code(child: Pid) -> i32 {
    match waitpid(child, None).expect("it ends") {
        WaitStatus::Exited(_, code) => code,
        WaitStatus::Signaled(_, signal, _) => 128 + signal as i32,
        other => panic!("not an end: {other:?}"),
    }
}

/// Enters a user namespace in which this process has no capability and nobody can make a further namespace: what a
/// host looks like that forbids them.
fn forbid_namespaces() {
    let (uid, gid) = (nix::unistd::geteuid(), nix::unistd::getegid());
    nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWUSER).expect("a namespace");
    fs::write("/proc/self/setgroups", "deny").expect("setgroups");
    fs::write("/proc/self/gid_map", format!("1000 {gid} 1")).expect("a map");
    fs::write("/proc/self/uid_map", format!("1000 {uid} 1")).expect("a map");
    fs::write("/proc/sys/user/max_user_namespaces", "0").expect("the limit is the namespace's own");
    let none = [0_u32; 6];
    let header = [0x2008_0522_u32, 0];
    // SAFETY: header and data have the layout of version 3.
    let result = unsafe { libc::syscall(libc::SYS_capset, header.as_ptr(), none.as_ptr()) };
    assert_eq!(result, 0, "capabilities can be dropped");
}
