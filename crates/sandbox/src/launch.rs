//! Starting a compartment: the launcher's half of the start channel.

use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio as ProcessStdio};
use std::sync::Mutex;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::client::{AttachEnd, Attachment, Client, ClientError, last_words};
use crate::failure::StartFailure;
use crate::frame::{self, FrameError};
use crate::lock::LockWatch;
use crate::message::{AttachOptions, Exit, Launch, Report, Started, Stdio, VERSION};
use crate::spec::SandboxSpec;
use crate::timings::Timings;

/// How the monitor's command line begins, and all that tells it from other uses of the binary: a word of its own behind it
/// would be in every list of processes; the jailed half's has `SANDBOX_TITLE` (monitor/name.rs) in its place, of the same
/// length.
pub(crate) const MONITOR_TITLE: &str = "bulkhead: monitor ";

/// Whether the binary was started under this name to be a monitor, and has to call [`crate::main`].
pub fn is_monitor(program: &OsStr) -> bool {
    program
        .as_encoded_bytes()
        .starts_with(MONITOR_TITLE.as_bytes())
}

/// How a compartment is launched.
#[derive(Debug, Default)]
pub struct LaunchOptions {
    /// Connects these descriptors before the main process exists, so that no byte is missed.
    pub attach: Option<(Stdio, AttachOptions)>,
    /// What the processes are called in `ps`, for example the container's name.
    pub name: String,
    /// The program that calls [`crate::main`] where [`is_monitor`] says so; `None` is this very binary.
    pub program: Option<PathBuf>,
}

