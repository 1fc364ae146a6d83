//! What stops a command, and the one place that prints it.

use std::error::Error;
use std::io;

use bulkhead_engine::ErrorKind;
use bulkhead_types::{chain, exit_code};

use crate::args::ListFileError;
use crate::output::say;
use crate::template::TemplateError;
use crate::terminal::NotATerminal;

/// A command that failed.
#[derive(Debug, thiserror::Error)]
pub enum CliError {
    /// Containers, images, configuration.
    #[error(transparent)]
    Engine(#[from] bulkhead_engine::Error),
    /// The image store.
    #[error(transparent)]
    Store(#[from] bulkhead_image::StoreError),
    /// A name of an image.
    #[error(transparent)]
    Reference(#[from] bulkhead_image::ReferenceError),
    /// A registry.
    #[error(transparent)]
    Registry(#[from] bulkhead_image::RegistryError),
    /// An archive.
    #[error(transparent)]
    Archive(#[from] bulkhead_image::ArchiveError),
    /// Making an image from a distribution.
    #[error(transparent)]
    Bootstrap(#[from] bulkhead_image::BootstrapError),
    /// The sandbox of a container.
    #[error(transparent)]
    Sandbox(#[from] bulkhead_sandbox::ClientError),
    /// `--format`.
    #[error("template parsing error")]
    Template(#[from] TemplateError),
    /// Data that cannot be shown.
    #[error("cannot show the result as JSON")]
    Json(#[from] serde_json::Error),
    /// `--env-file`, `--label-file`.
    #[error(transparent)]
    ListFile(#[from] ListFileError),
    /// `-t` without a terminal.
    #[error(transparent)]
    NotATerminal(#[from] NotATerminal),
    /// Standard output or a descriptor of ours.
    #[error("cannot {action}")]
    Stream {
        /// What was being done.
        action: &'static str,
        /// The system's answer.
        #[source]
        source: io::Error,
    },
    /// A file that the user named.
    #[error("cannot {action} {path}")]
    File {
        /// What was being done.
        action: &'static str,
        /// As given.
        path: String,
        /// The system's answer.
        #[source]
        source: io::Error,
    },
    /// `--cidfile` exists.
    #[error("container ID file found, make sure the other container isn't running or delete {0}")]
    CidFileExists(String),
    /// Two flags that exclude each other.
    #[error("conflicting options: {0}")]
    Conflict(&'static str),
    /// `attach` to, or `start -a` of, what has ended.
    #[error("you cannot attach to a stopped container, start it first")]
    AttachStopped,
    /// `inspect --type`.
    #[error("unknown type: {0:?}: must be one of \"container\", \"image\"")]
    UnknownType(String),
    /// Nothing has this name.
    #[error("No such object: {0}")]
    NoSuchObject(String),
    /// `save` to a screen.
    #[error("cowardly refusing to save to a terminal: use the -o flag or redirect")]
    SaveToTerminal,
    /// `load` from a keyboard.
    #[error("requested load from stdin, but stdin is empty")]
    LoadFromTerminal,
    /// `import` from the network.
    #[error("cannot import from '{0}': give a file or - for standard input")]
    ImportUrl(String),
    /// `prune` without a yes.
    #[error("{0} has been cancelled")]
    NotConfirmed(&'static str),
    /// `--detach-keys`.
    #[error("invalid detach keys ({keys}): {reason}")]
    DetachKeys {
        /// As typed.
        keys: String,
        /// What is wrong with it.
        reason: String,
    },
    /// `--since`, `--until`.
    #[error("invalid value for \"{flag}\": '{text}' is neither a time nor a duration")]
    Time {
        /// The flag.
        flag: &'static str,
        /// As typed.
        text: String,
    },
    /// `--filter`.
    #[error("invalid filter '{0}'")]
    Filter(String),
    /// `--name`, in the words of Docker's engine.
    #[error("Invalid container name ({0}), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed")]
    Name(String),
    /// `--signal`, `--stop-signal`.
    #[error(transparent)]
    Signal(#[from] bulkhead_types::ParseSignalError),
    /// `push` of a repository of which nothing is here, in Docker's words.
    #[error("An image does not exist locally with the tag: {0}")]
    NothingToPush(String),
    /// `push` of a tag that is not here, while others of its repository are.
    #[error("tag does not exist: {0}")]
    NoSuchTag(String),
    /// `tag` to a digest.
    #[error("refusing to create a tag with a digest reference")]
    TagIsDigest,
    /// The log of a container.
    #[error("cannot read the log")]
    Log(#[from] bulkhead_sandbox::LogError),
    /// The start or the end of a compartment.
    #[error(transparent)]
    Launch(#[from] bulkhead_sandbox::LaunchError),
    /// A signal gave up what was being done; nothing of it is left.
    #[error("interrupted by {0}")]
    Interrupted(nix::sys::signal::Signal),
    /// Nobody reads any more what a container writes to our output.
    #[error("standard output is closed")]
    OutputGone,
    /// What a container writes cannot be written to our output. The container goes on.
    #[error("cannot write the container's output")]
    Output(#[source] io::Error),
    /// Some of several objects failed; each was reported when it did.
    #[error("{failed} of {total} failed")]
    Several {
        /// How many.
        failed: usize,
        /// Of how many.
        total: usize,
    },
    /// A clap error behind parsing: an argument's type differs from what was declared.
    #[error("cannot read the arguments")]
    Arguments(#[from] clap::Error),
}

impl CliError {
    /// For `map_err` on standard streams.
    pub fn stream(action: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Stream { action, source }
    }

    /// What becomes of a command whose output takes no more of what a container writes.
    pub fn output(errno: nix::errno::Errno) -> Self {
        match errno {
            nix::errno::Errno::EPIPE => Self::OutputGone,
            other => Self::Output(other.into()),
        }
    }

    /// For `map_err` on a file that the user named.
    pub fn file(action: &'static str, path: &std::path::Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.display().to_string();
        move |source| Self::File {
            action,
            path,
            source,
        }
    }

    /// Whether the reader of our output has left: nobody is to be told.
    pub fn is_broken_pipe(&self) -> bool {
        if matches!(self, Self::OutputGone) {
            return true;
        }
        let mut next: Option<&(dyn Error + 'static)> = Some(self);
        while let Some(error) = next {
            if let Some(io) = error.downcast_ref::<io::Error>()
                && io.kind() == io::ErrorKind::BrokenPipe
            {
                return matches!(
                    self,
                    Self::Stream {
                        action: WRITE_OUTPUT,
                        ..
                    }
                );
            }
            next = error.source();
        }
        false
    }

    /// The exit code of `run`, whose other codes are the container's.
    pub fn run_exit_code(&self) -> u8 {
        match self {
            Self::Engine(error) => error.run_exit_code(),
            // Docker's client checks this before it talks to an engine.
            Self::NotATerminal(_) => exit_code::FAILURE,
            // As Docker's client; the container may run on.
            Self::Output(_) => exit_code::FAILURE,
            _ => exit_code::ENGINE,
        }
    }

    /// The exit code of `exec`: the command's own troubles have codes, the engine's are 1.
    pub fn exec_exit_code(&self) -> u8 {
        match self {
            Self::Engine(error) => match error.kind() {
                ErrorKind::CommandNotFound => exit_code::NOT_FOUND,
                ErrorKind::CommandNotExecutable => exit_code::NOT_EXECUTABLE,
                _ => exit_code::FAILURE,
            },
            _ => exit_code::FAILURE,
        }
    }

    /// The exit code of what shows objects whole (`inspect`, `info`, `version`): Docker's client tells what is no template
    /// from the rest.
    pub fn object_exit_code(&self) -> u8 {
        match self {
            Self::Template(TemplateError::Parse { .. }) => exit_code::NOT_A_TEMPLATE,
            _ => exit_code::FAILURE,
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::Engine(error) => error.hint(),
            Self::Store(error) => error.hint().map(str::to_owned),
            Self::Registry(error) => error.hint().map(str::to_owned),
            Self::Archive(error) => error.hint().map(str::to_owned),
            Self::Bootstrap(error) => error.hint().map(str::to_owned),
            Self::AttachStopped => Some("'bulkhead start -a' starts it and attaches".to_owned()),
            _ => None,
        }
    }
}

/// The action of a failed write to standard output.
pub const WRITE_OUTPUT: &str = "write to standard output";

/// Prints an error with its causes and, where we know one, a next step.
pub fn report(error: &CliError) {
    if matches!(error, CliError::Several { .. }) {
        return;
    }
    say(format_args!("bulkhead: {}", chain(error)));
    if let Some(hint) = error.hint() {
        eprintln!("hint: {hint}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn causes_follow_in_order_and_once() {
        let inner = io::Error::from(io::ErrorKind::PermissionDenied);
        let error = CliError::File {
            action: "write",
            path: "/x".to_owned(),
            source: inner,
        };
        assert_eq!(chain(&error), "cannot write /x: permission denied");
    }

    #[test]
    fn only_output_may_break_quietly() {
        let broken = || io::Error::from(io::ErrorKind::BrokenPipe);
        assert!(CliError::stream(WRITE_OUTPUT)(broken()).is_broken_pipe());
        assert!(!CliError::stream("start a thread")(broken()).is_broken_pipe());
        assert!(!CliError::AttachStopped.is_broken_pipe());
        assert!(CliError::OutputGone.is_broken_pipe());
    }
}
