//! Which descriptors a container's process is connected to.

use std::fs::File;
use std::io::{self, IsTerminal, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use bulkhead_sandbox::Stdio;

/// `-t` with an input that is no terminal. Docker's words, which scripts look for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the input device is not a TTY")]
pub struct NotATerminal;

/// The descriptors to hand over, and what feeds the first one where it is a pipe of ours.
#[derive(Debug, Default)]
pub struct Streams {
    /// To hand over.
    pub stdio: Stdio,
    /// To be started once the other side is there.
    pub feeder: Option<Feeder>,
}

/// Which streams to connect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wanted {
    /// Standard input.
    pub stdin: bool,
    /// Standard output.
    pub stdout: bool,
    /// Standard error.
    pub stderr: bool,
}

/// Whether standard input is a terminal.
pub fn is_terminal() -> bool {
    io::stdin().is_terminal()
}

/// Refuses a terminal for a process whose input is none.
///
/// # Errors
/// [`NotATerminal`].
pub fn require_terminal(interactive: bool, tty: bool) -> Result<(), NotATerminal> {
    require(interactive, tty, io::stdin().as_fd())
}

fn require(interactive: bool, tty: bool, input: BorrowedFd<'_>) -> Result<(), NotATerminal> {
    if interactive && tty && !input.is_terminal() {
        Err(NotATerminal)
    } else {
        Ok(())
    }
}

/// Our own streams, to be handed over; with a terminal the container has one output only.
///
/// # Errors
/// When no descriptor is left.
pub fn streams(wanted: Wanted, tty: bool) -> io::Result<Streams> {
    let mut streams = Streams::default();
    if wanted.stdout {
        streams.stdio.stdout = Some(copy(io::stdout().as_fd())?);
    }
    if wanted.stderr && !tty {
        streams.stdio.stderr = Some(copy(io::stderr().as_fd())?);
    }
    if wanted.stdin && is_terminal() {
        let (read, write) = io::pipe()?;
        streams.stdio.stdin = Some(read.into());
        streams.feeder = Some(Feeder {
            to: OwnedFd::from(write).into(),
        });
    } else if wanted.stdin {
        streams.stdio.stdin = Some(copy(io::stdin().as_fd())?);
    }
    Ok(streams)
}

fn copy(fd: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    fd.try_clone_to_owned()
}

/// Passes what is typed on to the container.
#[derive(Debug)]
pub struct Feeder {
    to: File,
}

impl Feeder {
    /// Reads standard input in a thread of its own until it ends or nobody listens any more.
    ///
    /// # Errors
    /// When no thread can be started.
    pub fn start(mut self) -> io::Result<()> {
        std::thread::Builder::new()
            .name("stdin".to_owned())
            .spawn(move || {
                let mut buffer = [0u8; 4096];
                // Not through std's buffer: bytes that we read ahead would be lost to the next program.
                let mut from = match copy(io::stdin().as_fd()) {
                    Ok(fd) => File::from(fd),
                    Err(_) => return,
                };
                loop {
                    let length = match from.read(&mut buffer) {
                        Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                        Ok(0) | Err(_) => return,
                        Ok(length) => length,
                    };
                    let typed = buffer.get(..length).unwrap_or_default();
                    if self.to.write_all(typed).is_err() {
                        return;
                    }
                }
            })?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_interactive_terminal_needs_a_terminal() {
        let (pipe, _writer) = io::pipe().unwrap();
        // Both ends stay open: without its master the other end is no terminal any more.
        let terminal = nix::pty::openpty(None, None).unwrap();
        let answer = |interactive, tty| {
            [pipe.as_fd(), terminal.slave.as_fd()].map(|input| require(interactive, tty, input))
        };
        assert_eq!(answer(false, true), [Ok(()), Ok(())]);
        assert_eq!(answer(true, false), [Ok(()), Ok(())]);
        assert_eq!(answer(true, true), [Err(NotATerminal), Ok(())]);
    }
}
