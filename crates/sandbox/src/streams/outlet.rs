//! Output: from the guest's connection to the log and to every attached writer.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use tokio::sync::{Notify, oneshot};

use super::interrupt::{Blocking, unread};
use crate::compartment::StreamLock;
use crate::logs::{LogStream, LogWriter};

/// Large enough that a switch of threads costs little beside the copy, small enough to stay in the cache.
const BUFFER: usize = 256 << 10;
const STACK: usize = 64 << 10;

/// The log of a container, shared by its streams.
pub(crate) type Log = Arc<Mutex<LogWriter>>;

/// One output stream of a process.
#[derive(Debug)]
pub(super) struct Outlet {
    writers: Mutex<Vec<Arc<Writer>>>,
    changed: AtomicBool,
    moved: AtomicU64,
    source: UnixStream,
}

/// A caller's descriptor.
#[derive(Debug)]
pub(super) struct Writer {
    file: File,
    blocking: Blocking,
    failed: AtomicBool,
    /// Bytes that the descriptor took.
    written: AtomicU64,
    stalled: Mutex<Option<Stalled>>,
    cut: AtomicBool,
    /// Told when the descriptor takes no more.
    gone: Arc<Gone>,
}

/// Why an attachment's output descriptor takes no more.
#[derive(Debug, Default)]
pub(crate) struct Gone {
    told: Notify,
    /// Of the first that failed; 0 while none has.
    errno: AtomicI32,
}

impl Gone {
    fn tell(&self, error: &io::Error) {
        let errno = error.raw_os_error().unwrap_or(libc::EIO);
        let _ = self
            .errno
            .compare_exchange(0, errno, Ordering::SeqCst, Ordering::SeqCst);
        self.told.notify_one();
    }

    /// What write(2) said, if it failed.
    pub fn errno(&self) -> Option<i32> {
        Some(self.errno.load(Ordering::SeqCst)).filter(|errno| *errno != 0)
    }

    /// Resolves when a write failed.
    pub async fn told(&self) -> i32 {
        loop {
            if let Some(errno) = self.errno() {
                return errno;
            }
            self.told.notified().await;
        }
    }
}

/// Where a writer that waits for its reader was when it last moved.
#[derive(Debug)]
struct Stalled {
    /// Bytes that the descriptor took, and those of them that nobody has read yet: together they show a reader that
    /// takes a single byte, although the descriptor has room again only a page later.
    position: (u64, u64),
    since: Instant,
}

impl Outlet {
    /// Starts the thread that moves bytes from `source` until its end. The receiver hears of it.
    pub fn start(
        name: &str,
        source: UnixStream,
        log: Option<(Log, LogStream)>,
        lock: StreamLock,
    ) -> io::Result<(Arc<Self>, oneshot::Receiver<()>)> {
        let outlet = Arc::new(Self {
            writers: Mutex::new(Vec::new()),
            changed: AtomicBool::new(false),
            moved: AtomicU64::new(0),
            source: source.try_clone()?,
        });
        let (done, drained) = oneshot::channel();
        let pump = Arc::clone(&outlet);
        std::thread::Builder::new()
            .name(name.to_owned())
            .stack_size(STACK)
            .spawn(move || {
                lock.apply();
                pump.pump(source, log);
                let _ = done.send(());
            })?;
        Ok((outlet, drained))
    }

    /// Sends output from now on to `fd` too.
    pub fn attach(&self, fd: OwnedFd, gone: Arc<Gone>) -> Arc<Writer> {
        let writer = Arc::new(Writer {
            file: fd.into(),
            blocking: Blocking::default(),
            failed: AtomicBool::new(false),
            written: AtomicU64::new(0),
            stalled: Mutex::new(None),
            cut: AtomicBool::new(false),
            gone,
        });
        self.list().push(Arc::clone(&writer));
        self.changed.store(true, Ordering::SeqCst);
        writer
    }

    /// Takes `writer` off; when this returns no byte goes there any more.
    pub async fn detach(&self, writer: &Arc<Writer>) {
        self.list().retain(|other| !Arc::ptr_eq(other, writer));
        self.changed.store(true, Ordering::SeqCst);
        writer.blocking.cancel().await;
    }

    /// As [`Outlet::detach`], without waiting.
    pub fn forbid(&self, writer: &Arc<Writer>) {
        self.list().retain(|other| !Arc::ptr_eq(other, writer));
        self.changed.store(true, Ordering::SeqCst);
        writer.blocking.forbid();
    }

