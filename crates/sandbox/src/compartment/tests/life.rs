use std::time::{Duration, Instant};

use bulkhead_harness::guard;
use bulkhead_types::Signal;

use super::fake::{FakeBoot, Running, spec};
use crate::StartFailure;
use crate::timings::Timings;

#[test]
fn a_run_passes_through_every_phase_and_reports_its_exit_code() {
    let mut running = Running::start(spec(&["echo", "out\n", "err\n", "7"]), None);
    let started = running.started();
    assert_eq!(
        (started.guest_pid, started.kernel_release.as_str()),
        (1, "6.12-fake")
    );
    let exit = running.ended();
    assert_eq!((exit.status.code, exit.error), (7, None));
    let Timings {
        machine,
        agent,
        created,
        started,
        exited,
        drained,
        ..
    } = exit.timings;
    assert!(machine > 0 && machine <= agent && agent <= created && created <= started);
    assert!(started <= exited && exited <= drained);
    let mut log = running.log_text();
    log.sort_unstable();
    let mut expected = b"out\nerr\n".to_vec();
    expected.sort_unstable();
    assert_eq!(log, expected);
}

#[test]
fn why_a_command_was_not_executed_is_data() {
    let missing = Running::start(spec(&["missing"]), None).failed();
    assert!(
        matches!(missing, StartFailure::CommandNotFound { .. }),
        "{missing:?}"
    );
    assert_eq!(missing.exit_code(), 127);
    let plain = Running::start(spec(&["plain-file"]), None).failed();
    assert_eq!(plain.exit_code(), 126);
    let mut refused = spec(&["echo"]);
    refused.hostname = "refuse".to_owned();
    let refused = Running::start(refused, None).failed();
    assert_eq!(
        refused.to_string(),
        "prepare the container: create container: mount the image disk: bad superblock"
    );
    assert_eq!(refused.exit_code(), 125);
}

#[test]
fn a_guest_that_dies_at_boot_is_shown_with_its_console() {
    let failure = Running::boot(
        spec(&["echo"]),
        None,
        FakeBoot {
            dies_at_boot: true,
            ..FakeBoot::default()
        },
    )
    .failed();
    let StartFailure::Boot { reason, .. } = &failure else {
        panic!("{failure:?}")
    };
    assert_eq!(reason, "fake kernel ended");
    assert!(failure.to_string().contains("not syncing"), "{failure}");
    let failure = Running::boot(
        spec(&["echo"]),
        None,
        FakeBoot {
            refuses: true,
            ..FakeBoot::default()
        },
    )
    .failed();
    assert_eq!(
        failure.to_string(),
        "start the guest kernel: no such kernel"
    );
}

#[test]
fn a_kernel_panic_under_the_container_is_its_end_with_the_reason() {
    let mut running = Running::start(spec(&["panic"]), None);
    running.started();
    let exit = running.ended();
    assert_eq!(exit.status.code, 137);
    let error = exit.error.unwrap();
    assert!(
        error.starts_with("guest ended under the container: fake kernel ended"),
        "{error}"
    );
    assert!(error.contains("not syncing: on request"), "{error}");
}

#[test]
fn stop_sends_the_signal_and_kills_who_does_not_listen() {
    for (program, code) in [("sleep", 143), ("stubborn", 137)] {
        let mut running = Running::start(spec(&[program]), None);
        running.started();
        let client = crate::Client::open(running.path()).unwrap();
        let stopping = std::thread::spawn(move || {
            client
                .stop(Signal::TERM, Some(Duration::from_millis(100)))
                .unwrap()
        });
        let exit = running.ended();
        assert_eq!(exit.status.code, code, "{program}");
        assert_eq!(stopping.join().unwrap().status.code, code, "{program}");
    }
}

#[test]
fn an_output_that_never_ends_does_not_hold_up_the_exit_for_ever() {
    let mut running = Running::start(spec(&["linger"]), None);
    running.started();
    assert_eq!(running.ended().status.code, 3);
}

