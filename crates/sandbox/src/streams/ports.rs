//! Which vsock port of the host leads to which stream. A port is opened before the agent is told of
//! it, leads to one end of a socket pair, and is used up by the first connection.

use std::collections::HashMap;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex, PoisonError};

use bulkhead_protocol::FIRST_STREAM_PORT;
use nix::sys::socket::{setsockopt, sockopt};

/// Room in a socket pair: more means fewer switches between the device's and the stream's thread.
const BUFFER: usize = 1 << 20;

/// The open ports of one compartment.
#[derive(Debug, Clone, Default)]
pub(crate) struct Ports {
    inner: Arc<Mutex<Inner>>,
}

#[derive(Debug, Default)]
struct Inner {
    used: u32,
    open: HashMap<u32, UnixStream>,
}

impl Ports {
    /// Opens the next unused port; returns it and our end of what will be connected there.
    pub fn open_next(&self) -> io::Result<(u32, UnixStream)> {
        let port = {
            let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
            let port = FIRST_STREAM_PORT
                .checked_add(inner.used)
                .ok_or(io::ErrorKind::QuotaExceeded)?;
            inner.used += 1;
            port
        };
        Ok((port, self.open(port)?))
    }

    /// Opens `port`.
    pub fn open(&self, port: u32) -> io::Result<UnixStream> {
        let (ours, theirs) = UnixStream::pair()?;
        for end in [&ours, &theirs] {
            // The host's limit may be lower; then it is that.
            let _ = setsockopt(&end.as_fd(), sockopt::SndBuf, &BUFFER);
        }
        self.inner
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .open
            .insert(port, theirs);
        Ok(ours)
    }

    /// The guest connects: hands out the other end, once.
    pub fn connect(&self, port: u32) -> Option<UnixStream> {
        self.inner
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .open
            .remove(&port)
    }

    /// Nobody will connect to `port` any more; our end sees end of file.
    pub fn close(&self, port: u32) {
        drop(self.connect(port));
    }
}
