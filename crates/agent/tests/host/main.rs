//! What the agent promises about processes, without a guest: the agent runs in the test, on the host's
//! kernel. The same promises are tested in real guests end to end; here a failure is quick to find.

mod rig;

use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use bulkhead_harness::guard;
use bulkhead_protocol::api::{
    Device, ResizeTerminalRequest, ShutdownRequest, SignalProcessRequest, Tmpfs,
    start_failure::Kind,
};
use nix::mount::{MsFlags, mount};
use rig::{ID, Rig, process, with_container};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use ttrpc::context::Context;

fn with_agent<T, F: Future<Output = T>>(test: impl FnOnce(Rig) -> F) -> T {
    with_container(|_| (), test)
}

fn script(text: &str) -> bulkhead_protocol::api::Process {
    process(&["sh", "-c", text])
}

async fn signal(rig: &Rig, id: &str, number: u32) {
    let mut request = SignalProcessRequest::new();
    request.process_id = id.to_owned();
    request.signal = number;
    rig.client
        .signal_process(Context::default(), &request)
        .await
        .unwrap();
}

#[test]
fn output_and_exit_code_arrive() {
    with_agent(|rig| async move {
        let result = rig.run(ID, script("echo out; echo err >&2; exit 7")).await;
        assert_eq!(result, (7, "out\n".into(), "err\n".into()));
    });
}

#[test]
fn the_main_process_is_number_one_and_sees_nothing_of_the_host() {
    with_agent(|rig| async move {
        let (code, out, err) = rig
            .run(
                ID,
                script("echo $$; ps -o pid; cat /proc/mounts; cat /etc/hostname; ls /; umask"),
            )
            .await;
        assert_eq!((code, err.as_str()), (0, ""));
        assert!(out.starts_with("1\n"), "{out}");
        assert!(
            out.contains("\nbox\n") && out.ends_with("\n0022\n"),
            "{out}"
        );
        let mut mounts: Vec<&str> = out
            .lines()
            .filter(|line| line.split(' ').count() == 6)
            .filter_map(|line| line.split(' ').nth(1))
            .collect();
        mounts.sort_unstable();
        assert_eq!(
            mounts,
            [
                "/",
                "/dev",
                "/dev/full",
                "/dev/mqueue",
                "/dev/null",
                "/dev/pts",
                "/dev/random",
                "/dev/shm",
                "/dev/tty",
                "/dev/urandom",
                "/dev/zero",
                "/proc",
                "/sys"
            ]
        );
        let names: Vec<&str> = out
            .lines()
            .filter(|l| ["bin", "dev", "etc", "proc", "run", "scripts", "sys", "tmp"].contains(l))
            .collect();
        assert_eq!(
            names,
            ["bin", "dev", "etc", "proc", "scripts", "sys", "tmp"]
        );
    });
}

#[test]
fn standard_streams_can_be_reopened_even_by_another_user() {
    with_agent(|rig| async move {
        let mut process = script(
            "echo a > /dev/stdout; echo b > /proc/self/fd/2; cat < /dev/null; cat /dev/stdin",
        );
        process.user = "www".into();
        let result = rig.run(ID, process).await;
        assert_eq!(result, (0, "a\n".into(), "b\n".into()));
    });
}

#[test]
fn a_gigantic_stream_passes_unchanged_both_ways_with_a_slow_reader() {
    with_agent(|rig| async move {
        let (response, mut streams) = rig.start(ID, process(&["cat"]), true).await;
        assert!(response.failure.is_none());
        let input: Vec<u8> = (0..24u32 << 20)
            .map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8)
            .collect();
        let expected = input.clone();
        let mut stdin = streams.stdin.take().unwrap();
        let writer = tokio::spawn(async move {
            stdin.write_all(&input).await.unwrap();
            stdin.shutdown().await.unwrap();
            stdin
        });
        let mut output = Vec::new();
        let mut piece = vec![0; 300_000];
        loop {
            let length = streams.stdout.read(&mut piece).await.unwrap();
            if length == 0 {
                break;
            }
            output.extend_from_slice(&piece[..length]);
            if output.len() % 7 == 0 {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        }
        assert!(
            output == expected,
            "{} of {} bytes",
            output.len(),
            expected.len()
        );
        drop(writer.await.unwrap());
        assert_eq!(rig.wait(ID).await.exit_code, 0);
    });
}

