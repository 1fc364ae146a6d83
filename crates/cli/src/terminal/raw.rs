//! Raw mode, given back on every way out: return, error, panic, and the signals that end us.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Mutex;

use nix::sys::termios::{LocalFlags, SetArg, Termios, cfmakeraw, tcgetattr, tcsetattr};

/// Settings from before, for the way out that runs no destructors.
static BEFORE: Mutex<Option<Termios>> = Mutex::new(None);

/// Standard input in raw mode, until dropped.
#[derive(Debug)]
pub struct RawMode(());

impl RawMode {
    /// Sets standard input to raw mode: no echo, no line editing. Keys still make signals until [`RawMode::complete`]:
    /// as long as there is no process that could be told, Ctrl-C is meant for us.
    ///
    /// # Errors
    /// When standard input is not a terminal.
    pub fn enter() -> io::Result<Self> {
        let stdin = io::stdin();
        let before = tcgetattr(stdin.as_fd())?;
        let mut raw = before.clone();
        cfmakeraw(&mut raw);
        raw.local_flags.insert(LocalFlags::ISIG);
        let first = {
            let mut saved = lock();
            let first = saved.is_none();
            *saved = Some(before);
            first
        };
        if first {
            let next = std::panic::take_hook();
            std::panic::set_hook(Box::new(move |info| {
                Self::restore();
                next(info);
            }));
        }
        tcsetattr(stdin.as_fd(), SetArg::TCSANOW, &raw)?;
        Ok(Self(()))
    }

    /// From now on keys make no signals: they go to the process as they are.
    ///
    /// # Errors
    /// When the terminal is gone.
    pub fn complete(&self) -> io::Result<()> {
        let stdin = io::stdin();
        let mut raw = tcgetattr(stdin.as_fd())?;
        raw.local_flags.remove(LocalFlags::ISIG);
        Ok(set(stdin.as_fd(), &raw)?)
    }

    /// Gives the terminal back; nothing when it was not taken.
    pub fn restore() {
        if let Some(before) = lock().as_ref() {
            // The terminal may be gone (SIGHUP): then there is nothing to give back.
            let _ = set(io::stdin().as_fd(), before);
        }
    }
}

impl Drop for RawMode {
    fn drop(&mut self) {
        Self::restore();
    }
}

fn set(stdin: BorrowedFd<'_>, settings: &Termios) -> nix::Result<()> {
    tcsetattr(stdin, SetArg::TCSANOW, settings)
}

/// A panic while the lock was held leaves the settings intact.
fn lock() -> std::sync::MutexGuard<'static, Option<Termios>> {
    BEFORE
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
}
