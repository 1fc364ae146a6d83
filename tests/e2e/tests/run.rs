//! `bulkhead run`: what the contained program sees, and what comes back from it.

use std::os::unix::ffi::OsStrExt;

use bulkhead_e2e::{User, each_user};

each_user! {
    output_goes_where_docker_puts_it(b) {
        let out = b.run(&["run", "--rm", "busybox", "sh", "-c", "echo out; echo err >&2"]).ok();
        assert_eq!(out.stdout, b"out\n");
        assert_eq!(out.stderr, "err\n");
        b.expect_nothing_left();
    }

    a_variable_that_is_no_utf8_is_passed_and_a_name_may_begin_with_a_dash(b) {
        // The shell does not hand on a name that begins with a dash; what it got itself is in /proc.
        let script = "echo \"<$RAW>\"; tr '\\0' '\\n' </proc/1/environ | grep -c '^-A=-1$'; env | grep -c ^NONE";
        let words = ["run", "--rm", "-e", "RAW", "-e", "-A=-1", "-e", "NONE", "-u", "0", "busybox", "sh", "-c", script];
        let out = b.process(&words)
            .env("RAW", std::ffi::OsStr::from_bytes(b"a\xffb"))
            .env_remove("NONE")
            .output()
            .unwrap();
        // Docker's client replaces what is no UTF-8 when it makes JSON of it.
        assert_eq!(String::from_utf8_lossy(&out.stdout), "<a\u{fffd}b>\n1\n0\n");
    }

    the_kernel_is_not_the_hosts(b) {
        let host = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
        let guest = b.run(&["run", "--rm", "busybox", "uname", "-r"]).ok().text();
        assert_ne!(guest, host.trim());
        assert!(!guest.is_empty());
    }

    exit_codes_are_dockers(b) {
        b.run(&["run", "--rm", "busybox", "true"]).expect_code(0);
        b.run(&["run", "--rm", "busybox", "sh", "-c", "exit 42"]).expect_code(42);
        b.run(&["run", "--rm", "busybox", "no-such-command"]).expect_code(127).says("no-such-command");
        b.run(&["run", "--rm", "busybox", "/etc/not-executable"]).expect_code(126).says("permission denied");
        b.run(&["run", "--rm", "busybox", "/etc"]).expect_code(126);
        // PID 1 cannot kill itself, so there is an init.
        b.run(&["run", "--rm", "--init", "busybox", "sh", "-c", "kill -9 $$"]).expect_code(137);
        b.run(&["run", "--rm", "--pull", "never", "no-such-image", "true"]).expect_code(125).says("no-such-image");
        b.run(&["run", "--no-such-flag", "busybox"]).expect_code(125).says("no-such-flag");
        b.run(&["run", "--rm", "--user", "ghost", "busybox", "true"]).expect_code(125).says("ghost");
        b.expect_nothing_left();
    }

    environment_follows_image_and_flags(b) {
        std::fs::write(b.home().join("env"), "# comment\nFROM_FILE=f\nOVERRIDDEN=file\nFROM_HOST\n").unwrap();
        let out = b
            .command(&["run", "--rm", "--env-file", "env", "-e", "OVERRIDDEN=flag", "-e", "FROM_HOST2", "--hostname", "h1",
                "busybox", "env"])
            .with_env("FROM_HOST", "host")
            .with_env("FROM_HOST2", "host2")
            .finish()
            .ok();
        let lines: Vec<&str> = std::str::from_utf8(&out.stdout).unwrap().lines().collect();
        for expected in ["FROM_FILE=f", "OVERRIDDEN=flag", "FROM_HOST=host", "FROM_HOST2=host2", "HOSTNAME=h1", "HOME=/root"] {
            assert!(lines.contains(&expected), "{expected} is missing in {lines:?}");
        }
        assert!(lines.iter().any(|l| l.starts_with("PATH=/usr/local/sbin:")), "{lines:?}");
        assert!(!lines.iter().any(|l| l.starts_with("BULKHEAD")), "the host's environment leaks: {lines:?}");
    }

    users_groups_and_directories_are_resolved_in_the_image(b) {
        let id = |user: &str| b.run(&["run", "--rm", "-u", user, "busybox", "id"]).ok().text();
        assert!(id("user").starts_with("uid=1000(user) gid=1000(user)"));
        assert!(id("user").contains("2000(extra)"));
        assert!(id("user:other").starts_with("uid=1000(user) gid=3000(other)"));
        assert!(id("1234:5678").starts_with("uid=1234 gid=5678"));
        assert_eq!(b.run(&["run", "--rm", "-w", "/new/dir", "busybox", "pwd"]).ok().text(), "/new/dir");
        assert_eq!(b.run(&["run", "--rm", "-u", "user", "busybox", "sh", "-c", "echo $HOME"]).ok().text(), "/home/user");
    }

    the_main_process_is_pid_1_and_sees_only_its_own(b) {
        assert_eq!(b.run(&["run", "--rm", "busybox", "sh", "-c", "echo $$"]).ok().text(), "1");
        let ps = b.run(&["run", "--rm", "busybox", "ps"]).ok().text();
        assert_eq!(ps.lines().count(), 2, "{ps}");
        let reaped = b.run(&["run", "--rm", "--init", "busybox", "sh", "-c", "echo $$; ps"]).ok().text();
        assert_ne!(reaped.lines().next(), Some("1"), "--init takes PID 1: {reaped}");
    }

    the_root_is_writable_unless_read_only(b) {
        b.run(&["run", "--rm", "busybox", "sh", "-c", "echo x > /file && cat /file && rm /bin/vi && ! ls /bin/vi"]).ok();
        b.run(&["run", "--rm", "--read-only", "--tmpfs", "/run:size=1m", "busybox", "sh", "-c",
            "! touch /file && touch /run/file && df /run | grep -q 1024"]).ok();
    }

    memory_disk_and_processor_are_what_was_asked(b) {
        let total = b.run(&["run", "--rm", "--memory", "128m", "busybox", "cat", "/sys/fs/cgroup/memory.max"]).ok().text();
        assert_eq!(total, (128u64 << 20).to_string());
        b.run(&["run", "--rm", "--disk", "64m", "busybox", "dd", "if=/dev/zero", "of=/big", "bs=1M", "count=100"])
            .expect_code(1)
            .says("No space left on device");
        assert_eq!(b.run(&["run", "--rm", "--cpus", "1", "busybox", "nproc"]).ok().text(), "1");
    }

    the_smallest_limit_is_enough_for_a_small_program(b) {
        assert_eq!(b.run(&["run", "--rm", "--memory", "6m", "busybox", "echo", "small"]).ok().text(), "small");
    }

    running_out_of_memory_is_137(b) {
        b.run(&["run", "--name", "oom", "--memory", "64m", "busybox", "sh", "-c", "tail /dev/zero"]).expect_code(137)
            .says("the container's memory of 64 MiB was full; give it more with '--memory'");
        let state = &b.inspect("oom")["State"];
        assert_eq!(state["OOMKilled"], true, "{state}");
        assert_eq!(state["ExitCode"], 137);
        b.run(&["rm", "oom"]).ok();
        // Without a limit of its own a container has what its guest has.
        b.run(&["run", "--name", "oom", "busybox", "tail", "/dev/zero"]).expect_code(137)
            .says("the 512 MiB of memory that the container and its kernel have without '--memory' were full");
        let state = &b.inspect("oom")["State"];
        assert_eq!(state["OOMKilled"], true, "{state}");
        b.run(&["rm", "oom"]).ok();
    }

    capabilities_are_dockers(b) {
        let bounding = |flags: &[&str]| {
            let mut args = vec!["run", "--rm"];
            args.extend(flags);
            args.extend(["busybox", "sh", "-c", "grep CapEff /proc/self/status"]);
            b.run(&args).ok().text().replace("CapEff:\t", "")
        };
        assert_eq!(bounding(&[]), "00000000a80425fb");
        assert_eq!(bounding(&["--cap-drop", "ALL"]), "0000000000000000");
        assert_eq!(bounding(&["--cap-drop", "ALL", "--cap-add", "NET_BIND_SERVICE"]), "0000000000000400");
        assert_eq!(bounding(&["--cap-add", "CAP_SYS_ADMIN"]), "00000000a82425fb");
        b.run(&["run", "--rm", "--cap-add", "NO_SUCH", "busybox", "true"]).expect_code(125).says("NO_SUCH");
    }

    limits_reach_the_process(b) {
        let out = b.run(&["run", "--rm", "--ulimit", "nofile=100:200", "busybox", "sh", "-c", "ulimit -n; ulimit -Hn"]).ok();
        assert_eq!(out.text(), "100\n200");
    }

    stdin_flows_in_and_ends(b) {
        let input: Vec<u8> = (0..300_000u32).flat_map(u32::to_le_bytes).collect();
        let out = b.command(&["run", "--rm", "-i", "busybox", "cat"]).with_input(input.clone()).finish().ok();
        assert!(out.stdout == input, "{} of {} bytes came back", out.stdout.len(), input.len());
        let out = b.command(&["run", "--rm", "busybox", "cat"]).with_input("not for it").finish().ok();
        assert_eq!(out.text(), "", "without -i stdin is empty");
    }

    streams_can_be_reopened_by_path(b) {
        let out = b.run(&["run", "--rm", "busybox", "sh", "-c", "echo a > /dev/stdout; echo b > /dev/stderr; echo c > /proc/self/fd/1"]).ok();
        assert_eq!(out.text(), "a\nc");
        assert_eq!(out.stderr, "b\n");
    }

    a_container_id_is_written_once(b) {
        b.run(&["run", "--cidfile", "cid", "busybox", "true"]).ok();
        let id = std::fs::read_to_string(b.home().join("cid")).unwrap();
        assert_eq!(id.len(), 64);
        b.run(&["run", "--cidfile", "cid", "busybox", "true"]).expect_code(125).says("cid");
        b.run(&["rm", &id]).ok();
        b.expect_nothing_left();
    }

    signals_are_forwarded(b) {
        let running = b
            .command(&["run", "--rm", "--name", "trap", "busybox", "sh", "-c",
                "trap 'echo got; exit 5' TERM; echo ready; while :; do sleep 0.1; done"])
            .start();
        b.wait_for_log("trap", "ready");
        running.signal(libc::SIGTERM);
        let out = running.finish().expect_code(5);
        assert_eq!(out.text(), "ready\ngot");
        b.expect_nothing_left();
    }

    every_process_of_the_container_ends_with_it(b) {
        b.run(&["run", "--rm", "busybox", "sh", "-c", "sleep 1000 & sleep 1000 & exit 3"]).expect_code(3);
        b.expect_nothing_left();
    }

    devices_and_mounts_are_what_programs_expect(b) {
        b.run(&["run", "--rm", "busybox", "sh", "-ec",
            "for d in null zero full random urandom tty ptmx; do test -c /dev/$d || { echo no /dev/$d; exit 1; }; done
             test -d /dev/pts; test -d /dev/shm; test -d /dev/mqueue; test -d /sys/fs/cgroup; test -L /dev/fd
             echo 1 > /dev/shm/x; test -f /proc/self/status; test -d /sys/class; echo hi > /dev/null
             head -c 8 /dev/urandom | wc -c | grep -q 8; ! dd if=/dev/mem bs=1 count=1"]).ok();
    }

    the_clock_is_the_hosts(b) {
        let start = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
        let guest: u64 = b.run(&["run", "--rm", "busybox", "date", "+%s"]).ok().text().parse().unwrap();
        let end = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
        assert!((start - 1..=end + 1).contains(&guest), "guest {guest}, host {start} to {end}");
    }

    timings_show_where_the_time_goes(b) {
        let out = b.run(&["run", "--rm", "--timings", "busybox", "true"]).ok();
        for phase in ["spawn", "kernel", "agent", "mount", "exec", "teardown"] {
            assert!(out.stderr.contains(phase), "{phase} is missing in:\n{}", out.stderr);
        }
    }
}

#[test]
fn the_ordinary_user_really_is_one() {
    let Some(b) = bulkhead_e2e::Bulkhead::with_busybox(User::Ordinary) else {
        return;
    };
    let out = b.process(&["info", "--format", "json"]).output().unwrap();
    assert!(out.status.success());
    use std::os::unix::fs::MetadataExt;
    assert_ne!(std::fs::metadata(b.root()).unwrap().uid(), 0);
}
