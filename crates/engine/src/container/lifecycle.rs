//! Starting and ending: start, stop, restart, kill, wait.

use std::borrow::Cow;
use std::fs::{self, File};
use std::time::Duration;

use bulkhead_sandbox::{
    AttachOptions, Client, ClientError, Exit, KEEP_FILE, LaunchError, LaunchOptions, Launched,
    StartFailure, Status, Stdio, launch,
};
use bulkhead_types::{ExitStatus, Signal, TerminalSize};
use nix::fcntl::Flock;

use super::remove::{lock_container, runs, still_runs};
use super::{Container, ContainerError};
use crate::Engine;
use crate::error::Error;
use crate::kind::FileError;

/// How to start a container.
#[derive(Debug, Default)]
pub struct StartOptions {
    /// Connect these descriptors before the main process exists, so that no byte is missed.
    pub attach: Option<(Stdio, AttachOptions)>,
    /// Size of the terminal that attaches; a program asks for it before we could resize it.
    pub terminal_size: Option<TerminalSize>,
}

/// A container that runs.
#[derive(Debug)]
pub enum StartedContainer {
    /// It was started now. The handle waits for its end and knows where the time went.
    Launched(Box<Launched>),
    /// It ran already (as in Docker no error); nothing was attached.
    AlreadyRunning,
}

/// The flags of `stop` and `restart`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct StopOptions {
    /// `--signal`; else the container's, else `SIGTERM`.
    pub signal: Option<Signal>,
    /// `--timeout` in seconds, negative waits for ever; else the container's, else the configured.
    pub timeout: Option<i64>,
}

impl Engine {
    /// Starts a container. Returns once its main process has been executed.
    ///
    /// A container with `--rm` whose start fails is removed, as Docker does.
    pub fn start(
        &self,
        container: &Container,
        options: StartOptions,
    ) -> Result<StartedContainer, Error> {
        let held = lock_container(container.id(), &container.dir)?;
        self.start_locked(container, options, held)
    }

