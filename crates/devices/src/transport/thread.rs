//! A device's thread, the same for every transport: wait, hand over what is ready, serve.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::thread::JoinHandle;

use nix::sys::epoll::EpollEvent;
use nix::sys::eventfd::{EfdFlags, EventFd};

use super::error::TransportError;
use crate::poll::{Interest, Poller, Readiness, TRANSPORT_TOKENS};

/// The handle's way to end the thread; all other tokens of the upper half are the transport's.
const STOP: u64 = TRANSPORT_TOKENS;

/// Events taken in one wake-up.
const EVENTS: usize = 32;

/// Enough for the deepest path with room to spare; every idle thread costs what it touches.
const STACK_BYTES: usize = 128 * 1024;

/// Report as long as there is something.
pub(super) const LEVEL: Interest = Interest {
    readable: true,
    writable: false,
    edge: false,
};

/// Report each change once: an eventfd so watched never needs to be read.
pub(super) const EDGE: Interest = Interest {
    readable: true,
    writable: false,
    edge: true,
};

/// What a server wants after a turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Turn {
    /// Sleep until something happens.
    Wait,
    /// Look at what has happened meanwhile, then go on.
    Again,
    /// All is done.
    End,
}

/// What a transport does in its device's thread.
pub(super) trait Server: Send {
    /// A descriptor of the transport or of the device is ready.
    fn event(&mut self, token: u64, ready: Readiness) -> Result<(), TransportError>;

    /// All events of one wake-up have been handed over.
    fn serve(&mut self) -> Result<Turn, TransportError>;
}

/// A running device. Dropping it stops the thread without waiting for it.
#[derive(Debug)]
pub struct Handle {
    stop: Arc<EventFd>,
    ended: Arc<EventFd>,
    thread: Option<JoinHandle<Result<(), TransportError>>>,
}

impl Handle {
    /// Ask the thread to end now, whatever it has not delivered yet.
    pub fn stop(&self) {
        // The counter cannot overflow by ones, so this cannot fail.
        let _ = self.stop.write(1);
    }

    /// Whether the thread has ended.
    pub fn is_finished(&self) -> bool {
        self.thread.as_ref().is_none_or(JoinHandle::is_finished)
    }

    /// Becomes readable when the thread ends, for whatever reason.
    pub fn ended(&self) -> BorrowedFd<'_> {
        self.ended.as_fd()
    }

    /// Wait for the thread and learn why it ended. It ends by itself, without error, when the guest
    /// is gone and all it had sent is delivered.
    pub fn join(mut self) -> Result<(), TransportError> {
        match self.thread.take().map(JoinHandle::join) {
            None => Ok(()),
            Some(Ok(outcome)) => outcome,
            Some(Err(_)) => Err(TransportError::Panicked),
        }
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Signals the end of the thread even if it panics.
struct Ending(Arc<EventFd>);

impl Drop for Ending {
    fn drop(&mut self) {
        let _ = self.0.write(1);
    }
}

/// Run `server` over `poller` in a thread called `name` (15 bytes of it show). The thread first
/// runs `on_start`; an error of it ends the thread.
pub(super) fn spawn(
    mut server: impl Server + 'static,
    poller: Poller,
    name: &str,
    on_start: impl FnOnce() -> io::Result<()> + Send + 'static,
) -> io::Result<Handle> {
    let flags = EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK;
    let stop = Arc::new(EventFd::from_value_and_flags(0, flags)?);
    let ended = Arc::new(EventFd::from_value_and_flags(0, flags)?);
    poller.add_any(stop.as_fd(), STOP, LEVEL)?;
    let ending = Ending(Arc::clone(&ended));
    let keep_stop = Arc::clone(&stop);
    let thread = std::thread::Builder::new()
        .name(name.to_owned())
        .stack_size(STACK_BYTES)
        .spawn(move || {
            let _ending = ending;
            let _keep_stop = keep_stop;
            on_start().map_err(TransportError::Prepare)?;
            run(&poller, &mut server)
        })?;
    Ok(Handle {
        stop,
        ended,
        thread: Some(thread),
    })
}

fn run(poller: &Poller, server: &mut impl Server) -> Result<(), TransportError> {
    let mut turn = Turn::Wait;
    while turn != Turn::End {
        match step(poller, server, turn == Turn::Wait)? {
            None => return Ok(()),
            Some(next) => turn = next,
        }
    }
    Ok(())
}

/// One wake-up; `None` if the thread is to end. `block` false only looks.
pub(super) fn step(
    poller: &Poller,
    server: &mut impl Server,
    block: bool,
) -> Result<Option<Turn>, TransportError> {
    let mut events = [EpollEvent::empty(); EVENTS];
    let count = poller
        .wait(&mut events, block)
        .map_err(TransportError::Wait)?;
    for event in events.iter().take(count) {
        match event.data() {
            STOP => return Ok(None),
            token => server.event(token, event.events().into())?,
        }
    }
    server.serve().map(Some)
}