#[test]
fn nothing_is_reported_before_the_output_was_sent() {
    with_agent(|rig| async move {
        let (_, mut streams) = rig
            .start(ID, script("head -c 3000000 /dev/zero"), false)
            .await;
        let wait = rig.wait(ID);
        tokio::pin!(wait);
        let early = tokio::time::timeout(Duration::from_millis(300), &mut wait).await;
        assert!(early.is_err(), "reported although nobody has read");
        let mut all = Vec::new();
        let (read, exit) = tokio::join!(streams.stdout.read_to_end(&mut all), wait);
        assert_eq!((read.unwrap(), exit.exit_code), (3_000_000, 0));
    });
}

#[test]
fn input_for_a_process_that_does_not_read_is_dropped() {
    with_agent(|rig| async move {
        let (_, mut streams) = rig
            .start(ID, script("exec <&-; sleep 1; echo done"), true)
            .await;
        let input = vec![b'x'; 4 << 20];
        let feed = streams.feed(&input);
        tokio::time::timeout(Duration::from_secs(5), feed)
            .await
            .expect("the writer was held up");
        let mut out = String::new();
        streams.stdout.read_to_string(&mut out).await.unwrap();
        assert_eq!((out.as_str(), rig.wait(ID).await.exit_code), ("done\n", 0));
    });
}

#[test]
fn the_end_of_input_reaches_the_process() {
    with_agent(|rig| async move {
        let (_, mut streams) = rig.start(ID, script("cat; echo end"), true).await;
        streams.feed(b"line\n").await;
        let mut out = String::new();
        streams.stdout.read_to_string(&mut out).await.unwrap();
        assert_eq!(out, "line\nend\n");
    });
}

#[test]
fn commands_that_cannot_run_say_why_in_dockers_words() {
    for (command, kind, message) in [
        (
            "nope",
            Kind::NOT_FOUND,
            "exec: \"nope\": executable file not found in $PATH",
        ),
        (
            "plain",
            Kind::NOT_FOUND,
            "exec: \"plain\": executable file not found in $PATH",
        ),
        (
            "/nope",
            Kind::NOT_FOUND,
            "exec: \"/nope\": stat /nope: no such file or directory",
        ),
        (
            "/scripts/plain",
            Kind::NOT_EXECUTABLE,
            "exec: \"/scripts/plain\": permission denied",
        ),
        (
            "/bin",
            Kind::NOT_EXECUTABLE,
            "exec: \"/bin\": is a directory",
        ),
        (
            "foreign",
            Kind::NOT_EXECUTABLE,
            "exec /scripts/foreign: exec format error",
        ),
        (
            "orphan",
            Kind::NOT_FOUND,
            "exec /scripts/orphan: no such file or directory",
        ),
        (
            "/scripts/orphan",
            Kind::NOT_FOUND,
            "exec /scripts/orphan: no such file or directory",
        ),
    ] {
        // Each needs a thread for its namespace.
        std::thread::spawn(move || {
            with_agent(|rig| async move {
                let (response, _streams) = rig.start(ID, process(&[command]), false).await;
                let failure = response.failure.into_option().expect(command);
                assert_eq!(failure.kind.enum_value(), Ok(kind), "{command}");
                assert_eq!(failure.message, message);
            });
        })
        .join()
        .unwrap();
    }
}