/// A compartment was not started, or the wait for it failed.
#[derive(Debug, thiserror::Error)]
pub enum LaunchError {
    /// The sandbox says why.
    #[error(transparent)]
    Failed(#[from] StartFailure),
    /// The sandbox's program cannot be executed.
    #[error("execute sandbox program '{program}'", program = .program.display())]
    Spawn {
        /// The program.
        program: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The start channel cannot be made.
    #[error("make the start channel")]
    Channel(#[source] io::Error),
    /// The start channel broke.
    #[error("talk to the new sandbox")]
    Frame(#[from] FrameError),
    /// The container's directory or lock cannot be used.
    #[error(transparent)]
    Client(#[from] ClientError),
}

impl LaunchError {
    /// The exit code of `docker run` in this case: 127, 126 or 125.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Failed(failure) => failure.exit_code(),
            _ => bulkhead_types::exit_code::ENGINE,
        }
    }
}

/// A compartment whose main process has been executed. It outlives this handle and the launcher.
#[derive(Debug)]
pub struct Launched {
    client: Client,
    started: Started,
    monitor: UnixStream,
    attachment: Option<Attachment>,
    watch: LockWatch,
    ended: Mutex<Option<Exit>>,
}

/// Starts the compartment that `spec` describes, for the container in `dir` (absolute). Returns when
/// the main process has been executed.
///
/// # Errors
/// [`LaunchError::Failed`] carries the typed reason and the exit code.
pub fn launch(
    spec: &SandboxSpec,
    dir: &Path,
    options: LaunchOptions,
) -> Result<Launched, LaunchError> {
    let launched_at = Timings::now();
    let client = Client::open(dir)?;
    let watch = LockWatch::prepare(dir).map_err(ClientError::Lock)?;
    let (monitor, theirs) = UnixStream::pair().map_err(LaunchError::Channel)?;
    let program = options
        .program
        .unwrap_or_else(|| PathBuf::from("/proc/self/exe"));
    let mut child = Command::new(&program)
        .arg0(format!("{MONITOR_TITLE}{}", options.name))
        .current_dir(dir)
        .env_clear()
        .envs(
            std::env::vars_os().filter(|(key, _)| key.as_encoded_bytes().starts_with(b"BULKHEAD_")),
        )
        .stdin(ProcessStdio::from(OwnedFd::from(theirs)))
        .stdout(ProcessStdio::null())
        .stderr(ProcessStdio::null())
        .spawn()
        .map_err(|source| LaunchError::Spawn { program, source })?;

    let mut attachment = None;
    let mut early = None;
    if let Some((stdio, options)) = options.attach {
        let (ours, theirs) = UnixStream::pair().map_err(LaunchError::Channel)?;
        attachment = Some(Attachment::request(ours, stdio, options)?);
        early = Some(theirs);
    }
    let message = Launch {
        version: VERSION,
        spec: Box::new(spec.clone()),
        launched_at,
        attached: early.is_some(),
        log_level: tracing::level_filters::LevelFilter::current().to_string(),
    };
    let fds: Vec<_> = early.iter().map(AsFd::as_fd).collect();
    let sent = frame::send(&monitor, &message, &fds);
    drop(early);
    // The spawned process forks the monitor and ends at once, so that no launcher has to reap it later.
    let forked = child.wait().map_err(LaunchError::Channel)?;
    sent?;
    let mut report = frame::receive::<Report>(&monitor);
    if let Ok((Report::Unrecorded(fault), _)) = report {
        tracing::warn!("{}", fault.of_record(dir));
        report = frame::receive(&monitor);
    }
    match report {
        Ok((Report::Started(started), _)) => Ok(Launched {
            client,
            started,
            monitor,
            attachment,
            watch,
            ended: Mutex::new(None),
        }),
        Ok((Report::Failed(failure), _)) => Err(failure.into()),
        Ok((Report::Ended(_) | Report::Unrecorded(_), _)) => {
            Err(ClientError::Unexpected("to launch").into())
        }
        Err(FrameError::Closed | FrameError::Io(_)) => {
            let reason = if forked.success() {
                "killed".into()
            } else {
                forked.to_string().into()
            };
            Err(StartFailure::Died { reason }.into())
        }
        Err(e) => Err(e.into()),
    }
}

impl Launched {
    /// The control socket's client.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// PID, kernel and time of the main process.
    pub fn started(&self) -> &Started {
        &self.started
    }

    /// The attachment that [`LaunchOptions::attach`] asked for.
    pub fn attachment(&self) -> Option<&Attachment> {
        self.attachment.as_ref()
    }

    /// Blocks until the container has ended, its output was delivered and all its processes are gone
    /// (with `auto_remove` its directory too), or until the early attachment was detached.
    ///
    /// # Errors
    /// When how it ended cannot be found out.
    pub fn wait(&self) -> Result<AttachEnd, LaunchError> {
        if let Some(exit) = self.ended.lock().ok().and_then(|ended| ended.clone()) {
            return Ok(AttachEnd::Exited(exit));
        }
        let mut attached = self.attachment.as_ref();
        loop {
            let mut fds = vec![PollFd::new(self.monitor.as_fd(), PollFlags::POLLIN)];
            fds.extend(attached.map(|a| PollFd::new(a.socket().as_fd(), PollFlags::POLLIN)));
            match poll(&mut fds, PollTimeout::NONE) {
                Ok(_) | Err(Errno::EINTR) => {}
                Err(e) => return Err(LaunchError::Channel(e.into())),
            }
            let ready = |index: usize| fds.get(index).and_then(PollFd::any).unwrap_or(false);
            if ready(0) {
                let exit = self.ended()?;
                return Ok(match attached.and_then(Attachment::hear_out) {
                    Some(errno) => AttachEnd::OutputGone(errno),
                    None => AttachEnd::Exited(exit),
                });
            }
            if ready(1)
                && let Some(attachment) = attached
            {
                match attachment.wait()? {
                    end @ (AttachEnd::Detached | AttachEnd::OutputGone(_)) => return Ok(end),
                    AttachEnd::Exited(_) | AttachEnd::Lost => attached = None,
                }
            }
        }
    }

    fn ended(&self) -> Result<Exit, LaunchError> {
        let exit = match frame::receive::<Report>(&self.monitor) {
            Ok((Report::Ended(exit), _)) => exit,
            Ok(_) => return Err(ClientError::Unexpected("to wait").into()),
            Err(FrameError::Closed | FrameError::Io(_)) => {
                self.watch.wait_free(None).map_err(ClientError::Lock)?;
                last_words(&self.watch, self.client.dir())?
            }
            Err(e) => return Err(e.into()),
        };
        if let Ok(mut ended) = self.ended.lock() {
            *ended = Some(exit.clone());
        }
        Ok(exit)
    }
}
