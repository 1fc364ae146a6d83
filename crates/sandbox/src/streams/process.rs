//! The three streams of one process together, and callers' attachments to them.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{Notify, oneshot};

use super::input::{InputEnd, Reader, Stdin};
use super::outlet::{Log, Outlet, Writer};
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
    readers: Mutex<Vec<Arc<Reader>>>,
}

/// One caller's descriptors, attached.
#[derive(Debug)]
pub(crate) struct Attached {
    writers: Vec<(Arc<Outlet>, Arc<Writer>)>,
    reader: Option<Arc<Reader>>,
    /// Hears why the input ended; `None` without input.
    pub input: Option<oneshot::Receiver<InputEnd>>,
    /// Notified when an output descriptor takes no more.
    pub output_gone: Arc<Notify>,
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
            readers: Mutex::default(),
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
        let (outlet, drained) = Outlet::start(name, source, log, lock.clone())?;
        self.drained
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(drained);
        Ok((port, Some(outlet)))
    }

    /// Connects a caller's descriptors, from now on. Those that the process has no stream for are closed.
    pub fn attach(&self, stdio: Stdio, detach_keys: Vec<u8>) -> io::Result<Attached> {
        let mut attached = Attached {
            writers: Vec::new(),
            reader: None,
            input: None,
            output_gone: Arc::new(Notify::new()),
        };
        for (outlet, fd) in [(&self.stdout, stdio.stdout), (&self.stderr, stdio.stderr)] {
            if let (Some(outlet), Some(fd)) = (outlet, fd) {
                attached.writers.push((
                    Arc::clone(outlet),
                    outlet.attach(fd, Arc::clone(&attached.output_gone)),
                ));
            }
        }
        if let (Some(stdin), Some(fd)) = (&self.stdin, stdio.stdin) {
            let (reader, ended) = stdin.attach(fd, detach_keys)?;
            self.readers().push(Arc::clone(&reader));
            attached.reader = Some(reader);
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

    /// Takes a caller's descriptors off; when this returns they are no longer used.
    pub async fn detach(&self, attached: &Attached) {
        if let Some(reader) = &attached.reader {
            reader.cancel().await;
            self.readers().retain(|other| !Arc::ptr_eq(other, reader));
            self.input_ended();
        }
        for (outlet, writer) in &attached.writers {
            outlet.detach(writer).await;
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
        for reader in self.readers().drain(..) {
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

    fn readers(&self) -> std::sync::MutexGuard<'_, Vec<Arc<Reader>>> {
        self.readers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
