//! The user's side of a foreground container: its streams, its terminal, its signals.
//!
//! Without a terminal the container's sandbox gets our own descriptors 0, 1 and 2 and moves every byte
//! itself. A terminal is never handed over as stdin: a sandbox that outlived us would go on reading what
//! is typed at the shell.

mod raw;
mod signals;
mod stdio;

pub use raw::RawMode;
pub use signals::{
    INTERRUPTED_VERB, Target, catch, forward, keep_container, keep_file, starting, take_back,
    take_back_container, take_back_file,
};
pub use stdio::{NotATerminal, Streams, Wanted, is_terminal, require_terminal, streams};

use std::os::fd::{AsFd, AsRawFd};

use bulkhead_types::TerminalSize;
use nix::sys::signal::{SigHandler, SigSet, Signal};

/// The size of the terminal behind standard output, where there is one.
pub fn size() -> Option<TerminalSize> {
    size_of(std::io::stdout())
}

/// The size of the terminal behind a descriptor, where there is one.
pub fn size_of(descriptor: impl AsFd) -> Option<TerminalSize> {
    let mut size = libc::winsize {
        ws_row: 0,
        ws_col: 0,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    // SAFETY: the request writes one winsize, which `size` is.
    let answer = unsafe {
        libc::ioctl(
            descriptor.as_fd().as_raw_fd(),
            libc::TIOCGWINSZ,
            &raw mut size,
        )
    };
    (answer == 0 && size.ws_row > 0 && size.ws_col > 0).then_some(TerminalSize {
        rows: size.ws_row,
        columns: size.ws_col,
    })
}

/// Ends this process by `signal`, the terminal given back, so that a shell sees what it was; with 128 and the signal's
/// number where that cannot be.
pub fn end_by(signal: Signal) -> ! {
    RawMode::restore();
    // SAFETY: the default action runs no code of ours.
    let _ = unsafe { nix::sys::signal::signal(signal, SigHandler::SigDfl) };
    let mut only = SigSet::empty();
    only.add(signal);
    let _ = only.thread_unblock();
    let _ = nix::sys::signal::raise(signal);
    std::process::exit(128 + signal as i32)
}

/// Asks a question that wants a yes; anything else, also no answer, is a no.
///
/// # Errors
/// When the question cannot be asked.
pub fn confirm(warning: &str) -> std::io::Result<bool> {
    use std::io::Write;
    let stdout = std::io::stdout();
    write!(
        &stdout,
        "{warning}\nAre you sure you want to continue? [y/N] "
    )?;
    (&stdout).flush()?;
    let mut answer = String::new();
    std::io::stdin().read_line(&mut answer)?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}
