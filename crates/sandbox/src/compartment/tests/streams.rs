use std::io::{self, Read, Write};
use std::time::{Duration, Instant};

use bulkhead_harness::{guard, sooner_than};

use super::fake::{Running, pattern, spec, stdout_pipe};
use crate::message::{AttachOptions, Reply, Stdio};

fn early(stdio: Stdio) -> Option<(Stdio, AttachOptions)> {
    Some((stdio, AttachOptions::default()))
}

#[test]
fn every_byte_reaches_the_attached_writer_before_the_end_is_told() {
    let (stdio, mut reader) = stdout_pipe();
    let mut running = Running::start(spec(&["echo", "first words"]), early(stdio));
    running.started();
    running.ended();
    let mut text = String::new();
    reader.read_to_string(&mut text).unwrap();
    assert_eq!(text, "first words");
    assert_eq!(running.log_text(), b"first words");
}

#[test]
fn a_slow_reader_blocks_the_writer_and_loses_nothing() {
    let (stdio, mut reader) = stdout_pipe();
    let mut running = Running::start(spec(&["bulk", "8"]), early(stdio));
    running.started();
    assert!(
        running.silent_for(Duration::from_millis(300)),
        "the end must wait for the reader"
    );
    let reading = std::thread::spawn(move || {
        for megabyte in 0..8 {
            let mut got = vec![0; 1 << 20];
            reader.read_exact(&mut got).unwrap();
            assert!(got == pattern(megabyte % 4), "megabyte {megabyte}");
        }
        reader.read(&mut [0]).unwrap()
    });
    assert_eq!(running.ended().status.code, 0);
    assert_eq!(reading.join().unwrap(), 0);
}

#[test]
fn a_vanished_reader_is_let_go_and_the_container_goes_on() {
    let (stdio, mut reader) = stdout_pipe();
    let mut running = Running::start(spec(&["bulk", "4"]), early(stdio));
    running.started();
    reader.read_exact(&mut [0; 1000]).unwrap();
    drop(reader);
    assert_eq!(running.ended().status.code, 0);
    assert_eq!(running.log_text().len(), 4 << 20);
}

#[test]
fn a_gibibyte_arrives_unchanged() {
    const MEGABYTES: usize = 1024;
    let (stdio, mut reader) = stdout_pipe();
    let mut running = Running::start(spec(&["bulk", &MEGABYTES.to_string()]), early(stdio));
    running.started();
    let patterns: Vec<_> = (0..4).map(pattern).collect();
    let mut got = vec![0; 1 << 20];
    let began = std::time::Instant::now();
    for megabyte in 0..MEGABYTES {
        reader.read_exact(&mut got).unwrap();
        assert!(got == patterns[megabyte % 4], "megabyte {megabyte}");
    }
    println!(
        "{:.0} MiB/s",
        MEGABYTES as f64 / began.elapsed().as_secs_f64()
    );
    assert_eq!(running.ended().status.code, 0);
}

#[test]
fn input_reaches_the_process_and_its_end_is_the_processs_end() {
    let (input, mut keyboard) = io::pipe().unwrap();
    let (output, screen) = io::pipe().unwrap();
    let stdio = Stdio {
        stdin: Some(input.into()),
        stdout: Some(screen.into()),
        stderr: None,
    };
    let mut running = Running::start(spec(&["cat"]), early(stdio));
    running.started();
    let mut output = io::BufReader::new(output);
    for n in 0..3 {
        writeln!(keyboard, "line {n}").unwrap();
        let mut line = String::new();
        io::BufRead::read_line(&mut output, &mut line).unwrap();
        assert_eq!(line, format!("line {n}\n"));
    }
    drop(keyboard);
    assert_eq!(running.ended().status.code, 0);
}

#[test]
fn a_client_that_vanishes_stops_reading_the_terminal_it_shared() {
    let (input, mut keyboard) = io::pipe().unwrap();
    let mine = input.try_clone().unwrap();
    let (stdio, mut output) = stdout_pipe();
    let stdio = Stdio {
        stdin: Some(input.into()),
        ..stdio
    };
    let mut wanted = spec(&["sleep"]);
    wanted.stdin_once = false;
    let mut running = Running::start(wanted, early(stdio));
    running.started();
    running.early = None;
    // The sandbox lets go of the client's output last.
    assert_eq!(output.read_to_end(&mut Vec::new()).unwrap(), 0);
    keyboard.write_all(b"x").unwrap();
    // Time for somebody who still reads to take it.
    std::thread::sleep(Duration::from_millis(50));
    let mut byte = [0];
    (&mine).read_exact(&mut byte).unwrap();
    assert_eq!(&byte, b"x");
    running.client.signal(bulkhead_types::Signal::KILL).unwrap();
    assert_eq!(running.ended().status.code, 137);
}

#[test]
fn a_client_that_vanishes_gets_no_output_even_when_its_pipe_is_full() {
    let (stdio, mut reader) = stdout_pipe();
    let mut running = Running::start(spec(&["bulk", "8"]), early(stdio));
    running.started();
    assert!(running.silent_for(Duration::from_millis(200)));
    running.early = None;
    // The container's end no longer waits for the pipe, which still has a reader.
    assert_eq!(running.ended().status.code, 0);
    let mut rest = Vec::new();
    reader.read_to_end(&mut rest).unwrap();
    assert!(rest.len() < 8 << 20, "{}", rest.len());
    assert!(
        rest == pattern(0)
            .into_iter()
            .chain(pattern(1))
            .take(rest.len())
            .collect::<Vec<_>>()
    );
    assert_eq!(running.log_text().len(), 8 << 20);
}

