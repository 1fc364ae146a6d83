//! The control socket from outside: what `exec`, `attach`, `kill`, `stop` and `wait` talk to.
//! Blocking, so that a command line needs no runtime; one connection per operation.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bulkhead_types::{ExitStatus, ProcessSpec, Signal, TerminalSize};
use jiff::Timestamp;

use crate::failure::StartFailure;
use crate::frame::{self, FrameError};
use crate::lock::LockWatch;
use crate::message::{
    AttachOptions, Call, ControlError, Exit, Further, Pong, Reply, Request, Stdio, VERSION,
};
use crate::state::{State, StateError, read_state};
use crate::timings::Timings;

/// Name of the control socket in a container's directory.
pub const CONTROL_SOCKET: &str = "ctl.sock";
/// After a run's end is known its processes need a moment to go; longer than this is a fault.
const GONE_WITHIN: Duration = Duration::from_secs(10);

/// A request to a sandbox failed.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// No sandbox runs this container.
    #[error("container is not running")]
    NotRunning,
    /// The container's directory cannot be opened.
    #[error("open container directory '{path}'", path = .path.display())]
    Directory {
        /// The directory.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Connecting failed for another reason than that nobody listens.
    #[error("connect to sandbox")]
    Connect(#[source] io::Error),
    /// The connection failed or carried nonsense.
    #[error("talk to sandbox")]
    Frame(#[from] FrameError),
    /// The sandbox refused.
    #[error(transparent)]
    Control(#[from] ControlError),
    /// The process was not started.
    #[error(transparent)]
    Start(#[from] StartFailure),
    /// The sandbox gave an answer that does not belong to the question.
    #[error("unexpected answer from sandbox: {0}")]
    Unexpected(&'static str),
    /// The recorded state cannot be read.
    #[error("find out how the container ended")]
    State(#[from] StateError),
    /// The lock cannot be asked.
    #[error("watch the container's lock")]
    Lock(#[source] io::Error),
    /// The container ended but its processes did not go.
    #[error("processes of the container are still there {} seconds after its end", GONE_WITHIN.as_secs())]
    Lingering,
}

/// A handle on one container's sandbox, running or not. Cheap; connects per call.
#[derive(Debug)]
pub struct Client {
    path: PathBuf,
    dir: File,
}

impl Client {
    /// The sandbox of the container in `dir`. Does not connect yet.
    ///
    /// # Errors
    /// When the directory cannot be opened.
    pub fn open(dir: &Path) -> Result<Self, ClientError> {
        let file = File::open(dir).map_err(|source| ClientError::Directory {
            path: dir.to_owned(),
            source,
        })?;
        Ok(Self {
            path: dir.to_owned(),
            dir: file,
        })
    }

    /// The container's directory.
    pub fn dir(&self) -> &Path {
        &self.path
    }

    /// Asks whether the sandbox is alive.
    ///
    /// # Errors
    /// [`ClientError::NotRunning`] when it is not.
    pub fn ping(&self) -> Result<Pong, ClientError> {
        match self.call(Request::Ping)? {
            Reply::Pong(pong) => Ok(pong),
            _ => Err(ClientError::Unexpected("to ping")),
        }
    }

    /// Whether the sandbox answers within `limit`. One that is being killed does not, though its locks are still held and
    /// its socket still takes connections.
    pub fn answers(&self, limit: Duration) -> bool {
        let ask = || -> Result<(), ClientError> {
            let socket = self.connect()?;
            socket
                .set_read_timeout(Some(limit))
                .map_err(ClientError::Connect)?;
            let call = Call {
                version: VERSION,
                request: Request::Ping,
            };
            frame::send(&socket, &call, &[])?;
            // Whatever it says: one of another version refuses, and lives.
            frame::receive::<Reply>(&socket)?;
            Ok(())
        };
        ask().is_ok()
    }

    /// Sends a signal to the main process.
    ///
    /// # Errors
    /// When the container does not run or the agent refuses.
    pub fn signal(&self, signal: Signal) -> Result<(), ClientError> {
        self.done(Request::Signal(signal))
    }

    /// Sets the size of the main process's terminal.
    ///
    /// # Errors
    /// When the container does not run or has no terminal.
    pub fn resize(&self, size: TerminalSize) -> Result<(), ClientError> {
        self.done(Request::Resize(size))
    }

    /// Connects descriptors to the main process's streams, from now on.
    ///
    /// # Errors
    /// When the container does not run.
    pub fn attach(&self, stdio: Stdio, options: AttachOptions) -> Result<Attachment, ClientError> {
        let socket = self.connect()?;
        let attachment = Attachment::request(socket, stdio, options)?;
        match frame::receive(&attachment.socket)?.0 {
            Reply::Attached => Ok(attachment),
            other => Err(refusal(other, "to attach")),
        }
    }

    /// Starts a further process in the container. Returns once it has been executed.
    ///
    /// # Errors
    /// [`ClientError::Start`] says why it was not executed.
    pub fn exec(
        &self,
        process: &ProcessSpec,
        stdio: Stdio,
        options: AttachOptions,
    ) -> Result<Exec, ClientError> {
        let socket = self.connect()?;
        let streams = stdio.streams();
        let request = Request::Exec {
            process: Box::new(process.clone()),
            streams,
            detach_keys: options.detach_keys,
        };
        widen_pipes(&stdio);
        let fds: Vec<BorrowedFd<'_>> = stdio.descriptors().map(AsFd::as_fd).collect();
        frame::send(
            &socket,
            &Call {
                version: VERSION,
                request,
            },
            &fds,
        )?;
        match frame::receive(&socket)?.0 {
            Reply::ExecStarted { guest_pid } => Ok(Exec { socket, guest_pid }),
            other => Err(refusal(other, "to exec")),
        }
    }

    /// Waits until the container has ended and all its processes are gone. When nothing runs, returns
    /// how the last run ended.
    ///
    /// # Errors
    /// When there was no run, or how it ended cannot be found out.
    pub fn wait(&self) -> Result<Exit, ClientError> {
        self.until_end(Request::Wait)
    }

    /// Sends `signal`, and `SIGKILL` after `timeout` (never, if `None`); then as [`Client::wait`].
    ///
    /// # Errors
    /// As [`Client::wait`].
    pub fn stop(&self, signal: Signal, timeout: Option<Duration>) -> Result<Exit, ClientError> {
        let timeout_ms = timeout.map(|t| u64::try_from(t.as_millis()).unwrap_or(u64::MAX));
        self.until_end(Request::Stop { signal, timeout_ms })
    }

    /// The recorded state, as [`read_state`].
    ///
    /// # Errors
    /// As [`read_state`].
    pub fn state(&self) -> Result<State, StateError> {
        read_state(&self.path)
    }

    fn until_end(&self, request: Request) -> Result<Exit, ClientError> {
        let watch = match LockWatch::open(&self.in_dir(".")) {
            Ok(watch) => watch,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Err(ClientError::NotRunning),
            Err(e) => return Err(ClientError::Lock(e)),
        };
        let answered = match self.call(request) {
            Ok(Reply::Ended(exit)) => Some(exit),
            Ok(_) => return Err(ClientError::Unexpected("to wait")),
            Err(ClientError::NotRunning | ClientError::Frame(_)) => None,
            Err(e) => return Err(e),
        };
        if !watch
            .wait_free(Some(GONE_WITHIN))
            .map_err(ClientError::Lock)?
        {
            return answered.ok_or(ClientError::Lingering);
        }
        if let Some(exit) = answered {
            return Ok(exit);
        }
        last_words(&watch, &self.path)
    }

    fn call(&self, request: Request) -> Result<Reply, ClientError> {
        let socket = self.connect()?;
        frame::send(
            &socket,
            &Call {
                version: VERSION,
                request,
            },
            &[],
        )?;
        match frame::receive(&socket)?.0 {
            Reply::Error(e) => Err(e.into()),
            other => Ok(other),
        }
    }

    fn done(&self, request: Request) -> Result<(), ClientError> {
        match self.call(request)? {
            Reply::Done => Ok(()),
            other => Err(refusal(other, "to a signal or resize")),
        }
    }

    fn connect(&self) -> Result<UnixStream, ClientError> {
        UnixStream::connect(self.in_dir(CONTROL_SOCKET)).map_err(|e| match e.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => ClientError::NotRunning,
            _ => ClientError::Connect(e),
        })
    }

    /// A path of bounded length: a unix socket's address has 108 bytes, a container's directory may have more.
    fn in_dir(&self, name: &str) -> PathBuf {
        PathBuf::from(format!("/proc/self/fd/{}/{name}", self.dir.as_raw_fd()))
    }
}

/// How the run that `watch` saw end has ended: by its own last words, else by its state file, else it was killed.
pub(crate) fn last_words(watch: &LockWatch, dir: &Path) -> Result<Exit, ClientError> {
    let words = watch.last_words().map_err(ClientError::Lock)?;
    if let Ok(exit) = serde_json::from_slice::<Exit>(&words) {
        return Ok(exit);
    }
    let killed = || Exit {
        status: ExitStatus::signaled(9),
        error: Some("sandbox died unexpectedly".to_owned()),
        at: Timestamp::now(),
        timings: Timings::default(),
    };
    match read_state(dir) {
        Ok(state) => match state.exit {
            Some(status) => Ok(Exit {
                status,
                error: state.error,
                at: state.finished_at.unwrap_or_else(Timestamp::now),
                timings: state.timings,
            }),
            None => Err(ClientError::NotRunning),
        },
        Err(StateError::Missing(_)) => Ok(killed()),
        Err(e) => Err(e.into()),
    }
}

/// Descriptors connected to the main process. Dropping it detaches; the container goes on.
#[derive(Debug)]
pub struct Attachment {
    socket: UnixStream,
}

/// Why an attachment or the wait for an exec ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AttachEnd {
    /// The container ended; everything it wrote was delivered before.
    Exited(Exit),
    /// The detach keys were typed, [`Attachment::detach`] was called, or an output descriptor takes no
    /// more (its reader vanished). The container goes on.
    Detached,
    /// The sandbox vanished; [`Client::wait`] tells how.
    Lost,
}

impl Attachment {
    /// Sends the attach request on `socket`; the answer is still to come.
    pub(crate) fn request(
        socket: UnixStream,
        stdio: Stdio,
        options: AttachOptions,
    ) -> Result<Self, ClientError> {
        let streams = stdio.streams();
        widen_pipes(&stdio);
        let fds: Vec<BorrowedFd<'_>> = stdio.descriptors().map(AsFd::as_fd).collect();
        let request = Request::Attach {
            streams,
            detach_keys: options.detach_keys,
        };
        frame::send(
            &socket,
            &Call {
                version: VERSION,
                request,
            },
            &fds,
        )?;
        Ok(Self { socket })
    }

    pub(crate) fn socket(&self) -> &UnixStream {
        &self.socket
    }

    /// Blocks until the attachment ends.
    ///
    /// # Errors
    /// When the sandbox talks nonsense.
    pub fn wait(&self) -> Result<AttachEnd, ClientError> {
        loop {
            match frame::receive(&self.socket) {
                Ok((Reply::Ended(exit), _)) => return Ok(AttachEnd::Exited(exit)),
                Ok((Reply::Detached, _)) => return Ok(AttachEnd::Detached),
                Ok((Reply::Attached, _)) => {}
                Ok((other, _)) => return Err(refusal(other, "to attach")),
                Err(FrameError::Closed | FrameError::Io(_)) => return Ok(AttachEnd::Lost),
                Err(e) => return Err(e.into()),
            }
        }
    }

    /// Disconnects the descriptors; [`Attachment::wait`] returns `Detached` when no byte moves any more.
    ///
    /// # Errors
    /// When the sandbox is gone.
    pub fn detach(&self) -> Result<(), ClientError> {
        Ok(frame::send(&self.socket, &Further::Detach, &[])?)
    }
}

/// A further process in a container. Dropping it leaves the process running without streams.
#[derive(Debug)]
pub struct Exec {
    socket: UnixStream,
    guest_pid: u32,
}

/// How the wait for an exec ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ExecEnd {
    /// The process ended; everything it wrote was delivered before.
    Exited(ExitStatus),
    /// The detach keys were typed, or an output descriptor takes no more. The process goes on.
    Detached,
}

impl Exec {
    /// The process's PID as the container sees it.
    pub fn guest_pid(&self) -> u32 {
        self.guest_pid
    }

    /// Blocks until the process has ended and its output was delivered. When the container dies
    /// first the process counts as killed (137).
    ///
    /// # Errors
    /// When the sandbox talks nonsense.
    pub fn wait(&self) -> Result<ExecEnd, ClientError> {
        match frame::receive(&self.socket) {
            Ok((Reply::ExecEnded(status), _)) => Ok(ExecEnd::Exited(status)),
            Ok((Reply::Detached, _)) => Ok(ExecEnd::Detached),
            Ok((other, _)) => Err(refusal(other, "to exec")),
            Err(FrameError::Closed | FrameError::Io(_)) => {
                Ok(ExecEnd::Exited(ExitStatus::signaled(9)))
            }
            Err(e) => Err(e.into()),
        }
    }

    /// Sends a signal to the process; that it has ended already is no error.
    ///
    /// # Errors
    /// When the sandbox is gone.
    pub fn signal(&self, signal: Signal) -> Result<(), ClientError> {
        Ok(frame::send(&self.socket, &Further::Signal(signal), &[])?)
    }

    /// Sets the size of the process's terminal.
    ///
    /// # Errors
    /// When the sandbox is gone.
    pub fn resize(&self, size: TerminalSize) -> Result<(), ClientError> {
        Ok(frame::send(&self.socket, &Further::Resize(size), &[])?)
    }
}

fn refusal(reply: Reply, question: &'static str) -> ClientError {
    match reply {
        Reply::Error(e) => e.into(),
        Reply::Failed(e) => e.into(),
        _ => ClientError::Unexpected(question),
    }
}

/// A wider pipe halves the switches between the sandbox and whoever reads. Not being allowed to is fine.
fn widen_pipes(stdio: &Stdio) {
    const WIDE: i32 = 1 << 20;
    for fd in [&stdio.stdout, &stdio.stderr].into_iter().flatten() {
        let _ = nix::fcntl::fcntl(fd, nix::fcntl::FcntlArg::F_SETPIPE_SZ(WIDE));
    }
}
