//! Byte streams to the host. What carries them is a parameter, so that the whole agent also runs in a
//! test, over Unix sockets.

use std::future::Future;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, Shutdown, SockFlag, SockType, VsockAddr, connect, getsockopt, shutdown, socket,
    sockopt,
};
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};

use bulkhead_protocol::HOST_CID;

use crate::syscalls;

/// A connected, non-blocking stream socket.
#[derive(Debug)]
pub struct Stream(AsyncFd<OwnedFd>);

impl Stream {
    /// Takes over a connected socket, which must be non-blocking. Needs a tokio runtime.
    ///
    /// # Errors
    ///
    /// The descriptor cannot be polled.
    pub fn new(socket: OwnedFd) -> io::Result<Self> {
        syscalls::watch(socket, Interest::READABLE | Interest::WRITABLE).map(Self)
    }

    /// For waiting on, and for system calls of the caller's.
    pub(crate) fn poller(&self) -> &AsyncFd<OwnedFd> {
        &self.0
    }

    /// Tells the host that nothing more will be sent.
    pub(crate) fn finish(&self) -> nix::Result<()> {
        shutdown(self.0.as_raw_fd(), Shutdown::Write)
    }
}

impl AsFd for Stream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.get_ref().as_fd()
    }
}

impl AsRawFd for Stream {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        loop {
            let mut guard = ready!(self.0.poll_read_ready(context))?;
            let target = buffer.initialize_unfilled();
            if let Ok(result) = guard.try_io(|fd| Ok(nix::unistd::read(fd, target)?)) {
                buffer.advance(result?);
                return Poll::Ready(Ok(()));
            }
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        loop {
            let mut guard = ready!(self.0.poll_write_ready(context))?;
            if let Ok(result) = guard.try_io(|fd| Ok(nix::unistd::write(fd, bytes)?)) {
                return Poll::Ready(result);
            }
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(self.finish().map_err(io::Error::from))
    }
}

/// A connection on its way.
pub type Dialing<'a> = Pin<Box<dyn Future<Output = io::Result<Stream>> + Send + 'a>>;

/// Connects to a port of the host.
pub trait Dial: Send + Sync {
    /// Starts connecting at once; the future completes when the host has accepted.
    fn dial(&self, port: u32) -> Dialing<'_>;
}

/// Dials the host over virtio-vsock.
#[derive(Debug, Default)]
pub struct VsockDialer;

impl Dial for VsockDialer {
    fn dial(&self, port: u32) -> Dialing<'_> {
        let started = start_connecting(port);
        Box::pin(async move { finish_connecting(started?).await })
    }
}

fn start_connecting(port: u32) -> io::Result<OwnedFd> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let socket = socket(AddressFamily::Vsock, SockType::Stream, flags, None)?;
    match connect(socket.as_raw_fd(), &VsockAddr::new(HOST_CID, port)) {
        Ok(()) | Err(Errno::EINPROGRESS) => Ok(socket),
        Err(error) => Err(error.into()),
    }
}

async fn finish_connecting(socket: OwnedFd) -> io::Result<Stream> {
    let stream = Stream::new(socket)?;
    // Readiness is kept: a connected socket can be written to.
    drop(stream.0.writable().await?);
    match getsockopt(&stream, sockopt::SocketError)? {
        0 => Ok(stream),
        error => Err(io::Error::from_raw_os_error(error)),
    }
}
