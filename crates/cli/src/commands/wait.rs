//! `wait`: block until containers have ended, and say how.

use clap::Args;

use super::{foreground, several};
use crate::args::{Arity, Execute};
use crate::context::Context;
use crate::error::CliError;

/// Arguments of `wait`.
#[derive(Debug, Args)]
pub struct Wait {
    #[arg(value_name = "CONTAINER", required = true, hide = true)]
    containers: Vec<String>,
}

impl Execute for Wait {
    const ABOUT: &'static str =
        "Block until one or more containers stop, then print their exit codes";
    const USAGE: &'static str = "CONTAINER [CONTAINER...]";
    const ARITY: Arity = Arity::AtLeast(1);

    fn execute(self, context: &Context) -> Result<u8, CliError> {
        let engine = context.engine()?;
        several::each(&self.containers, |name| {
            let container = engine.container(name)?;
            let status = engine.wait(&container)?;
            foreground::tell_unrecorded(&container);
            Ok(Some(status.code.to_string()))
        })
    }
}