#[test]
fn an_unknown_user_is_told_from_other_failures() {
    with_agent(|rig| async move {
        let mut process = process(&["true"]);
        process.user = "nobody".into();
        let (response, _streams) = rig.start(ID, process, false).await;
        let failure = response.failure.unwrap();
        assert_eq!(failure.kind.enum_value(), Ok(Kind::UNKNOWN_USER));
        assert_eq!(
            failure.message,
            "unable to find user nobody: no matching entries in passwd file"
        );
    });
}

#[test]
fn users_groups_home_and_directory_are_the_containers() {
    with_agent(|rig| async move {
        let mut process = script("id; echo $HOME; pwd");
        process.user = "www".into();
        process.cwd = "/made/for/this".into();
        let (code, out, err) = rig.run(ID, process).await;
        assert_eq!((code, err.as_str()), (0, ""));
        assert_eq!(
            out,
            "uid=33(www) gid=34(www) groups=4(adm),34(www)\n/srv\n/made/for/this\n"
        );
    });
}

#[test]
fn capabilities_limits_and_privileges_are_as_asked() {
    with_agent(|rig| async move {
        let text = "cat /proc/self/status | busybox grep -E '^(Cap|NoNew|SigBlk)'; ulimit -n";
        let mut as_root = script(text);
        (as_root.capabilities, as_root.no_new_privileges) = (0x21, true);
        let mut limit = bulkhead_protocol::api::Rlimit::new();
        (limit.resource, limit.soft, limit.hard) = (7, 77, 99);
        as_root.rlimits = vec![limit];
        let (_, out, _) = rig.run(ID, as_root).await;
        let expected = "SigBlk:\t0000000000000000\n\
            CapInh:\t0000000000000000\nCapPrm:\t0000000000000021\nCapEff:\t0000000000000021\n\
            CapBnd:\t0000000000000021\nCapAmb:\t0000000000000000\nNoNewPrivs:\t1\n77\n";
        assert_eq!(out, expected);
    });
}

#[test]
fn a_writer_whose_reader_went_away_is_ended_by_sigpipe() {
    with_agent(|rig| async move {
        let result = rig
            .run(ID, script("yes | head -n 1; trap '' PIPE; echo $?"))
            .await;
        assert_eq!(result, (0, "y\n0\n".into(), String::new()));
    });
}

#[test]
fn another_user_has_no_capabilities_whatever_root_would_have() {
    with_agent(|rig| async move {
        let mut process = script("cat /proc/self/status | busybox grep -E '^Cap(Eff|Prm|Bnd)'");
        process.user = "1000".into();
        process.capabilities = 1;
        let (_, out, _) = rig.run(ID, process).await;
        let expected =
            "CapPrm:\t0000000000000000\nCapEff:\t0000000000000000\nCapBnd:\t0000000000000001\n";
        assert_eq!(out, expected);
    });
}

#[test]
fn a_signal_ends_the_process_with_its_number() {
    with_agent(|rig| async move {
        let text = "trap 'exit 42' TERM; echo up; while :; do sleep 0.1; done";
        let (response, mut streams) = rig.start(ID, script(text), false).await;
        assert_eq!(response.pid, 1);
        let mut up = [0; 3];
        streams.stdout.read_exact(&mut up).await.unwrap();
        signal(&rig, ID, 15).await;
        assert_eq!(rig.wait(ID).await.exit_code, 42);
    });
    std::thread::spawn(|| {
        with_agent(|rig| async move {
            let (_, _streams) = rig.start(ID, process(&["sleep", "100"]), false).await;
            signal(&rig, ID, 9).await;
            assert_eq!(rig.wait(ID).await.exit_code, 137);
        });
    })
    .join()
    .unwrap();
}

#[test]
fn a_start_that_failed_can_be_tried_again() {
    with_agent(|rig| async move {
        for _ in 0..2 {
            let (response, _streams) = rig.start(ID, process(&["nope"]), false).await;
            let failure = response.failure.unwrap();
            assert_eq!(
                failure.kind.enum_value(),
                Ok(Kind::NOT_FOUND),
                "{failure:?}"
            );
        }
        let result = rig
            .run(ID, script("echo $$; ls /dev/pts; echo x > /dev/null"))
            .await;
        assert_eq!(result, (0, "1\nptmx\n".into(), String::new()));
        let (response, _streams) = rig.start("other", process(&["true"]), false).await;
        let failure = response.failure.unwrap();
        assert_eq!(failure.kind.enum_value(), Ok(Kind::NOT_RUNNING));
    });
}

