//! From the launch message to the last record.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use bulkhead_jail::{HostIds, IdRange, JailError, JailReport, Jailed, SandboxJail};
use bulkhead_types::{Isolation, chain};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::Signal;
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid};

use super::log;
use super::name;
use super::open::Opened;
use super::record::{HERE, Record};
use super::sys;
use crate::boot::MachineBoot;
use crate::compartment::{self, Parts, Walls};
use crate::event::{self, Event, EventReceiver, Received};
use crate::failure::StartFailure;
use crate::frame;
use crate::lock::RunLock;
use crate::message::{Exit, Report};
use crate::spec::SandboxSpec;
use crate::state::{STATE_FILE, make_room, settle};
use crate::timings::Timings;

/// The jailed half ends right after its last event; later is a fault.
const GONE_WITHIN: Duration = Duration::from_secs(10);

/// How long a sandbox may take to say what became of the start. Its own bounds for the steps of one, which it keeps
/// unless it is broken, add up to 190 seconds.
const START_WITHIN: Duration = Duration::from_secs(300);

/// Runs one compartment. An error means that nothing was started and nothing was recorded.
pub(super) fn run(
    spec: Box<SandboxSpec>,
    early: Option<UnixStream>,
    log_level: &str,
    timings: Timings,
    launcher: &UnixStream,
) -> Result<(), StartFailure> {
    let lock = RunLock::take(Path::new(HERE)).map_err(|e| match e.kind() {
        std::io::ErrorKind::WouldBlock => StartFailure::AlreadyRunning,
        _ => StartFailure::File {
            what: "lock".to_owned(),
            path: crate::lock::LOCK_FILE.to_owned(),
            reason: e.to_string(),
        },
    })?;
    settle(Path::new(HERE)).map_err(|e| StartFailure::File {
        what: "state".to_owned(),
        path: STATE_FILE.to_owned(),
        reason: chain(&e),
    })?;
    make_room(Path::new(HERE)).map_err(|e| StartFailure::File {
        what: "state".to_owned(),
        path: STATE_FILE.to_owned(),
        reason: chain(&e),
    })?;
    lock.make_room().map_err(|e| StartFailure::File {
        what: "lock".to_owned(),
        path: crate::lock::LOCK_FILE.to_owned(),
        reason: e.to_string(),
    })?;
    log::begin(log_level).map_err(|e| StartFailure::File {
        what: "sandbox log".to_owned(),
        path: log::SANDBOX_LOG.to_owned(),
        reason: e.to_string(),
    })?;
    let mut record = Record::new(lock, spec.auto_remove, Path::new(HERE));
    let started = Opened::open(&spec).and_then(|opened| spawn(spec, opened, early, timings));
    let (jailed, walls, events) = match started {
        Ok(started) => started,
        Err(failure) => {
            record.failed(&failure, timings);
            give_up(record, launcher);
            return Err(failure);
        }
    };
    record.set_walls(walls);
    let report = attend(
        &mut record,
        &jailed.pidfd,
        jailed.pid,
        events,
        launcher,
        timings,
    );
    // Where the host forbids a process namespace, the kernel's processes outlive their sandbox.
    jailed.sweep();
    let stopped = Timings::now();
    match report {
        Ok(mut exit) => {
            exit.timings.stopped = stopped;
            if let Some(unlinked) = record.close(Some(&exit)) {
                // Before anybody is told: the next command may need the space.
                unlinked.remove();
            }
            exit.timings.finished = Timings::now();
            let _ = frame::send(launcher, &Report::Ended(exit), &[]);
            Ok(())
        }
        Err(failure) => {
            give_up(record, launcher);
            Err(failure)
        }
    }
}

/// Lets go of a run in which nothing was executed.
fn give_up(record: Record, launcher: &UnixStream) {
    if let Some(fault) = record.fault() {
        let _ = frame::send(launcher, &Report::Unrecorded(fault), &[]);
    }
    if let Some(unlinked) = record.close(None) {
        unlinked.remove();
    }
}

