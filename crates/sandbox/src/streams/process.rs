//! The three streams of one process together, and callers' attachments to them.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::oneshot;

use super::input::{InputEnd, Reader, Stdin};
use super::outlet::{Gone, Log, Outlet, Writer};
use super::ports::Ports;
use crate::compartment::StreamLock;
use crate::logs::LogStream;
use crate::message::Stdio;

/// Which streams a process has; the others are `/dev/null` in the guest.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wanted {
    pub stdin: bool,
    pub stdout: bool,
    pub stderr: bool,
    /// Stdin ends for good with the first attachment's input.
    pub stdin_once: bool,
}

/// Vsock ports as `StartProcess` takes them; 0 is `/dev/null`.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct StreamPorts {
    pub stdin: u32,
    pub stdout: u32,
    pub stderr: u32,
}

/// The streams of one process, from before it starts until they are drained.
#[derive(Debug)]
pub(crate) struct ProcessIo {
    pub ports: StreamPorts,
    registry: Ports,
    stdin: Option<Arc<Stdin>>,
    stdout: Option<Arc<Outlet>>,
    stderr: Option<Arc<Outlet>>,
    stdin_once: bool,
    drained: Mutex<Vec<oneshot::Receiver<()>>>,
    readers: Readers,
}

/// The callers' descriptors that feed one process.
type Readers = Arc<Mutex<Vec<Arc<Reader>>>>;

/// One caller's descriptors, attached. Dropping it takes them off: whatever becomes of the connection that brought
/// them, a terminal must not go on being read.
#[derive(Debug)]
pub(crate) struct Attached {
    ends: Ends,
    /// Hears why the input ended; `None` without input.
    pub input: Option<oneshot::Receiver<InputEnd>>,
    /// Told when an output descriptor takes no more.
    pub output_gone: Arc<Gone>,
}

/// What is to be taken off.
#[derive(Debug, Default)]
struct Ends {
    writers: Vec<(Arc<Outlet>, Arc<Writer>)>,
    reader: Option<(Arc<Reader>, Readers)>,
    /// Ends with the reader.
    stdin: Option<Arc<Stdin>>,
}

impl Attached {
    /// Whether an output descriptor was let go of because nobody read, with bytes left to write.
    pub fn was_cut(&self) -> bool {
        self.ends.writers.iter().any(|(_, writer)| writer.was_cut())
    }

    /// Takes the descriptors off; when this returns they are no longer used.
    pub async fn detach(&mut self) {
        std::mem::take(&mut self.ends).take_off().await;
    }
}

impl Drop for Attached {
    fn drop(&mut self) {
        let ends = std::mem::take(&mut self.ends);
        ends.forbid();
        // A thread may be just about to block, and then has to be woken until it has noticed.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(ends.take_off());
        }
    }
}

impl Ends {
    /// Forbids every further byte, without waiting for one that is on its way.
    fn forbid(&self) {
        if let Some((reader, _)) = &self.reader {
            reader.forbid();
        }
        for (outlet, writer) in &self.writers {
            outlet.forbid(writer);
        }
    }

    async fn take_off(self) {
        if let Some((reader, readers)) = &self.reader {
            reader.cancel().await;
            locked(readers).retain(|other| !Arc::ptr_eq(other, reader));
        }
        if let Some(stdin) = &self.stdin {
            stdin.close();
        }
        for (outlet, writer) in &self.writers {
            outlet.detach(writer).await;
        }
    }
}

fn locked(readers: &Readers) -> std::sync::MutexGuard<'_, Vec<Arc<Reader>>> {
    readers.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Whatever is left of it ends: an open that failed half way, or a process that was never started, gives back its ports
/// and threads.
impl Drop for ProcessIo {
    fn drop(&mut self) {
        self.abandon();
    }
}