/// A guest that answers nothing any more: `rm -f`, `kill` and `stop` used to wait for it without end.
#[test]
fn a_guest_that_does_not_answer_is_killed_within_a_bound() {
    for timeout in [None, Some(Duration::from_millis(100))] {
        let wedged = FakeBoot {
            wedged: true,
            ..FakeBoot::default()
        };
        let mut running = Running::boot(spec(&["sleep"]), None, wedged);
        running.started();
        let client = crate::Client::open(running.path()).unwrap();
        let signal = if timeout.is_some() {
            Signal::TERM
        } else {
            Signal::KILL
        };
        let began = Instant::now();
        let stopping = std::thread::spawn(move || client.stop(signal, timeout).unwrap());
        let exit = running.ended();
        assert_eq!((exit.status.code, exit.error), (137, None));
        assert_eq!(stopping.join().unwrap().status.code, 137);
        assert!(began.elapsed() < guard(Duration::from_secs(10)));
    }
}

#[test]
fn a_plain_kill_signal_ends_a_guest_that_does_not_answer_too() {
    let wedged = FakeBoot {
        wedged: true,
        ..FakeBoot::default()
    };
    let mut running = Running::boot(spec(&["sleep"]), None, wedged);
    running.started();
    // The agent's silence is told, and the promise kept all the same.
    assert!(running.client.signal(Signal::KILL).is_err());
    assert_eq!(running.ended().status.code, 137);
}

/// It used to send nothing and then wait for the whole boot.
#[test]
fn a_stop_during_the_boot_ends_it() {
    let mute = FakeBoot {
        mute: true,
        ..FakeBoot::default()
    };
    let mut running = Running::boot(spec(&["sleep"]), None, mute);
    while running.client.ping().is_err() {
        std::thread::sleep(Duration::from_millis(1));
    }
    let client = crate::Client::open(running.path()).unwrap();
    let stopping = std::thread::spawn(move || client.stop(Signal::TERM, None));
    assert_eq!(running.failed(), StartFailure::Stopped);
    running.let_go();
    // Nothing was recorded in this test's directory: that there was no end to tell is all that counts.
    let _ = stopping.join().unwrap();
}

/// A listener that accepts nobody stands for a sandbox that is suspended.
#[test]
fn a_sandbox_that_says_nothing_is_not_waited_for_without_end() {
    let dir = tempfile::tempdir().unwrap();
    let _silent = std::os::unix::net::UnixListener::bind(dir.path().join("ctl.sock")).unwrap();
    let client = crate::Client::open(dir.path()).unwrap();
    let began = Instant::now();
    let error = client.ping().unwrap_err();
    assert!(matches!(error, crate::ClientError::Silent(_)), "{error:?}");
    assert!(began.elapsed() < guard(Duration::from_secs(15)));
}

/// Titles and clipboards were set, and lines forged, by the words of a hostile agent or kernel.
#[test]
fn nothing_that_a_hostile_guest_says_steers_a_terminal() {
    let clean = |what: &str, text: &str| {
        assert!(
            text.contains("title"),
            "{what} does not hold the guest's words: {text}"
        );
        let steers = |c: char| c.is_control() && c != '\n';
        assert!(!text.contains(steers), "{what}: {text:?}");
        assert!(!text.contains("\nWARNING"), "{what}: {text:?}");
    };
    let hostile = |dies_at_boot| FakeBoot {
        hostile: true,
        dies_at_boot,
        ..FakeBoot::default()
    };
    let boot = |spec, dies| Running::boot(spec, None, hostile(dies));
    clean(
        "its console",
        &boot(spec(&["echo"]), true).failed().to_string(),
    );
    clean(
        "why a command is missing",
        &boot(spec(&["missing"]), false).failed().to_string(),
    );
    let mut refused = spec(&["echo"]);
    refused.hostname = "hostile".to_owned();
    clean(
        "why a container is refused",
        &boot(refused, false).failed().to_string(),
    );

    let mut running = boot(spec(&["sleep"]), false);
    clean("its release", &running.started().kernel_release);
    for program in ["missing", "unkillable"] {
        let process = spec(&[program]).process;
        let failure = running
            .client
            .exec(
                &process,
                crate::Stdio::default(),
                crate::AttachOptions::default(),
            )
            .unwrap_err();
        clean("why an exec failed", &failure.to_string());
    }
    running.client.signal(Signal::TERM).unwrap();
    running.ended();

    let mut running = boot(spec(&["panic"]), false);
    running.started();
    let error = running.ended().error.unwrap();
    assert!(error.contains("not syncing: on request"), "{error}");
    clean("its last words", &error);
}
