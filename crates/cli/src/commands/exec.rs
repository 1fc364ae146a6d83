//! `exec`: a further process in a running container.

use std::path::PathBuf;

use bulkhead_engine::ExecOptions;
use bulkhead_sandbox::{AttachOptions, Stdio};
use clap::Args;

use super::create_flags::resolve_env;
use super::foreground;
use crate::args::{Arity, Execute, KeyValue, env_file};
use crate::context::Context;
use crate::error::CliError;
use crate::terminal;

/// Arguments of `exec`.
#[derive(Debug, Args)]
pub struct Exec {
    /// Detached mode: run command in the background
    #[arg(short, long)]
    detach: bool,
    /// Override the key sequence for detaching a container
    #[arg(long, value_name = "string")]
    detach_keys: Option<String>,
    /// Set environment variables
    #[arg(short, long, value_name = "list", value_parser = KeyValue::env)]
    env: Vec<String>,
    /// Read in a file of environment variables
    #[arg(long, value_name = "list")]
    env_file: Vec<PathBuf>,
    /// Keep STDIN open even if not attached
    #[arg(short, long)]
    interactive: bool,
    /// Give extended privileges to the command, in the container's own kernel (none on the host)
    #[arg(long)]
    privileged: bool,
    /// Allocate a pseudo-TTY
    #[arg(short, long)]
    tty: bool,
    /// Username or UID (format: "<name|uid>[:<group|gid>]")
    #[arg(short, long, value_name = "string")]
    user: Option<String>,
    /// Working directory inside the container
    #[arg(short, long, value_name = "string")]
    workdir: Option<String>,
    #[arg(value_name = "CONTAINER", required = true, num_args = 2.., trailing_var_arg = true, hide = true)]
    words: Vec<String>,
}

impl Execute for Exec {
    const ABOUT: &'static str = "Execute a command in a running container";
    const USAGE: &'static str = "[OPTIONS] CONTAINER COMMAND [ARG...]";
    const ARITY: Arity = Arity::AtLeast(2);

    fn execute(self, context: &Context) -> Result<u8, CliError> {
        if !self.detach {
            terminal::require_terminal(self.interactive, self.tty)?;
        }
        let (name, command) = self
            .words
            .split_first()
            .map_or(("", &[][..]), |(n, c)| (n.as_str(), c));
        let mut env = Vec::new();
        for file in &self.env_file {
            env.extend(env_file(file, |name| std::env::var(name).ok())?);
        }
        env.extend(resolve_env(&self.env));
        let options = ExecOptions {
            command: command.to_vec(),
            env,
            user: self.user,
            workdir: self.workdir,
            privileged: self.privileged,
            tty: self.tty,
            terminal_size: terminal::size().filter(|_| self.tty && self.interactive),
        };
        let engine = context.engine()?;
        let container = engine.container(name)?;
        if self.detach {
            engine.exec(
                &container,
                &options,
                Stdio::default(),
                AttachOptions::default(),
            )?;
            return Ok(0);
        }
        let keys = foreground::detach_keys(engine, self.detach_keys.as_deref())?;
        foreground::exec(engine, &container, &options, self.interactive, keys)
    }

    fn failure_code(error: &CliError) -> u8 {
        error.exec_exit_code()
    }
}