    fn start_locked(
        &self,
        container: &Container,
        options: StartOptions,
        held: Flock<File>,
    ) -> Result<StartedContainer, Error> {
        let id = container.id();
        // Also what a restart that was killed has left: this run's end is judged by itself again.
        let keep = container.dir.join(KEEP_FILE);
        match fs::remove_file(&keep) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                return Err(FileError::at("remove", &keep)(e).into());
            }
            _ => {}
        }
        if still_runs(id, &container.dir)? {
            return Ok(StartedContainer::AlreadyRunning);
        }
        let terminal_size = options.terminal_size;
        let options = LaunchOptions {
            attach: options.attach,
            name: container.name().to_string(),
            program: self.sandbox_program.clone(),
        };
        let mut spec = Cow::Borrowed(&container.record.sandbox);
        if !container.guest_is_current {
            let guest = self.guest(Some(spec.isolation))?;
            if (&spec.kernel, &spec.initramfs) != (&guest.kernel, &guest.initramfs) {
                let spec = spec.to_mut();
                (spec.kernel, spec.initramfs) = (guest.kernel, guest.initramfs);
            }
        }
        if spec.process.terminal && terminal_size.is_some() {
            spec.to_mut().process.terminal_size = terminal_size;
        }
        match launch(&spec, &container.dir, options) {
            Ok(launched) => Ok(StartedContainer::Launched(Box::new(launched))),
            Err(LaunchError::Failed(StartFailure::AlreadyRunning)) => {
                Ok(StartedContainer::AlreadyRunning)
            }
            Err(source) => {
                drop(held);
                // Why it did not start is what has to be heard.
                if container.record.host.auto_remove
                    && let Err(error) = self.remove_dead(id)
                {
                    tracing::warn!(container = %id, %error, "container with --rm could not be removed");
                }
                Err(ContainerError::Launch {
                    id: id.clone(),
                    kept: !container.record.host.auto_remove,
                    source: Box::new(source),
                }
                .into())
            }
        }
    }

    /// Asks the main process to end, and kills it when it does not within the timeout. Returns how
    /// it ended; `None` when it did not run, which as in Docker is no error.
    pub fn stop(
        &self,
        container: &Container,
        options: StopOptions,
    ) -> Result<Option<ExitStatus>, Error> {
        let ended = self.end(container, options, Client::stop)?;
        self.settle(container)?;
        Ok(ended)
    }

    fn end(
        &self,
        container: &Container,
        options: StopOptions,
        stop: impl FnOnce(&Client, Signal, Option<Duration>) -> Result<Exit, ClientError>,
    ) -> Result<Option<ExitStatus>, Error> {
        let signal = options
            .signal
            .or(container.record.config.stop_signal)
            .unwrap_or(Signal::TERM);
        let timeout = self.stop_timeout(container, options.timeout);
        if !runs(container.id(), &container.dir)? {
            return Ok(None);
        }
        match stop(&container.client()?, signal, timeout) {
            Ok(exit) => Ok(Some(exit.status)),
            Err(ClientError::NotRunning) => Ok(None),
            Err(source) => Err(container.sandbox_error(source).into()),
        }
    }

    fn stop_timeout(&self, container: &Container, flag: Option<i64>) -> Option<Duration> {
        match flag.or(container.record.config.stop_timeout) {
            // Only negative numbers, which mean for ever, do not convert.
            Some(seconds) => u64::try_from(seconds).ok().map(Duration::from_secs),
            None => Some(self.settings.stop_timeout),
        }
    }

    /// Stops and starts again, detached; `between` is called when it has ended. A container with `--rm` is not removed by
    /// this end, only by the next.
    pub fn restart(
        &self,
        container: &Container,
        options: StopOptions,
        between: impl FnOnce(),
    ) -> Result<StartedContainer, Error> {
        // From here on nobody else starts or removes it, nor a sweep takes it for a leftover.
        let held = lock_container(container.id(), &container.dir)?;
        let keep = container.dir.join(KEEP_FILE);
        if container.record.host.auto_remove {
            File::create(&keep).map_err(FileError::at("create", &keep))?;
        }
        if let Err(error) = self.end(container, options, Client::stop_to_restart) {
            let _ = fs::remove_file(&keep);
            return Err(error);
        }
        between();
        self.start_locked(container, StartOptions::default(), held)
    }

    /// Sends a signal to the main process; after `SIGKILL` waits for its end. `reference` is how the
    /// user named it, for the message.
    pub fn kill(
        &self,
        container: &Container,
        reference: &str,
        signal: Signal,
    ) -> Result<(), Error> {
        let id = container.id();
        let not_running = || ContainerError::KillNotRunning {
            name: reference.to_owned(),
            id: id.clone(),
        };
        if !runs(id, &container.dir)? {
            return Err(not_running().into());
        }
        let client = container.client()?;
        let done = match signal {
            Signal::KILL => client.stop(signal, None).map(|_| ()),
            other => client.signal(other),
        };
        match done {
            Ok(()) => {}
            Err(
                ClientError::NotRunning
                | ClientError::Control(bulkhead_sandbox::ControlError::NotRunning),
            ) => {
                return Err(not_running().into());
            }
            Err(source) => return Err(container.sandbox_error(source).into()),
        }
        Ok(())
    }

    /// Waits until the container does not run, and says how it ended. One that never ran counts as
    /// ended with 0, as in Docker.
    pub fn wait(&self, container: &Container) -> Result<ExitStatus, Error> {
        let client = container.client()?;
        match client.wait() {
            Ok(exit) => Ok(exit.status),
            Err(ClientError::NotRunning) => {
                Ok(container.state()?.exit.unwrap_or(ExitStatus::exited(0)))
            }
            Err(source) => Err(container.sandbox_error(source).into()),
        }
    }

    /// To be called after a run has ended: with `--rm` the monitor has removed the directory, and
    /// this gives up the name; where the monitor was killed this removes both.
    pub fn settle(&self, container: &Container) -> Result<(), Error> {
        if !container.record.host.auto_remove {
            return Ok(());
        }
        if self.root.has(container.id()) {
            if container
                .state()
                .is_ok_and(|state| state.status == Status::Exited)
            {
                self.remove_dead(container.id())?;
            }
        } else {
            self.names.release(container.name(), container.id())?;
        }
        Ok(())
    }
}
