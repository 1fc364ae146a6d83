//! A device's thread: wait, take what is ready, serve.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixListener;
use std::sync::Arc;
use std::thread::JoinHandle;

use nix::sys::epoll::EpollEvent;
use nix::sys::eventfd::{EfdFlags, EventFd};

use super::backend::{Backend, KICK_TOKENS, SessionError};
use super::channel::{Channel, ChannelError, Received};
use super::message::Reply;
use crate::device::{Device, Work};
use crate::poll::{Interest, Poller, TRANSPORT_TOKENS};

const STOP: u64 = TRANSPORT_TOKENS;
const LISTENER: u64 = TRANSPORT_TOKENS | 1;
const FRONT_END: u64 = TRANSPORT_TOKENS | 2;

/// Events taken in one wake-up.
const EVENTS: usize = 32;

/// Messages handled in one wake-up: a front end that never stops talking must not keep the thread
/// from hearing that it should stop.
const MESSAGES: usize = 64;

/// Enough for the deepest path with room to spare; every idle thread costs what it touches.
const STACK_BYTES: usize = 128 * 1024;

const LEVEL: Interest = Interest {
    readable: true,
    writable: false,
    edge: false,
};

/// Why a device's thread ended early.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TransportError {
    /// The caller's own preparation of the thread failed.
    #[error("prepare the device thread")]
    Prepare(#[source] io::Error),
    /// Waiting for events failed.
    #[error("wait for events of the device")]
    Wait(#[source] io::Error),
    /// The front end could not be accepted.
    #[error("accept the vhost-user front end")]
    Accept(#[source] io::Error),
    /// The front end sent nonsense, or its socket failed.
    #[error("talk to the vhost-user front end")]
    Channel(#[source] ChannelError),
    /// The front end set up something impossible, or its guest broke the device.
    #[error("run the device")]
    Session(#[source] SessionError),
    /// The thread panicked.
    #[error("run the device: its thread panicked")]
    Panicked,
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

    /// Wait for the thread and learn why it ended. It ends by itself, without error, when the front
    /// end is gone and all it had sent is delivered.
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

/// Serve `device` to the first front end that connects to `listener`, in a thread called `name`
/// (15 bytes of it show). The thread first runs `on_start`; an error of it ends the thread.
pub fn spawn(
    listener: UnixListener,
    device: Box<dyn Device>,
    name: &str,
    on_start: impl FnOnce() -> io::Result<()> + Send + 'static,
) -> io::Result<Handle> {
    let flags = EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK;
    let stop = Arc::new(EventFd::from_value_and_flags(0, flags)?);
    let ended = Arc::new(EventFd::from_value_and_flags(0, flags)?);
    listener.set_nonblocking(true)?;
    let poller = Poller::new()?;
    poller.add_any(stop.as_fd(), STOP, LEVEL)?;
    poller.add_any(listener.as_fd(), LISTENER, LEVEL)?;
    let server = Server {
        backend: Backend::new(device, poller.clone()),
        poller,
        listener: Some(listener),
        channel: None,
    };
    let ending = Ending(Arc::clone(&ended));
    let keep_stop = Arc::clone(&stop);
    let thread = std::thread::Builder::new()
        .name(name.to_owned())
        .stack_size(STACK_BYTES)
        .spawn(move || {
            let _ending = ending;
            let _keep_stop = keep_stop;
            on_start().map_err(TransportError::Prepare)?;
            server.run()
        })?;
    Ok(Handle {
        stop,
        ended,
        thread: Some(thread),
    })
}

struct Server {
    backend: Backend,
    poller: Poller,
    listener: Option<UnixListener>,
    channel: Option<Channel>,
}

/// Whether the session goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Session {
    Open,
    Closed,
}

impl Server {
    fn run(mut self) -> Result<(), TransportError> {
        let mut events = [EpollEvent::empty(); EVENTS];
        let mut work = Work::Done;
        let mut session = Session::Open;
        loop {
            let count = self
                .poller
                .wait(&mut events, work == Work::Done)
                .map_err(TransportError::Wait)?;
            for event in events.iter().take(count) {
                match event.data() {
                    STOP => return Ok(()),
                    LISTENER => self.accept()?,
                    FRONT_END => {
                        if self.messages()? == Session::Closed {
                            session = Session::Closed;
                            self.channel = None;
                            self.backend.look_everywhere();
                        }
                    }
                    token if token >= KICK_TOKENS => {
                        self.backend.kicked((token & u64::from(u32::MAX)) as usize);
                    }
                    token => self
                        .backend
                        .source(token, event.events().into())
                        .map_err(TransportError::Session)?,
                }
            }
            work = self.backend.serve().map_err(TransportError::Session)?;
            if session == Session::Closed && work == Work::Done && self.backend.drained() {
                return Ok(());
            }
        }
    }

    fn accept(&mut self) -> Result<(), TransportError> {
        let Some(listener) = &self.listener else {
            return Ok(());
        };
        let stream = match listener.accept() {
            Ok((stream, _)) => stream,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
            Err(error) => return Err(TransportError::Accept(error)),
        };
        let channel = Channel::new(stream).map_err(TransportError::Accept)?;
        self.poller
            .add_any(channel.descriptor(), FRONT_END, LEVEL)
            .map_err(TransportError::Accept)?;
        self.channel = Some(channel);
        // One front end only: closing the listener also takes it out of the epoll set.
        self.listener = None;
        Ok(())
    }

    fn messages(&mut self) -> Result<Session, TransportError> {
        let Some(channel) = &mut self.channel else {
            return Ok(Session::Open);
        };
        for _ in 0..MESSAGES {
            let incoming = match channel.receive().map_err(TransportError::Channel)? {
                Received::Nothing => return Ok(Session::Open),
                Received::Closed => return Ok(Session::Closed),
                Received::Message(incoming) => incoming,
            };
            let number = incoming.number;
            let acknowledge = incoming.need_reply && !incoming.request.has_reply();
            let outcome = self.backend.handle(incoming);
            let reply = match &outcome {
                Ok(Some(reply)) => Some(reply.clone()),
                Ok(None) if acknowledge => Some(Reply::Number(0)),
                Err(_) if acknowledge => Some(Reply::Number(1)),
                _ => None,
            };
            if let Some(reply) = reply {
                channel
                    .reply(number, &reply)
                    .map_err(TransportError::Channel)?;
            }
            outcome.map_err(TransportError::Session)?;
        }
        Ok(Session::Open)
    }
}
