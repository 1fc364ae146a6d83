//! Settings of the guest as a whole: clock, entropy, host name, loopback interface.

use std::io;
use std::os::fd::AsFd;

use nix::fcntl::{OFlag, open};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};
use nix::sys::stat::Mode;
use nix::sys::time::TimeSpec;
use nix::time::{ClockId, clock_gettime, clock_settime};

use crate::syscalls;

/// A setting that could not be made.
#[derive(Debug, thiserror::Error)]
#[error("cannot set the guest's {what}")]
pub(crate) struct MachineError {
    what: &'static str,
    #[source]
    source: io::Error,
}

/// Below this a clock is left alone: setting it costs more than it repairs.
const TOLERANCE_NS: u64 = 50_000_000;
const SECOND_NS: u64 = 1_000_000_000;

fn nanoseconds(time: TimeSpec) -> u64 {
    let seconds = u64::try_from(time.tv_sec()).unwrap_or(0);
    let rest = u64::try_from(time.tv_nsec()).unwrap_or(0);
    seconds.saturating_mul(SECOND_NS).saturating_add(rest)
}

/// Nanoseconds since boot, those of a suspended machine included.
pub(crate) fn since_boot() -> u64 {
    clock_gettime(ClockId::CLOCK_BOOTTIME).map_or(0, nanoseconds)
}

/// Sets the wall clock when it is off; 0 leaves it alone.
pub(crate) fn set_clock(realtime_ns: u64) -> Result<(), MachineError> {
    let failed = |errno: nix::Error| MachineError {
        what: "clock",
        source: errno.into(),
    };
    if realtime_ns == 0 {
        return Ok(());
    }
    let now = nanoseconds(clock_gettime(ClockId::CLOCK_REALTIME).map_err(failed)?);
    if now.abs_diff(realtime_ns) <= TOLERANCE_NS {
        return Ok(());
    }
    let seconds = i64::try_from(realtime_ns / SECOND_NS).unwrap_or(i64::MAX);
    let rest = i64::try_from(realtime_ns % SECOND_NS).unwrap_or(0);
    clock_settime(ClockId::CLOCK_REALTIME, TimeSpec::new(seconds, rest)).map_err(failed)
}

/// Seeds the random number generator.
pub(crate) fn add_entropy(device: &str, seed: &[u8]) -> Result<(), MachineError> {
    let failed = |source| MachineError {
        what: "random seed",
        source,
    };
    if seed.is_empty() {
        return Ok(());
    }
    let random = open(device, OFlag::O_WRONLY | OFlag::O_CLOEXEC, Mode::empty())
        .map_err(|errno| failed(errno.into()))?;
    seed.chunks(syscalls::SEED_MAX)
        .try_for_each(|chunk| syscalls::add_entropy(random.as_fd(), chunk))
        .map_err(failed)
}

pub(crate) fn set_hostname(hostname: &str) -> Result<(), MachineError> {
    nix::unistd::sethostname(hostname).map_err(|errno| MachineError {
        what: "host name",
        source: errno.into(),
    })
}

pub(crate) fn loopback_up() -> Result<(), MachineError> {
    let failed = |source| MachineError {
        what: "loopback interface",
        source,
    };
    let flags = SockFlag::SOCK_CLOEXEC;
    let socket = socket(AddressFamily::Inet, SockType::Datagram, flags, None)
        .map_err(|errno| failed(errno.into()))?;
    syscalls::loopback_up(socket.as_fd()).map_err(failed)
}
