//! `start`: run a container that was created or has ended.

use clap::Args;

use super::foreground::{self, Attached};
use super::several;
use crate::args::{Arity, Execute};
use crate::context::Context;
use crate::error::CliError;
use crate::terminal::{self, Wanted};

/// Arguments of `start`.
#[derive(Debug, Args)]
pub struct Start {
    /// Attach STDOUT/STDERR and forward signals
    #[arg(short, long)]
    attach: bool,
    /// Override the key sequence for detaching a container
    #[arg(long, value_name = "string")]
    detach_keys: Option<String>,
    /// Attach container's STDIN
    #[arg(short, long)]
    interactive: bool,
    #[arg(value_name = "CONTAINER", required = true, hide = true)]
    containers: Vec<String>,
}

impl Execute for Start {
    const ABOUT: &'static str = "Start one or more stopped containers";
    const USAGE: &'static str = "[OPTIONS] CONTAINER [CONTAINER...]";
    const ARITY: Arity = Arity::AtLeast(1);

    fn execute(self, context: &Context) -> Result<u8, CliError> {
        let engine = context.engine()?;
        if !(self.attach || self.interactive) {
            return several::each(&self.containers, |name| {
                foreground::start_detached(engine, &engine.container(name)?, false)?;
                Ok(Some(name.to_owned()))
            });
        }
        let [name] = self.containers.as_slice() else {
            return Err(CliError::Conflict(
                "you cannot start and attach multiple containers at once",
            ));
        };
        let container = engine.container(name)?;
        let config = &container.record().config;
        let stdin = self.interactive && config.open_stdin;
        terminal::require_terminal(stdin, config.tty)?;
        let attached = Attached {
            engine,
            container: &container,
            wanted: Wanted {
                stdin,
                stdout: true,
                stderr: true,
            },
            tty: config.tty,
            sig_proxy: true,
            detach_keys: foreground::detach_keys(engine, self.detach_keys.as_deref())?,
            created: false,
        };
        attached.start().map(|end| end.code)
    }
}
