//! The front end's messages, the rings' kicks and the device's own descriptors, in one thread.

use std::io;
use std::os::fd::AsFd;
use std::os::unix::net::UnixListener;

use super::backend::{Backend, KICK_TOKENS};
use super::channel::{Channel, Received};
use super::message::Reply;
use crate::device::{Device, Work};
use crate::poll::{Poller, Readiness, TRANSPORT_TOKENS};
use crate::transport::TransportError;
use crate::transport::thread::{self, Handle, LEVEL, Turn};

const LISTENER: u64 = TRANSPORT_TOKENS | 1;
const FRONT_END: u64 = TRANSPORT_TOKENS | 2;

/// Messages handled in one wake-up: a front end that never stops talking must not keep the thread
/// from hearing that it should stop.
const MESSAGES: usize = 64;

/// Serve `device` to the first front end that connects to `listener`, in a thread called `name`
/// (15 bytes of it show). The thread first runs `on_start`; an error of it ends the thread.
pub fn spawn(
    listener: UnixListener,
    device: Box<dyn Device>,
    name: &str,
    on_start: impl FnOnce() -> io::Result<()> + Send + 'static,
) -> io::Result<Handle> {
    listener.set_nonblocking(true)?;
    let poller = Poller::new()?;
    poller.add_any(listener.as_fd(), LISTENER, LEVEL)?;
    let server = Server {
        backend: Backend::new(device, poller.clone()),
        poller: poller.clone(),
        listener: Some(listener),
        channel: None,
        session: Session::Open,
    };
    thread::spawn(server, poller, name, on_start)
}

struct Server {
    backend: Backend,
    poller: Poller,
    listener: Option<UnixListener>,
    channel: Option<Channel>,
    session: Session,
}

/// Whether the session goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Session {
    Open,
    Closed,
}

impl thread::Server for Server {
    fn event(&mut self, token: u64, ready: Readiness) -> Result<(), TransportError> {
        match token {
            LISTENER => self.accept()?,
            FRONT_END => {
                if self.messages()? == Session::Closed {
                    self.session = Session::Closed;
                    self.channel = None;
                    self.backend.look_everywhere();
                }
            }
            token if token >= KICK_TOKENS => {
                self.backend.kicked((token & u64::from(u32::MAX)) as usize);
            }
            token => self
                .backend
                .source(token, ready)
                .map_err(TransportError::Session)?,
        }
        Ok(())
    }

    fn serve(&mut self) -> Result<Turn, TransportError> {
        match self.backend.serve().map_err(TransportError::Session)? {
            Work::More => Ok(Turn::Again),
            Work::Done if self.session == Session::Closed && self.backend.drained() => {
                Ok(Turn::End)
            }
            Work::Done => Ok(Turn::Wait),
        }
    }
}

impl Server {
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
