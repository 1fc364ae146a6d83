use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use bulkhead_types::{ProcessSpec, Signal, TerminalSize};

use super::fake::{Running, spec, stdout_pipe};
use crate::client::{ClientError, ExecEnd};
use crate::event::Event;
use crate::message::{AttachOptions, ControlError, Stdio};
use crate::{AttachEnd, StartFailure};

/// Longer than anything here takes: what is not there by then never comes.
const PATIENCE: Duration = Duration::from_secs(30);

fn process(args: &[&str]) -> ProcessSpec {
    ProcessSpec {
        args: args.iter().map(|a| (*a).to_owned()).collect(),
        ..ProcessSpec::default()
    }
}

fn end(running: &mut Running) {
    running.client.signal(Signal::KILL).unwrap();
    assert_eq!(running.ended().status.code, 137);
}

#[test]
fn an_exec_has_streams_and_an_exit_code_of_its_own() {
    let mut running = Running::start(spec(&["sleep"]), None);
    running.started();
    let (stdio, mut reader) = stdout_pipe();
    let exec = running
        .client
        .exec(
            &process(&["echo", "inside", "", "5"]),
            stdio,
            AttachOptions::default(),
        )
        .unwrap();
    assert_eq!(
        exec.wait().unwrap(),
        ExecEnd::Exited(bulkhead_types::ExitStatus::exited(5))
    );
    drop(exec);
    let mut text = String::new();
    reader.read_to_string(&mut text).unwrap();
    assert_eq!(text, "inside");
    assert!(
        running.log_text().is_empty(),
        "an exec's output is not the container's"
    );

    let failure = running
        .client
        .exec(
            &process(&["missing"]),
            Stdio::default(),
            AttachOptions::default(),
        )
        .unwrap_err();
    assert!(
        matches!(
            failure,
            ClientError::Start(StartFailure::CommandNotFound { .. })
        ),
        "{failure:?}"
    );

    let sleeper = running
        .client
        .exec(
            &process(&["sleep"]),
            Stdio::default(),
            AttachOptions::default(),
        )
        .unwrap();
    sleeper.signal(Signal::TERM).unwrap();
    assert_eq!(
        sleeper.wait().unwrap(),
        ExecEnd::Exited(bulkhead_types::ExitStatus::signaled(15))
    );
    end(&mut running);
}

#[test]
fn an_exec_reads_what_its_client_pipes_in_to_the_end() {
    let mut running = Running::start(spec(&["sleep"]), None);
    running.started();
    let (input, mut writer) = io::pipe().unwrap();
    let (stdio, mut reader) = stdout_pipe();
    let exec = running
        .client
        .exec(
            &process(&["cat"]),
            Stdio {
                stdin: Some(input.into()),
                ..stdio
            },
            AttachOptions::default(),
        )
        .unwrap();
    let feeding = std::thread::spawn(move || writer.write_all(&[b'z'; 3 << 20]).unwrap());
    let mut got = vec![0; 3 << 20];
    reader.read_exact(&mut got).unwrap();
    assert!(got.iter().all(|b| *b == b'z'));
    feeding.join().unwrap();
    assert_eq!(
        exec.wait().unwrap(),
        ExecEnd::Exited(bulkhead_types::ExitStatus::exited(0))
    );
    end(&mut running);
}

#[test]
fn an_exec_outlives_its_client() {
    let mut running = Running::start(spec(&["sleep"]), None);
    running.started();
    let [asked, done] = ["asked", "done"].map(|name| running.path().join(name));
    let (stdio, mut reader) = stdout_pipe();
    let program = ["answer", asked.to_str().unwrap(), done.to_str().unwrap()];
    let exec = running
        .client
        .exec(&process(&program), stdio, AttachOptions::default())
        .unwrap();
    drop(exec);
    // The sandbox lets go of the client's pipe once it has seen that the client is gone.
    assert_eq!(reader.read_to_end(&mut Vec::new()).unwrap(), 0);
    // Time for somebody who would end the process for that.
    std::thread::sleep(Duration::from_millis(100));
    std::fs::write(&asked, "").unwrap();
    let end_of_patience = Instant::now() + PATIENCE;
    while !done.exists() {
        assert!(Instant::now() < end_of_patience, "the exec is gone");
        std::thread::sleep(Duration::from_millis(2));
    }
    end(&mut running);
}