impl ProcessIo {
    /// Opens the ports and starts the threads, each of which applies `lock` first. The agent connects when the process starts.
    pub fn open(
        registry: &Ports,
        wanted: Wanted,
        log: Option<&Log>,
        lock: &StreamLock,
    ) -> io::Result<Self> {
        let mut io = Self {
            ports: StreamPorts::default(),
            registry: registry.clone(),
            stdin: None,
            stdout: None,
            stderr: None,
            stdin_once: wanted.stdin_once,
            drained: Mutex::default(),
            readers: Readers::default(),
        };
        if wanted.stdin {
            let (port, socket) = registry.open_next()?;
            io.ports.stdin = port;
            io.stdin = Some(Stdin::new(socket));
        }
        if wanted.stdout {
            (io.ports.stdout, io.stdout) = io.outlet(
                "stdout",
                log.map(|log| (Arc::clone(log), LogStream::Stdout)),
                lock,
            )?;
        }
        if wanted.stderr {
            (io.ports.stderr, io.stderr) = io.outlet(
                "stderr",
                log.map(|log| (Arc::clone(log), LogStream::Stderr)),
                lock,
            )?;
        }
        Ok(io)
    }

    fn outlet(
        &self,
        name: &str,
        log: Option<(Log, LogStream)>,
        lock: &StreamLock,
    ) -> io::Result<(u32, Option<Arc<Outlet>>)> {
        let (port, source) = self.registry.open_next()?;
        let (outlet, drained) = Outlet::start(name, source, log, lock.clone())
            .inspect_err(|_| self.registry.close(port))?;
        self.drained
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(drained);
        Ok((port, Some(outlet)))
    }

    /// Connects a caller's descriptors, from now on. Those that the process has no stream for are closed. A thread that
    /// reads them applies `lock` first.
    pub fn attach(
        &self,
        stdio: Stdio,
        detach_keys: Vec<u8>,
        lock: &StreamLock,
    ) -> io::Result<Attached> {
        let mut attached = Attached {
            ends: Ends::default(),
            input: None,
            output_gone: Arc::default(),
        };
        for (outlet, fd) in [(&self.stdout, stdio.stdout), (&self.stderr, stdio.stderr)] {
            if let (Some(outlet), Some(fd)) = (outlet, fd) {
                attached.ends.writers.push((
                    Arc::clone(outlet),
                    outlet.attach(fd, Arc::clone(&attached.output_gone)),
                ));
            }
        }
        if let (Some(stdin), Some(fd)) = (&self.stdin, stdio.stdin) {
            let (reader, ended) = stdin.attach(fd, detach_keys, lock.clone())?;
            locked(&self.readers).push(Arc::clone(&reader));
            attached.ends.reader = Some((reader, Arc::clone(&self.readers)));
            attached.ends.stdin = self.stdin_once.then(|| Arc::clone(stdin));
            attached.input = Some(ended);
        }
        Ok(attached)
    }

    /// A caller's input came to its end.
    pub fn input_ended(&self) {
        if self.stdin_once
            && let Some(stdin) = &self.stdin
        {
            stdin.close();
        }
    }

    /// Nothing was started, or nothing will come any more: what is not connected ends.
    pub fn abandon(&self) {
        for port in [self.ports.stdin, self.ports.stdout, self.ports.stderr] {
            self.registry.close(port);
        }
        for outlet in [&self.stdout, &self.stderr].into_iter().flatten() {
            outlet.end();
        }
        self.end_input();
    }

    /// The process has ended: nobody reads its stdin any more.
    pub fn end_input(&self) {
        if let Some(stdin) = &self.stdin {
            stdin.end();
        }
        for reader in locked(&self.readers).drain(..) {
            reader.forbid();
        }
    }

    /// Waits until all output was delivered to the log and to every attached descriptor.
    pub async fn drained(&self) {
        let waiting =
            std::mem::take(&mut *self.drained.lock().unwrap_or_else(PoisonError::into_inner));
        for stream in waiting {
            let _ = stream.await;
        }
    }

    /// Bytes of output received so far.
    pub fn progress(&self) -> u64 {
        [&self.stdout, &self.stderr]
            .into_iter()
            .flatten()
            .map(|outlet| outlet.moved())
            .sum()
    }

    /// Whether a caller's slowness holds a stream up.
    pub fn is_delivering(&self) -> bool {
        [&self.stdout, &self.stderr]
            .into_iter()
            .flatten()
            .any(|outlet| outlet.is_delivering())
    }

    /// Lets go of callers that have taken nothing for `patience` while their stream waits for them. To be called every
    /// now and then: it is by comparing that it sees who takes nothing.
    pub fn let_go_of_stalled(&self, patience: Duration) {
        for outlet in [&self.stdout, &self.stderr].into_iter().flatten() {
            outlet.let_go_of_stalled(patience);
        }
    }
}
