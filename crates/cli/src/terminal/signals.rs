//! Signals sent to us are meant for the container; a change of the window's size is, too.
//!
//! They are blocked before the container starts and taken one by one by a thread, so that one that comes
//! early is delivered late instead of ending us and leaving the container behind.

use std::io;
use std::sync::Arc;

use bulkhead_types::{Signal, TerminalSize};
use nix::sys::signal::{SigSet, Signal as Host};

use super::raw::RawMode;

/// What Docker's client forwards and can be sent from a shell; stopping and continuing stay with the
/// shell's job control.
const FORWARDED: [Host; 8] = [
    Host::SIGHUP,
    Host::SIGINT,
    Host::SIGQUIT,
    Host::SIGTERM,
    Host::SIGUSR1,
    Host::SIGUSR2,
    Host::SIGALRM,
    Host::SIGPWR,
];

/// After this many requests to end that the container did not follow, we end and leave it.
const PATIENCE: u32 = 3;

/// A process in a container that signals and sizes go to.
pub trait Target: Send + Sync + 'static {
    /// Sends a signal.
    fn signal(&self, signal: Signal);
    /// Sets the terminal's size.
    fn resize(&self, size: TerminalSize);
}

/// The signals that wait for [`forward`].
#[derive(Debug)]
pub struct Caught(SigSet);

/// Keeps signals waiting from now on. Children inherit this; `main` undoes it for a sandbox.
///
/// # Errors
/// When the system refuses.
pub fn block(signals: bool, terminal: bool) -> io::Result<Caught> {
    let mut set = SigSet::empty();
    if signals || terminal {
        set.extend(FORWARDED);
    }
    if terminal {
        set.add(Host::SIGWINCH);
    }
    set.thread_block()?;
    Ok(Caught(set))
}

/// Starts the thread that hands `caught` to `target`. Without `proxy` a signal ends us, with the terminal
/// given back.
///
/// # Errors
/// When no thread can be started.
pub fn forward(caught: Caught, target: Arc<dyn Target>, proxy: bool) -> io::Result<()> {
    let set = caught.0;
    if set == SigSet::empty() {
        return Ok(());
    }
    std::thread::Builder::new()
        .name("signals".to_owned())
        .spawn(move || {
            let mut asked = 0;
            while let Ok(signal) = set.wait() {
                if signal == Host::SIGWINCH {
                    if let Some(size) = super::size() {
                        target.resize(size);
                    }
                    continue;
                }
                let number = u8::try_from(signal as i32).unwrap_or(0);
                if !proxy {
                    RawMode::restore();
                    std::process::exit(128 + i32::from(number));
                }
                if let Ok(signal) = Signal::try_from(number) {
                    target.signal(signal);
                }
                if matches!(signal, Host::SIGINT | Host::SIGTERM) {
                    asked += 1;
                }
                if asked >= PATIENCE {
                    RawMode::restore();
                    eprintln!(
                        "\nbulkhead: got {PATIENCE} SIGTERM/SIGINTs, leaving the container behind"
                    );
                    std::process::exit(1);
                }
            }
        })?;
    Ok(())
}
