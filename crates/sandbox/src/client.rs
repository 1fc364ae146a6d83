//! The control socket from outside: what `exec`, `attach`, `kill`, `stop` and `wait` talk to.
//! Blocking, so that a command line needs no runtime; one connection per operation.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, UnixAddr, connect, setsockopt, socket, sockopt,
};
use nix::sys::time::{TimeVal, TimeValLike};

use bulkhead_types::{ExitStatus, ProcessSpec, Signal, TerminalSize};
use jiff::Timestamp;

use crate::failure::StartFailure;
use crate::frame::{self, FrameError, readable};
use crate::lock::{LockWatch, RunLock};
use crate::message::{
    AttachOptions, Call, ControlError, Exit, Further, Pong, Reply, Request, Stdio,
};
use crate::state::{State, StateError, Status, read_state};
use crate::timings::Timings;

/// Name of the control socket in a container's directory.
pub const CONTROL_SOCKET: &str = "ctl.sock";
/// After a run's end is known its processes need a moment to go; longer than this is a fault.
const GONE_WITHIN: Duration = Duration::from_secs(10);
/// A sandbox that works answers at once, also when its guest does not: it gives the agent five seconds.
const ANSWER_WITHIN: Duration = Duration::from_secs(15);
/// A process in the guest is started within thirty seconds, or the sandbox says that it was not.
const EXEC_WITHIN: Duration = Duration::from_secs(45);
/// Who waits for a long answer asks so often whether the sandbox is still there.
const PULSE: Duration = Duration::from_secs(10);
/// Most that is said on an attachment before its end: that it is attached, that its output is gone, that it was cut. More is noise, and not
/// listened to.
const BEFORE_END: usize = 3;
/// So long a sandbox may be there without listening: it prepares its jail, or takes its last steps.
const ABSENT_WITHIN: Duration = Duration::from_secs(30);
/// How often a sandbox that is just about to listen, or to go, is looked for.
const LOOK: Duration = Duration::from_millis(10);

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
    /// The sandbox is there and says nothing: it is suspended, or broken.
    #[error("sandbox did not answer within {} seconds", .0.as_secs())]
    Silent(Duration),
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
            let call = Call::new(Request::Ping);
            frame::send(&socket, &call, &[])?;
            // Whatever it says: one of another version refuses, and lives.
            receive_within(&socket, limit).map(drop)
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
        match receive_within(&attachment.socket, ANSWER_WITHIN)? {
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
        frame::send(&socket, &Call::new(request), &fds)?;
        match receive_within(&socket, EXEC_WITHIN)? {
            Reply::ExecStarted { guest_pid } => Ok(Exec {
                socket,
                guest_pid,
                cut: AtomicBool::new(false),
            }),
            other => Err(refusal(other, "to exec")),
        }
    }

    /// Waits until the container has ended and all its processes are gone. When nothing runs, returns
    /// how the last run ended.
    ///
    /// # Errors
    /// When there was no run, or how it ended cannot be found out.
    pub fn wait(&self) -> Result<Exit, ClientError> {
        self.until_end(&self.watch()?, || Request::Wait, |_| Ok(()))
    }

    /// Sends `signal`, and `SIGKILL` after `timeout` (never, if `None`); then as [`Client::wait`]. A start that is under
    /// way is given up. `SIGKILL` does not depend on anybody's answer: a guest that does not die is ended by its
    /// sandbox, and a sandbox that does not answer is killed.
    ///
    /// # Errors
    /// As [`Client::wait`].
    pub fn stop(&self, signal: Signal, timeout: Option<Duration>) -> Result<Exit, ClientError> {
        self.stop_with(signal, timeout, false)
    }

    /// As [`Client::stop`], for a container that is to be started again: its disks are left clean even with `--rm`.
    ///
    /// # Errors
    /// As [`Client::wait`].
    pub fn stop_to_restart(
        &self,
        signal: Signal,
        timeout: Option<Duration>,
    ) -> Result<Exit, ClientError> {
        self.stop_with(signal, timeout, true)
    }

    fn stop_with(
        &self,
        signal: Signal,
        timeout: Option<Duration>,
        keep_disks: bool,
    ) -> Result<Exit, ClientError> {
        let watch = self.watch()?;
        let timeout_ms = timeout.map(|t| u64::try_from(t.as_millis()).unwrap_or(u64::MAX));
        let request = || Request::Stop {
            signal,
            timeout_ms,
            keep_disks,
        };
        // Between two looks: the answer may be long in coming, but the sandbox has to be there.
        let ended = self.until_end(&watch, request, |client| client.ping().map(drop));
        match ended {
            Ok(exit) => self.recorded(&watch, exit),
            Err(ClientError::NotRunning) => Err(ClientError::NotRunning),
            Err(error) => {
                // What talks nonsense does not react either.
                let silent = matches!(
                    error,
                    ClientError::Silent(_)
                        | ClientError::Lingering
                        | ClientError::Frame(_)
                        | ClientError::Unexpected(_)
                );
                // A kill is a kill whatever the sandbox says, for example that it speaks another version.
                if signal == Signal::KILL || silent && timeout.is_some() {
                    self.kill_sandbox(&watch).map_err(|_| error)
                } else {
                    Err(error)
                }
            }
        }
    }

    /// Makes sure that an end which the sandbox told is on record. A monitor that is suspended records nothing: it is killed,
    /// and its last words are left in its stead.
    fn recorded(&self, watch: &LockWatch, exit: Exit) -> Result<Exit, ClientError> {
        if !watch.held().map_err(ClientError::Lock)? {
            return Ok(exit);
        }
        let state = match self.state() {
            // Removed (`--rm`), or written down: who is still there takes its last steps.
            Err(StateError::Missing(_)) => return Ok(exit),
            Ok(state) if state.status == Status::Exited => return Ok(exit),
            other => other?,
        };
        if !is_suspended(state.monitor_pid) {
            return Err(ClientError::Lingering);
        }
        // One that is gone meanwhile is what was wanted.
        let _ = nix::sys::signal::kill(
            nix::unistd::Pid::from_raw(state.monitor_pid),
            nix::sys::signal::Signal::SIGKILL,
        );
        let gone = watch.wait_free(Some(GONE_WITHIN));
        if !gone.map_err(ClientError::Lock)? {
            return Err(ClientError::Lingering);
        }
        // Where they cannot be left (somebody starts it again) the run counts as killed.
        if let (Ok(lock), Ok(words)) = (RunLock::take(&self.path), serde_json::to_vec(&exit)) {
            let _ = lock.leave(&words);
        }
        Ok(exit)
    }

    /// Waits until nobody holds the lock; not for a monitor that is suspended, which would not let go.
    fn wait_gone(&self, watch: &LockWatch) -> Result<bool, ClientError> {
        for _ in 0..GONE_WITHIN.as_secs() {
            let free = watch.wait_free(Some(Duration::from_secs(1)));
            if free.map_err(ClientError::Lock)? {
                return Ok(true);
            }
            if self
                .state()
                .is_ok_and(|state| is_suspended(state.monitor_pid))
            {
                return Ok(false);
            }
        }
        Ok(false)
    }

    /// Kills the processes that the state file names, the jailed half first: then the monitor can still record the end.
    fn kill_sandbox(&self, watch: &LockWatch) -> Result<Exit, ClientError> {
        let state = self.state()?;
        for pid in [state.pid, state.monitor_pid] {
            if pid > 1 && is_ours(pid) && watch.held().map_err(ClientError::Lock)? {
                let pid = nix::unistd::Pid::from_raw(pid);
                // One that is gone meanwhile is what was wanted.
                let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL);
                if self.wait_gone(watch)? {
                    return last_words(watch, &self.path);
                }
            }
        }
        Err(ClientError::Lingering)
    }

    /// The recorded state, as [`read_state`].
    ///
    /// # Errors
    /// As [`read_state`].
    pub fn state(&self) -> Result<State, StateError> {
        read_state(&self.path)
    }

    fn watch(&self) -> Result<LockWatch, ClientError> {
        LockWatch::open(&self.in_dir(".")).map_err(|e| match e.kind() {
            io::ErrorKind::NotFound => ClientError::NotRunning,
            _ => ClientError::Lock(e),
        })
    }

    /// Asks for something that is answered with the end, and calls `still_there` every [`PULSE`] until then.
    fn until_end(
        &self,
        watch: &LockWatch,
        request: impl Fn() -> Request,
        still_there: impl Fn(&Self) -> Result<(), ClientError>,
    ) -> Result<Exit, ClientError> {
        let mut absent = Duration::ZERO;
        let answered = loop {
            let asked = self.ask(request()).and_then(|socket| {
                while !readable(&socket, PULSE).map_err(FrameError::Io)? {
                    still_there(self)?;
                }
                receive_within(&socket, ANSWER_WITHIN)
            });
            match asked {
                Ok(Reply::Ended(exit)) => break Some(exit),
                Ok(Reply::Error(e)) => return Err(e.into()),
                Ok(_) => return Err(ClientError::Unexpected("to wait")),
                Err(ClientError::Frame(FrameError::Closed | FrameError::Io(_))) => break None,
                // A run that has just begun does not listen yet, one that ends does not listen any more.
                Err(ClientError::NotRunning) => {
                    if watch.wait_free(Some(LOOK)).map_err(ClientError::Lock)? {
                        break None;
                    }
                    absent += LOOK;
                    if absent > ABSENT_WITHIN {
                        return Err(ClientError::Lingering);
                    }
                }
                Err(e) => return Err(e),
            }
        };
        if !self.wait_gone(watch)? {
            return answered.ok_or(ClientError::Lingering);
        }
        if let Some(exit) = answered {
            return Ok(exit);
        }
        last_words(watch, &self.path)
    }

    /// Sends a request; the answer is still to come.
    fn ask(&self, request: Request) -> Result<UnixStream, ClientError> {
        let socket = self.connect()?;
        let call = Call::new(request);
        frame::send(&socket, &call, &[]).map_err(silence(ANSWER_WITHIN))?;
        Ok(socket)
    }

    fn call(&self, request: Request) -> Result<Reply, ClientError> {
        let socket = self.ask(request)?;
        match receive_within(&socket, ANSWER_WITHIN)? {
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

    /// Connects, with a deadline for that and for whatever is sent: a sandbox that does not accept lets its queue of
    /// connections fill.
    fn connect(&self) -> Result<UnixStream, ClientError> {
        let connected = || -> nix::Result<UnixStream> {
            let socket = socket(
                AddressFamily::Unix,
                SockType::Stream,
                SockFlag::SOCK_CLOEXEC,
                None,
            )?;
            let within = i64::try_from(ANSWER_WITHIN.as_secs()).unwrap_or(i64::MAX);
            setsockopt(&socket, sockopt::SendTimeout, &TimeVal::seconds(within))?;
            let address = UnixAddr::new(&self.in_dir(CONTROL_SOCKET))?;
            connect(socket.as_raw_fd(), &address)?;
            Ok(socket.into())
        };
        connected().map_err(|e| match e {
            Errno::ENOENT | Errno::ECONNREFUSED => ClientError::NotRunning,
            Errno::EAGAIN => ClientError::Silent(ANSWER_WITHIN),
            e => ClientError::Connect(e.into()),
        })
    }

    /// A path of bounded length: a unix socket's address has 108 bytes, a container's directory may have more.
    fn in_dir(&self, name: &str) -> PathBuf {
        PathBuf::from(format!("/proc/self/fd/{}/{name}", self.dir.as_raw_fd()))
    }
}

/// A frame whose beginning comes within a time, and its rest within as much again.
fn receive_within(socket: &UnixStream, within: Duration) -> Result<Reply, ClientError> {
    if !readable(socket, within).map_err(FrameError::Io)? {
        return Err(ClientError::Silent(within));
    }
    let received = frame::receive_within(socket, within);
    Ok(received.map_err(silence(within))?.0)
}

fn silence(within: Duration) -> impl Fn(FrameError) -> ClientError {
    move |error| match error {
        FrameError::Io(e) if e.kind() == io::ErrorKind::WouldBlock => ClientError::Silent(within),
        FrameError::Unfinished(_) => ClientError::Silent(within),
        other => other.into(),
    }
}

/// Whether a process is one of Bulkhead's: a number out of a file may be somebody else's by now.
fn is_ours(pid: i32) -> bool {
    std::fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|line| line.starts_with(b"bulkhead"))
}

