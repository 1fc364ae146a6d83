//! Whoever gets code into a thread of a sandbox and makes a system call that its kind of thread has no use for, loses
//! the sandbox, and nobody else loses anything. Shown with a sandbox built to do it (`scripts/build-trespass.sh`).

use std::path::{Path, PathBuf};
use std::process::Command;

use bulkhead_e2e::{Bulkhead, Finished, Running, User, cannot_run};

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

#[test]
fn a_forbidden_system_call_in_any_kind_of_thread_ends_the_sandbox() {
    let Some(b) = Bulkhead::with_busybox(User::Root) else {
        return;
    };
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
        Some("kvm") => kinds.push("vcpu"),
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
