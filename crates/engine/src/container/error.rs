//! What can go wrong with a container. Messages are Docker's where Docker has one.

use std::io;

use bulkhead_sandbox::{
    ClientError, ControlError, LaunchError, LogError, StartFailure, StateError,
};
use bulkhead_types::{ContainerId, ContainerName};

use super::{OptionError, RecordError};
use crate::kind::{ErrorKind, FileError, io_kind};

/// A container, or what was asked of it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ContainerError {
    /// Neither identifier, name nor prefix of an identifier.
    #[error("No such container: {0}")]
    NotFound(String),
    /// A prefix of several identifiers.
    #[error("multiple IDs found with provided prefix: {0}")]
    Ambiguous(String),
    /// Another container has the name.
    #[error(
        "Conflict. The container name \"/{name}\" is already in use by container \"{owner}\". \
         You have to remove (or rename) that container to be able to reuse that name."
    )]
    NameTaken {
        /// The name.
        name: ContainerName,
        /// Who has it.
        owner: ContainerId,
    },
    /// No random name was free after many attempts.
    #[error("cannot find a free name for the container")]
    NoFreeName,
    /// The kernel has no randomness to give.
    #[error("cannot read random bytes for an identifier")]
    Random(#[source] getrandom::Error),
    /// A flag or image setting.
    #[error(transparent)]
    Options(#[from] OptionError),
    /// The record on disk.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// A record that cannot be read does not say which image its container needs, so no image is removed.
    #[error("conflict: cannot tell which image container {} uses, so none is removed", id.short())]
    UnknownImage {
        /// The container.
        id: ContainerId,
        /// Why its record cannot be read.
        #[source]
        source: RecordError,
    },
    /// A file or directory.
    #[error(transparent)]
    File(#[from] FileError),
    /// The operation needs a running container.
    #[error("container {0} is not running")]
    NotRunning(ContainerId),
    /// `kill` needs a running container.
    #[error("cannot kill container: {name}: container {id} is not running")]
    KillNotRunning {
        /// As the user named it.
        name: String,
        /// Its identifier.
        id: ContainerId,
    },
    /// `rm` without `-f`.
    #[error(
        "cannot remove container \"/{0}\": container is running: stop the container before removing or force remove"
    )]
    RemoveRunning(ContainerName),
    /// The main process did not end although it was killed.
    #[error("container {0} did not stop")]
    DidNotStop(ContainerId),
    /// The state cannot be read.
    #[error("cannot read the state of container {id}")]
    State {
        /// The container.
        id: ContainerId,
        /// Why.
        #[source]
        source: StateError,
    },
    /// Its sandbox cannot be talked to.
    #[error("cannot talk to the sandbox of container {id}")]
    Client {
        /// The container.
        id: ContainerId,
        /// Why.
        #[source]
        source: ClientError,
    },
    /// It did not start.
    #[error("cannot start container {id}")]
    Launch {
        /// The container.
        id: ContainerId,
        /// Whether there is still a container, with what its kernel said: none with `--rm`.
        kept: bool,
        /// Why, typed.
        #[source]
        source: Box<LaunchError>,
    },
    /// A further process was not started in it.
    #[error("cannot execute a command in container {id}")]
    Exec {
        /// The container.
        id: ContainerId,
        /// Why, typed.
        #[source]
        source: StartFailure,
    },
    /// Its log cannot be read.
    #[error("cannot read the log of container {id}")]
    Log {
        /// The container.
        id: ContainerId,
        /// Why.
        #[source]
        source: LogError,
    },
    /// A filter's name.
    #[error("invalid filter '{0}'")]
    FilterName(String),
    /// A filter's value.
    #[error("invalid filter '{name}={value}'")]
    FilterValue {
        /// The filter.
        name: &'static str,
        /// As typed.
        value: String,
    },
    /// `exec` with nothing to execute.
    #[error("no exec command specified")]
    NoExecCommand,
}

impl ContainerError {
    pub(crate) fn kind(&self) -> ErrorKind {
        match self {
            Self::NotFound(_) => ErrorKind::NotFound,
            Self::Ambiguous(_)
            | Self::FilterName(_)
            | Self::FilterValue { .. }
            | Self::NoExecCommand => ErrorKind::InvalidInput,
            Self::NameTaken { .. }
            | Self::NotRunning(_)
            | Self::KillNotRunning { .. }
            | Self::RemoveRunning(_)
            | Self::UnknownImage { .. } => ErrorKind::Conflict,
            Self::NoFreeName | Self::Random(_) | Self::DidNotStop(_) => ErrorKind::Internal,
            Self::Options(_) => ErrorKind::InvalidInput,
            Self::Record(RecordError::File(error)) | Self::File(error) => error.kind(),
            Self::Record(_) | Self::State { .. } | Self::Log { .. } => ErrorKind::Internal,
            Self::Client { source, .. } => client_kind(source),
            Self::Launch { source, .. } => match &**source {
                LaunchError::Failed(failure) => failure_kind(failure),
                LaunchError::Client(error) => client_kind(error),
                LaunchError::Spawn { source, .. } | LaunchError::Channel(source) => io_kind(source),
                LaunchError::Frame(_) => ErrorKind::Internal,
            },
            Self::Exec { source, .. } => failure_kind(source),
        }
    }

