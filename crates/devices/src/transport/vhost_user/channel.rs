//! The socket: exact reads of messages with the descriptors that came with them.
//!
//! Descriptors are owned from the moment they arrive, so that every error path closes them. A
//! header and its payload are read separately and never beyond their end, because descriptors
//! belong to the first byte of the message they were sent with.

use std::io::{self, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::net::UnixStream;

use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg};

use super::message::{HEADER_LENGTH, Header, MAX_PAYLOAD, MessageError, Reply, Request};

/// Descriptors accepted with one message: one per region of a memory table.
pub(super) const MAX_DESCRIPTORS: usize = 8;
/// Descriptors the kernel lets a sender put into one message (`SCM_MAX_FD`). There is room for all
/// of them: of those that find none, the ones before the cut would stay open unseen.
const SENDABLE_DESCRIPTORS: usize = 253;

/// A request as it came off the socket.
#[derive(Debug)]
pub(super) struct Incoming {
    pub number: u32,
    pub request: Request,
    pub need_reply: bool,
    pub descriptors: Vec<OwnedFd>,
}

/// Why nothing more can be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ChannelError {
    /// The socket failed.
    #[error("receive from the vhost-user front end")]
    Receive(#[source] io::Error),
    /// A reply could not be sent.
    #[error("reply to the vhost-user front end")]
    Reply(#[source] io::Error),
    /// The message is malformed.
    #[error("understand the vhost-user front end")]
    Message(#[source] MessageError),
    /// More descriptors came than any message carries.
    #[error("receive from the vhost-user front end: more than {MAX_DESCRIPTORS} descriptors")]
    TooManyDescriptors,
}

/// What a read brought.
#[derive(Debug)]
pub(super) enum Received {
    Message(Incoming),
    /// Nothing complete yet.
    Nothing,
    /// The front end closed the socket.
    Closed,
}

#[derive(Debug)]
pub(super) struct Channel {
    stream: UnixStream,
    buffer: [u8; HEADER_LENGTH + MAX_PAYLOAD],
    filled: usize,
    header: Option<Header>,
    descriptors: Vec<OwnedFd>,
}

impl Channel {
    pub(super) fn new(stream: UnixStream) -> io::Result<Self> {
        stream.set_nonblocking(true)?;
        Ok(Self {
            stream,
            buffer: [0; HEADER_LENGTH + MAX_PAYLOAD],
            filled: 0,
            header: None,
            descriptors: Vec::new(),
        })
    }

    pub(super) fn descriptor(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }

    /// Read the next message, as far as it has arrived.
    pub(super) fn receive(&mut self) -> Result<Received, ChannelError> {
        loop {
            let wanted = HEADER_LENGTH + self.header.map_or(0, |header| header.size);
            if self.filled == wanted {
                match self.header {
                    None => self.header = Some(self.parse_header()?),
                    Some(header) => return self.finish(header).map(Received::Message),
                }
                continue;
            }
            match self.read(wanted) {
                Ok(0) => return Ok(Received::Closed),
                Ok(count) => self.filled += count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    return Ok(Received::Nothing);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => (),
                Err(error) if error.kind() == io::ErrorKind::ConnectionReset => {
                    return Ok(Received::Closed);
                }
                Err(error) => return Err(ChannelError::Receive(error)),
            }
            if self.descriptors.len() > MAX_DESCRIPTORS {
                return Err(ChannelError::TooManyDescriptors);
            }
        }
    }

    fn parse_header(&self) -> Result<Header, ChannelError> {
        let raw = self.buffer.first_chunk::<HEADER_LENGTH>();
        let raw = raw.unwrap_or(&[0; HEADER_LENGTH]);
        Header::parse(raw).map_err(ChannelError::Message)
    }

    fn finish(&mut self, header: Header) -> Result<Incoming, ChannelError> {
        let descriptors = std::mem::take(&mut self.descriptors);
        self.header = None;
        self.filled = 0;
        let end = HEADER_LENGTH + header.size;
        let payload = self.buffer.get(HEADER_LENGTH..end).unwrap_or_default();
        let request = Request::parse(header.request, payload).map_err(ChannelError::Message)?;
        Ok(Incoming {
            number: header.request,
            request,
            need_reply: header.need_reply,
            descriptors,
        })
    }

    /// Read up to `end`; descriptors that arrive are owned at once.
    fn read(&mut self, end: usize) -> io::Result<usize> {
        let room = self.buffer.get_mut(self.filled..end).unwrap_or_default();
        let mut parts = [IoSliceMut::new(room)];
        let mut control = nix::cmsg_space!([std::os::fd::RawFd; SENDABLE_DESCRIPTORS]);
        let message = recvmsg::<()>(
            self.stream.as_raw_fd(),
            &mut parts,
            Some(&mut control),
            MsgFlags::MSG_CMSG_CLOEXEC | MsgFlags::MSG_DONTWAIT,
        )?;
        let count = message.bytes;
        for part in message.cmsgs()? {
            if let ControlMessageOwned::ScmRights(raw) = part {
                for descriptor in raw {
                    // SAFETY: the kernel installed this descriptor for us in this very call;
                    // nothing else knows its number.
                    self.descriptors
                        .push(unsafe { OwnedFd::from_raw_fd(descriptor) });
                }
            }
        }
        Ok(count)
    }

    /// Send a reply. The front end waits for it, so the socket has room; if not, the front end
    /// misbehaves and the session ends.
    pub(super) fn reply(&mut self, request: u32, reply: &Reply) -> Result<(), ChannelError> {
        let message = reply.encode(request);
        let sent = nix::sys::socket::send(
            self.stream.as_raw_fd(),
            &message,
            MsgFlags::MSG_NOSIGNAL | MsgFlags::MSG_DONTWAIT,
        )
        .map_err(|errno| ChannelError::Reply(errno.into()))?;
        if sent == message.len() {
            Ok(())
        } else {
            Err(ChannelError::Reply(io::ErrorKind::WriteZero.into()))
        }
    }
}
