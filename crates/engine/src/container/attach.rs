//! Streams of a running container, and its log.

use bulkhead_sandbox::{
    AttachOptions, Attachment, ClientError, ControlError, LogFilter, LogReader, Stdio,
};

use super::{Container, ContainerError};
use crate::Engine;
use crate::error::Error;

impl Engine {
    /// Connects descriptors to the main process's streams, from now on.
    pub fn attach(
        &self,
        container: &Container,
        stdio: Stdio,
        options: AttachOptions,
    ) -> Result<Attachment, Error> {
        container
            .client()?
            .attach(stdio, options)
            .map_err(|source| {
                let id = container.id().clone();
                match source {
                    ClientError::NotRunning | ClientError::Control(ControlError::NotRunning) => {
                        ContainerError::NotRunning(id).into()
                    }
                    source => ContainerError::Client { id, source }.into(),
                }
            })
    }

    /// Reads what the container wrote, over all of its runs as far as it is kept.
    pub fn logs(&self, container: &Container, filter: LogFilter) -> Result<LogReader, Error> {
        LogReader::open(&container.dir, filter).map_err(|source| {
            ContainerError::Log {
                id: container.id().clone(),
                source,
            }
            .into()
        })
    }
}
