//! Streams of a running container, and its log.

use std::fs;
use std::io;

use bulkhead_sandbox::{
    AttachOptions, Attachment, CONSOLE_LOG, ClientError, ControlError, LogFilter, LogReader, Stdio,
};

use super::{Container, ContainerError};
use crate::Engine;
use crate::error::Error;
use crate::kind::FileError;

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

    /// What the guest's kernel wrote to its console in the container's last run, at most about a mebibyte of it. Empty
    /// before the first run.
    pub fn kernel_log(&self, container: &Container) -> Result<Vec<u8>, Error> {
        let path = container.dir.join(CONSOLE_LOG);
        match fs::read(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
            result => Ok(result.map_err(FileError::at("read the kernel's log", &path))?),
        }
    }
}
