//! A process's three standard streams: what the process gets, and what carries its bytes.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use nix::fcntl::{OFlag, open};
use nix::sys::stat::Mode;
use nix::unistd::{Gid, Uid, fchown, pipe2};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::pump::{self, Method};
use crate::syscalls;
use crate::terminal::{self, TerminalError};
use crate::transport::{Dial, Stream};

/// Ports of the host, 0 for /dev/null.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Ports {
    pub(crate) stdin: u32,
    pub(crate) stdout: u32,
    pub(crate) stderr: u32,
}

/// Why a process's streams could not be made.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StreamError {
    /// The host did not accept, or the transport is broken.
    #[error("cannot connect the {name} stream to port {port} of the host")]
    Connect {
        name: &'static str,
        port: u32,
        #[source]
        source: io::Error,
    },
    #[error("cannot make a pipe for the {name} stream")]
    Pipe {
        name: &'static str,
        #[source]
        source: io::Error,
    },
    #[error("cannot open /dev/null")]
    Null(#[source] io::Error),
    #[error(transparent)]
    Terminal(#[from] TerminalError),
}

/// The process's ends, in the order of their numbers.
#[derive(Debug)]
pub(crate) enum ProcessEnds {
    Files([OwnedFd; 3]),
    Terminal { slave: OwnedFd, path: CString },
}

impl ProcessEnds {
    /// The user of the process must be able to reopen /dev/stdout, so it owns what is behind it.
    pub(crate) fn give_to(&self, uid: u32, gid: u32) -> io::Result<()> {
        if uid == 0 {
            return Ok(());
        }
        let own = |fd: &OwnedFd| fchown(fd, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)));
        match self {
            Self::Terminal { slave, .. } => {
                // The group stays tty (5), as devpts made it.
                fchown(slave, Some(Uid::from_raw(uid)), None)?;
            }
            Self::Files(files) => {
                for file in files.iter().filter(|file| is_pipe(file)) {
                    own(file)?;
                }
            }
        }
        Ok(())
    }
}

/// /dev/null is everybody's.
fn is_pipe(file: &OwnedFd) -> bool {
    nix::sys::stat::fstat(file).is_ok_and(|status| status.st_mode & libc::S_IFMT == libc::S_IFIFO)
}

/// Our ends, not yet pumped.
#[derive(Debug)]
pub(crate) struct HostEnds {
    input: Option<(Stream, AsyncFd<OwnedFd>)>,
    outputs: Vec<(AsyncFd<OwnedFd>, Stream)>,
    terminal: Option<Arc<OwnedFd>>,
    method: Method,
}

/// Streams that are being pumped.
#[derive(Debug)]
pub(crate) struct Flow {
    input: Option<JoinHandle<()>>,
    outputs: Vec<JoinHandle<()>>,
    ending: watch::Sender<bool>,
    /// For resizing.
    pub(crate) terminal: Option<Arc<OwnedFd>>,
}

/// Connects the streams of a process without a terminal and makes its pipes.
pub(crate) async fn open_pipes(
    dialer: &dyn Dial,
    ports: Ports,
    null: &str,
    method: Method,
) -> Result<(ProcessEnds, HostEnds), StreamError> {
    let (stdin, stdout, stderr) = tokio::try_join!(
        connect(dialer, "stdin", ports.stdin),
        connect(dialer, "stdout", ports.stdout),
        connect(dialer, "stderr", ports.stderr),
    )?;
    let mut host = HostEnds {
        input: None,
        outputs: Vec::new(),
        terminal: None,
        method,
    };
    let stdin = match stdin {
        None => open_null(null)?,
        Some(stream) => {
            let (theirs, ours) = make_pipe("stdin")?;
            let interest = Interest::WRITABLE | Interest::ERROR;
            host.input = Some((stream, poller("stdin", ours, interest, method)?));
            theirs
        }
    };
    let mut output = |name, stream: Option<Stream>| match stream {
        None => open_null(null),
        Some(stream) => {
            let (ours, theirs) = make_pipe(name)?;
            host.outputs
                .push((poller(name, ours, Interest::READABLE, method)?, stream));
            Ok(theirs)
        }
    };
    let stdout = output("stdout", stdout)?;
    let stderr = output("stderr", stderr)?;
    Ok((ProcessEnds::Files([stdin, stdout, stderr]), host))
}