    /// Lets go of writers whose reader has taken nothing for `patience`. Their descriptors are told nothing: what they
    /// hold can still be read.
    pub fn let_go_of_stalled(&self, patience: Duration) {
        for writer in self.list().iter() {
            if writer.stalled_for().is_some_and(|time| time >= patience) {
                writer.cut.store(true, Ordering::SeqCst);
                writer.blocking.forbid();
            } else {
                // What a blocked write has written so far is known only when it returns.
                writer.blocking.nudge();
            }
        }
    }

    /// The guest is gone: what it had sent is still delivered, then the stream ends.
    pub fn end(&self) {
        let _ = self.source.shutdown(std::net::Shutdown::Read);
    }

    /// Bytes received so far.
    pub fn moved(&self) -> u64 {
        self.moved.load(Ordering::Relaxed)
    }

    /// Whether a caller's slowness holds the stream up.
    pub fn is_delivering(&self) -> bool {
        self.list().iter().any(|writer| writer.blocking.is_busy())
    }

    fn list(&self) -> std::sync::MutexGuard<'_, Vec<Arc<Writer>>> {
        self.writers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn pump(&self, mut source: UnixStream, log: Option<(Log, LogStream)>) {
        let mut buffer = vec![0; BUFFER];
        let mut writers: Vec<Arc<Writer>> = Vec::new();
        loop {
            let got = match source.read(&mut buffer) {
                Ok(0) => break,
                Ok(got) => got,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                // The device closed its end under us: as end of file.
                Err(_) => break,
            };
            self.moved.fetch_add(got as u64, Ordering::Relaxed);
            let bytes = buffer.get(..got).unwrap_or_default();
            if let Some((log, stream)) = &log {
                log.lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .append(*stream, bytes);
            }
            if self.changed.swap(false, Ordering::SeqCst) {
                writers.clone_from(&self.list());
            }
            for writer in &writers {
                writer.write(bytes);
            }
            if writers.iter().any(|writer| writer.is_gone()) {
                writers.retain(|writer| !writer.is_gone());
                self.list().retain(|writer| !writer.is_gone());
            }
        }
        self.list().clear();
    }
}

impl Writer {
    /// Whether it was let go of in the middle of its bytes.
    pub fn was_cut(&self) -> bool {
        self.cut.load(Ordering::SeqCst)
    }

    fn is_gone(&self) -> bool {
        self.failed.load(Ordering::SeqCst) || self.blocking.is_cancelled()
    }

    /// For how long the reader has taken nothing; `None` when the stream does not wait for it.
    fn stalled_for(&self) -> Option<Duration> {
        let mut stalled = self.stalled.lock().unwrap_or_else(PoisonError::into_inner);
        if !self.blocking.is_busy() {
            *stalled = None;
            return None;
        }
        let position = (self.written.load(Ordering::Relaxed), unread(&self.file));
        match &*stalled {
            Some(seen) if seen.position == position => Some(seen.since.elapsed()),
            _ => {
                let since = Instant::now();
                *stalled = Some(Stalled { position, since });
                Some(Duration::ZERO)
            }
        }
    }

    fn write(&self, bytes: &[u8]) {
        let result = self.blocking.run(|| self.write_all(bytes));
        if let Some(Err(error)) = result {
            // A reader that vanished (EPIPE), or a file system that refuses: the container goes on.
            self.failed.store(true, Ordering::SeqCst);
            self.gone.tell(&error);
        }
    }

    fn write_all(&self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            match (&self.file).write(bytes) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => {
                    self.written.fetch_add(written as u64, Ordering::Relaxed);
                    bytes = bytes.get(written..).unwrap_or_default();
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                // The caller's descriptor may be non-blocking; that is the caller's choice.
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                    wait_for(&self.file, PollFlags::POLLOUT)?
                }
                Err(e) => return Err(e),
            }
            if !bytes.is_empty() && self.blocking.is_cancelled() {
                return Ok(());
            }
        }
        Ok(())
    }
}

/// Blocks until `fd` is ready, or a signal arrives.
pub(super) fn wait_for(fd: &impl AsFd, events: PollFlags) -> io::Result<()> {
    match poll(&mut [PollFd::new(fd.as_fd(), events)], PollTimeout::NONE) {
        Ok(_) | Err(Errno::EINTR) => Ok(()),
        Err(e) => Err(e.into()),
    }
}