#[test]
fn a_further_process_does_not_make_its_directory() {
    with_agent(|rig| async move {
        let (_, _main) = rig.start(ID, process(&["sleep", "100"]), false).await;
        let mut wanted = process(&["true"]);
        wanted.cwd = "/none".into();
        let (response, _streams) = rig.start("exec1", wanted, false).await;
        let failure = response.failure.unwrap();
        assert_eq!(failure.kind.enum_value(), Ok(Kind::NOT_FOUND));
        assert_eq!(
            failure.message,
            "chdir to cwd (\"/none\") failed: no such file or directory"
        );
        let (code, ..) = rig.run("exec2", process(&["ls", "/none"])).await;
        assert_eq!(code, 1);
    });
}

#[test]
fn a_container_that_holds_up_an_exec_holds_up_nothing_else() {
    with_agent(|rig| async move {
        let place = rig.root().join("tmp");
        // A file system of which nobody answers a request, as a hostile container can serve one.
        let fuse = std::fs::File::options()
            .read(true)
            .write(true)
            .open("/dev/fuse");
        let fuse = fuse.expect("the test needs /dev/fuse");
        let options = format!(
            "fd={},rootmode=40000,user_id=0,group_id=0",
            fuse.as_raw_fd()
        );
        let flags = MsFlags::empty();
        mount(
            Some("held"),
            &place,
            Some("fuse"),
            flags,
            Some(options.as_str()),
        )
        .unwrap();
        let (_, _main) = rig.start(ID, process(&["sleep", "100"]), false).await;
        let mut wanted = process(&["true"]);
        wanted.cwd = "/tmp/held".into();
        let held = rig.start("exec1", wanted, false);
        tokio::pin!(held);
        let early = tokio::time::timeout(Duration::from_millis(300), &mut held).await;
        assert!(
            early.is_err(),
            "the file system that nobody serves has answered"
        );
        let (code, out, _) = rig.run("exec2", process(&["cat", "/etc/hostname"])).await;
        assert_eq!((code, out.as_str()), (0, "box\n"));
        signal(&rig, ID, 9).await;
        assert_eq!(rig.wait(ID).await.exit_code, 137);
        // With the container's namespace its processes go, also one that was not executed yet.
        let (response, _streams) = held.await;
        assert!(response.failure.is_none(), "{response:?}");
        assert_eq!(rig.wait("exec1").await.exit_code, 137);
    });
}

#[test]
fn a_further_process_joins_the_container_and_dies_with_it() {
    with_agent(|rig| async move {
        let (_, _main) = rig.start(ID, process(&["sleep", "100"]), false).await;
        let (code, out, err) = rig
            .run("exec1", script("echo $PPID; cat /etc/hostname; ps -o args"))
            .await;
        assert_eq!((code, err.as_str()), (0, ""));
        assert!(
            out.starts_with("0\nbox\n") && out.contains("\nsleep 100\n"),
            "{out}"
        );
        let (response, _exec) = rig.start("exec2", process(&["sleep", "100"]), false).await;
        assert!(response.pid > 1);
        signal(&rig, ID, 9).await;
        assert_eq!(rig.wait(ID).await.exit_code, 137);
        assert_eq!(rig.wait("exec2").await.exit_code, 137);
        let (response, _late) = rig.start("exec3", process(&["true"]), false).await;
        let failure = response.failure.unwrap();
        assert_eq!(failure.kind.enum_value(), Ok(Kind::NOT_RUNNING));
    });
}

