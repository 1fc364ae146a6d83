//! What breaks in the middle: each fault is told clearly, and nothing is left behind.

use std::time::Duration;

use bulkhead_e2e::{
    Bulkhead, Isolation, User, each_user, guard, isolation, run_tool, sandbox_processes, wait_until,
};

/// A sandbox takes its last steps within a second or two: what is not over after ten times that hangs.
const GUARD: Duration = guard(Duration::from_secs(2));

fn kill(pid: i32) {
    nix::sys::signal::kill(
        nix::unistd::Pid::from_raw(pid),
        nix::sys::signal::Signal::SIGKILL,
    )
    .unwrap();
}

each_user! {
    any_process_of_a_compartment_may_be_killed(b) {
        b.run(&["run", "-d", "--name", "first", "busybox", "sleep", "1000"]).ok();
        let count = sandbox_processes(&b.root()).len();
        // A user-mode kernel is a process beside the sandbox; a virtual machine is in it.
        let least = if isolation() == Isolation::UserMode { 2 } else { 1 };
        assert!(count >= least, "{count} processes make a compartment");
        b.run(&["rm", "-f", "first"]).ok();
        for victim in 0..count {
            b.run(&["run", "-d", "--name", "victim", "busybox", "sleep", "1000"]).ok();
            let mut processes = sandbox_processes(&b.root());
            processes.sort_by_key(|p| p.pid);
            let Some(process) = processes.get(victim) else { break };
            kill(process.pid);
            // Dead at once, unless it was the process that carried a sleeping guest program's memory: a user-mode kernel
            // finds out about that when the program runs next. Until then the container does run, and can be told to end.
            let may_sleep = isolation() == Isolation::UserMode;
            let within = if may_sleep { Duration::from_secs(4) } else { GUARD };
            let ended = wait_until(within, || b.inspect("victim")["State"]["Running"] == false);
            assert!(ended || may_sleep, "{} was killed, and it still runs", process.line);
            if !ended {
                b.run(&["kill", "victim"]).ok();
                b.run(&["wait", "victim"]).ok();
            }
            let state = b.inspect("victim")["State"].clone();
            assert_eq!(state["Status"], "exited", "after killing {}: {state}", process.line);
            assert_ne!(state["ExitCode"], 0, "{state}");
            b.run(&["start", "victim"]).ok();
            assert_eq!(b.inspect("victim")["State"]["Running"], true, "it starts again");
            b.run(&["rm", "-f", "victim"]).ok();
            b.expect_nothing_left();
        }
    }

    a_killed_command_line_leaves_the_container_running(b) {
        let mut run = b.command(&["run", "--rm", "--name", "cli", "busybox", "sh", "-c", "echo up; sleep 1000"]).start();
        b.wait_for_log("cli", "up");
        run.signal(libc::SIGKILL);
        run.child.wait().unwrap();
        assert_eq!(b.inspect("cli")["State"]["Running"], true);
        b.run(&["kill", "cli"]).ok();
        // The container wrote to the command's own stdout until its end: only now is it closed.
        run.finish().expect_code(137);
        assert!(wait_until(GUARD, || b.run(&["ps", "-aq"]).ok().text().is_empty()), "--rm did not remove it");
        b.expect_nothing_left();
    }

    a_guest_kernel_that_panics_shows_its_last_words(b) {
        // Every kernel can be told to panic when memory runs out, in a /proc that is not read-only.
        b.run(&["run", "--name", "panics", "--cap-add", "ALL", "busybox", "sh", "-c",
            "mkdir /p; mount -t proc proc /p; echo 2 > /p/sys/vm/panic_on_oom && tail /dev/zero"])
            .expect_code(137).says("guest kernel panic").says("Kernel panic - not syncing: Out of memory");
        assert_eq!(b.inspect("panics")["State"]["OOMKilled"], false, "a panic is no OOM kill");
        b.run(&["rm", "panics"]).ok();
        b.expect_nothing_left();
    }

    a_guest_that_spins_can_be_stopped_and_killed(b) {
        let spin = "echo up; while :; do :; done & while :; do :; done";
        for end in ["stop", "kill", "killed from outside"] {
            b.run(&["run", "-d", "--name", "busy", "busybox", "sh", "-c", spin]).ok();
            b.wait_for_log("busy", "up");
            match end {
                "stop" => drop(b.run(&["stop", "-t", "1", "busy"]).ok()),
                "kill" => drop(b.run(&["kill", "-s", "KILL", "busy"]).ok()),
                // Some end with another, before their turn.
                _ => for process in sandbox_processes(&b.root()) {
                    let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(process.pid), nix::sys::signal::Signal::SIGKILL);
                },
            }
            let ended = wait_until(GUARD, || b.inspect("busy")["State"]["Running"] == false);
            assert!(ended, "{end}: it still runs");
            assert_eq!(b.inspect("busy")["State"]["ExitCode"], 137, "{end}");
            b.run(&["rm", "busy"]).ok();
            b.expect_nothing_left();
        }
    }

    missing_pieces_are_named_with_a_remedy(b) {
        let out = b.command(&["run", "--rm", "busybox", "true"]).with_env("BULKHEAD_KERNEL", "/no/such/kernel").finish();
        out.expect_code(125).says("/no/such/kernel");
        let out = b.command(&["run", "--rm", "busybox", "true"]).with_env("BULKHEAD_AGENT", "/no/such/agent").finish();
        out.expect_code(125).says("/no/such/agent");
        b.run(&["run", "--rm", "--isolation", "magic", "busybox", "true"]).expect_code(125).says("magic");
        b.expect_nothing_left();
    }
}

