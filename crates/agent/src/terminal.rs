//! Pseudo-terminals from the container's own devpts.

use std::ffi::CString;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::fcntl::{OFlag, open};
use nix::sys::stat::Mode;

use crate::syscalls;

/// A pair that no process uses yet.
#[derive(Debug)]
pub(crate) struct Terminal {
    /// Our side, non-blocking.
    pub(crate) master: OwnedFd,
    /// The process's side.
    pub(crate) slave: OwnedFd,
    /// Path of the slave as the container sees it.
    pub(crate) path: CString,
}

/// Why no terminal could be made.
#[derive(Debug, thiserror::Error)]
#[error("cannot open a terminal: {operation}")]
pub(crate) struct TerminalError {
    operation: &'static str,
    #[source]
    source: std::io::Error,
}

/// Opens a new pair in the devpts whose `ptmx` is at the given path.
pub(crate) fn open_pair(ptmx: &str, rows: u32, columns: u32) -> Result<Terminal, TerminalError> {
    let failed = |operation| move |source: std::io::Error| TerminalError { operation, source };
    let flags = OFlag::O_RDWR | OFlag::O_NOCTTY | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
    let master =
        open(ptmx, flags, Mode::empty()).map_err(|errno| failed("opening ptmx")(errno.into()))?;
    syscalls::unlock_terminal(master.as_fd()).map_err(failed("unlocking"))?;
    let number = syscalls::terminal_number(master.as_fd()).map_err(failed("numbering"))?;
    let slave = syscalls::terminal_peer(master.as_fd()).map_err(failed("opening its peer"))?;
    if rows > 0 || columns > 0 {
        resize(master.as_fd(), rows, columns).map_err(failed("sizing"))?;
    }
    let path = CString::new(format!("/dev/pts/{number}")).unwrap_or_default();
    Ok(Terminal {
        master,
        slave,
        path,
    })
}

/// Sets the size; what does not fit 16 bits is cut to what does.
pub(crate) fn resize(terminal: BorrowedFd<'_>, rows: u32, columns: u32) -> std::io::Result<()> {
    let small = |value| u16::try_from(value).unwrap_or(u16::MAX);
    syscalls::set_window_size(terminal, small(rows), small(columns))
}
