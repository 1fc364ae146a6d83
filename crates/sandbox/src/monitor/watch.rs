//! From the launch message to the last record.

use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use bulkhead_jail::{HostIds, IdRange, Jailed, SandboxJail};
use bulkhead_types::{Isolation, chain};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid};

use super::open::Opened;
use super::record::{HERE, Record};
use super::sys;
use crate::boot::MachineBoot;
use crate::compartment::{self, Parts, Walls};
use crate::failure::StartFailure;
use crate::frame;
use crate::lock::RunLock;
use crate::message::{Event, Exit, Report};
use crate::spec::SandboxSpec;
use crate::timings::Timings;

/// The jailed half ends right after its last event; later is a fault.
const GONE_WITHIN: Duration = Duration::from_secs(10);

/// Runs one compartment. An error means that nothing was started and nothing was recorded.
pub(super) fn run(
    spec: Box<SandboxSpec>,
    early: Option<UnixStream>,
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
    let mut record = Record::new(lock, spec.auto_remove);
    let started = Opened::open(&spec).and_then(|opened| spawn(spec, opened, early, timings));
    let (jailed, events) = match started {
        Ok(started) => started,
        Err(failure) => {
            record.failed(&failure, timings);
            if let Some(unlinked) = record.close(None) {
                unlinked.remove();
            }
            return Err(failure);
        }
    };
    let outcome = follow(&mut record, &jailed, &events, launcher);
    let how = reap(&jailed);
    let stopped = Timings::now();
    let report = match outcome {
        Outcome::Ended(exit) => Ok(exit),
        Outcome::Failed(failure) => Err(failure),
        Outcome::Silent => match record.died(&how) {
            Some(exit) => Ok(exit),
            None => {
                let failure = StartFailure::Died { reason: how };
                record.failed(&failure, timings);
                Err(failure)
            }
        },
    };
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
            if let Some(unlinked) = record.close(None) {
                unlinked.remove();
            }
            Err(failure)
        }
    }
}

/// Forks the jailed half. Returns in the monitor only.
fn spawn(
    spec: Box<SandboxSpec>,
    opened: Opened,
    early: Option<UnixStream>,
    timings: Timings,
) -> Result<(Jailed, UnixStream), StartFailure> {
    let jail_error = |e: &dyn std::error::Error| StartFailure::Jail { reason: chain(e) };
    let (ours, theirs) = UnixStream::pair().map_err(|e| jail_error(&e))?;
    let mut keep = opened.descriptors();
    // Never the run lock's descriptor: who holds it can let go of the lock.
    keep.push(theirs.as_raw_fd());
    keep.extend(early.iter().map(AsRawFd::as_raw_fd));
    let disabled = spec.jail.disabled;
    let host_ids = HostIds::stable(IdRange::default(), spec.id.as_str());
    let jail = SandboxJail {
        host_ids: Some(host_ids),
        keep,
        vm_root: opened.boot.root(spec.memory.0),
        page_map: spec.isolation == Isolation::Kvm,
    };
    let jailed = jail
        .spawn(move |enclosure| {
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
        .map_err(|e| jail_error(&e))?;
    jailed.ready().map_err(|e| jail_error(&e))?;
    Ok((jailed, ours))
}

enum Outcome {
    Ended(Exit),
    Failed(StartFailure),
    /// It ended without saying how.
    Silent,
}

/// Records and passes on what the jailed half says, until it has said its last.
fn follow(
    record: &mut Record,
    jailed: &Jailed,
    events: &UnixStream,
    launcher: &UnixStream,
) -> Outcome {
    loop {
        let mut fds = [
            PollFd::new(events.as_fd(), PollFlags::POLLIN),
            PollFd::new(jailed.pidfd.as_fd(), PollFlags::POLLIN),
        ];
        match poll(&mut fds, PollTimeout::NONE) {
            Ok(_) => {}
            Err(Errno::EINTR) => continue,
            Err(_) => return Outcome::Silent,
        }
        let [said, gone] = fds.map(|fd| fd.any().unwrap_or(false));
        if said {
            match frame::receive::<Event>(events) {
                Ok((Event::Started(started), _)) => {
                    record.started(&started, jailed.pid);
                    let _ = frame::send(launcher, &Report::Started(started), &[]);
                }
                Ok((Event::Failed { failure, timings }, _)) => {
                    record.failed(&failure, timings);
                    return Outcome::Failed(failure);
                }
                Ok((
                    Event::Ended {
                        exit,
                        log_bytes_lost,
                    },
                    _,
                )) => {
                    record.ended(&exit, log_bytes_lost);
                    let _ = frame::send(events, &"recorded", &[]);
                    return Outcome::Ended(exit);
                }
                Err(_) => return Outcome::Silent,
            }
        } else if gone {
            return Outcome::Silent;
        }
    }
}

/// Waits for the jailed half's end, and sees to it. Returns how it ended, in words.
fn reap(jailed: &Jailed) -> String {
    let timeout = PollTimeout::try_from(GONE_WITHIN).unwrap_or(PollTimeout::MAX);
    let mut fds = [PollFd::new(jailed.pidfd.as_fd(), PollFlags::POLLIN)];
    if matches!(poll(&mut fds, timeout), Ok(0)) {
        sys::kill(&jailed.pidfd);
    }
    let how = match waitid(Id::PIDFd(jailed.pidfd.as_fd()), WaitPidFlag::WEXITED) {
        Ok(WaitStatus::Signaled(_, signal, _)) => format!("killed by {signal}"),
        Ok(WaitStatus::Exited(_, code)) => format!("exit code {code}"),
        Ok(other) => format!("{other:?}"),
        Err(e) => e.to_string(),
    };
    // Where the host forbids a process namespace, the kernel's processes outlive their sandbox.
    jailed.sweep();
    how
}