/// Forks the jailed half. Returns in the monitor only.
fn spawn(
    spec: Box<SandboxSpec>,
    opened: Opened,
    early: Option<UnixStream>,
    timings: Timings,
) -> Result<(Jailed, JailReport, EventReceiver), StartFailure> {
    let (ours, theirs) = event::channel().map_err(|e| StartFailure::Jail {
        reason: chain(&e).into(),
    })?;
    let mut keep = opened.descriptors();
    // Never the run lock's descriptor: who holds it can let go of the lock.
    keep.push(theirs.as_raw_fd());
    keep.extend(early.iter().map(AsRawFd::as_raw_fd));
    let title = name::monitor();
    let disabled = spec.jail.disabled;
    let host_ids = HostIds::stable(IdRange::default(), spec.id.as_str());
    let jail = SandboxJail {
        host_ids: Some(host_ids),
        keep,
        vm_root: opened.boot.root(spec.memory.0),
        weakened: spec.jail.weakened,
        page_map: spec.isolation == Isolation::Kvm,
    };
    let jailed = jail
        .spawn(move |enclosure| {
            name::sandbox(title);
            let Opened {
                boot,
                image,
                scratch,
                volumes,
                log,
                console_log,
                listener,
                alive,
            } = opened;
            let timings = Timings {
                jailed: Timings::now(),
                ..timings
            };
            let boot = MachineBoot {
                spec: spec.clone(),
                boot,
                image,
                scratch,
                volumes,
                events: theirs.try_clone().ok(),
            };
            let parts = Parts {
                spec,
                listener,
                early,
                monitor: theirs,
                log,
                console_log,
                timings,
            };
            compartment::run(parts, Walls::new(enclosure, disabled), Box::new(boot));
            drop(alive);
            0
        })
        .map_err(|e| jail_failure(&e))?;
    let walls = jailed.ready().map_err(|e| jail_failure(&e))?;
    Ok((jailed, walls, ours))
}

fn jail_failure(error: &JailError) -> StartFailure {
    let reason = chain(error).into();
    match error {
        JailError::Weak(_) => StartFailure::WeakJail { reason },
        _ => StartFailure::Jail { reason },
    }
}

/// Sees the jailed half to its end, and records that.
fn attend(
    record: &mut Record,
    pidfd: &OwnedFd,
    pid: i32,
    events: EventReceiver,
    launcher: &UnixStream,
    timings: Timings,
) -> Result<Exit, StartFailure> {
    let outcome = follow(record, pidfd, pid, events, launcher);
    if matches!(outcome, Outcome::Broken(_)) {
        sys::kill(pidfd);
    }
    let how = reap(pidfd);
    let how = match outcome {
        Outcome::Ended(mut exit) => {
            exit.unrecorded = record.fault();
            return Ok(exit);
        }
        Outcome::Failed(failure) => return Err(failure),
        Outcome::Silent => how,
        Outcome::Broken(why) => why,
    };
    tracing::error!("the jailed half did not end as it should: {how}");
    let Some(mut exit) = record.died(&how) else {
        let failure = StartFailure::Died { reason: how.into() };
        record.failed(&failure, timings);
        return Err(failure);
    };
    exit.unrecorded = record.fault();
    Ok(exit)
}

#[derive(Debug)]
enum Outcome {
    Ended(Exit),
    Failed(StartFailure),
    /// It ended without saying how.
    Silent,
    /// It lives, and what it says or leaves unsaid breaks the rules: it is to be killed. In words.
    Broken(String),
}

