//! What walls this host allows, found out by raising them.

use crate::ids::HostIds;
use crate::report::{JailReport, Wall};
use crate::sandbox::SandboxJail;
use crate::sys;

/// Raises the sandbox's jail around a process that ends at once, and tells which walls stood. The caller must have one
/// thread only; otherwise, and where no process can be started at all, every wall counts as missing, with the reason.
pub fn probe() -> JailReport {
    let jail = SandboxJail {
        host_ids: Some(HostIds::default()),
        ..SandboxJail::default()
    };
    let attempt = jail
        // Locked for real: a filter or rule set that the host rejects shows as an exit code.
        .spawn(|enclosure| i32::from(enclosure.lock().is_err()))
        .and_then(|jailed| {
            let report = jailed.ready();
            let status = nix::sys::wait::waitpid(nix::unistd::Pid::from_raw(jailed.pid), None);
            report.map(|report| (report, status))
        });
    match attempt {
        Ok((report, Ok(nix::sys::wait::WaitStatus::Exited(_, 0)))) => report,
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
        Err(error) => {
            let mut report = JailReport::default();
            let source = std::error::Error::source(&error).map(ToString::to_string);
            for wall in Wall::ALL {
                report.down(wall, source.clone().unwrap_or_else(|| error.to_string()));
            }
            report
        }
    }
}

/// The Landlock version of this kernel, `None` where it has none.
pub fn landlock_version() -> Option<i64> {
    sys::landlock_version().ok().filter(|version| *version > 0)
}
