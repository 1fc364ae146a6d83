//! What walls this host allows, found out by raising them.

use std::fs::File;
use std::io::Read;
use std::os::fd::AsFd;
use std::sync::OnceLock;

use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid, fork};

use crate::error::JailError;
use crate::ids::HostIds;
use crate::report::{JailReport, Wall};
use crate::sandbox::{SandboxJail, pipe};
use crate::sys;

/// Raises the sandbox's jail around a process that ends at once, and tells which walls stood. May be called from a
/// process with threads. Where no process can be started at all every wall counts as missing, with the reason.
///
/// It is done once in the life of a process, at the first call: what a host allows does not change under it, and every
/// probe is a fork.
pub fn probe() -> JailReport {
    static REPORT: OnceLock<JailReport> = OnceLock::new();
    REPORT.get_or_init(raise_and_look).clone()
}

fn raise_and_look() -> JailReport {
    let attempt = || -> Result<JailReport, JailError> {
        let (read, write) = pipe()?;
        // A jail starts from a process with one thread, which a fork of this one is.
        // SAFETY: the copy does what allocates and reads files, both of which glibc makes work after fork, takes no
        // lock of this program, and ends with `exit`.
        match unsafe { fork() }.map_err(|error| JailError::Clone(error.into()))? {
            ForkResult::Child => {
                let text = serde_json::to_vec(&raise()).unwrap_or_default();
                let sent = sys::write_full(write.as_fd(), &text);
                sys::exit(i32::from(sent.is_err()));
            }
            ForkResult::Parent { child } => {
                drop(write);
                let mut text = Vec::new();
                let read = File::from(read).read_to_end(&mut text);
                // Whatever it ended with, the text tells.
                let _ = waitpid(child, None);
                read.map_err(JailError::Pipe)?;
                serde_json::from_slice(&text).map_err(|_| JailError::Died)
            }
        }
    };
    attempt().unwrap_or_else(|error| nothing(&error))
}

/// The same in a process with one thread.
fn raise() -> JailReport {
    let jail = SandboxJail {
        host_ids: Some(HostIds::default()),
        // To tell of every wall, not of the first that is missing.
        weakened: true,
        ..SandboxJail::default()
    };
    let attempt = jail
        // Locked for real: a filter or rule set that the host rejects shows as an exit code.
        .spawn(|enclosure| i32::from(enclosure.lock().is_err()))
        .and_then(|jailed| {
            let report = jailed.ready();
            let status = waitpid(Pid::from_raw(jailed.pid), None);
            report.map(|report| (report, status))
        });
    match attempt {
        Ok((report, Ok(WaitStatus::Exited(_, 0)))) => report,
        Ok((mut report, status)) => {
            report.standing.retain(|wall| *wall != Wall::Seccomp);
            let reason = match status {
                Ok(status) => format!("a process that locked itself ended with {status:?}"),
                Err(error) => {
                    format!("a process that locked itself could not be waited for: {error}")
                }
            };
            report.down(Wall::Seccomp, reason);
            report
        }
        Err(error) => nothing(&error),
    }
}

fn nothing(error: &JailError) -> JailReport {
    let mut report = JailReport::default();
    let source = std::error::Error::source(error).map(ToString::to_string);
    for wall in Wall::ALL {
        report.down(wall, source.clone().unwrap_or_else(|| error.to_string()));
    }
    report
}

/// The Landlock version of this kernel, `None` where it has none.
pub fn landlock_version() -> Option<i64> {
    sys::landlock_version().ok().filter(|version| *version > 0)
}
