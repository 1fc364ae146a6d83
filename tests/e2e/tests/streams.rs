//! Streams: every byte arrives, in order, however long the stream and however short the run.

use std::io::Read;
use std::process::Stdio;

use bulkhead_e2e::{Bulkhead, User, scaled};

#[test]
fn a_gibibyte_arrives_unchanged() {
    let Some(b) = Bulkhead::with_busybox(User::Root) else {
        return;
    };
    let mebibytes = scaled(1024, 16);
    let script = format!("dd if=/dev/zero bs=1M count={mebibytes} 2>/dev/null");
    let mut child = b
        .process(&["run", "--rm", "busybox", "sh", "-c", &script])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stream = child.stdout.take().unwrap();
    let mut total = 0u64;
    let mut buffer = vec![0; 1 << 20];
    loop {
        let count = stream.read(&mut buffer).unwrap();
        if count == 0 {
            break;
        }
        assert!(
            buffer[..count].iter().all(|b| *b == 0),
            "a byte changed after {total}"
        );
        total += count as u64;
    }
    assert!(child.wait().unwrap().success());
    assert_eq!(total, (mebibytes as u64) << 20);
    b.expect_nothing_left();
}

#[test]
fn a_random_file_goes_in_and_out_unchanged() {
    let Some(b) = Bulkhead::with_busybox(User::Root) else {
        return;
    };
    let mut noise = vec![0u8; scaled(64 << 20, 4 << 20)];
    std::fs::File::open("/dev/urandom")
        .unwrap()
        .read_exact(&mut noise)
        .unwrap();
    let out = b
        .command(&[
            "run",
            "--rm",
            "-i",
            "busybox",
            "sh",
            "-c",
            "cat > /f; cat /f",
        ])
        .with_input(noise.clone())
        .finish()
        .ok();
    assert!(out.stdout == noise, "{} bytes came back", out.stdout.len());
}

#[test]
fn a_slow_reader_loses_nothing() {
    let Some(b) = Bulkhead::with_busybox(User::Root) else {
        return;
    };
    let lines = scaled(20_000, 5_000);
    let script = format!(
        "for i in $(seq 1 {lines}); do echo \"line $i of a long text that fills buffers\"; done"
    );
    let mut child = b
        .process(&["run", "--rm", "busybox", "sh", "-c", &script])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stream = child.stdout.take().unwrap();
    let mut text = String::new();
    let mut buffer = [0; 40_000];
    loop {
        std::thread::sleep(std::time::Duration::from_millis(20));
        let count = stream.read(&mut buffer).unwrap();
        if count == 0 {
            break;
        }
        text.push_str(std::str::from_utf8(&buffer[..count]).unwrap());
    }
    assert!(child.wait().unwrap().success());
    let expected: String = (1..=lines)
        .map(|i| format!("line {i} of a long text that fills buffers\n"))
        .collect();
    assert!(
        text == expected,
        "{} bytes instead of {}",
        text.len(),
        expected.len()
    );
}

#[test]
fn a_thousand_short_runs_lose_no_line() {
    let Some(b) = Bulkhead::with_busybox(User::Root) else {
        return;
    };
    let runs = scaled(1000, 20);
    let next = std::sync::atomic::AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                loop {
                    let number = next.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
                    if number >= runs {
                        return;
                    }
                    let out = b
                        .run(&["run", "--rm", "busybox", "echo", &format!("run {number}")])
                        .ok();
                    assert_eq!(out.text(), format!("run {number}"));
                }
            });
        }
    });
    b.expect_nothing_left();
}

#[test]
fn a_reader_that_leaves_does_not_end_the_container() {
    let Some(b) = Bulkhead::with_busybox(User::Root) else {
        return;
    };
    let mut child = b
        .process(&[
            "run",
            "--name",
            "chatty",
            "busybox",
            "sh",
            "-c",
            "echo one; sleep 0.5; echo two; echo three; exit 0",
        ])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut first = [0; 4];
    child
        .stdout
        .as_mut()
        .unwrap()
        .read_exact(&mut first)
        .unwrap();
    drop(child.stdout.take());
    // As Docker's client, and every other program whose reader has left.
    let ended_by = std::os::unix::process::ExitStatusExt::signal(&child.wait().unwrap());
    assert_eq!(ended_by, Some(libc::SIGPIPE));
    assert_eq!(b.run(&["wait", "chatty"]).ok().text(), "0");
    assert_eq!(b.run(&["logs", "chatty"]).ok().text(), "one\ntwo\nthree");
    b.run(&["rm", "chatty"]).ok();
}

#[test]
fn output_that_a_full_disk_refuses_is_an_error_with_its_cause() {
    let Some(b) = Bulkhead::with_busybox(User::Root) else {
        return;
    };
    let full = |arguments: &[&str]| {
        let file = std::fs::File::options()
            .write(true)
            .open("/dev/full")
            .unwrap();
        let ended = b
            .process(arguments)
            .stdin(Stdio::null())
            .stdout(file)
            .stderr(Stdio::piped())
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&ended.stderr).to_lowercase();
        assert_eq!(ended.status.code(), Some(1), "{arguments:?}: {said}");
        assert!(
            said.contains("cannot write the container's output: no space left"),
            "{arguments:?}: {said}"
        );
    };
    // It ends before its output is refused, and goes on afterwards.
    full(&["run", "--rm", "busybox", "echo", "x"]);
    full(&[
        "run",
        "--name",
        "on",
        "busybox",
        "sh",
        "-c",
        "echo x; sleep 1000",
    ]);
    assert_eq!(b.inspect("on")["State"]["Running"], true);
    full(&["exec", "on", "echo", "x"]);
    full(&["exec", "on", "sh", "-c", "echo x; sleep 1000"]);
    b.run(&["rm", "-f", "on"]).ok();
    b.run(&["create", "--name", "later", "busybox", "echo", "x"])
        .ok();
    full(&["start", "-a", "later"]);
    b.run(&["rm", "-f", "later"]).ok();
    b.expect_nothing_left();
}
