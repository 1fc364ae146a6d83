//! `attach`: join a running container's streams.

use bulkhead_sandbox::Status;
use clap::{ArgAction, Args};

use super::foreground::{self, Attached};
use crate::args::{Arity, Execute};
use crate::context::Context;
use crate::error::CliError;
use crate::terminal::{self, Wanted};

/// Arguments of `attach`.
#[derive(Debug, Args)]
pub struct Attach {
    /// Override the key sequence for detaching a container
    #[arg(long, value_name = "string")]
    detach_keys: Option<String>,
    /// Do not attach STDIN
    #[arg(long)]
    no_stdin: bool,
    /// Proxy all received signals to the process
    #[arg(long, action = ArgAction::SetTrue, default_value = "true")]
    sig_proxy: bool,
    #[arg(value_name = "CONTAINER", hide = true)]
    container: String,
}

impl Execute for Attach {
    const ABOUT: &'static str =
        "Attach local standard input, output, and error streams to a running container";
    const USAGE: &'static str = "[OPTIONS] CONTAINER";
    const ARITY: Arity = Arity::Exactly(1);

    fn execute(self, context: &Context) -> Result<u8, CliError> {
        let engine = context.engine()?;
        let container = engine.container(&self.container)?;
        let state = container.state().map_err(bulkhead_engine::Error::from)?;
        if state.status != Status::Running {
            return Err(CliError::AttachStopped);
        }
        let config = &container.record().config;
        let stdin = !self.no_stdin && config.open_stdin;
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
            sig_proxy: self.sig_proxy,
            detach_keys: foreground::detach_keys(engine, self.detach_keys.as_deref())?,
            created: false,
        };
        attached.attach().map(|end| end.code)
    }
}
