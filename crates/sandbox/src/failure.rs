//! Why a compartment did not start, as data: it crosses a process border and decides an exit code. Words that a guest
//! may have written a part of are [`GuestText`].

use bulkhead_types::{GuestText, exit_code};
use serde::{Deserialize, Serialize};

/// What went wrong between `launch` and the main process's execve.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum StartFailure {
    /// A run of this container is still going on.
    #[error("container is already running")]
    AlreadyRunning,
    /// A file that the compartment needs cannot be opened.
    #[error("open {what} '{path}': {reason}")]
    File {
        /// `kernel`, `initramfs`, `image disk`, `scratch disk`, `volume disk`, `log`…
        what: String,
        /// The path as the spec names it.
        path: String,
        /// The operating system's words.
        reason: String,
    },
    /// The host refuses walls that separate compartments, and they were not given up.
    #[error("{reason}")]
    WeakJail {
        /// Which walls, and the host's words.
        reason: GuestText,
    },
    /// The jail could not be built.
    #[error("jail the sandbox: {reason}")]
    Jail {
        /// The whole chain of causes.
        reason: GuestText,
    },
    /// The platform could not start the kernel.
    #[error("start the guest kernel: {reason}")]
    Platform {
        /// The whole chain of causes.
        reason: GuestText,
    },
    /// The kernel ended or stayed silent before the agent answered.
    #[error("guest did not boot: {reason}{}", console_text(.console))]
    Boot {
        /// What was seen.
        reason: GuestText,
        /// The guest console's last lines.
        console: Vec<GuestText>,
    },
    /// The agent refused to prepare the container.
    #[error("prepare the container: {reason}{}", console_text(.console))]
    Create {
        /// The agent's words.
        reason: GuestText,
        /// The guest console's last lines, where they matter.
        console: Vec<GuestText>,
    },
    /// The command does not exist in the container.
    #[error("{message}")]
    CommandNotFound {
        /// Names the command.
        message: GuestText,
    },
    /// The command cannot be executed.
    #[error("{message}")]
    NotExecutable {
        /// Names the command.
        message: GuestText,
    },
    /// The user or group does not exist in the container.
    #[error("{message}")]
    UnknownUser {
        /// Names the user.
        message: GuestText,
    },
    /// Working directory, limits, capabilities, terminal.
    #[error("{message}")]
    Setup {
        /// Names the object.
        message: GuestText,
    },
    /// The container's main process has ended (exec only).
    #[error("{message}")]
    NotRunning {
        /// Says which container.
        message: GuestText,
    },
    /// Somebody stopped or killed the container before its command was executed.
    #[error("stopped before its command was executed")]
    Stopped,
    /// The sandbox vanished without saying why.
    #[error("sandbox died while starting: {reason}")]
    Died {
        /// Its exit status, where known.
        reason: GuestText,
    },
}

impl StartFailure {
    /// The exit code of `docker run` in this case: 127, 126 or 125; that of a killed process for what was stopped.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::CommandNotFound { .. } => exit_code::NOT_FOUND,
            Self::NotExecutable { .. } => exit_code::NOT_EXECUTABLE,
            Self::Stopped => bulkhead_types::ExitStatus::signaled(9).code,
            _ => exit_code::ENGINE,
        }
    }
}

fn console_text(lines: &[GuestText]) -> String {
    if lines.is_empty() {
        return String::new();
    }
    let mut text = format!("\nguest console, last {} lines:", lines.len());
    for line in lines {
        text.push_str("\n  ");
        text.push_str(line);
    }
    text
}
