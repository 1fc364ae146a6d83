//! Ctrl-C ends what it should end: with 130, and nothing is left of what was being done.

use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use bulkhead_e2e::{
    Bulkhead, Entry, Terminal, busybox_tar, each_user, layer, sandbox_processes, wait_until,
};

const SOON: Duration = Duration::from_secs(60);

fn signal(child: &Child, signal: i32) {
    // SAFETY: kill(2) has no memory effects; the child is not yet reaped, so the pid is ours.
    unsafe { libc::kill(i32::try_from(child.id()).unwrap(), signal) };
}

fn start(mut command: Command) -> Child {
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

/// What a shell would show in `$?`, soon.
#[track_caller]
fn code(child: &mut Child) -> i32 {
    let mut status = None;
    let ended = wait_until(SOON, || {
        status = child.try_wait().unwrap();
        status.is_some()
    });
    let Some(status) = status.filter(|_| ended) else {
        let _ = child.kill();
        panic!("it goes on");
    };
    status
        .code()
        .unwrap_or_else(|| 128 + status.signal().unwrap_or(0))
}

/// Names in a directory of the state directory.
fn names(b: &Bulkhead, directory: &str) -> Vec<String> {
    let entries = std::fs::read_dir(b.root().join(directory));
    let names = entries.into_iter().flatten().flatten();
    names
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect()
}

#[track_caller]
fn expect_nothing_half_done(b: &Bulkhead) {
    b.expect_nothing_left();
    for directory in ["tmp", "containers", "names"] {
        assert!(
            names(b, directory).is_empty(),
            "{directory}: {:?}",
            names(b, directory)
        );
    }
}

/// A guest whose first process is an init that knows nothing of Bulkhead: it boots and never says hello.
const MUTE_AGENT: (&str, &str) = ("BULKHEAD_AGENT", "/bin/busybox");

/// Until there is a sandbox, and the guest in it has had time to begin.
fn wait_for_boot(b: &Bulkhead) {
    assert!(wait_until(SOON, || sandbox_processes(&b.root()).len() > 2));
    std::thread::sleep(Duration::from_millis(500));
}

each_user! {
    a_run_that_boots_is_given_up(b) {
        for (arguments, number) in [
            (&["run", "--rm", "busybox", "true"][..], libc::SIGINT),
            (&["run", "busybox", "true"], libc::SIGINT),
            (&["run", "-d", "busybox", "true"], libc::SIGINT),
            (&["run", "-d", "--rm", "busybox", "true"], libc::SIGTERM),
        ] {
            let mut command = b.process(arguments);
            command.env(MUTE_AGENT.0, MUTE_AGENT.1);
            let mut run = start(command);
            wait_for_boot(b);
            signal(&run, number);
            assert_eq!(code(&mut run), 128 + number, "{arguments:?}");
            expect_nothing_half_done(b);
        }
    }

    a_run_that_is_interrupted_at_any_moment_leaves_no_container_that_did_not_run(b) {
        use std::os::unix::process::CommandExt;
        for turn in 0..24u64 {
            let number = if turn % 2 == 0 { libc::SIGINT } else { libc::SIGTERM };
            // As a terminal does it (the whole process group), and as `kill` does.
            let group = turn % 4 < 2;
            let arguments: &[&str] = match turn % 3 {
                0 => &["run", "-d", "--init", "busybox", "sleep", "1000"],
                _ => &["run", "--init", "busybox", "sleep", "1000"],
            };
            let mut command = b.process(arguments);
            command.process_group(0);
            let mut run = start(command);
            std::thread::sleep(Duration::from_millis(6 * turn));
            let pid = i32::try_from(run.id()).unwrap();
            // SAFETY: kill(2) has no memory effects; the child is not yet reaped, so the pid is ours.
            unsafe { libc::kill(if group { -pid } else { pid }, number) };
            let code = code(&mut run);
            let left = b.run(&["ps", "-a", "--format", "{{.State}}"]).ok().text();
            let detached = arguments.contains(&"-d") && (left == "running" || code == 0);
            assert!(
                left.is_empty() || left == "exited" || detached,
                "turn {turn}: {arguments:?} ended with {code}, and left: {left}"
            );
            let ids = b.run(&["ps", "-aq"]).ok().text();
            if !ids.is_empty() {
                b.run(&["rm", "-f", &ids]).ok();
            }
            expect_nothing_half_done(b);
        }
    }

    a_start_that_boots_is_given_up_and_can_be_made_again(b) {
        b.run(&["create", "--name", "kept", "busybox", "echo", "hello"]).ok();
        for arguments in [&["start", "kept"][..], &["start", "-a", "kept"]] {
            let mut command = b.process(arguments);
            command.env(MUTE_AGENT.0, MUTE_AGENT.1);
            let mut starting = start(command);
            wait_for_boot(b);
            signal(&starting, libc::SIGINT);
            assert_eq!(code(&mut starting), 130, "{arguments:?}");
            assert_eq!(b.inspect("kept")["State"]["Running"], false);
        }
        assert_eq!(b.run(&["start", "-a", "kept"]).ok().text(), "hello");
        b.run(&["rm", "kept"]).ok();
        expect_nothing_half_done(b);
    }

    a_restart_that_boots_is_given_up(b) {
        for rm in [false, true] {
            let mut run = vec!["run", "-d", "--name", "again"];
            run.extend(rm.then_some("--rm"));
            run.extend(["busybox", "sleep", "1000"]);
            b.run(&run).ok();
            let before = b.inspect("again")["State"]["Pid"].clone();
            let mut command = b.process(&["restart", "-t", "0", "again"]);
            command.env(MUTE_AGENT.0, MUTE_AGENT.1);
            let mut restart = start(command);
            assert!(wait_until(SOON, || !Path::new(&format!("/proc/{before}")).exists()));
            wait_for_boot(b);
            signal(&restart, libc::SIGINT);
            assert_eq!(code(&mut restart), 130);
            if rm {
                b.run(&["inspect", "again"]).expect_code(1);
            } else {
                assert_eq!(b.inspect("again")["State"]["Running"], false);
                b.run(&["start", "again"]).ok();
                b.run(&["rm", "-f", "again"]).ok();
            }
            expect_nothing_half_done(b);
        }
    }

    a_restart_that_waits_for_the_end_is_a_stop_from_then_on(b) {
        for rm in [false, true] {
            let mut run = vec!["run", "-d", "--name", "slow"];
            run.extend(rm.then_some("--rm"));
            let script = "trap 'sleep 3; exit 0' TERM; echo up; while :; do sleep 0.1; done";
            run.extend(["busybox", "sh", "-c", script]);
            b.run(&run).ok();
            b.wait_for_log("slow", "up");
            let mut restart = start(b.process(&["restart", "-t", "100", "slow"]));
            std::thread::sleep(Duration::from_secs(1));
            signal(&restart, libc::SIGINT);
            assert_eq!(code(&mut restart), 130);
            assert!(wait_until(SOON, || sandbox_processes(&b.root()).is_empty()), "it runs on");
            if rm {
                b.run(&["inspect", "slow"]).expect_code(1);
            } else {
                assert_eq!(b.inspect("slow")["State"]["ExitCode"], 0);
                b.run(&["rm", "slow"]).ok();
            }
            expect_nothing_half_done(b);
        }
    }

    a_key_gives_up_a_boot_on_a_terminal(b) {
        let mut command = b.process(&["run", "--rm", "-it", "busybox", "sh"]);
        command.env(MUTE_AGENT.0, MUTE_AGENT.1);
        let mut t = Terminal::start(command);
        wait_for_boot(b);
        t.send("\x03");
        assert_eq!(t.wait(), 130);
        assert!(t.is_cooked(), "raw mode was not undone");
        expect_nothing_half_done(b);
    }

    an_archive_that_does_not_end_is_let_go(b) {
        let tar = busybox_tar();
        for arguments in [&["import", "-", "half"][..], &["load"]] {
            let mut child = start(b.process(arguments));
            let mut input = child.stdin.take().unwrap();
            input.write_all(&tar[..tar.len() / 2]).unwrap();
            assert!(wait_until(SOON, || arguments[0] == "load" || !names(b, "tmp").is_empty()));
            signal(&child, libc::SIGINT);
            assert_eq!(code(&mut child), 130, "{arguments:?}");
            drop(input);
            expect_nothing_half_done(b);
        }
        assert_eq!(b.run(&["images", "-q"]).ok().text().lines().count(), 1, "busybox is there, and nothing else");
    }

    a_registry_that_does_not_answer_is_let_go(b) {
        let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let image = format!("{}/some/image", silent.local_addr().unwrap());
        let cidfile = b.home().join("cid");
        let cidfile = cidfile.to_str().unwrap();
        for arguments in [&["pull", &image][..], &["run", "--rm", "--cidfile", cidfile, &image], &["create", &image]] {
            let mut child = start(b.process(arguments));
            // Until it has connected: what it waits for now never comes.
            let connection = silent.accept().unwrap();
            signal(&child, libc::SIGINT);
            assert_eq!(code(&mut child), 130, "{arguments:?}");
            drop(connection);
            expect_nothing_half_done(b);
            assert!(!Path::new(cidfile).exists(), "the file for the identifier stays");
        }
    }

    a_save_leaves_no_half_archive(b) {
        let zeros = layer(&[("zeros", Entry::File(0o644, vec![0; 64 << 20]))]);
        b.command(&["import", "-", "large"]).with_input(zeros).finish().ok();
        let directory = b.home().join("out");
        std::fs::create_dir(&directory).unwrap();
        std::fs::set_permissions(&directory, std::fs::Permissions::from_mode(0o777)).unwrap();
        let archive = directory.join("large.tar");
        let files = || std::fs::read_dir(&directory).unwrap().count();
        let mut caught = false;
        for _ in 0..50 {
            let mut child = start(b.process(&["save", "-o", archive.to_str().unwrap(), "large"]));
            assert!(wait_until(SOON, || files() > 0), "it saves nothing");
            // Stopped, so that it is known to be in the middle.
            signal(&child, libc::SIGSTOP);
            caught = !archive.exists();
            signal(&child, libc::SIGINT);
            signal(&child, libc::SIGCONT);
            let code = code(&mut child);
            if caught {
                assert!(code == 130 || archive.exists(), "{code}");
                caught = code == 130;
            }
            if caught {
                break;
            }
            std::fs::remove_file(&archive).unwrap();
        }
        assert!(caught, "it was never interrupted in the middle");
        assert_eq!(files(), 0, "{:?}", std::fs::read_dir(&directory).unwrap().flatten().collect::<Vec<_>>());
        expect_nothing_half_done(b);
    }

    a_bootstrap_ends_its_helper(b) {
        let bin = b.home().join("bin");
        let tree = b.home().join("tree");
        std::fs::create_dir(&bin).unwrap();
        std::fs::create_dir(&tree).unwrap();
        std::fs::set_permissions(&tree, std::fs::Permissions::from_mode(0o777)).unwrap();
        let helper = bin.join("mmdebstrap");
        // As the true one: it makes a tree, and removes it when it is told to end.
        let script = format!(
            "#!/bin/sh\ntrap 'rm -f {0}/made; exit 1' INT TERM\n: > {0}/made\nwhile :; do sleep 0.1; done\n",
            tree.display()
        );
        std::fs::write(&helper, script).unwrap();
        std::fs::set_permissions(&helper, std::fs::Permissions::from_mode(0o755)).unwrap();
        let mut command = b.process(&["bootstrap", "bookworm"]);
        command.env("PATH", format!("{}:/usr/bin:/bin", bin.display()));
        let mut child = start(command);
        assert!(wait_until(SOON, || tree.join("made").exists()));
        signal(&child, libc::SIGINT);
        assert_eq!(code(&mut child), 130);
        assert!(!tree.join("made").exists(), "the helper did not clean up");
        expect_nothing_half_done(b);
    }
}
