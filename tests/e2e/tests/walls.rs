//! Whoever gets code into a thread of a sandbox and makes a system call that its kind of thread has no use for, loses
//! the sandbox, and nobody else loses anything. Shown with a sandbox built to do it (`scripts/build-trespass.sh`).

use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::process::Command;

use bulkhead_e2e::{Bulkhead, Entry, Finished, Running, User, busybox_tar, cannot_run, layer};

/// `$BULKHEAD_TRESPASS_BIN`, else where `scripts/build-trespass.sh` puts it.
fn binary() -> PathBuf {
    std::env::var_os("BULKHEAD_TRESPASS_BIN").map_or_else(
        || bulkhead_e2e::binary().with_file_name("../debug/bulkhead-trespass"),
        PathBuf::from,
    )
}

/// `bulkhead run` of that build, in the surroundings that the installation gives the real one.
fn run(b: &Bulkhead, trespasser: Option<&str>) -> Finished {
    let arguments = ["run", "--rm", "busybox", "echo", "hello"];
    let real = b.process(&arguments);
    let agent = Path::new(real.get_program()).with_file_name("bulkhead-agent");
    let mut command = Command::new(binary());
    command.args(arguments).current_dir(b.home());
    for (name, value) in real.get_envs() {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    if std::env::var_os("BULKHEAD_AGENT").is_none() {
        command.env("BULKHEAD_AGENT", agent);
    }
    command.envs(trespasser.map(|kind| ("BULKHEAD_TRESPASS", kind)));
    Running::start(&mut command, None).finish()
}

/// Busybox, and so much more that its pages are worth mapping ahead.
fn large_image() -> Vec<u8> {
    // Two empty blocks end an archive.
    const END: usize = 1024;
    let mut archive = busybox_tar();
    archive.truncate(archive.len() - END);
    let large = Entry::File(0o644, vec![7; 20 << 20]);
    archive.extend(layer(&[("large", large)]));
    archive
}

/// Whether KVM has KVM_CAP_PRE_FAULT_MEMORY (linux/kvm.h).
fn maps_ahead() -> bool {
    const CHECK_EXTENSION: libc::c_ulong = 0xAE03;
    const PRE_FAULT_MEMORY: libc::c_ulong = 236;
    std::fs::File::open("/dev/kvm").is_ok_and(|kvm| {
        // SAFETY: a question with a number.
        unsafe { libc::ioctl(kvm.as_raw_fd(), CHECK_EXTENSION, PRE_FAULT_MEMORY) > 0 }
    })
}

#[test]
fn a_forbidden_system_call_in_any_kind_of_thread_ends_the_sandbox() {
    let Some(b) = Bulkhead::new(User::Root) else {
        return;
    };
    b.command(&["import", "-c", "CMD [\"sh\"]", "-", "busybox:latest"])
        .with_input(large_image())
        .finish()
        .ok();
    if !binary().is_file() {
        cannot_run!(
            "{} is not built; scripts/build-trespass.sh builds it",
            binary().display()
        );
        return;
    }
    let neighbour = b
        .run(&[
            "run",
            "-d",
            "--name",
            "neighbour",
            "busybox",
            "sleep",
            "600",
        ])
        .ok();
    assert!(!neighbour.text().is_empty());
    let honest = run(&b, None).ok();
    assert_eq!(honest.text(), "hello");
    // The platform that this run of the tests is about, or the one that this host takes by itself.
    let isolation = b.inspect("neighbour")["Bulkhead"]["Isolation"].clone();
    let mut kinds = vec!["control", "device", "stream"];
    match isolation.as_str() {
        Some("kvm") if maps_ahead() => kinds.extend(["vcpu", "ahead"]),
        Some("kvm") => {
            kinds.push("vcpu");
            cannot_run!("this host's KVM cannot map pages ahead, so no thread does");
        }
        _ => cannot_run!("on {isolation} there is no vCPU thread; the rig shows its end"),
    }
    for kind in kinds {
        let caught = run(&b, Some(kind)).expect_code(125);
        assert_eq!(caught.text(), "", "{kind}");
        assert!(
            caught.stderr.contains("SIGSYS"),
            "{kind}: {}",
            caught.stderr
        );
    }
    let alive = b.run(&["exec", "neighbour", "echo", "alive"]).ok();
    assert_eq!(alive.text(), "alive");
    b.run(&["rm", "-f", "neighbour"]).ok();
    b.expect_nothing_left();
}
