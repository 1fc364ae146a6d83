//! The host's side of a connection: a Unix stream socket, and what it has not taken yet.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::net::Shutdown;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::net::UnixStream;

use nix::sys::socket::{MsgFlags, sendmsg, setsockopt, sockopt};

use crate::poll::{Interest, Poller};
use crate::virtio::queue::Buffers;

/// Asked of the kernel for our sending side; it grants what `wmem_max` allows.
const SEND_BUFFER: usize = 1 << 20;

/// A backlog that is empty again gives back more than this.
const KEPT_CAPACITY: usize = 16 * 1024;

#[derive(Debug)]
pub(super) struct Stream {
    socket: UnixStream,
    poller: Poller,
    token: u64,
    /// Bytes the socket did not take, in order. Bounded by the window promised to the guest.
    backlog: VecDeque<u8>,
    /// A read may bring something. Set by an event, cleared by a read that found the end.
    pub readable: bool,
    /// The peer has ended its sending direction: read until end of file.
    pub ended: bool,
    /// The peer has closed the socket altogether.
    pub gone: bool,
    waits_to_write: bool,
}

/// What came of handing bytes to the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Forwarded {
    /// Bytes the host took.
    pub taken: usize,
    /// The host takes no more, now or ever.
    pub closed: bool,
}

impl Stream {
    pub(super) fn new(socket: UnixStream, poller: &Poller, token: u64) -> io::Result<Self> {
        // A bigger buffer means fewer wake-ups; without it the stream still works.
        let _ = setsockopt(&socket, sockopt::SndBuf, &SEND_BUFFER);
        let stream = Self {
            socket,
            poller: poller.clone(),
            token,
            backlog: VecDeque::new(),
            readable: false,
            ended: false,
            gone: false,
            waits_to_write: false,
        };
        poller.add(stream.socket.as_fd(), token, stream.interest())?;
        Ok(stream)
    }

    fn interest(&self) -> Interest {
        Interest {
            readable: true,
            writable: self.waits_to_write,
            edge: true,
        }
    }

    pub(super) fn descriptor(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// Bytes kept because the socket did not take them.
    pub(super) fn kept(&self) -> usize {
        self.backlog.len()
    }

    /// Hand over the bytes of `data` from `start`, keep what does not fit.
    pub(super) fn write(&mut self, data: &mut Buffers, start: usize) -> io::Result<Forwarded> {
        let mut forwarded = Forwarded {
            taken: 0,
            closed: false,
        };
        if self.backlog.is_empty() {
            match data.send(self.socket.as_fd(), start) {
                Ok(taken) => forwarded.taken = taken,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => (),
                Err(error) if is_closed(&error) => {
                    forwarded.closed = true;
                    return Ok(forwarded);
                }
                Err(error) => return Err(error),
            }
        }
        let mut at = start + forwarded.taken;
        let mut chunk = [0_u8; 8192];
        while at < data.len() {
            let count = data.read_at(at, &mut chunk);
            self.backlog.extend(chunk.get(..count).unwrap_or_default());
            at += count;
        }
        self.watch()?;
        Ok(forwarded)
    }

    /// Hand over what was kept, as far as the socket takes it.
    pub(super) fn flush(&mut self) -> io::Result<Forwarded> {
        let mut forwarded = Forwarded {
            taken: 0,
            closed: false,
        };
        while !self.backlog.is_empty() {
            let (first, second) = self.backlog.as_slices();
            let parts = [IoSlice::new(first), IoSlice::new(second)];
            let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
            match sendmsg::<()>(self.socket.as_raw_fd(), &parts, &[], flags, None) {
                Ok(taken) => {
                    self.backlog.drain(..taken);
                    forwarded.taken += taken;
                }
                Err(nix::errno::Errno::EAGAIN) => break,
                Err(nix::errno::Errno::EINTR) => (),
                Err(errno) if is_closed(&errno.into()) => {
                    forwarded.closed = true;
                    break;
                }
                Err(errno) => return Err(errno.into()),
            }
        }
        if self.backlog.is_empty() && self.backlog.capacity() > KEPT_CAPACITY {
            self.backlog = VecDeque::new();
        }
        self.watch()?;
        Ok(forwarded)
    }

    /// Forget what was kept: nobody will read it. Returns how much it was.
    pub(super) fn discard(&mut self) -> usize {
        std::mem::take(&mut self.backlog).len()
    }

    /// Listen for room exactly while something waits for it.
    fn watch(&mut self) -> io::Result<()> {
        let waits = !self.backlog.is_empty();
        if waits == self.waits_to_write {
            return Ok(());
        }
        self.waits_to_write = waits;
        self.poller
            .modify(self.socket.as_fd(), self.token, self.interest())
    }

    /// The guest will send no more: let the peer see end of file.
    pub(super) fn end_sending(&self) {
        // Fails only if the peer is gone, which ends sending, too.
        let _ = self.socket.shutdown(Shutdown::Write);
    }

    /// The guest will take no more: let the peer's writes fail.
    pub(super) fn end_receiving(&self) {
        let _ = self.socket.shutdown(Shutdown::Read);
    }
}

pub(super) fn is_closed(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset | io::ErrorKind::NotConnected
    )
}
