//! `restart`: stop, then start again.

use clap::Args;

use super::foreground;
use super::several;
use super::stop::StopFlags;
use crate::args::{Arity, Execute};
use crate::context::Context;
use crate::error::CliError;

/// Arguments of `restart`.
#[derive(Debug, Args)]
pub struct Restart {
    #[command(flatten)]
    flags: StopFlags,
}

impl Execute for Restart {
    const ABOUT: &'static str = "Restart one or more containers";
    const USAGE: &'static str = "[OPTIONS] CONTAINER [CONTAINER...]";
    const ARITY: Arity = Arity::AtLeast(1);

    fn execute(self, context: &Context) -> Result<u8, CliError> {
        let options = self.flags.options()?;
        let engine = context.engine()?;
        several::each(&self.flags.containers, |name| {
            foreground::restart(engine, &engine.container(name)?, options)?;
            Ok(Some(name.to_owned()))
        })
    }
}
