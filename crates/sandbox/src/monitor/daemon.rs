//! Becoming a daemon: a session of its own, no terminal, nobody who must reap it.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;

use nix::errno::Errno;
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};
use nix::sys::socket::{AddressFamily, SockaddrLike, SockaddrStorage, getsockname};
use nix::sys::stat::{Mode, umask};
use nix::unistd::{ForkResult, dup2_stdin, fork, setsid};

use super::sys;

/// Forks. `None` in the parent; in the child the start channel, which leaves descriptor 0.
///
/// Descriptors that whoever called us forgot to close are closed first of all: the monitor would keep them open, and
/// locks and pipes behind them, until the container ends.
pub(super) fn detach() -> Option<io::Result<UnixStream>> {
    if let Err(e) = sys::close_inherited() {
        return Some(Err(e.into()));
    }
    let channel = match take_channel() {
        Ok(channel) => channel,
        Err(e) => return Some(Err(e)),
    };
    // SAFETY: `main` calls this first of all, so there is one thread and every lock is free.
    match unsafe { fork() } {
        Ok(ForkResult::Parent { .. }) => return None,
        Ok(ForkResult::Child) => {}
        Err(e) => return Some(Err(e.into())),
    }
    Some(settle().map(|()| channel))
}

fn take_channel() -> io::Result<UnixStream> {
    let stdin = io::stdin();
    let is_unix = getsockname::<SockaddrStorage>(std::os::fd::AsRawFd::as_raw_fd(&stdin))
        .is_ok_and(|address| address.family() == Some(AddressFamily::Unix));
    if !is_unix {
        return Err(io::Error::other("descriptor 0 is not a start channel"));
    }
    let channel: OwnedFd = stdin.as_fd().try_clone_to_owned()?;
    dup2_stdin(File::open("/dev/null")?)?;
    Ok(channel.into())
}

fn settle() -> io::Result<()> {
    match setsid() {
        Ok(_) | Err(Errno::EPERM) => {}
        Err(e) => return Err(e.into()),
    }
    umask(Mode::from_bits_truncate(0o077));
    let ignore = SigAction::new(SigHandler::SigIgn, SaFlags::empty(), SigSet::empty());
    for signal in [
        Signal::SIGPIPE,
        Signal::SIGHUP,
        Signal::SIGINT,
        Signal::SIGQUIT,
    ] {
        // SAFETY: ignoring a signal runs no code.
        unsafe { sigaction(signal, &ignore) }?;
    }
    // One malloc arena is enough for a handful of threads that hardly allocate, and costs least memory.
    // SAFETY: takes plain numbers, and no other thread exists.
    unsafe { libc::mallopt(libc::M_ARENA_MAX, 1) };
    Ok(())
}