#[test]
fn detach_keys_end_the_attachment_and_not_the_container() {
    let (input, mut keyboard) = io::pipe().unwrap();
    let (stdio, mut screen) = stdout_pipe();
    let stdio = Stdio {
        stdin: Some(input.into()),
        ..stdio
    };
    let mut wanted = spec(&["cat"]);
    wanted.stdin_once = false;
    let mut running = Running::start(
        wanted,
        Some((
            stdio,
            AttachOptions {
                detach_keys: vec![16, 17],
            },
        )),
    );
    running.started();
    let early = running.early.take().unwrap();
    assert!(matches!(
        crate::frame::receive::<Reply>(&early).unwrap().0,
        Reply::Attached
    ));
    keyboard.write_all(b"ab").unwrap();
    let mut text = [0; 2];
    screen.read_exact(&mut text).unwrap();
    assert_eq!(&text, b"ab");
    keyboard.write_all(b"\x10\x11").unwrap();
    assert!(matches!(
        crate::frame::receive::<Reply>(&early).unwrap().0,
        Reply::Detached
    ));

    let (input, mut keyboard) = io::pipe().unwrap();
    let (stdio, mut screen) = stdout_pipe();
    let again = running
        .client
        .attach(
            Stdio {
                stdin: Some(input.into()),
                ..stdio
            },
            AttachOptions::default(),
        )
        .unwrap();
    keyboard.write_all(b"again").unwrap();
    let mut text = [0; 5];
    screen.read_exact(&mut text).unwrap();
    assert_eq!(&text, b"again");
    again.detach().unwrap();
    assert_eq!(again.wait().unwrap(), crate::AttachEnd::Detached);
    drop(running);
}

/// More than the pipe and the sockets on the way to it hold, and little enough for the process to end all the same.
const STUCK: &str = "2";

/// `run … | sleep 1000`: from everywhere else the container could neither be stopped nor waited for.
#[test]
fn a_client_that_does_not_read_does_not_hold_up_the_end() {
    let (stdio, mut reader) = stdout_pipe();
    let mut running = Running::start(spec(&["bulk", STUCK]), early(stdio));
    running.started();
    let began = Instant::now();
    assert_eq!(running.ended().status.code, 0);
    assert!(began.elapsed() < guard(Duration::from_secs(10)));
    assert_eq!(
        running.log_text().len(),
        2 << 20,
        "the log has what nobody read"
    );
    let said = running.early.take().unwrap();
    let mut replies = std::iter::from_fn(|| crate::frame::receive::<Reply>(&said).ok());
    assert!(
        replies.any(|(reply, _)| matches!(reply, Reply::Cut)),
        "the client is told that it has not got all"
    );
    // What the pipe holds can still be read, and is the beginning.
    let mut rest = Vec::new();
    reader.read_to_end(&mut rest).unwrap();
    let whole: Vec<u8> = pattern(0).into_iter().chain(pattern(1)).collect();
    assert!(
        !rest.is_empty() && whole.starts_with(&rest),
        "{}",
        rest.len()
    );
}

#[test]
fn after_a_kill_nobody_waits_for_a_client_that_does_not_read() {
    let (stdio, _reader) = stdout_pipe();
    let mut running = Running::start(spec(&["bulk", STUCK]), early(stdio));
    running.started();
    // The process has ended; its output waits for the reader.
    while running.client.ping().unwrap().running {
        std::thread::sleep(Duration::from_millis(5));
    }
    let client = crate::Client::open(running.path()).unwrap();
    let began = Instant::now();
    let killing = std::thread::spawn(move || client.stop(bulkhead_types::Signal::KILL, None));
    assert_eq!(running.ended().status.code, 0);
    assert!(
        began.elapsed() < sooner_than(Duration::from_secs(10)),
        "as long as nobody asks, such a client gets ten seconds"
    );
    assert_eq!(killing.join().unwrap().unwrap().status.code, 0);
}

/// Reads less than what makes room in a pipe, for longer than a client that reads nothing is given.
#[test]
fn a_client_that_reads_byte_by_byte_loses_nothing() {
    let (stdio, mut reader) = stdout_pipe();
    let mut running = Running::start(spec(&["bulk", STUCK]), early(stdio));
    running.started();
    let reading = std::thread::spawn(move || {
        let mut got = Vec::new();
        for _ in 0..15 {
            let mut few = [0; 50];
            reader.read_exact(&mut few).unwrap();
            got.extend_from_slice(&few);
            std::thread::sleep(Duration::from_secs(1));
        }
        reader.read_to_end(&mut got).unwrap();
        got
    });
    assert_eq!(running.ended().status.code, 0);
    let whole: Vec<u8> = pattern(0).into_iter().chain(pattern(1)).collect();
    let got = reading.join().unwrap();
    assert!(got == whole, "{} bytes", got.len());
}