#[test]
fn garbage_on_the_control_socket_harms_nobody() {
    let mut running = Running::start(spec(&["sleep"]), None);
    running.started();
    let path = running.path().join("ctl.sock");
    for garbage in [
        &b""[..],
        b"GET / HTTP/1.1\r\n\r\n",
        &[0xff; 5000],
        &[2, 0, 0, 0, b'{', b'}'],
        &[200, 0, 0, 0, 1],
    ] {
        let mut socket = UnixStream::connect(&path).unwrap();
        socket.write_all(garbage).unwrap();
    }
    let mut socket = UnixStream::connect(&path).unwrap();
    socket
        .write_all(b"\x22\0\0\0{\"version\":99,\"request\":\"ping\"}   ")
        .unwrap();
    let reply: crate::message::Reply = crate::frame::receive(&socket).unwrap().0;
    assert!(
        matches!(
            reply,
            crate::message::Reply::Error(ControlError::Version {
                theirs: 1,
                ours: 99
            })
        ),
        "{reply:?}"
    );
    let no_terminal = running
        .client
        .resize(TerminalSize {
            rows: 1,
            columns: 1,
        })
        .unwrap_err();
    assert!(matches!(
        no_terminal,
        ClientError::Control(ControlError::NoTerminal)
    ));
    assert!(running.client.ping().unwrap().running);
    end(&mut running);
}

#[test]
fn everyone_who_waits_hears_the_end_once_it_is_recorded() {
    let mut running = Running::start(spec(&["sleep"]), None);
    running.started();
    let waiting: Vec<_> = (0..3)
        .map(|_| {
            let client = crate::Client::open(running.path()).unwrap();
            std::thread::spawn(move || client.wait().unwrap())
        })
        .collect();
    let (stdio, _reader) = stdout_pipe();
    let attachment = running
        .client
        .attach(stdio, AttachOptions::default())
        .unwrap();
    let end_of_attachment = std::thread::spawn(move || attachment.wait().unwrap());
    running.client.signal(Signal::KILL).unwrap();
    let event = running.event();
    assert!(matches!(event, Event::Ended { .. }), "{event:?}");
    // The monitor has not recorded the end yet, so nobody may speak of it, however long that takes.
    std::thread::sleep(Duration::from_millis(200));
    assert!(!waiting.iter().any(JoinHandle::is_finished));
    assert!(!end_of_attachment.is_finished());
    running.recorded();
    for waiter in waiting {
        assert_eq!(waiter.join().unwrap().status.code, 137);
    }
    assert!(
        matches!(end_of_attachment.join().unwrap(), AttachEnd::Exited(exit) if exit.status.code == 137)
    );
    assert!(matches!(
        running.client.signal(Signal::TERM),
        Err(ClientError::NotRunning)
    ));
}

#[test]
fn a_process_that_starts_after_its_start_was_given_up_is_killed() {
    let mut running = Running::start(spec(&["sleep"]), None);
    running.started();
    let refused = running.client.exec(
        &process(&["late"]),
        Stdio::default(),
        AttachOptions::default(),
    );
    assert!(
        matches!(
            refused,
            Err(ClientError::Control(ControlError::Agent { .. }))
        ),
        "{refused:?}"
    );
    let console = running.path().join("console.log");
    let killed = || {
        std::fs::read_to_string(&console)
            .unwrap()
            .contains("late process killed")
    };
    for _ in 0..1000 {
        if killed() {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    assert!(killed(), "nobody ended it");
    end(&mut running);
}

/// Clients that were killed while they waited kept their place until the container ended, and there are 256 places.
#[test]
fn clients_that_left_give_back_their_place() {
    let mut running = Running::start(spec(&["sleep"]), None);
    running.started();
    let path = running.path().join("ctl.sock");
    for _ in 0..300 {
        let socket = UnixStream::connect(&path).unwrap();
        let call = crate::message::Call::new(crate::message::Request::Wait);
        crate::frame::send(&socket, &call, &[]).unwrap();
    }
    assert!(running.client.ping().unwrap().running);
    end(&mut running);
}

/// The reply could not be sent, because the client was killed before it came: its terminal was read on.
#[test]
fn a_client_that_left_before_its_answer_leaves_no_descriptor_attached() {
    let mut wanted = spec(&["sleep"]);
    wanted.stdin_once = false;
    let mut running = Running::start(wanted, None);
    running.started();
    for exec in [false, true] {
        let (input, mut keyboard) = io::pipe().unwrap();
        let mut mine = input.try_clone().unwrap();
        let stdio = Stdio {
            stdin: Some(input.into()),
            ..Stdio::default()
        };
        let streams = stdio.streams();
        let request = if exec {
            crate::message::Request::Exec {
                process: Box::new(process(&["cat-quietly"])),
                streams,
                detach_keys: Vec::new(),
            }
        } else {
            crate::message::Request::Attach {
                streams,
                detach_keys: Vec::new(),
            }
        };
        let call = crate::message::Call::new(request);
        let socket = UnixStream::connect(running.path().join("ctl.sock")).unwrap();
        let fds: Vec<_> = stdio.descriptors().map(std::os::fd::AsFd::as_fd).collect();
        crate::frame::send(&socket, &call, &fds).unwrap();
        drop(socket);
        drop(stdio);
        std::thread::sleep(std::time::Duration::from_millis(500));
        keyboard.write_all(b"x").unwrap();
        std::thread::sleep(std::time::Duration::from_millis(50));
        let mut byte = [0];
        mine.read_exact(&mut byte).unwrap();
        assert_eq!(&byte, b"x", "exec: {exec}");
    }
    end(&mut running);
}