/// Records and passes on what the jailed half says, until it has said its last. Nothing that it does or leaves undone
/// holds this up, but that it runs.
fn follow(
    record: &mut Record,
    pidfd: &OwnedFd,
    pid: i32,
    mut events: EventReceiver,
    launcher: &UnixStream,
) -> Outcome {
    let broken = |why: &str| Outcome::Broken(format!("killed: {why}"));
    let mut start_until = Some(Instant::now() + START_WITHIN);
    loop {
        let start_left = start_until.map(|until| until.saturating_duration_since(Instant::now()));
        let event_left = events.incomplete_for();
        if event_left == Some(Duration::ZERO) {
            return broken("it did not finish what it began to tell");
        }
        if start_left == Some(Duration::ZERO) {
            return broken("it did not say what became of the start");
        }
        let again = record.again_in();
        if again == Some(Duration::ZERO) {
            record.try_again();
            continue;
        }
        let limit = [start_left, event_left, again].into_iter().flatten().min();
        let timeout = limit.map_or(PollTimeout::NONE, |limit| {
            // Rounded up, lest the last millisecond be a busy one.
            PollTimeout::try_from(limit + Duration::from_millis(1)).unwrap_or(PollTimeout::MAX)
        });
        let mut fds = [
            PollFd::new(events.as_fd(), PollFlags::POLLIN),
            PollFd::new(pidfd.as_fd(), PollFlags::POLLIN),
        ];
        match poll(&mut fds, timeout) {
            Ok(_) => {}
            Err(Errno::EINTR) => continue,
            Err(_) => return Outcome::Silent,
        }
        let [said, gone] = fds.map(|fd| fd.any().unwrap_or(false));
        if said {
            let event = match events.receive() {
                Ok(Received::Event(event)) => *event,
                Ok(Received::Nothing) => continue,
                // Its last process may still be on its way out; one that closed its end and stays is killed in the end.
                Ok(Received::Closed) => return Outcome::Silent,
                Err(violation) => return broken(&violation.to_string()),
            };
            match event {
                Event::Started(mut started) if start_until.take().is_some() => {
                    started.jail.clone_from(record.walls());
                    record.started(&started, pid);
                    started.unrecorded = record.fault();
                    let _ = frame::send(launcher, &Report::Started(started), &[]);
                }
                Event::Failed { failure, timings } if start_until.is_some() => {
                    record.failed(&failure, timings);
                    return Outcome::Failed(failure);
                }
                Event::Ended {
                    mut exit,
                    log_bytes_lost,
                } if start_until.is_none() => {
                    exit.warnings = record.warnings().to_vec();
                    record.ended(&exit, log_bytes_lost);
                    events.acknowledge();
                    return Outcome::Ended(exit);
                }
                Event::Warned(warning) => record.warned(warning),
                _ => return broken("it told its life in a wrong order"),
            }
        } else if gone {
            return Outcome::Silent;
        }
    }
}

