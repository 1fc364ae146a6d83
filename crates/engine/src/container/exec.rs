//! `exec`: a further process in a running container.

use bulkhead_sandbox::{AttachOptions, ClientError, ControlError, Exec, StartFailure, Stdio};
use bulkhead_types::{Capabilities, ProcessSpec, TerminalSize};

use super::merge::set_env;
use super::mounts::clean_path;
use super::{Container, ContainerError, OptionError};
use crate::Engine;
use crate::error::Error;

/// The flags of `exec`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ExecOptions {
    /// Program and arguments.
    pub command: Vec<String>,
    /// `-e` and `--env-file`, over the container's environment.
    pub env: Vec<String>,
    /// `-u`; `None` is the container's user.
    pub user: Option<String>,
    /// `-w`; `None` is the container's working directory.
    pub workdir: Option<String>,
    /// `--privileged`: every capability in the container's own kernel.
    pub privileged: bool,
    /// `-t`.
    pub tty: bool,
    /// Size of the terminal, with `tty`.
    pub terminal_size: Option<TerminalSize>,
}

impl Engine {
    /// Starts a process in a running container. Returns once it has been executed.
    pub fn exec(
        &self,
        container: &Container,
        options: &ExecOptions,
        stdio: Stdio,
        attach: AttachOptions,
    ) -> Result<Exec, Error> {
        let process = process(&container.record.sandbox.process, options)?;
        let id = container.id().clone();
        container
            .client()?
            .exec(&process, stdio, attach)
            .map_err(|source| {
                match source {
                    ClientError::NotRunning
                    | ClientError::Control(ControlError::NotRunning)
                    | ClientError::Start(StartFailure::NotRunning { .. }) => {
                        ContainerError::NotRunning(id)
                    }
                    ClientError::Start(source) => ContainerError::Exec { id, source },
                    source => ContainerError::Client { id, source },
                }
                .into()
            })
    }
}

/// The container's main process with the flags over it.
fn process(main: &ProcessSpec, options: &ExecOptions) -> Result<ProcessSpec, ContainerError> {
    if options.command.first().is_none_or(String::is_empty) {
        return Err(ContainerError::NoExecCommand);
    }
    if options.command.iter().any(|arg| arg.contains('\0')) {
        return Err(OptionError::NulInCommand.into());
    }
    let mut env = main.env.clone();
    if options.tty && !env.iter().any(|entry| entry.starts_with("TERM=")) {
        env.push("TERM=xterm".to_owned());
    }
    for entry in &options.env {
        if entry.is_empty() || entry.starts_with('=') || entry.contains('\0') {
            return Err(OptionError::Env(entry.replace('\0', "\\0").into()).into());
        }
        set_env(&mut env, entry);
    }
    let cwd = match options.workdir.as_deref().filter(|w| !w.is_empty()) {
        Some(path) if !path.starts_with('/') || path.contains('\0') => {
            return Err(OptionError::Workdir(path.into()).into());
        }
        Some(path) => clean_path(path),
        None => main.cwd.clone(),
    };
    Ok(ProcessSpec {
        args: options.command.clone(),
        env,
        cwd,
        user: options
            .user
            .clone()
            .filter(|u| !u.is_empty())
            .unwrap_or_else(|| main.user.clone()),
        capabilities: if options.privileged {
            Capabilities::ALL
        } else {
            main.capabilities
        },
        terminal: options.tty,
        terminal_size: options.terminal_size.filter(|_| options.tty),
        ..main.clone()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn main() -> ProcessSpec {
        ProcessSpec {
            args: vec!["sh".into()],
            env: vec!["PATH=/bin".into(), "A=1".into()],
            cwd: "/srv".into(),
            user: "www".into(),
            ..Default::default()
        }
    }

    #[test]
    fn an_exec_inherits_from_the_container_and_flags_win() {
        let plain = ExecOptions {
            command: vec!["id".into()],
            ..Default::default()
        };
        let spec = process(&main(), &plain).unwrap();
        assert_eq!((spec.cwd.as_str(), spec.user.as_str()), ("/srv", "www"));
        assert_eq!(spec.env, ["PATH=/bin", "A=1"]);
        assert_eq!(spec.capabilities, Capabilities::NONE);
        let privileged = ExecOptions {
            privileged: true,
            ..plain.clone()
        };
        let spec = process(&main(), &privileged).unwrap();
        assert_eq!(spec.capabilities, Capabilities::ALL);
        let flags = ExecOptions {
            env: vec!["A=2".into(), "PATH".into(), "B=".into()],
            user: Some("0".into()),
            workdir: Some("/tmp/../x".into()),
            tty: true,
            ..plain
        };
        let spec = process(&main(), &flags).unwrap();
        assert_eq!((spec.cwd.as_str(), spec.user.as_str()), ("/x", "0"));
        assert_eq!(spec.env, ["A=2", "TERM=xterm", "B="]);
        assert!(spec.terminal);
    }

    #[test]
    fn an_exec_needs_a_command_and_an_absolute_directory() {
        let options = |command: &[&str], workdir: Option<&str>| ExecOptions {
            command: command.iter().map(|s| (*s).to_owned()).collect(),
            workdir: workdir.map(str::to_owned),
            ..Default::default()
        };
        assert!(matches!(
            process(&main(), &options(&[], None)),
            Err(ContainerError::NoExecCommand)
        ));
        assert!(process(&main(), &options(&["id"], Some("x"))).is_err());
    }
}