    pub(crate) fn hint(&self) -> Option<String> {
        let failure = match self {
            Self::Launch { source, kept, .. } => match &**source {
                LaunchError::Failed(StartFailure::Boot { .. }) if !kept => return None,
                LaunchError::Failed(failure) => failure,
                _ => return None,
            },
            Self::Client { source, .. } => return client_hint(source).map(str::to_owned),
            Self::File(error) | Self::Record(RecordError::File(error)) => {
                return error.hint().map(str::to_owned);
            }
            Self::Record(RecordError::Damaged { .. }) => {
                return Some("remove the container: bulkhead rm -f ID".to_owned());
            }
            Self::UnknownImage {
                id,
                source: RecordError::Newer { .. },
            } => {
                return Some(format!(
                    "use the bulkhead that wrote it, or remove the container: 'bulkhead rm -f {}'",
                    id.short()
                ));
            }
            Self::UnknownImage { id, .. } => {
                return Some(format!(
                    "repair the file or remove the container: 'bulkhead rm -f {}'",
                    id.short()
                ));
            }
            _ => return None,
        };
        match failure {
            StartFailure::Jail { .. } | StartFailure::Platform { .. } => {
                Some("'bulkhead doctor' says what this host lacks".to_owned())
            }
            StartFailure::WeakJail { .. } => Some(
                "allow user namespaces ('bulkhead doctor' says how), or run it as root; --weakened-jail starts without these walls"
                    .to_owned(),
            ),
            StartFailure::Boot { .. } => Some(
                "'bulkhead logs --kernel CONTAINER' shows all that its kernel said"
                    .to_owned(),
            ),
            _ => None,
        }
    }
}

/// What a sandbox, or the way to it, has to say.
fn client_kind(error: &ClientError) -> ErrorKind {
    match error {
        ClientError::NotRunning => ErrorKind::Conflict,
        ClientError::Directory { source, .. } if source.kind() == io::ErrorKind::NotFound => {
            ErrorKind::NotFound
        }
        ClientError::Directory { source, .. }
        | ClientError::Connect(source)
        | ClientError::Lock(source) => io_kind(source),
        ClientError::Control(error) => match error {
            // A container of another version of Bulkhead: nothing is broken, but this one cannot have it.
            ControlError::NotRunning | ControlError::NoTerminal | ControlError::Version { .. } => {
                ErrorKind::Conflict
            }
            ControlError::Resource { .. } => ErrorKind::Unavailable,
            ControlError::Descriptors | ControlError::Agent { .. } => ErrorKind::Internal,
        },
        ClientError::Start(failure) => failure_kind(failure),
        ClientError::Silent(_) | ClientError::Lingering => ErrorKind::Timeout,
        ClientError::Frame(_) | ClientError::Unexpected(_) | ClientError::State(_) => {
            ErrorKind::Internal
        }
    }
}

fn client_hint(error: &ClientError) -> Option<&'static str> {
    match error {
        ClientError::Silent(_) => Some("'bulkhead rm -f' ends and removes it all the same"),
        ClientError::Control(ControlError::Version { .. }) => Some(
            "the container was started by another version of bulkhead: use that one, or end it with 'bulkhead kill' or 'bulkhead rm -f'",
        ),
        _ => None,
    }
}

fn failure_kind(failure: &StartFailure) -> ErrorKind {
    match failure {
        StartFailure::CommandNotFound { .. } => ErrorKind::CommandNotFound,
        StartFailure::NotExecutable { .. } => ErrorKind::CommandNotExecutable,
        StartFailure::UnknownUser { .. } | StartFailure::Setup { .. } => ErrorKind::InvalidInput,
        StartFailure::AlreadyRunning | StartFailure::NotRunning { .. } | StartFailure::Stopped => {
            ErrorKind::Conflict
        }
        StartFailure::Jail { .. }
        | StartFailure::WeakJail { .. }
        | StartFailure::Platform { .. } => ErrorKind::Unavailable,
        _ => ErrorKind::Internal,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// It said "unless it was started with --rm" to who had started it with --rm.
    #[test]
    fn a_failed_boot_sends_nobody_to_the_log_of_a_container_that_is_gone() {
        let hint = |kept| {
            let failure = StartFailure::Boot {
                reason: "no".into(),
                console: Vec::new(),
            };
            let error = ContainerError::Launch {
                id: ContainerId::from_bytes([1; 32]),
                kept,
                source: Box::new(LaunchError::Failed(failure)),
            };
            error.hint()
        };
        assert_eq!(hint(false), None);
        assert!(hint(true).is_some_and(|hint| hint.contains("logs --kernel")));
    }

    #[test]
    fn what_a_sandbox_refuses_is_told_apart() {
        let kind = |source| {
            let id = ContainerId::from_bytes([1; 32]);
            ContainerError::Client { id, source }.kind()
        };
        let control = |error| kind(ClientError::Control(error));
        assert_eq!(kind(ClientError::NotRunning), ErrorKind::Conflict);
        assert_eq!(control(ControlError::NotRunning), ErrorKind::Conflict);
        assert_eq!(control(ControlError::NoTerminal), ErrorKind::Conflict);
        let version = ControlError::Version { theirs: 1, ours: 2 };
        assert_eq!(control(version), ErrorKind::Conflict);
        let resource = ControlError::Resource {
            message: "no descriptors".into(),
        };
        assert_eq!(control(resource), ErrorKind::Unavailable);
        let silent = ClientError::Silent(Duration::from_secs(1));
        assert_eq!(kind(silent), ErrorKind::Timeout);
        let gone = ClientError::Directory {
            path: "/x".into(),
            source: io::ErrorKind::NotFound.into(),
        };
        assert_eq!(kind(gone), ErrorKind::NotFound);
        let missing = StartFailure::CommandNotFound {
            message: "no".into(),
        };
        assert_eq!(kind(missing.into()), ErrorKind::CommandNotFound);
    }
}
