//! A container's life: create, start, stop, restart, kill, wait, rm, ps, logs, attach.

use bulkhead_e2e::each_user;

each_user! {
    a_detached_container_lives_and_is_listed(b) {
        let id = b.run(&["run", "-d", "--name", "web", "--label", "a=b", "busybox", "sleep", "1000"]).ok().text();
        assert_eq!(id.len(), 64, "run -d prints the identifier: {id}");
        let table = b.run(&["ps"]).ok().text();
        let header = table.lines().next().unwrap();
        for column in ["CONTAINER ID", "IMAGE", "COMMAND", "CREATED", "STATUS", "PORTS", "NAMES"] {
            assert!(header.contains(column), "{header}");
        }
        assert!(table.contains(&id[..12]) && table.contains("\"sleep 1000\"") && table.contains("Up "), "{table}");
        assert_eq!(b.run(&["ps", "-q", "--no-trunc"]).ok().text(), id);
        assert_eq!(b.run(&["ps", "--filter", "label=a=b", "--format", "{{.Names}}"]).ok().text(), "web");
        assert_eq!(b.run(&["ps", "--filter", "name=other", "-q"]).ok().text(), "");
        let state = &b.inspect("web")["State"];
        assert_eq!(state["Status"], "running");
        assert_eq!(state["Running"], true);
        assert!(state["Pid"].as_i64().unwrap() > 0);
        b.run(&["rm", "web"]).expect_code(1).says("running");
        assert_eq!(b.run(&["rm", "-f", "web"]).ok().text(), "web");
        b.expect_nothing_left();
    }

    stop_asks_and_then_kills(b) {
        b.run(&["run", "-d", "--name", "polite", "busybox", "sh", "-c",
            "trap 'echo bye; exit 7' TERM; echo up; while :; do sleep 0.05; done"]).ok();
        b.wait_for_log("polite", "up");
        assert_eq!(b.run(&["stop", "polite"]).ok().text(), "polite");
        assert_eq!(b.inspect("polite")["State"]["ExitCode"], 7);
        assert_eq!(b.run(&["logs", "polite"]).ok().text(), "up\nbye");
        b.run(&["run", "-d", "--name", "deaf", "busybox", "sh", "-c", "trap '' TERM; echo up; while :; do sleep 0.05; done"]).ok();
        b.wait_for_log("deaf", "up");
        b.run(&["stop", "-t", "1", "deaf"]).ok();
        assert_eq!(b.inspect("deaf")["State"]["ExitCode"], 137);
        b.run(&["run", "-d", "--name", "own", "--stop-signal", "USR1", "busybox", "sh", "-c",
            "trap 'exit 9' USR1; echo up; while :; do sleep 0.05; done"]).ok();
        b.wait_for_log("own", "up");
        b.run(&["stop", "own"]).ok();
        assert_eq!(b.inspect("own")["State"]["ExitCode"], 9);
        b.run(&["rm", "polite", "deaf", "own"]).ok();
        b.expect_nothing_left();
    }

    a_container_starts_again_with_its_files(b) {
        let id = b.run(&["create", "--name", "again", "busybox", "sh", "-c", "echo run >> /count; wc -l < /count; sleep 0.1"]).ok().text();
        assert_eq!(b.inspect("again")["State"]["Status"], "created");
        assert_eq!(b.run(&["start", "-a", "again"]).ok().text().trim(), "1");
        assert_eq!(b.run(&["start", "-a", &id[..12]]).ok().text().trim(), "2");
        assert_eq!(b.run(&["start", "again"]).ok().text(), "again");
        assert_eq!(b.run(&["wait", "again"]).ok().text(), "0");
        b.run(&["restart", "-t", "1", "again"]).ok();
        b.run(&["wait", "again"]).ok();
        assert_eq!(b.run(&["logs", "--tail", "1", "again"]).ok().text().trim(), "4");
        b.run(&["rm", "again"]).ok();
        b.expect_nothing_left();
    }

    a_restart_does_not_remove_what_has_rm(b) {
        b.run(&["run", "-d", "--rm", "--name", "kept", "busybox", "sh", "-c",
            "echo run >> /count; echo run $(wc -l < /count); exec sleep 1000"]).ok();
        b.wait_for_log("kept", "run 1");
        b.run(&["restart", "-t", "0", "kept"]).ok();
        b.wait_for_log("kept", "run 2");
        assert_eq!(b.inspect("kept")["State"]["Running"], true);
        // The next end is one like any other.
        b.run(&["stop", "-t", "0", "kept"]).ok();
        b.expect_nothing_left();
        b.run(&["inspect", "kept"]).expect_code(1);
    }

    kill_sends_the_signal_asked_for(b) {
        b.run(&["run", "-d", "--name", "victim", "busybox", "sh", "-c",
            "trap 'echo hup' HUP; echo up; while :; do sleep 0.05; done"]).ok();
        b.wait_for_log("victim", "up");
        b.run(&["kill", "-s", "HUP", "victim"]).ok();
        b.wait_for_log("victim", "hup");
        let waiting = b.command(&["wait", "victim"]).start();
        b.run(&["kill", "victim"]).ok();
        assert_eq!(waiting.finish().ok().text(), "137");
        b.run(&["kill", "victim"]).expect_code(1).says("not running");
        let table = b.run(&["ps", "-a"]).ok().text();
        assert!(table.contains("Exited (137)"), "{table}");
        b.run(&["kill", "-s", "NOPE", "victim"]).expect_code(1);
        b.run(&["container", "prune", "-f"]).ok();
        b.expect_nothing_left();
    }

    the_kernels_own_log_is_kept(b) {
        b.run(&["create", "--name", "heard", "--privileged", "busybox", "sh", "-c",
            "echo '<1>heard by the kernel' > /dev/kmsg; echo done"]).ok();
        assert_eq!(b.run(&["logs", "--kernel", "heard"]).ok().text(), "", "before the first run");
        b.run(&["start", "-a", "heard"]).ok();
        let log = b.run(&["logs", "--kernel", "heard"]).ok().text();
        assert!(log.contains("heard by the kernel"), "{log}");
        assert!(!log.contains("done"), "{log}");
        assert_eq!(b.run(&["logs", "--kernel", "-n", "1", "heard"]).ok().text().lines().count(), 1);
        b.run(&["rm", "heard"]).ok();
    }

    logs_follow_select_and_stamp(b) {
        b.run(&["run", "-d", "--name", "talk", "busybox", "sh", "-c",
            "for i in 1 2 3 4 5; do echo line $i; echo err $i >&2; sleep 0.2; done"]).ok();
        let followed = b.run(&["logs", "-f", "talk"]).ok();
        assert_eq!(followed.text(), "line 1\nline 2\nline 3\nline 4\nline 5");
        assert_eq!(followed.stderr, "err 1\nerr 2\nerr 3\nerr 4\nerr 5\n");
        let tail = b.run(&["logs", "--tail", "2", "talk"]).ok();
        assert_eq!(tail.text() + &tail.stderr, "line 5err 5\n");
        let stamped = b.run(&["logs", "-t", "--tail", "2", "talk"]).ok().text();
        let (time, rest) = stamped.split_once(' ').unwrap();
        assert!(time.ends_with('Z') && time.contains('T') && rest == "line 5", "{stamped}");
        assert_eq!(b.run(&["logs", "--since", "1h", "talk"]).ok().text().lines().count(), 5);
        assert_eq!(b.run(&["logs", "--since", "2099-01-01T00:00:00Z", "talk"]).ok().text(), "");
        b.run(&["logs", "nobody"]).expect_code(1).says("No such container: nobody");
        b.run(&["rm", "talk"]).ok();
    }

    attach_joins_what_runs(b) {
        b.run(&["run", "-d", "-i", "--name", "shell", "busybox", "sh", "-c", "read line; echo got $line; exit 4"]).ok();
        let out = b.command(&["attach", "shell"]).with_input("hello\n").finish().expect_code(4);
        assert_eq!(out.text(), "got hello");
        b.run(&["rm", "shell"]).ok();
        b.run(&["attach", "shell"]).expect_code(1);
    }

    names_are_unique_and_checked(b) {
        b.run(&["create", "--name", "one", "busybox"]).ok();
        b.run(&["create", "--name", "one", "busybox"]).expect_code(1).says("already in use");
        b.run(&["create", "--name", "no/slash", "busybox"]).expect_code(1).says("Invalid container name");
        b.run(&["start", "missing"]).expect_code(1).says("No such container: missing");
        b.run(&["rm", "one"]).ok();
    }

    exec_runs_beside_the_main_process(b) {
        b.run(&["run", "-d", "--name", "main", "-e", "A=1", "busybox", "sleep", "1000"]).ok();
        let out = b.run(&["exec", "-e", "B=2", "-w", "/tmp", "-u", "user", "main", "sh", "-c", "echo $A $B; pwd; id -u; exit 6"]);
        assert_eq!(out.expect_code(6).text(), "1 2\n/tmp\n1000");
        let out = b.command(&["exec", "-i", "main", "sha256sum"]).with_input(vec![7u8; 500_000]).finish().ok();
        let direct = bulkhead_e2e::run_tool("sh", &["-c", "head -c 500000 /dev/zero | tr '\\0' '\\7' | sha256sum"]).ok();
        assert_eq!(out.text(), direct.text());
        b.run(&["exec", "main", "no-such"]).expect_code(127);
        b.run(&["exec", "main", "/etc/not-executable"]).expect_code(126);
        b.run(&["exec", "-d", "main", "touch", "/made"]).ok();
        for _ in 0..100 {
            if b.run(&["exec", "main", "test", "-e", "/made"]).code == 0 { break; }
        }
        b.run(&["exec", "main", "test", "-e", "/made"]).ok();
        b.run(&["exec", "main", "sh", "-c", "kill -9 $$"]).expect_code(137);
        b.run(&["exec", "absent", "true"]).expect_code(1).says("No such container: absent");
        b.run(&["kill", "main"]).ok();
        b.run(&["wait", "main"]).ok();
        b.run(&["exec", "main", "true"]).expect_code(1).says("is not running");
        b.run(&["rm", "main"]).ok();
        b.expect_nothing_left();
    }

    inspect_and_info_speak_dockers_json(b) {
        b.run(&["create", "--name", "box", "-e", "K=V", "-w", "/tmp", "--label", "l=1", "busybox", "echo", "hi"]).ok();
        let x = b.inspect("box");
        assert_eq!(x["Name"], "/box");
        assert_eq!(x["Config"]["WorkingDir"], "/tmp");
        assert_eq!(x["Config"]["Labels"]["l"], "1");
        assert_eq!(x["Path"], "echo");
        assert_eq!(x["Args"][0], "hi");
        assert_eq!(b.run(&["inspect", "-f", "{{.Name}} {{index .Args 0}} {{json .Config.Cmd}}", "box"]).ok().text(), "/box hi [\"echo\",\"hi\"]");
        b.run(&["inspect", "nothing"]).expect_code(1).says("nothing");
        let info: serde_json::Value = serde_json::from_slice(&b.run(&["info", "--format", "json"]).ok().stdout).unwrap();
        assert_eq!(info["Containers"], 1);
        assert!(std::path::Path::new(info["ImageStore"].as_str().unwrap()).join("oci-layout").exists(), "{info}");
        b.run(&["version", "--format", "json"]).ok();
        b.run(&["doctor", "--format", "json"]).ok();
        b.run(&["rm", "box"]).ok();
    }

    anonymous_volumes_keep_what_the_image_has(b) {
        let image = bulkhead_e2e::busybox_tar();
        b.command(&["import", "-c", "VOLUME /etc", "-", "vol"]).with_input(image).finish().ok();
        b.run(&["create", "--name", "kept", "vol", "sh", "-c", "grep -q root /etc/passwd && echo more >> /etc/kept && wc -l < /etc/kept"]).ok();
        assert_eq!(b.run(&["start", "-a", "kept"]).ok().text().trim(), "1");
        assert_eq!(b.run(&["start", "-a", "kept"]).ok().text().trim(), "2");
        b.run(&["run", "--rm", "vol", "sh", "-c", "! test -e /etc/kept && mount | grep -q ' /etc '"]).ok();
        b.run(&["rm", "-v", "kept"]).ok();
        b.expect_nothing_left();
    }
}

/// The failure to remove a container with `--rm` stood for the reason why it did not start.
#[test]
fn a_start_that_fails_says_why_and_not_what_became_of_the_rest() {
    use std::os::unix::fs::PermissionsExt;
    let Some(b) = bulkhead_e2e::Bulkhead::with_busybox(bulkhead_e2e::User::Ordinary) else {
        return;
    };
    b.run(&[
        "create",
        "--rm",
        "--name",
        "bad",
        "busybox",
        "no-such-command",
    ])
    .ok();
    // Nothing can be taken out of this directory, neither by the monitor nor by the command.
    let mode = |mode| {
        let containers = b.root().join("containers");
        std::fs::set_permissions(containers, std::fs::Permissions::from_mode(mode)).unwrap();
    };
    mode(0o500);
    let out = b.run(&["start", "bad"]);
    mode(0o700);
    out.expect_code(1).says("no-such-command");
    b.run(&["rm", "bad"]).ok();
    b.expect_nothing_left();
}