#[test]
fn a_process_left_behind_by_an_exec_holds_its_end_up_for_two_seconds_only() {
    with_agent(|rig| async move {
        let (_, _main) = rig.start(ID, process(&["sleep", "100"]), false).await;
        let began = Instant::now();
        let (code, out, _) = rig.run("exec", script("sleep 60 & echo out")).await;
        assert_eq!((code, out.as_str()), (0, "out\n"));
        let took = began.elapsed();
        const PROMISE: Duration = Duration::from_secs(2);
        assert!((PROMISE..guard(PROMISE)).contains(&took), "{took:?}");
    });
}

#[test]
fn a_terminal_has_a_name_and_a_size_and_is_the_console() {
    with_agent(|rig| async move {
        let mut process = script(
            "readlink /proc/self/fd/0; stty size; ls -l /dev/console; echo $TERM; read x; stty size",
        );
        process.terminal = true;
        (process.rows, process.columns) = (33, 77);
        let (response, mut streams) = rig.start(ID, process, true).await;
        assert!(response.failure.is_none(), "{:?}", response.failure);
        let mut out = String::new();
        let mut piece = [0; 4096];
        while !out.contains("xterm\r\n") {
            let length = streams.stdout.read(&mut piece).await.unwrap();
            assert!(length > 0, "{out}");
            out.push_str(std::str::from_utf8(&piece[..length]).unwrap());
        }
        assert!(out.starts_with("/dev/pts/0\r\n33 77\r\ncrw"), "{out}");
        let mut resize = ResizeTerminalRequest::new();
        resize.process_id = ID.into();
        (resize.rows, resize.columns) = (44, 132);
        rig.client
            .resize_terminal(Context::default(), &resize)
            .await
            .unwrap();
        streams
            .stdin
            .as_mut()
            .unwrap()
            .write_all(b"\n")
            .await
            .unwrap();
        streams.stdout.read_to_string(&mut out).await.unwrap();
        assert!(out.ends_with("44 132\r\n"), "{out}");
        assert_eq!(rig.wait(ID).await.exit_code, 0);
    });
}

#[test]
fn the_init_forwards_signals_reaps_and_passes_the_exit_code_on() {
    with_container(
        |request| request.init = true,
        |rig| async move {
            let text = "(sleep 0.2 &) ; trap 'exit 9' TERM; echo up; while :; do sleep 0.1; done";
            let (response, mut streams) = rig.start(ID, script(text), false).await;
            assert!(response.failure.is_none(), "{:?}", response.failure);
            let mut up = [0; 3];
            streams.stdout.read_exact(&mut up).await.unwrap();
            tokio::time::sleep(Duration::from_millis(500)).await;
            let (_, out, _) = rig
                .run("exec", process(&["ps", "-o", "pid,stat,args"]))
                .await;
            assert!(out.contains("bulkhead-init"), "{out}");
            assert!(!out.contains(" Z "), "a zombie is left: {out}");
            signal(&rig, ID, 15).await;
            assert_eq!(rig.wait(ID).await.exit_code, 9);
        },
    );
}

#[test]
fn the_init_survives_a_real_time_signal_and_forwards_it() {
    const RTMIN_PLUS_3: u32 = 37;
    with_container(
        |request| request.init = true,
        |rig| async move {
            let text = "trap 'echo got' 37; echo up; while :; do sleep 0.1; done";
            let (response, mut streams) = rig.start(ID, script(text), false).await;
            assert!(response.failure.is_none(), "{:?}", response.failure);
            let mut up = [0; 3];
            streams.stdout.read_exact(&mut up).await.unwrap();
            signal(&rig, ID, RTMIN_PLUS_3).await;
            let mut got = [0; 4];
            streams.stdout.read_exact(&mut got).await.unwrap();
            assert_eq!(&got, b"got\n");
            signal(&rig, ID, 15).await;
            assert_eq!(rig.wait(ID).await.exit_code, 143);
        },
    );
}

