//! What must end can be ended, whoever stands in the way: a guest that hangs, a client that does not read, a sandbox
//! that is suspended.

use std::process::Stdio;
use std::time::{Duration, Instant};

use bulkhead_e2e::{
    Bulkhead, Isolation, each_user, needs, patience, sandbox_processes, wait_until,
};

/// Ten times what the longest of the promised bounds comes to: a guard against hanging, not a measurement.
const NEVER: Duration = Duration::from_secs(600);

/// Bytes: more than the 256 KiB that wait in the sandbox's thread for a reader, and no more than fits on the way to it
/// with the smallest buffers that a host gives. Beyond that the process itself stands still, and does not end.
const BRIEF: usize = 400_000;

/// Stops every process below `parent`, as a kernel stands still that spins with its interrupts off.
fn suspend_below(b: &Bulkhead, parent: i64) {
    let processes = sandbox_processes(&b.root());
    let mut below = vec![i32::try_from(parent).unwrap()];
    while let Some(pid) = below.pop() {
        for child in processes.iter().filter(|process| process.parent == pid) {
            suspend(child.pid);
            below.push(child.pid);
        }
    }
}

fn suspend(pid: i32) {
    let pid = nix::unistd::Pid::from_raw(pid);
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGSTOP).unwrap();
}

/// Ends a container in one of the ways there are; it must come to its end, and soon enough.
fn end(b: &Bulkhead, name: &str, how: &str) {
    let began = Instant::now();
    match how {
        "stop" => drop(b.run(&["stop", "-t", "1", name]).ok()),
        "kill" => drop(b.run(&["kill", name]).ok()),
        _ => {}
    }
    if how == "rm -f" {
        b.run(&["rm", "-f", name]).ok();
    } else {
        assert_eq!(b.inspect(name)["State"]["Status"], "exited", "{how}");
        assert_eq!(b.inspect(name)["State"]["ExitCode"], 137, "{how}");
        b.run(&["rm", name]).ok();
    }
    assert!(
        began.elapsed() < patience(NEVER),
        "{how}: {:?}",
        began.elapsed()
    );
}

