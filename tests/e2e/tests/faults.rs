//! What breaks in the middle: each fault is told clearly, and nothing is left behind.

use bulkhead_e2e::{Bulkhead, User, each_user, run_tool, sandbox_processes};

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
        assert!(count >= 2, "a compartment is at least a sandbox and a kernel");
        b.run(&["rm", "-f", "first"]).ok();
        for victim in 0..count {
            b.run(&["run", "-d", "--name", "victim", "busybox", "sleep", "1000"]).ok();
            let mut processes = sandbox_processes(&b.root());
            processes.sort_by_key(|p| p.pid);
            let Some(process) = processes.get(victim) else { break };
            kill(process.pid);
            for _ in 0..400 {
                if b.inspect("victim")["State"]["Running"] == false { break; }
                std::thread::sleep(std::time::Duration::from_millis(10));
            }
            if b.inspect("victim")["State"]["Running"] == true {
                // The process that carried a sleeping guest program's memory: its kernel finds out when that
                // program runs next. Until then the container does run, and can be told to end.
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
        for _ in 0..200 {
            if b.run(&["ps", "-aq"]).ok().text().is_empty() {
                break;
            }
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        b.expect_nothing_left();
    }

    a_guest_kernel_that_panics_shows_its_last_words(b) {
        let out = b.run(&["run", "--rm", "--cap-add", "ALL", "busybox", "sh", "-c",
            "echo c > /proc/sysrq-trigger; sleep 5"]);
        if out.code == 0 || out.stderr.contains("nonexistent directory") || out.stderr.contains("can't create") {
            bulkhead_e2e::cannot_run!("this guest kernel has no /proc/sysrq-trigger to panic with");
            return;
        }
        assert!(out.stderr.to_lowercase().contains("panic"), "{out:?}");
        b.expect_nothing_left();
    }

    missing_pieces_are_named_with_a_remedy(b) {
        let out = b.command(&["run", "--rm", "busybox", "true"]).with_env("BULKHEAD_KERNEL", "/no/such/kernel").finish();
        out.expect_code(125).says("/no/such/kernel");
        let out = b.command(&["run", "--rm", "busybox", "true"]).with_env("BULKHEAD_AGENT", "/no/such/agent").finish();
        out.expect_code(125).says("/no/such/agent");
        b.run(&["run", "--rm", "--isolation", "magic", "busybox", "true"]).expect_code(125).says("magic");
        b.expect_nothing_left();
    }

    something_that_is_no_kernel_is_told_apart(b) {
        std::fs::write(b.home().join("kernel"), "#!/bin/sh\necho I am no kernel\n").unwrap();
        run_tool("chmod", &["755", b.home().join("kernel").to_str().unwrap()]).ok();
        let kernel = b.home().join("kernel");
        let out = b.command(&["run", "--rm", "busybox", "true"]).with_env("BULKHEAD_KERNEL", kernel.to_str().unwrap()).finish();
        out.expect_code(125);
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
    run_tool("mount", &["-t", "tmpfs", "-o", "size=40m", "tmpfs", &root]).ok();
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
            .says("No space left on device");
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
    std::thread::sleep(std::time::Duration::from_millis(200));
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
    run_tool("mount", &["-t", "tmpfs", "-o", "size=200m", "tmpfs", &root]).ok();
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
