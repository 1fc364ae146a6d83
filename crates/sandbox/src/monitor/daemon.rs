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
    if let Err(e) = sys::close_inherited().and_then(|()| outlive_the_caller()) {
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

/// Signals by which a person, a terminal or a supervisor asks for the end of the command that started us, and of all in its
/// process group: they are not meant for the container, whose end the command sees to.
const CALLERS: [Signal; 4] = [
    Signal::SIGHUP,
    Signal::SIGINT,
    Signal::SIGQUIT,
    Signal::SIGTERM,
];

/// Forgets the signals that came since the command forked, and lets the others through: the command keeps signals waiting,
/// we inherit that, and a kernel without its timer signal does not boot.
fn outlive_the_caller() -> nix::Result<()> {
    for signal in CALLERS {
        act(signal, SigHandler::SigIgn)?;
    }
    SigSet::empty().thread_set_mask()
}

fn act(signal: Signal, handler: SigHandler) -> nix::Result<()> {
    let action = SigAction::new(handler, SaFlags::empty(), SigSet::empty());
    // SAFETY: the handler is none of ours: ignoring a signal and its default action run no code.
    unsafe { sigaction(signal, &action) }.map(drop)
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
    act(Signal::SIGPIPE, SigHandler::SigIgn)?;
    // In a session of its own nothing reaches it by the terminal or the process group any more: this one is for it.
    act(Signal::SIGTERM, SigHandler::SigDfl)?;
    // One malloc arena is enough for a handful of threads that hardly allocate, and costs least memory.
    // SAFETY: takes plain numbers, and no other thread exists.
    unsafe { libc::mallopt(libc::M_ARENA_MAX, 1) };
    Ok(())
}
