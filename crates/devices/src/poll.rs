//! Readiness: the one epoll set of a device's thread, as the device sees it.
//!
//! The transport makes the set and waits on it; a device adds its own descriptors through its
//! [`Poller`]. Tokens with the top bit belong to the transport, so the two can share one set.

use std::io;
use std::os::fd::BorrowedFd;
use std::sync::Arc;

use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags};

/// Tokens at or above this one are the transport's.
pub(crate) const TRANSPORT_TOKENS: u64 = 1 << 63;

/// What a device wants to hear about one of its descriptors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Interest {
    /// Report when it can be read, and when its peer will send no more.
    pub readable: bool,
    /// Report when it can be written.
    pub writable: bool,
    /// Report changes only (edge triggered): the device remembers what it has not used up.
    pub edge: bool,
}

impl Interest {
    fn flags(self) -> EpollFlags {
        let mut flags = EpollFlags::empty();
        if self.readable {
            flags |= EpollFlags::EPOLLIN | EpollFlags::EPOLLRDHUP;
        }
        if self.writable {
            flags |= EpollFlags::EPOLLOUT;
        }
        if self.edge {
            flags |= EpollFlags::EPOLLET;
        }
        flags
    }
}

/// What was found out about a descriptor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Readiness {
    /// A read will not block.
    pub readable: bool,
    /// A write will not block.
    pub writable: bool,
    /// The peer sends no more: end of file follows what is still buffered.
    pub read_closed: bool,
    /// The peer is gone in both directions, or the descriptor is in error.
    pub closed: bool,
}

impl From<EpollFlags> for Readiness {
    fn from(flags: EpollFlags) -> Self {
        let closed = flags.intersects(EpollFlags::EPOLLHUP | EpollFlags::EPOLLERR);
        Self {
            readable: closed || flags.intersects(EpollFlags::EPOLLIN | EpollFlags::EPOLLRDHUP),
            writable: closed || flags.contains(EpollFlags::EPOLLOUT),
            read_closed: closed || flags.contains(EpollFlags::EPOLLRDHUP),
            closed,
        }
    }
}

/// A device's share of its thread's epoll set.
#[derive(Debug, Clone)]
pub struct Poller {
    epoll: Arc<Epoll>,
}

impl Poller {
    /// A new, empty set. Transports make one per device thread; tests and fuzz targets make their own.
    pub fn new() -> io::Result<Self> {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        Ok(Self {
            epoll: Arc::new(epoll),
        })
    }

    /// Start watching `fd`. `token` comes back with its events; its top bit must be clear.
    pub fn add(&self, fd: BorrowedFd<'_>, token: u64, interest: Interest) -> io::Result<()> {
        if token >= TRANSPORT_TOKENS {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        self.add_any(fd, token, interest)
    }

    /// Change what is wanted of a watched `fd`. Current readiness is reported anew.
    pub fn modify(&self, fd: BorrowedFd<'_>, token: u64, interest: Interest) -> io::Result<()> {
        let mut event = EpollEvent::new(interest.flags(), token);
        Ok(self.epoll.modify(fd, &mut event)?)
    }

    /// Stop watching `fd`.
    pub fn remove(&self, fd: BorrowedFd<'_>) -> io::Result<()> {
        Ok(self.epoll.delete(fd)?)
    }

    /// As [`Poller::add`], for any token.
    pub(crate) fn add_any(
        &self,
        fd: BorrowedFd<'_>,
        token: u64,
        interest: Interest,
    ) -> io::Result<()> {
        let event = EpollEvent::new(interest.flags(), token);
        Ok(self.epoll.add(fd, event)?)
    }

    /// Wait for events; `block` false only looks. Returns how many of `events` were filled; an
    /// interrupted wait is zero events.
    pub(crate) fn wait(&self, events: &mut [EpollEvent], block: bool) -> io::Result<usize> {
        let timeout = if block { -1_i32 } else { 0 };
        let timeout =
            nix::sys::epoll::EpollTimeout::try_from(timeout).map_err(|_| io::ErrorKind::Other)?;
        match self.epoll.wait(events, timeout) {
            Ok(count) => Ok(count),
            Err(nix::errno::Errno::EINTR) => Ok(0),
            Err(errno) => Err(errno.into()),
        }
    }

    /// Look once, without waiting, and return `(token, readiness)` pairs. For tests, fuzz targets
    /// and simple loops; a transport keeps its own event buffer.
    pub fn ready_now(&self) -> io::Result<Vec<(u64, Readiness)>> {
        let mut events = [EpollEvent::empty(); 64];
        let count = self.wait(&mut events, false)?;
        Ok(events
            .iter()
            .take(count)
            .map(|event| (event.data(), event.events().into()))
            .collect())
    }
}
