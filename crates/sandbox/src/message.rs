//! What is said on the start channel and on the control socket. Versioned, because a client may be
//! newer than a sandbox that has run since before an upgrade. What the jailed half tells the monitor is in
//! [`crate::event`].

use std::os::fd::OwnedFd;

use bulkhead_jail::JailReport;
use bulkhead_types::{ExitStatus, GuestText, ProcessSpec, Signal, TerminalSize};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::failure::StartFailure;
use crate::frame::Message;
use crate::spec::SandboxSpec;
use crate::timings::Timings;
use crate::warning::{DiskFault, Warning};

/// Longest order of a caller to a sandbox, in bytes: the arguments and environment of a process (2 MiB, execve(2)), escaped.
const MOST_ORDER: usize = 16 << 20;
/// Longest word of a sandbox to its caller, in bytes. The longest is an error of a guest, of 32 lines of 5 KiB at most
/// ([`GuestText`]), which escaped has twice that: 320 KiB. A sandbox that announces more was broken into, and its caller says
/// that it talks nonsense.
const MOST_ANSWER: usize = 1 << 20;
/// Longest word to a sandbox on the connection of an attachment, in bytes: a signal or a terminal's size is less than 100.
const MOST_FURTHER: usize = 1 << 10;

impl Message for Launch {
    const MOST: usize = MOST_ORDER;
}

impl Message for Call {
    const MOST: usize = MOST_ORDER;
}

impl Message for Further {
    const MOST: usize = MOST_FURTHER;
}

impl Message for Reply {
    const MOST: usize = MOST_ANSWER;
}

impl Message for Report {
    const MOST: usize = MOST_ANSWER;
}

/// Newest version of everything in this module that this program speaks.
pub(crate) const VERSION: u32 = 1;
/// Oldest version that it still speaks: a sandbox runs on through an upgrade of the program on disk.
pub(crate) const OLDEST: u32 = 1;

/// The newest version that both sides speak, of the ranges of a client and of a sandbox (oldest and newest).
pub(crate) fn agree(client: (u32, u32), sandbox: (u32, u32)) -> Option<u32> {
    let version = client.1.min(sandbox.1);
    (version >= client.0 && version >= sandbox.0).then_some(version)
}

/// Launcher → monitor, once. Carries the early attachment's socket as its only descriptor.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Launch {
    pub version: u32,
    pub spec: Box<SandboxSpec>,
    pub launched_at: u64,
    /// An attachment's socket comes with this frame; its first frame is already in it.
    pub attached: bool,
    /// How much the command itself logs, as a word: the sandbox logs as much, and warnings in any case.
    #[serde(default)]
    pub log_level: String,
}

/// Monitor → launcher: `Started` then `Ended`, or `Failed` alone, before which comes `Unrecorded` where the record does not
/// have the failure.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Report {
    Started(Started),
    Unrecorded(DiskFault),
    Failed(StartFailure),
    Ended(Exit),
}

/// The main process has been executed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Started {
    /// Its PID as the container sees it.
    pub guest_pid: u32,
    /// The guest's `uname -r`.
    pub kernel_release: GuestText,
    /// When it was executed.
    pub at: Timestamp,
    /// Marks up to `started`.
    pub timings: Timings,
    /// Which walls stand around this run. The monitor fills it in.
    #[serde(default)]
    pub jail: JailReport,
    /// Why the record does not say that it runs, if it does not: it could not be written. The monitor fills it in, and
    /// tries again.
    #[serde(default)]
    pub unrecorded: Option<DiskFault>,
}

/// How a run ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exit {
    /// Exit code; 137 when the sandbox or the guest died under the process.
    pub status: ExitStatus,
    /// What went wrong with the compartment itself, ready to be shown.
    pub error: Option<GuestText>,
    /// When it ended.
    pub at: Timestamp,
    /// Where the time went; marks after the sender's own are 0.
    pub timings: Timings,
    /// What went wrong around the run. The monitor fills it in; a client of the jailed half reads the record for it.
    #[serde(default)]
    pub warnings: Vec<Warning>,
    /// Why the record does not have this end, if it does not: it could not be written. The monitor fills it in.
    #[serde(default)]
    pub unrecorded: Option<DiskFault>,
}

/// Which of the three streams a client hands over, in this order, as descriptors with the frame.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Streams {
    pub stdin: bool,
    pub stdout: bool,
    pub stderr: bool,
}

/// Client → sandbox: first frame of a connection.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Call {
    /// The newest version that the client speaks.
    pub version: u32,
    /// The oldest; `version`, where it does not say.
    #[serde(default)]
    pub oldest: Option<u32>,
    pub request: Request,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Request {
    Ping,
    Wait,
    Signal(Signal),
    Resize(TerminalSize),
    Stop {
        signal: Signal,
        timeout_ms: Option<u64>,
        /// It will be started again: its disks are left clean although it has `--rm`.
        #[serde(default)]
        keep_disks: bool,
    },
    Attach {
        streams: Streams,
        detach_keys: Vec<u8>,
    },
    Exec {
        process: Box<ProcessSpec>,
        streams: Streams,
        detach_keys: Vec<u8>,
    },
}