/// Waits for the jailed half's end, and sees to it. Returns how it ended, in words.
fn reap(pidfd: &OwnedFd) -> String {
    let timeout = PollTimeout::try_from(GONE_WITHIN).unwrap_or(PollTimeout::MAX);
    let mut fds = [PollFd::new(pidfd.as_fd(), PollFlags::POLLIN)];
    if matches!(poll(&mut fds, timeout), Ok(0)) {
        sys::kill(pidfd);
    }
    match waitid(Id::PIDFd(pidfd.as_fd()), WaitPidFlag::WEXITED) {
        // Guest memory is a file on user-mode, and image disks are mapped on kvm: nothing is behind a page.
        Ok(WaitStatus::Signaled(_, Signal::SIGBUS, _)) => {
            "memory that it shares with the guest was cut short or could not be filled (SIGBUS)"
                .to_owned()
        }
        Ok(WaitStatus::Signaled(_, signal, _)) => format!("killed by {signal}"),
        Ok(WaitStatus::Exited(_, code)) => format!("exit code {code}"),
        Ok(other) => format!("{other:?}"),
        Err(e) => e.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::EventSender;
    use crate::message::Started;
    use crate::replace::temporary;
    use crate::state::{Status, mend_state, read_state};
    use crate::warning::{DiskFault, WarnedDisk, Warning};
    use jiff::Timestamp;
    use std::process::Command;

    /// A monitor that attends to a jailed half which does what `play` does, and lives on.
    fn attend_to(
        play: impl FnOnce(&EventSender) + Send + 'static,
    ) -> (Result<Exit, StartFailure>, crate::State) {
        attend_in(&tempfile::tempdir().unwrap(), play)
    }

    fn attend_in(
        dir: &tempfile::TempDir,
        play: impl FnOnce(&EventSender) + Send + 'static,
    ) -> (Result<Exit, StartFailure>, crate::State) {
        let lock = RunLock::take(dir.path()).unwrap();
        let mut record = Record::new(lock, false, dir.path());
        let mut process = Command::new("sleep").arg("1000").spawn().unwrap();
        let pid = process.id().cast_signed();
        let pidfd = sys::pidfd_of(pid).unwrap();
        let (events, sender) = event::channel().unwrap();
        let fake = std::thread::spawn(move || {
            play(&sender);
            sender
        });
        let (launcher, _) = UnixStream::pair().unwrap();
        let report = attend(
            &mut record,
            &pidfd,
            pid,
            events,
            &launcher,
            Timings::default(),
        );
        drop(fake.join().unwrap());
        record.close(report.as_ref().ok());
        // Killed, and reaped by the monitor.
        assert!(process.try_wait().is_err());
        (report, read_state(dir.path()).unwrap())
    }

    /// A directory in which no record can be written, neither anew nor over an old one.
    fn without_room() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(temporary(&dir.path().join(STATE_FILE))).unwrap();
        dir
    }

    fn ended(code: u8) -> Event {
        Event::Ended {
            exit: Exit {
                status: bulkhead_types::ExitStatus::exited(code),
                error: None,
                at: Timestamp::now(),
                timings: Timings::default(),
                warnings: Vec::new(),
                unrecorded: None,
            },
            log_bytes_lost: 0,
        }
    }

    /// The container counted as never started for as long as it ran, although there was room again.
    #[test]
    fn a_record_that_could_not_be_written_is_written_while_the_container_runs() {
        let dir = without_room();
        let path = dir.path().to_owned();
        let (report, _) = attend_in(&dir, move |sender| {
            sender.send(&started()).unwrap();
            let status = || read_state(&path).unwrap().status;
            std::thread::sleep(Duration::from_millis(100));
            assert_eq!(status(), Status::Created);
            std::fs::remove_dir(temporary(&path.join(STATE_FILE))).unwrap();
            let until = Instant::now() + Duration::from_secs(30);
            while status() != Status::Running && Instant::now() < until {
                std::thread::sleep(Duration::from_millis(20));
            }
            assert_eq!(status(), Status::Running);
            sender.send(&ended(3)).unwrap();
        });
        let exit = report.unwrap();
        assert_eq!((exit.status.code, exit.unrecorded), (3, None));
    }

    /// Only `sandbox.log` had it.
    #[test]
    fn an_end_that_could_not_be_recorded_is_told_and_mended_later() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().to_owned();
        let (report, state) = attend_in(&dir, move |sender| {
            sender.send(&started()).unwrap();
            while read_state(&path).unwrap().status != Status::Running {
                std::thread::sleep(Duration::from_millis(5));
            }
            std::fs::create_dir(temporary(&path.join(STATE_FILE))).unwrap();
            // Nor can it be written over.
            std::fs::rename(path.join(STATE_FILE), path.join("aside")).unwrap();
            sender.send(&ended(3)).unwrap();
        });
        let fault = Some(DiskFault::Io(nix::errno::Errno::EISDIR as i32));
        assert_eq!(report.unwrap().unrecorded, fault);
        assert_eq!(state.status, Status::Created, "there is none");
        std::fs::rename(dir.path().join("aside"), dir.path().join(STATE_FILE)).unwrap();
        let state = read_state(dir.path()).unwrap();
        assert_eq!((state.exit.unwrap().code, state.unrecorded), (3, fault));

        // There is room: it is written over the old one.
        assert_eq!(mend_state(dir.path()).unwrap().unrecorded, None);
        let bytes = std::fs::read(dir.path().join(STATE_FILE)).unwrap();
        let written: crate::State = serde_json::from_slice(&bytes).unwrap();
        assert_eq!(
            (written.status, written.exit.unwrap().code),
            (Status::Exited, 3)
        );
        assert_eq!(written.finished_at, state.finished_at);
        assert_eq!(read_state(dir.path()).unwrap(), written);
    }

    fn started() -> Event {
        Event::Started(Started {
            guest_pid: 1,
            kernel_release: "6.12".into(),
            at: Timestamp::now(),
            timings: Timings::default(),
            jail: JailReport::default(),
            unrecorded: None,
        })
    }

    #[test]
    fn a_sandbox_that_breaks_the_protocol_is_killed_and_recorded() {
        type Play = fn(&EventSender);
        let plays: [(&str, Play); 5] = [
            ("shorter", |sender| sender.packet(&[1, 2, 3]).unwrap()),
            ("unknown kind", |sender| {
                sender.packet(b"{\"started\":{}}").unwrap()
            }),
            ("too long", |sender| sender.packet(&[1; 100_000]).unwrap()),
            (
                "too many",
                |sender| while sender.packet(&[4, 3, b'x']).is_ok() {},
            ),
            ("wrong order", |sender| sender.send(&ended(0)).unwrap()),
        ];
        for (why, play) in plays {
            let (report, state) = attend_to(play);
            let failure = report.unwrap_err();
            assert!(
                matches!(failure, StartFailure::Died { .. }),
                "{why}: {failure:?}"
            );
            assert!(failure.to_string().contains(why), "{why}: {failure}");
            assert_eq!(state.status, Status::Created, "{why}");
            assert!(state.error.unwrap().contains(why));

            // Under a running container too.
            let (report, state) = attend_to(move |sender| {
                sender.send(&started()).unwrap();
                if why == "wrong order" {
                    sender.send(&started()).unwrap();
                } else {
                    play(sender);
                }
            });
            assert_eq!(report.unwrap().status.code, 137, "{why}");
            assert!(
                state.died_unexpectedly && state.status == Status::Exited,
                "{why}"
            );
            assert!(state.error.unwrap().contains(why));
        }
    }

    /// Half a message held the monitor for ever: no end was recorded, and the lock stayed.
    #[test]
    fn half_an_event_does_not_hold_the_monitor() {
        let (report, state) = attend_to(|sender| {
            sender.send(&started()).unwrap();
            sender.packet(b"\x04\x02the beginning of an error").unwrap();
        });
        let exit = report.unwrap();
        assert_eq!(exit.status.code, 137);
        let error = exit.error.unwrap();
        assert!(error.contains("did not finish"), "{error}");
        assert!(state.died_unexpectedly);
    }

    /// The host's failures under a disk were told to nobody but the guest.
    #[test]
    fn a_warning_is_recorded_and_the_run_goes_on() {
        let warning = |fault| Warning {
            disk: WarnedDisk::Scratch,
            fault,
        };
        let (report, state) = attend_to(move |sender| {
            // A disk is read and written before the process runs.
            sender.warn(&warning(DiskFault::Io(5))).unwrap();
            sender.send(&started()).unwrap();
            for _ in 0..100 {
                sender.warn(&warning(DiskFault::OutOfSpace)).unwrap();
                sender.warn(&warning(DiskFault::Io(6))).unwrap();
            }
            for index in 0..100 {
                let disk = WarnedDisk::Volume(index);
                let fault = DiskFault::OutOfSpace;
                sender
                    .send(&Event::Warned(Warning { disk, fault }))
                    .unwrap();
            }
            sender.send(&ended(3)).unwrap();
        });
        let exit = report.unwrap();
        assert_eq!((exit.status.code, state.died_unexpectedly), (3, false));
        assert_eq!(exit.warnings, state.warnings);
        let [first, second, others @ ..] = state.warnings.as_slice() else {
            panic!("{state:?}")
        };
        assert_eq!(*first, warning(DiskFault::Io(5)));
        assert_eq!(*second, warning(DiskFault::OutOfSpace));
        assert_eq!(others.len(), crate::warning::MAX_WARNINGS - 2);
    }
}