/// A state directory of 40 MB: what does not fit fails, says so, and leaves the rest usable.
#[test]
fn a_full_disk_fails_cleanly() {
    let Some(b) = Bulkhead::new(User::Root) else {
        return;
    };
    std::fs::create_dir_all(b.root()).unwrap();
    let root = b.root().to_str().unwrap().to_owned();
    run_tool(
        "mount",
        &["-t", "tmpfs", "-o", "mode=0700,size=40m", "tmpfs", &root],
    )
    .ok();
    let result = std::panic::catch_unwind(|| {
        b.command(&["import", "-", "busybox"])
            .with_input(bulkhead_e2e::busybox_tar())
            .finish()
            .ok();
        let mut tar =
            bulkhead_e2e::layer(&[("big", bulkhead_e2e::Entry::File(0o644, noise(60 << 20)))]);
        tar.truncate(tar.len());
        b.command(&["import", "-", "big"])
            .with_input(tar)
            .finish()
            .expect_code(1)
            .says("no space left")
            .says("5 % stay free");
        b.run(&["run", "--rm", "busybox", "echo", "still"]).ok();
        // The guest fills the host's disk through its scratch disk: it gets an I/O error, not a hang.
        let out = b.run(&[
            "run",
            "--rm",
            "busybox",
            "sh",
            "-c",
            "dd if=/dev/urandom of=/f bs=1M count=100 conv=fsync",
        ]);
        assert_ne!(out.code, 0, "{out:?}");
        assert_eq!(
            b.run(&["run", "--rm", "busybox", "echo", "again"])
                .ok()
                .text(),
            "again"
        );
        assert_eq!(b.run(&["ps", "-aq"]).ok().text(), "");
    });
    for process in sandbox_processes(&b.root()) {
        kill(process.pid);
    }
    let ended = wait_until(GUARD, || sandbox_processes(&b.root()).is_empty());
    run_tool("umount", &["-l", &root]).ok();
    assert!(ended || result.is_err(), "processes are left");
    if let Err(panic) = result {
        std::panic::resume_unwind(panic);
    }
}

/// Fills the file system of `dir` to the last byte.
fn fill(dir: &std::path::Path) {
    use std::io::Write;
    let mut file = std::fs::File::options()
        .create(true)
        .append(true)
        .open(dir.join("filler"))
        .unwrap();
    for size in [1 << 20, 4096, 1] {
        while file.write_all(&vec![b'x'; size]).is_ok() {}
    }
}

