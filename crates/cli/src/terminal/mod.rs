//! The user's side of a foreground container: its streams, its terminal, its signals.
//!
//! Without a terminal the container's sandbox gets our own descriptors 0, 1 and 2 and moves every byte
//! itself. A terminal is never handed over as stdin: a sandbox that outlived us would go on reading what
//! is typed at the shell.

mod raw;
mod signals;
mod stdio;

pub use raw::RawMode;
pub use signals::{Caught, Target, block, forward};
pub use stdio::{NotATerminal, Streams, Wanted, is_terminal, require_terminal, streams};

use bulkhead_types::TerminalSize;

use crate::error::CliError;

/// The size of the terminal behind standard output, where there is one.
pub fn size() -> Option<TerminalSize> {
    let mut size = libc::winsize {
        ws_row: 0,
        ws_col: 0,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    // SAFETY: the request writes one winsize, which `size` is.
    let answer = unsafe { libc::ioctl(libc::STDOUT_FILENO, libc::TIOCGWINSZ, &raw mut size) };
    (answer == 0 && size.ws_row > 0 && size.ws_col > 0).then_some(TerminalSize {
        rows: size.ws_row,
        columns: size.ws_col,
    })
}

/// Asks a question that wants a yes; anything else, also no answer, is a no.
///
/// # Errors
/// When the question cannot be asked.
pub fn confirm(warning: &str) -> Result<bool, CliError> {
    use std::io::Write;
    let stdout = std::io::stdout();
    let ask = || -> std::io::Result<String> {
        write!(
            &stdout,
            "{warning}\nAre you sure you want to continue? [y/N] "
        )?;
        (&stdout).flush()?;
        let mut answer = String::new();
        std::io::stdin().read_line(&mut answer)?;
        Ok(answer)
    };
    let answer = ask().map_err(CliError::stream("ask for confirmation"))?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}
