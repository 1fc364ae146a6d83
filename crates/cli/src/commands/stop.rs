//! `stop`: ask the main process to end, and kill it when it does not.

use bulkhead_engine::StopOptions;
use bulkhead_types::Signal;
use clap::Args;

use super::foreground;
use super::several;
use crate::args::{Arity, Execute, seconds};
use crate::context::Context;
use crate::error::CliError;

/// Arguments of `stop` and `restart`.
#[derive(Debug, Args)]
pub struct StopFlags {
    /// Signal to send to the container
    #[arg(short, long, value_name = "string")]
    signal: Option<String>,
    /// Seconds to wait before killing the container
    #[arg(short, long, alias = "time", value_name = "int", value_parser = seconds)]
    timeout: Option<i64>,
    #[arg(value_name = "CONTAINER", required = true, hide = true)]
    pub containers: Vec<String>,
}

impl StopFlags {
    /// What the engine is told.
    pub fn options(&self) -> Result<StopOptions, CliError> {
        let signal = self
            .signal
            .as_deref()
            .map(str::parse::<Signal>)
            .transpose()?;
        Ok(StopOptions {
            signal,
            timeout: self.timeout,
        })
    }
}

/// Arguments of `stop`.
#[derive(Debug, Args)]
pub struct Stop {
    #[command(flatten)]
    flags: StopFlags,
}

impl Execute for Stop {
    const ABOUT: &'static str = "Stop one or more running containers";
    const USAGE: &'static str = "[OPTIONS] CONTAINER [CONTAINER...]";
    const ARITY: Arity = Arity::AtLeast(1);

    fn execute(self, context: &Context) -> Result<u8, CliError> {
        let options = self.flags.options()?;
        let engine = context.engine()?;
        several::each(&self.flags.containers, |name| {
            let container = engine.container(name)?;
            if engine.stop(&container, options)?.is_some() {
                foreground::tell(&container.run_warnings());
            }
            Ok(Some(name.to_owned()))
        })
    }
}