each_user! {
    a_guest_whose_kernel_hangs_can_be_ended(b) {
        // A virtual machine's kernel runs in threads of the sandbox, which cannot be stopped by themselves.
        if !needs(Isolation::UserMode) {
            return;
        }
        for how in ["stop", "kill", "rm -f"] {
            b.run(&["run", "-d", "--name", "hung", "busybox", "sleep", "1000"]).ok();
            suspend_below(b, b.inspect("hung")["State"]["Pid"].as_i64().unwrap());
            end(b, "hung", how);
            b.expect_nothing_left();
        }
    }

    a_sandbox_that_is_suspended_can_be_ended(b) {
        for how in ["stop", "kill", "rm -f"] {
            b.run(&["run", "-d", "--name", "still", "busybox", "sleep", "1000"]).ok();
            suspend(i32::try_from(b.inspect("still")["State"]["Pid"].as_i64().unwrap()).unwrap());
            end(b, "still", how);
            b.expect_nothing_left();
        }
    }

    a_monitor_that_is_suspended_leaves_a_true_record(b) {
        for how in ["stop", "kill", "rm -f"] {
            b.run(&["run", "-d", "--name", "still", "busybox", "sleep", "1000"]).ok();
            suspend(i32::try_from(b.inspect("still")["Bulkhead"]["MonitorPid"].as_i64().unwrap()).unwrap());
            end(b, "still", how);
            b.expect_nothing_left();
        }
        b.run(&["run", "-d", "--name", "polite", "busybox", "sh", "-c", "trap 'exit 7' TERM; echo up; while :; do sleep 0.05; done"]).ok();
        b.wait_for_log("polite", "up");
        suspend(i32::try_from(b.inspect("polite")["Bulkhead"]["MonitorPid"].as_i64().unwrap()).unwrap());
        b.run(&["stop", "polite"]).ok();
        let state = b.inspect("polite")["State"].clone();
        assert_eq!((&state["Status"], &state["ExitCode"]), (&"exited".into(), &7.into()), "{state}");
        b.run(&["rm", "polite"]).ok();
    }

    a_running_container_with_a_damaged_record_runs(b) {
        b.run(&["run", "-d", "--name", "odd", "busybox", "sleep", "1000"]).ok();
        let record = b.run(&["inspect", "-f", "{{.Bulkhead.Directory}}", "odd"]).ok().text() + "/state.json";
        for damage in ["garbage", ""] {
            std::fs::write(&record, damage).unwrap();
            assert_eq!(b.run(&["ps", "--format", "{{.Names}} {{.Status}}"]).ok().text(), "odd Up");
            let state = b.inspect("odd")["State"].clone();
            assert_eq!((&state["Status"], &state["Running"]), (&"running".into(), &true.into()), "{state}");
            b.run(&["exec", "odd", "true"]).ok();
            b.run(&["rm", "odd"]).expect_code(1).says("running");
        }
        b.run(&["stop", "-t", "0", "odd"]).ok();
        assert_eq!(b.inspect("odd")["State"]["ExitCode"], 137);
        b.run(&["rm", "odd"]).ok();
        b.expect_nothing_left();
    }

    a_client_that_does_not_read_keeps_nobody_from_the_end(b) {
        for how in ["stop", "wait", "rm -f"] {
            let mut client = b
                .process(&["run", "--name", "chatty", "busybox", "sh", "-c",
                    "trap 'exit 3' TERM; echo up >&2; while :; do echo 0123456789012345678901234567890123456789; done"])
                .stdin(Stdio::null())
                .stdout(Stdio::piped())
                .stderr(Stdio::null())
                .spawn()
                .unwrap();
            let unread = client.stdout.take().unwrap();
            b.wait_for_log("chatty", "up");
            // Until nothing moves any more: every buffer on the way is full.
            let length = || b.run(&["logs", "--tail", "all", "chatty"]).stdout.len();
            let mut before = 0;
            let full = wait_until(Duration::from_secs(60), || {
                std::thread::sleep(Duration::from_millis(300));
                let now = length();
                std::mem::replace(&mut before, now) == now
            });
            assert!(full, "{how}: output still moves");
            let began = Instant::now();
            match how {
                // The process is asked, and ends by itself or by force: it may be stuck in a write.
                "stop" => drop(b.run(&["stop", "-t", "2", "chatty"]).ok()),
                "wait" => {
                    let waiting = b.command(&["wait", "chatty"]).start();
                    b.run(&["kill", "-s", "KILL", "chatty"]).ok();
                    assert_eq!(waiting.finish().ok().text(), "137");
                }
                _ => drop(b.run(&["rm", "-f", "chatty"]).ok()),
            }
            assert!(began.elapsed() < patience(NEVER), "{how}");
            drop(unread);
            client.wait().unwrap();
            if how != "rm -f" {
                b.run(&["rm", "chatty"]).ok();
            }
            b.expect_nothing_left();
        }
    }

    a_process_that_ended_by_itself_is_recorded_though_nobody_reads_its_output(b) {
        let (unread, client_end) = std::os::unix::net::UnixStream::pair().unwrap();
        // A reader with room for a few kilobytes. A pipe would not do: the command makes it as wide as the system lets
        // this user, and then takes all of what the streams on the way to it can hold.
        nix::sys::socket::setsockopt(&client_end, nix::sys::socket::sockopt::SndBuf, &1024).unwrap();
        let client = b
            .process(&["run", "--name", "brief", "busybox", "sh", "-c", &format!("head -c {BRIEF} /dev/zero; exit 6")])
            .stdin(Stdio::null())
            .stdout(std::os::fd::OwnedFd::from(client_end))
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        assert!(wait_until(NEVER, || b.run(&["inspect", "brief"]).code == 0));
        assert_eq!(b.run(&["wait", "brief"]).ok().text(), "6");
        let ended = client.wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&ended.stderr);
        assert_eq!(ended.status.code(), Some(6), "{said}");
        assert!(said.contains("the end of the output is missing") && said.contains("bulkhead logs brief"), "{said}");
        assert_eq!(b.run(&["logs", "brief"]).ok().stdout.len(), BRIEF);
        drop(unread);
        b.run(&["rm", "brief"]).ok();
        b.expect_nothing_left();
    }
}
