//! `kill`: send a signal to main processes.

use bulkhead_types::Signal;
use clap::Args;

use super::{foreground, several};
use crate::args::{Arity, Execute};
use crate::context::Context;
use crate::error::CliError;

/// Arguments of `kill`.
#[derive(Debug, Args)]
pub struct Kill {
    /// Signal to send to the container (default "KILL")
    #[arg(short, long, value_name = "string")]
    signal: Option<String>,
    #[arg(value_name = "CONTAINER", required = true, hide = true)]
    containers: Vec<String>,
}

impl Execute for Kill {
    const ABOUT: &'static str = "Kill one or more running containers";
    const USAGE: &'static str = "[OPTIONS] CONTAINER [CONTAINER...]";
    const ARITY: Arity = Arity::AtLeast(1);

    fn execute(self, context: &Context) -> Result<u8, CliError> {
        let signal = self
            .signal
            .as_deref()
            .map(str::parse::<Signal>)
            .transpose()?
            .unwrap_or(Signal::KILL);
        let engine = context.engine()?;
        several::each(&self.containers, |name| {
            let container = engine.container(name)?;
            engine.kill(&container, name, signal)?;
            if signal == Signal::KILL {
                foreground::tell_unrecorded(&container);
            }
            Ok(Some(name.to_owned()))
        })
    }
}