#[test]
fn a_real_time_signal_ends_a_process_with_its_number() {
    std::thread::spawn(|| {
        with_container(
            |request| request.init = true,
            |rig| async move {
                let (_, _main) = rig.start(ID, process(&["sleep", "100"]), false).await;
                signal(&rig, ID, 37).await;
                assert_eq!(rig.wait(ID).await.exit_code, 165, "the init's own child");
            },
        );
    })
    .join()
    .unwrap();
    std::thread::spawn(|| {
        with_agent(|rig| async move {
            let (_, _main) = rig.start(ID, process(&["sleep", "100"]), false).await;
            let (_, _exec) = rig.start("exec", process(&["sleep", "100"]), false).await;
            signal(&rig, "exec", 37).await;
            assert_eq!(
                rig.wait("exec").await.exit_code,
                165,
                "the agent's own child"
            );
        });
    })
    .join()
    .unwrap();
}

#[test]
fn a_missing_command_is_found_missing_under_the_init_too() {
    with_container(
        |request| request.init = true,
        |rig| async move {
            let (response, _streams) = rig.start(ID, process(&["nope"]), false).await;
            assert_eq!(
                response.failure.unwrap().kind.enum_value(),
                Ok(Kind::NOT_FOUND)
            );
        },
    );
}

#[test]
fn a_read_only_root_stays_so_while_tmpfs_is_writable() {
    with_container(
        |request| {
            request.root.as_mut().unwrap().read_only = true;
            let options = "size=1m,mode=1770".parse().unwrap();
            request.tmpfs = vec![Tmpfs::at("/new/place", &options)];
        },
        |rig| async move {
            let text = "echo x > /file; echo x > /new/place/file && echo ok; \
                busybox stat -c %a /new/place; busybox grep /new/place /proc/mounts";
            let (_, out, err) = rig.run(ID, script(text)).await;
            assert!(err.contains("Read-only file system"), "{err}");
            assert!(out.starts_with("ok\n1770\n"), "{out}");
            assert!(
                out.contains("nosuid,nodev,noexec") && out.contains("size=1024k"),
                "{out}"
            );
        },
    );
}

#[test]
fn a_node_that_a_process_makes_opens_nothing() {
    with_agent(|rig| async move {
        let text = "for place in /tmp /dev /dev/shm; do busybox mknod $place/made c 1 5 && \
            { head -c 1 $place/made; head -c 1 < /dev/zero | busybox wc -c; }; done; echo x > /dev/null && echo ok";
        let mut wanted = script(text);
        wanted.capabilities = u64::MAX;
        let (_, out, err) = rig.run(ID, wanted).await;
        assert_eq!(out, "1\n1\n1\nok\n");
        assert_eq!(err.matches("Permission denied").count(), 3, "{err}");
    });
}

#[test]
fn a_privileged_container_may_use_its_nodes_and_write_to_sys() {
    with_container(
        |request| request.privileged = true,
        |rig| async move {
            let text = "for place in /tmp /dev; do busybox mknod $place/made c 1 5 && head -c 1 $place/made | busybox wc -c; \
                done; busybox grep -E ' /(sys|dev)? ' /proc/mounts";
            let mut wanted = script(text);
            wanted.capabilities = u64::MAX;
            let (code, out, err) = rig.run(ID, wanted).await;
            assert_eq!((code, err.as_str()), (0, ""));
            assert!(out.starts_with("1\n1\n"), "{out}");
            assert!(
                !out.contains("nodev,relatime 0 0\ntmpfs") && !out.contains("sysfs ro"),
                "{out}"
            );
        },
    );
}

#[test]
fn a_device_that_was_asked_for_is_where_it_was_asked_for() {
    with_container(
        |request| {
            let mut device = Device::new();
            (device.node, device.target) = ("full".into(), "/srv/new/full".into());
            request.devices = vec![device];
        },
        |rig| async move {
            let mut text = script("echo x > /srv/new/full; busybox stat -c %t:%T /srv/new/full");
            text.user = "www".into();
            let (_, out, err) = rig.run(ID, text).await;
            assert_eq!(out, "1:7\n");
            assert!(err.contains("No space left on device"), "{err}");
        },
    );
}