/// Removing is the remedy for a full file system, so it must work on one: it failed, and recommended itself.
#[test]
fn a_full_state_directory_can_be_emptied() {
    let Some(b) = Bulkhead::new(User::Root) else {
        return;
    };
    std::fs::create_dir_all(b.root()).unwrap();
    let root = b.root().to_str().unwrap().to_owned();
    run_tool(
        "mount",
        &["-t", "tmpfs", "-o", "mode=0700,size=60m", "tmpfs", &root],
    )
    .ok();
    let result = std::panic::catch_unwind(|| {
        for name in ["one:1", "two:1", "three:1"] {
            let file = bulkhead_e2e::Entry::File(0o644, name.as_bytes().to_vec());
            let mut tar = bulkhead_e2e::busybox_tar();
            tar.truncate(tar.len() - 1024);
            tar.extend(bulkhead_e2e::layer(&[("name", file)]));
            b.command(&["import", "-", name])
                .with_input(tar)
                .finish()
                .ok();
        }
        b.run(&["tag", "one:1", "one:2"]).ok();
        for name in ["aa", "bb", "cc"] {
            b.run(&["create", "--disk", "32m", "--name", name, "one:1", "true"])
                .ok();
        }
        fill(&b.root());
        b.run(&["tag", "one:1", "one:3"])
            .expect_code(1)
            .says("no space left");
        b.run(&["rm", "aa"]).ok();
        fill(&b.root());
        b.run(&["container", "prune", "-f"]).ok();
        assert_eq!(b.run(&["ps", "-aq"]).ok().text(), "");
        fill(&b.root());
        b.run(&["rmi", "one:2"]).ok();
        fill(&b.root());
        b.run(&["rmi", "-f", "one:1"]).ok();
        fill(&b.root());
        b.run(&["image", "prune", "-af"]).ok();
        assert_eq!(b.run(&["images", "-aq"]).ok().text(), "");
        std::fs::remove_file(b.root().join("filler")).unwrap();
        b.command(&["import", "-", "again:1"])
            .with_input(bulkhead_e2e::busybox_tar())
            .finish()
            .ok();
    });
    run_tool("umount", &["-l", &root]).ok();
    if let Err(panic) = result {
        std::panic::resume_unwind(panic);
    }
}

/// A container with `--rm` that filled the disk made the next command fail, because its space was given back only
/// after its run had returned.
#[test]
fn the_space_of_a_removed_container_is_free_when_its_run_returns() {
    let Some(b) = Bulkhead::new(User::Root) else {
        return;
    };
    std::fs::create_dir_all(b.root()).unwrap();
    let root = b.root().to_str().unwrap().to_owned();
    run_tool(
        "mount",
        &["-t", "tmpfs", "-o", "mode=0700,size=200m", "tmpfs", &root],
    )
    .ok();
    let used = || {
        let status = nix::sys::statvfs::statvfs(root.as_str()).unwrap();
        (status.blocks() - status.blocks_free()) * status.fragment_size()
    };
    let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        b.command(&["import", "-", "busybox"])
            .with_input(bulkhead_e2e::busybox_tar())
            .finish()
            .ok();
        b.run(&["run", "--rm", "busybox", "true"]).ok();
        let before = used();
        for _ in 0..5 {
            let fill = "dd if=/dev/urandom of=/f bs=1M count=100 conv=fsync";
            b.run(&["run", "--rm", "busybox", "sh", "-c", fill]).ok();
            let after = used();
            assert!(
                after < before + (1 << 20),
                "{before} bytes were used before, {after} after"
            );
        }
    }));
    run_tool("umount", &["-l", &root]).ok();
    if let Err(panic) = result {
        std::panic::resume_unwind(panic);
    }
}

fn noise(length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    std::io::Read::read_exact(
        &mut std::fs::File::open("/dev/urandom").unwrap(),
        &mut bytes,
    )
    .unwrap();
    bytes
}