/// Whether a process of ours stands still, stopped by a signal or a debugger.
fn is_suspended(pid: i32) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let state = status.lines().find_map(|line| line.strip_prefix("State:"));
    let stopped = state.is_some_and(|state| state.trim_start().starts_with(['T', 't']));
    stopped && is_ours(pid)
}

/// How the run that `watch` saw end has ended: by its own last words, else by its state file, else it was killed.
pub(crate) fn last_words(watch: &LockWatch, dir: &Path) -> Result<Exit, ClientError> {
    let words = watch.last_words().map_err(ClientError::Lock)?;
    if let Ok(exit) = serde_json::from_slice::<Exit>(&words) {
        return Ok(exit);
    }
    let killed = || Exit {
        status: ExitStatus::signaled(9),
        error: Some("sandbox died unexpectedly".into()),
        at: Timestamp::now(),
        timings: Timings::default(),
        warnings: Vec::new(),
        unrecorded: None,
    };
    match read_state(dir) {
        Ok(state) => match state.exit {
            Some(status) => Ok(Exit {
                status,
                error: state.error,
                at: state.finished_at.unwrap_or_else(Timestamp::now),
                timings: state.timings,
                warnings: state.warnings,
                unrecorded: state.unrecorded,
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
    cut: AtomicBool,
}

/// Why an attachment or the wait for an exec ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AttachEnd {
    /// The container ended; everything it wrote was delivered before.
    Exited(Exit),
    /// The detach keys were typed, or [`Attachment::detach`] was called. The container goes on.
    Detached,
    /// An output descriptor takes no more: its reader vanished (`EPIPE`), or what write(2) said. The container goes on.
    OutputGone(Errno),
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
        frame::send(&socket, &Call::new(request), &fds)?;
        Ok(Self {
            socket,
            cut: AtomicBool::new(false),
        })
    }

    /// Whether the end of the output was not delivered, because nobody had read for too long when the container had
    /// ended. Known when the end is.
    pub fn was_cut(&self) -> bool {
        self.cut.load(Ordering::SeqCst)
    }

    /// Takes what was said before the end, which was heard from elsewhere: why the output was lost, if it was.
    pub(crate) fn hear_out(&self) -> Option<Errno> {
        let mut gone = None;
        for _ in 0..BEFORE_END {
            if !readable(&self.socket, Duration::ZERO).unwrap_or(false) {
                break;
            }
            match frame::receive_within(&self.socket, PULSE) {
                Ok((Reply::Cut, _)) => self.cut.store(true, Ordering::SeqCst),
                Ok((Reply::OutputGone { errno }, _)) => gone = Some(Errno::from_raw(errno)),
                Ok((Reply::Attached, _)) => {}
                _ => break,
            }
        }
        gone
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
                Ok((Reply::OutputGone { errno }, _)) => {
                    return Ok(AttachEnd::OutputGone(Errno::from_raw(errno)));
                }
                Ok((Reply::Attached, _)) => {}
                Ok((Reply::Cut, _)) => self.cut.store(true, Ordering::SeqCst),
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
    cut: AtomicBool,
}

/// How the wait for an exec ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ExecEnd {
    /// The process ended; everything it wrote was delivered before.
    Exited(ExitStatus),
    /// The detach keys were typed. The process goes on.
    Detached,
    /// As [`AttachEnd::OutputGone`]. The process goes on.
    OutputGone(Errno),
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
        let mut received = frame::receive(&self.socket);
        if let Ok((Reply::Cut, _)) = received {
            self.cut.store(true, Ordering::SeqCst);
            received = frame::receive(&self.socket);
        }
        match received {
            Ok((Reply::ExecEnded(status), _)) => Ok(ExecEnd::Exited(status)),
            Ok((Reply::Detached, _)) => Ok(ExecEnd::Detached),
            Ok((Reply::OutputGone { errno }, _)) => Ok(ExecEnd::OutputGone(Errno::from_raw(errno))),
            Ok((other, _)) => Err(refusal(other, "to exec")),
            Err(FrameError::Closed | FrameError::Io(_)) => {
                Ok(ExecEnd::Exited(ExitStatus::signaled(9)))
            }
            Err(e) => Err(e.into()),
        }
    }

    /// As [`Attachment::was_cut`].
    pub fn was_cut(&self) -> bool {
        self.cut.load(Ordering::SeqCst)
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

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::os::unix::net::UnixListener;

    use super::*;

    /// It counted as a sandbox that had ended and did not go.
    #[test]
    fn what_talks_nonsense_is_named_for_it() {
        let dir = tempfile::tempdir().unwrap();
        let _lock = RunLock::take(dir.path()).unwrap();
        let listener = UnixListener::bind(dir.path().join(CONTROL_SOCKET)).unwrap();
        std::thread::spawn(move || {
            for socket in listener.incoming() {
                let mut socket = socket.unwrap();
                let _ = socket.read(&mut [0; 4096]);
                let _ = socket.write_all(&[0xff; 4]);
            }
        });
        let client = Client::open(dir.path()).unwrap();
        let refused = client.wait().unwrap_err();
        assert!(
            matches!(refused, ClientError::Frame(FrameError::TooLong { .. })),
            "{refused:?}"
        );
        assert!(!client.answers(Duration::from_secs(1)));
    }
}