#[test]
fn paths_of_the_kernel_are_masked_and_read_only_as_asked() {
    with_container(
        |request| {
            request.masked_paths = ["/proc/keys", "/sys/kernel", "/proc/none"]
                .map(String::from)
                .into();
            request.readonly_paths = ["/proc/sys", "/proc/none"].map(String::from).into();
        },
        |rig| async move {
            let text = "cat /proc/keys; ls /sys/kernel; cat /proc/sys/net/ipv4/ping_group_range; \
                echo x > /sys/kernel/x; cat /proc/sys/kernel/hostname > /dev/null; echo 1 > /proc/sys/net/ipv4/ip_forward";
            let (_, out, err) = rig.run(ID, script(text)).await;
            assert_eq!(
                out.split_whitespace().collect::<Vec<_>>(),
                ["0", "2147483647"]
            );
            assert_eq!(err.matches("Read-only file system").count(), 2, "{err}");
        },
    );
}

#[test]
fn generated_files_are_seen_through_a_mount_over_their_directory() {
    for read_only in [false, true] {
        std::thread::spawn(move || {
            with_container(
                |request| {
                    request.root.as_mut().unwrap().read_only = read_only;
                    request.tmpfs = vec![Tmpfs::at("/etc", &"".parse().unwrap())];
                },
                |rig| async move {
                    let text = "cat /etc/hostname; busybox grep -c box /etc/hosts; cat /etc/resolv.conf; ls /etc";
                    let result = rig.run(ID, script(text)).await;
                    assert_eq!(result, (0, "box\n1\nhostname\nhosts\nresolv.conf\n".into(), String::new()));
                },
            );
        })
        .join()
        .unwrap();
    }
}

#[test]
fn a_missing_directory_is_made_before_the_root_becomes_read_only() {
    with_container(
        |request| request.root.as_mut().unwrap().read_only = true,
        |rig| async move {
            let mut wanted = script("pwd; echo x > file");
            wanted.cwd = "/made/for/this".into();
            let (_, out, err) = rig.run(ID, wanted).await;
            assert_eq!(out, "/made/for/this\n");
            assert!(err.contains("Read-only file system"), "{err}");
        },
    );
}

#[test]
fn a_stream_that_the_host_does_not_accept_fails_the_start() {
    with_agent(|rig| async move {
        let mut request = bulkhead_protocol::api::StartProcessRequest::new();
        request.container_id = ID.into();
        request.process_id = ID.into();
        request.process = Some(process(&["true"])).into();
        request.stdout_port = 99;
        let response = rig
            .client
            .start_process(Context::default(), &request)
            .await
            .unwrap();
        let failure = response.failure.unwrap();
        assert_eq!(failure.kind.enum_value(), Ok(Kind::SETUP));
        assert!(
            failure.message.contains("stdout stream to port 99"),
            "{}",
            failure.message
        );
    });
}

#[test]
fn a_shutdown_ends_every_process_and_unmounts_the_root() {
    with_agent(|rig| async move {
        let (_, _main) = rig.start(ID, process(&["sleep", "100"]), false).await;
        rig.client
            .shutdown(Context::default(), &ShutdownRequest::new())
            .await
            .unwrap();
        assert_eq!(rig.served.await.unwrap(), bulkhead_agent::Served::Shutdown);
        let mounts = std::fs::read_to_string("/proc/thread-self/mounts").unwrap();
        assert!(!mounts.contains("0123456789ab/root"), "{mounts}");
    });
}

#[test]
fn a_host_that_goes_away_is_noticed() {
    with_agent(|rig| async move {
        let Rig { client, served, .. } = rig;
        drop(client);
        let served = tokio::time::timeout(Duration::from_secs(10), served).await;
        assert_eq!(
            served.unwrap().unwrap(),
            bulkhead_agent::Served::Disconnected
        );
    });
}