/// Connects the streams of a process with a terminal; stderr is the terminal too.
pub(crate) async fn open_terminal(
    dialer: &dyn Dial,
    ports: Ports,
    ptmx: &str,
    rows: u32,
    columns: u32,
) -> Result<(ProcessEnds, HostEnds), StreamError> {
    let (stdin, stdout) = tokio::try_join!(
        connect(dialer, "stdin", ports.stdin),
        connect(dialer, "stdout", ports.stdout),
    )?;
    let pair = terminal::open_pair(ptmx, rows, columns)?;
    let broken = |source| StreamError::Pipe {
        name: "terminal",
        source,
    };
    let master = Arc::new(pair.master);
    let mut host = HostEnds {
        input: None,
        outputs: Vec::new(),
        terminal: Some(Arc::clone(&master)),
        method: Method::Copy,
    };
    if let Some(stream) = stdin {
        let ours = master.try_clone().map_err(broken)?;
        host.input = Some((
            stream,
            poller("terminal", ours, Interest::WRITABLE, Method::Copy)?,
        ));
    }
    if let Some(stream) = stdout {
        let ours = master.try_clone().map_err(broken)?;
        host.outputs.push((
            poller("terminal", ours, Interest::READABLE, Method::Copy)?,
            stream,
        ));
    }
    Ok((
        ProcessEnds::Terminal {
            slave: pair.slave,
            path: pair.path,
        },
        host,
    ))
}

async fn connect(
    dialer: &dyn Dial,
    name: &'static str,
    port: u32,
) -> Result<Option<Stream>, StreamError> {
    if port == 0 {
        return Ok(None);
    }
    match dialer.dial(port).await {
        Ok(stream) => Ok(Some(stream)),
        Err(source) => Err(StreamError::Connect { name, port, source }),
    }
}

fn make_pipe(name: &'static str) -> Result<(OwnedFd, OwnedFd), StreamError> {
    pipe2(OFlag::O_CLOEXEC).map_err(|errno| StreamError::Pipe {
        name,
        source: errno.into(),
    })
}

fn poller(
    name: &'static str,
    fd: OwnedFd,
    interest: Interest,
    method: Method,
) -> Result<AsyncFd<OwnedFd>, StreamError> {
    // Only our end is made non-blocking: the process's is an open file of its own. Splice has a flag
    // for it, which saves the call.
    if method == Method::Copy {
        nix::fcntl::fcntl(&fd, nix::fcntl::FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).map_err(
            |errno| StreamError::Pipe {
                name,
                source: errno.into(),
            },
        )?;
    }
    syscalls::watch(fd, interest).map_err(|source| StreamError::Pipe { name, source })
}

fn open_null(path: &str) -> Result<OwnedFd, StreamError> {
    open(path, OFlag::O_RDWR | OFlag::O_CLOEXEC, Mode::empty())
        .map_err(|errno| StreamError::Null(errno.into()))
}

impl HostEnds {
    /// Starts moving bytes.
    pub(crate) fn flow(self) -> Flow {
        let method = self.method;
        let (ending, waits) = watch::channel(false);
        let keep_open = self.terminal.is_some();
        let input = self.input.map(|(stream, sink)| {
            tokio::spawn(async move {
                pump::deliver(&stream, &sink, method).await.ok();
                if keep_open {
                    // The end of the host's input is not the end of a terminal.
                    std::future::pending::<()>().await;
                }
            })
        });
        let outputs = self
            .outputs
            .into_iter()
            .map(|(source, stream)| {
                let waits = waits.clone();
                tokio::spawn(async move {
                    pump::send(source, stream, method, waits).await.ok();
                })
            })
            .collect();
        Flow {
            input,
            outputs,
            ending,
            terminal: self.terminal,
        }
    }
}

impl Flow {
    /// To be called when the process has ended: drops further input and returns when the output has
    /// been sent to its end. With `patience`, processes that inherited the streams are waited for no
    /// longer than that; what they wrote until then is still sent.
    pub(crate) async fn drain(mut self, patience: Option<std::time::Duration>) {
        if let Some(input) = self.input.take() {
            input.abort();
        }
        if let Some(patience) = patience {
            let all = async {
                for output in &mut self.outputs {
                    output.await.ok();
                }
            };
            if tokio::time::timeout(patience, all).await.is_ok() {
                return;
            }
            self.ending.send_replace(true);
            self.outputs.retain(|output| !output.is_finished());
        }
        for output in self.outputs {
            output.await.ok();
        }
    }
}

impl AsFd for ProcessEnds {
    /// The process's standard input.
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.standard(0)
    }
}

impl ProcessEnds {
    /// The descriptor that becomes number 0, 1 or 2.
    pub(crate) fn standard(&self, number: usize) -> std::os::fd::BorrowedFd<'_> {
        match self {
            Self::Terminal { slave, .. } => slave.as_fd(),
            Self::Files([stdin, stdout, stderr]) => match number {
                0 => stdin.as_fd(),
                1 => stdout.as_fd(),
                _ => stderr.as_fd(),
            },
        }
    }
}
