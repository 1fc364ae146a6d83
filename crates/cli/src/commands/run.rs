//! `run`: create, start, and unless detached stay until the end.

use bulkhead_types::exit_code;
use clap::{ArgAction, Args};

use super::create_flags::{CreateFlags, StreamName};
use super::foreground::{self, Attached};
use crate::args::{Arity, Execute};
use crate::context::Context;
use crate::error::{CliError, WRITE_OUTPUT};
use crate::output::Out;
use crate::terminal::{self, Wanted};

/// Arguments of `run`.
#[derive(Debug, Args)]
pub struct Run {
    #[command(flatten)]
    flags: CreateFlags,
    /// Run container in background and print container ID
    #[arg(short, long)]
    detach: bool,
    /// Override the key sequence for detaching a container
    #[arg(long, value_name = "string")]
    detach_keys: Option<String>,
    /// Proxy received signals to the process
    #[arg(long, action = ArgAction::SetTrue, default_value = "true")]
    sig_proxy: bool,
    /// Print where the time went to STDERR
    #[arg(long)]
    timings: bool,
}

impl Execute for Run {
    const ABOUT: &'static str = "Create and run a new container from an image";
    const USAGE: &'static str = "[OPTIONS] IMAGE [COMMAND] [ARG...]";
    const ARITY: Arity = Arity::AtLeast(1);

    fn execute(self, context: &Context) -> Result<u8, CliError> {
        let began = bulkhead_sandbox::Timings::now();
        let wanted = self.wanted();
        if self.detach && !self.flags.attach.is_empty() {
            return Err(CliError::Conflict(
                "cannot specify both --attach and --detach",
            ));
        }
        if !self.detach {
            terminal::require_terminal(wanted.stdin, self.flags.tty)?;
        }
        let engine = context.engine_to_create()?;
        let detach_keys = foreground::detach_keys(engine, self.detach_keys.as_deref())?;
        let container = self.flags.create(engine, self.detach)?;
        if self.detach {
            foreground::start_detached(engine, &container, true)?;
            Out::new()
                .line(container.id().as_str())
                .map_err(CliError::stream(WRITE_OUTPUT))?;
            return Ok(0);
        }
        let attached = Attached {
            engine,
            container: &container,
            wanted,
            tty: self.flags.tty,
            sig_proxy: self.sig_proxy,
            detach_keys,
            created: true,
        };
        let end = attached.start()?;
        if let (true, Some(timings)) = (self.timings, &end.timings) {
            foreground::print_timings(timings, began);
        }
        Ok(end.code)
    }

    fn failure_code(error: &CliError) -> u8 {
        match error {
            CliError::Conflict(_) => exit_code::FAILURE,
            other => other.run_exit_code(),
        }
    }
}

impl Run {
    fn wanted(&self) -> Wanted {
        let named = &self.flags.attach;
        if named.is_empty() {
            return Wanted {
                stdin: self.flags.interactive,
                stdout: true,
                stderr: true,
            };
        }
        Wanted {
            stdin: named.contains(&StreamName::Stdin) && self.flags.interactive,
            stdout: named.contains(&StreamName::Stdout),
            stderr: named.contains(&StreamName::Stderr),
        }
    }
}
