//! Input: from a caller's descriptor to the guest's connection.

use std::fs::File;
use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex, PoisonError};

use nix::poll::PollFlags;
use tokio::sync::oneshot;

use super::interrupt::Blocking;
use super::keys::DetachKeys;
use super::outlet::wait_for;
use crate::compartment::StreamLock;

const BUFFER: usize = 128 << 10;
const STACK: usize = 64 << 10;

/// The guest's end of a process's stdin.
#[derive(Debug)]
pub(super) struct Stdin {
    socket: UnixStream,
    /// Whole pieces of several callers do not mix.
    turn: Mutex<()>,
}

/// Why a caller's input, or its whole attachment, ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum InputEnd {
    /// End of file, or reading failed.
    EndOfFile,
    /// The detach keys were typed.
    DetachKeys,
    /// The process no longer reads.
    ProcessGone,
    /// It was cancelled.
    Cancelled,
    /// The caller's output takes no more: its reader vanished, or a file system refuses.
    OutputGone { errno: i32 },
}

/// A caller's descriptor being read.
#[derive(Debug)]
pub(super) struct Reader {
    file: File,
    blocking: Blocking,
}

impl Stdin {
    pub fn new(socket: UnixStream) -> Arc<Self> {
        Arc::new(Self {
            socket,
            turn: Mutex::new(()),
        })
    }

    /// The process sees end of file.
    pub fn close(&self) {
        let _ = self.socket.shutdown(Shutdown::Write);
    }

    /// The process is gone: whoever writes to it stops.
    pub fn end(&self) {
        let _ = self.socket.shutdown(Shutdown::Both);
    }

    /// Starts the thread that moves bytes from `fd`, once it has applied `lock`.
    pub fn attach(
        self: &Arc<Self>,
        fd: OwnedFd,
        detach_keys: Vec<u8>,
        lock: StreamLock,
    ) -> io::Result<(Arc<Reader>, oneshot::Receiver<InputEnd>)> {
        let reader = Arc::new(Reader {
            file: fd.into(),
            blocking: Blocking::default(),
        });
        let (done, ended) = oneshot::channel();
        let (stdin, pump) = (Arc::clone(self), Arc::clone(&reader));
        std::thread::Builder::new()
            .name("stdin".to_owned())
            .stack_size(STACK)
            .spawn(move || {
                lock.apply();
                let end = pump.pump(&stdin, DetachKeys::new(detach_keys));
                let _ = done.send(end);
            })?;
        Ok((reader, ended))
    }

    /// Writes all of `bytes` for `reader`, or stops when it is cancelled.
    fn send(&self, mut bytes: &[u8], reader: &Reader) -> Result<(), InputEnd> {
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        while !bytes.is_empty() {
            match reader.blocking.run(|| (&self.socket).write(bytes)) {
                None => return Err(InputEnd::Cancelled),
                Some(Ok(written)) => bytes = bytes.get(written..).unwrap_or_default(),
                Some(Err(e)) if e.kind() == io::ErrorKind::Interrupted => {}
                Some(Err(_)) => return Err(InputEnd::ProcessGone),
            }
        }
        Ok(())
    }
}

impl Reader {
    /// Stops reading; when this returns no byte is taken from the descriptor any more.
    pub async fn cancel(&self) {
        self.blocking.cancel().await;
    }

    /// As [`Reader::cancel`], without waiting.
    pub fn forbid(&self) {
        self.blocking.forbid();
    }

    fn pump(&self, stdin: &Stdin, mut keys: DetachKeys) -> InputEnd {
        let mut buffer = vec![0; BUFFER];
        let mut out = Vec::new();
        loop {
            let read = self.blocking.run(|| match (&self.file).read(&mut buffer) {
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                    wait_for(&self.file, PollFlags::POLLIN)?;
                    Err(io::ErrorKind::Interrupted.into())
                }
                other => other,
            });
            let got = match read {
                None => return InputEnd::Cancelled,
                Some(Ok(0)) => return InputEnd::EndOfFile,
                Some(Ok(got)) => got,
                Some(Err(e)) if e.kind() == io::ErrorKind::Interrupted => continue,
                // A terminal that hung up gives EIO.
                Some(Err(_)) => return InputEnd::EndOfFile,
            };
            out.clear();
            let detach = keys.filter(buffer.get(..got).unwrap_or_default(), &mut out);
            if let Err(end) = stdin.send(&out, self) {
                return end;
            }
            if detach {
                return InputEnd::DetachKeys;
            }
        }
    }
}