/// Client → sandbox: later frames on the connection of an attachment or an exec. No answers.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Further {
    Signal(Signal),
    Resize(TerminalSize),
    Detach,
}

/// Sandbox → client.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Reply {
    Pong(Pong),
    Done,
    Attached,
    Detached,
    /// As `Detached`, because an output descriptor takes no more, for the reason that write(2) gave. Where the process has
    /// ended meanwhile its end follows.
    OutputGone {
        errno: i32,
    },
    /// The client took no output for too long after the process's end, and was not given the rest. The end follows.
    Cut,
    ExecStarted {
        guest_pid: u32,
    },
    ExecEnded(ExitStatus),
    Ended(Exit),
    Failed(StartFailure),
    Error(ControlError),
}

/// A live sandbox's word about itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pong {
    /// Version of the control protocol.
    pub version: u32,
    /// Whether the main process has been executed and has not ended.
    pub running: bool,
    /// Marks reached so far.
    pub timings: Timings,
}

/// The sandbox refuses or fails a request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum ControlError {
    /// The sandbox speaks another version of the control protocol.
    #[error("sandbox speaks control protocol version {theirs}, this client {ours}")]
    Version {
        /// The sandbox's version.
        theirs: u32,
        /// The client's version.
        ours: u32,
    },
    /// The main process has not been executed yet, or has ended.
    #[error("container is not running")]
    NotRunning,
    /// The request was made without the descriptors it announces.
    #[error("request came without its file descriptors")]
    Descriptors,
    /// The process has no terminal to resize.
    #[error("process has no terminal")]
    NoTerminal,
    /// The agent refused.
    #[error("agent: {message}")]
    Agent {
        /// The agent's words.
        message: GuestText,
    },
    /// The sandbox lacks a resource.
    #[error("sandbox: {message}")]
    Resource {
        /// Which, and why.
        message: GuestText,
    },
}

/// Descriptors that become a process's streams. The sandbox reads and writes these very descriptors
/// and never changes their flags; `None` is not connected.
#[derive(Debug, Default)]
pub struct Stdio {
    /// Read by the sandbox, sent to the process.
    pub stdin: Option<OwnedFd>,
    /// Written with the process's output.
    pub stdout: Option<OwnedFd>,
    /// Written with the process's error output; unused with a terminal.
    pub stderr: Option<OwnedFd>,
}

impl Call {
    /// A request in the versions of this program.
    pub(crate) fn new(request: Request) -> Self {
        Self {
            version: VERSION,
            oldest: Some(OLDEST),
            request,
        }
    }

    /// The version to answer in, if there is one.
    pub(crate) fn agreed(&self) -> Option<u32> {
        agree(
            (self.oldest.unwrap_or(self.version), self.version),
            (OLDEST, VERSION),
        )
    }
}

impl Stdio {
    pub(crate) fn streams(&self) -> Streams {
        Streams {
            stdin: self.stdin.is_some(),
            stdout: self.stdout.is_some(),
            stderr: self.stderr.is_some(),
        }
    }

    pub(crate) fn descriptors(&self) -> impl Iterator<Item = &OwnedFd> {
        [&self.stdin, &self.stdout, &self.stderr]
            .into_iter()
            .flatten()
    }

    pub(crate) fn from_descriptors(streams: Streams, fds: Vec<OwnedFd>) -> Option<Self> {
        let mut fds = fds.into_iter();
        let mut take = |wanted: bool| {
            if wanted {
                fds.next().map(Some)
            } else {
                Some(None)
            }
        };
        Some(Self {
            stdin: take(streams.stdin)?,
            stdout: take(streams.stdout)?,
            stderr: take(streams.stderr)?,
        })
    }
}

/// How a client is attached.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AttachOptions {
    /// Bytes which, typed in a row on stdin, end the attachment and are not passed on (Docker's
    /// `ctrl-p,ctrl-q` is `[16, 17]`). Empty means that none do.
    pub detach_keys: Vec<u8>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_and_a_sandbox_of_different_age_take_the_newest_version_that_both_speak() {
        assert_eq!(agree((1, 1), (1, 1)), Some(1));
        // A newer client that still speaks ours, and one that does not.
        assert_eq!(agree((1, 3), (1, 1)), Some(1));
        assert_eq!(agree((2, 3), (1, 1)), None);
        // A sandbox that is newer than its client.
        assert_eq!(agree((1, 2), (2, 5)), Some(2));
        assert_eq!(agree((1, 2), (3, 5)), None);
    }

    #[test]
    fn a_call_that_names_no_oldest_version_speaks_one_only() {
        let call: Call = serde_json::from_str(r#"{"version":1,"request":"ping"}"#).unwrap();
        assert_eq!(call.agreed(), Some(1));
        let call: Call = serde_json::from_str(r#"{"version":4,"request":"ping"}"#).unwrap();
        assert_eq!(call.agreed(), None);
        let call: Call =
            serde_json::from_str(r#"{"version":4,"oldest":1,"request":"ping"}"#).unwrap();
        assert_eq!(call.agreed(), Some(1));
    }
}
