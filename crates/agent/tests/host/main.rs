//! What the agent promises about processes, without a guest: the agent runs in the test, on the host's
//! kernel. The same promises are tested in real guests end to end; here a failure is quick to find.

mod rig;

use std::time::{Duration, Instant};

use bulkhead_protocol::api::{
    ResizeTerminalRequest, ShutdownRequest, SignalProcessRequest, Tmpfs, start_failure::Kind,
};
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
                "/dev/mqueue",
                "/dev/pts",
                "/dev/shm",
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
        // A failed start is final, so each needs a container of its own, and a thread for its namespace.
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
        as_root.capabilities = vec!["CAP_CHOWN".into(), "CAP_KILL".into()];
        as_root.no_new_privileges = true;
        let mut limit = bulkhead_protocol::api::Rlimit::new();
        (limit.name, limit.soft, limit.hard) = ("nofile".into(), 77, 99);
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
        process.capabilities = vec!["CAP_CHOWN".into()];
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
        assert!(
            (Duration::from_secs(2)..Duration::from_secs(6)).contains(&took),
            "{took:?}"
        );
    });
}

#[test]
fn a_terminal_has_a_size_and_is_the_console() {
    with_agent(|rig| async move {
        let mut process =
            script("tty; stty size; ls -l /dev/console; echo $TERM; read x; stty size");
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
            let mut tmpfs = Tmpfs::new();
            tmpfs.target = "/new/place".into();
            tmpfs.options = "size=1m,mode=1770".into();
            request.tmpfs = vec![tmpfs];
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
