//! The monitor: the outer, unjailed half of a sandbox. It opens every file, holds the lock that means
//! "running", records what happens, and reads nothing of the guest but numbers and bounded, cleaned
//! words (see [`crate::event`]). It has one thread and
//! forks its jailed half before anything else could start one.

mod daemon;
mod log;
mod name;
mod open;
mod record;
mod sys;
mod watch;

pub use log::SANDBOX_LOG;
pub use open::CONSOLE_LOG;
pub use record::{KEEP_FILE, REMOVED_SUFFIX};

use std::os::unix::net::UnixStream;
use std::process::ExitCode;

use crate::failure::StartFailure;
use crate::frame;
use crate::message::{Launch, Report, VERSION};
use crate::timings::Timings;

/// What a monitor does. Expects the start channel as descriptor 0 and the container's directory
/// as its working directory; returns at once in the process that the launcher waits for.
pub fn main() -> ExitCode {
    let Some(channel) = daemon::detach() else {
        return ExitCode::SUCCESS;
    };
    match channel {
        Ok(launcher) => run(&launcher),
        Err(e) => {
            eprintln!("bulkhead: a monitor is started by bulkhead itself: {e}");
            ExitCode::FAILURE
        }
    }
}

fn run(launcher: &UnixStream) -> ExitCode {
    let (launch, fds) = match frame::receive::<Launch>(launcher) {
        Ok(received) => received,
        Err(e) => {
            return refuse(
                launcher,
                StartFailure::Died {
                    reason: format!("read the launch message: {e}").into(),
                },
            );
        }
    };
    if launch.version != VERSION {
        let reason = format!(
            "launcher speaks version {}, this sandbox {VERSION}",
            launch.version
        );
        return refuse(
            launcher,
            StartFailure::Died {
                reason: reason.into(),
            },
        );
    }
    let early = fds
        .into_iter()
        .next()
        .filter(|_| launch.attached)
        .map(UnixStream::from);
    let timings = Timings {
        launch: launch.launched_at,
        monitor: Timings::now(),
        ..Timings::default()
    };
    match watch::run(launch.spec, early, &launch.log_level, timings, launcher) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => refuse(launcher, failure),
    }
}

fn refuse(launcher: &UnixStream, failure: StartFailure) -> ExitCode {
    // A launcher that is gone hears nothing; the state file has it.
    let _ = frame::send(launcher, &Report::Failed(failure), &[]);
    ExitCode::FAILURE
}
