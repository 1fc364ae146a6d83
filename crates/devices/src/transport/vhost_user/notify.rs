//! Kick and call descriptors, which may be eventfds, pipes or sockets.
//!
//! They are shared with the guest, which can fill or drain them and change their flags at any
//! time. So no operation here may block, whatever state the descriptor is in.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::socket::{MsgFlags, getsockopt, sockopt};

use crate::virtio::queue::Notifier;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Socket,
    Pipe,
    Counter,
}

fn kind(descriptor: &OwnedFd) -> Kind {
    if getsockopt(descriptor, sockopt::SockType).is_ok() {
        Kind::Socket
    } else if fcntl(descriptor, FcntlArg::F_GETPIPE_SZ).is_ok() {
        Kind::Pipe
    } else {
        Kind::Counter
    }
}

fn set_nonblocking(descriptor: &OwnedFd) -> io::Result<()> {
    let flags = OFlag::from_bits_retain(fcntl(descriptor, FcntlArg::F_GETFL)?);
    fcntl(descriptor, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK))?;
    Ok(())
}

/// The driver's way to wake us. Watched edge triggered: every kick is an edge, so an eventfd never
/// needs to be read, which saves a system call per kick.
#[derive(Debug)]
pub(super) struct Kick {
    descriptor: OwnedFd,
    kind: Kind,
}

impl Kick {
    pub(super) fn new(descriptor: OwnedFd) -> io::Result<Self> {
        let kind = kind(&descriptor);
        if kind == Kind::Pipe {
            set_nonblocking(&descriptor)?;
        }
        Ok(Self { descriptor, kind })
    }

    pub(super) fn descriptor(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }

    /// Make room for further kicks.
    pub(super) fn acknowledge(&self) {
        let mut sink = [0_u8; 256];
        // What is read does not matter, nor whether it fails: the queue itself says what to do.
        match self.kind {
            Kind::Counter => (),
            Kind::Pipe => while nix::unistd::read(&self.descriptor, &mut sink) == Ok(sink.len()) {},
            Kind::Socket => {
                let socket = self.descriptor.as_raw_fd();
                let flags = MsgFlags::MSG_DONTWAIT;
                while nix::sys::socket::recv(socket, &mut sink, flags) == Ok(sink.len()) {}
            }
        }
    }
}

/// Our way to notify the driver.
#[derive(Debug)]
pub(super) struct Call {
    descriptor: OwnedFd,
    kind: Kind,
}

impl Call {
    pub(super) fn new(descriptor: OwnedFd) -> io::Result<Self> {
        let kind = kind(&descriptor);
        if kind != Kind::Socket {
            set_nonblocking(&descriptor)?;
        }
        Ok(Self { descriptor, kind })
    }
}

impl Notifier for Arc<Call> {
    fn notify(&self) -> io::Result<()> {
        let one = 1_u64.to_ne_bytes();
        let sent = match self.kind {
            Kind::Socket => nix::sys::socket::send(
                self.descriptor.as_raw_fd(),
                &one,
                MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL,
            ),
            Kind::Pipe | Kind::Counter => nix::unistd::write(&self.descriptor, &one),
        };
        match sent {
            Ok(_) => Ok(()),
            // Full means that notifications are waiting already; a closed end means that the
            // driver is going away, which the session's socket will tell.
            Err(nix::errno::Errno::EAGAIN | nix::errno::Errno::EINTR) => Ok(()),
            Err(nix::errno::Errno::EPIPE | nix::errno::Errno::ECONNRESET) => Ok(()),
            Err(errno) => Err(errno.into()),
        }
    }
}

/// A ring whose driver wants no notifications.
#[derive(Debug)]
pub(super) struct Silent;

impl Notifier for Silent {
    fn notify(&self) -> io::Result<()> {
        Ok(())
    }
}
