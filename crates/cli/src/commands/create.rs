//! `create`: a container that does not run yet.

use bulkhead_types::exit_code;
use clap::Args;

use super::create_flags::CreateFlags;
use crate::args::{Arity, Execute};
use crate::context::Context;
use crate::error::{CliError, WRITE_OUTPUT};
use crate::output::Out;
use crate::terminal;

/// Arguments of `create`.
#[derive(Debug, Args)]
pub struct Create {
    #[command(flatten)]
    flags: CreateFlags,
}

impl Execute for Create {
    const ABOUT: &'static str = "Create a new container";
    const USAGE: &'static str = "[OPTIONS] IMAGE [COMMAND] [ARG...]";
    const ARITY: Arity = Arity::AtLeast(1);

    fn execute(self, context: &Context) -> Result<u8, CliError> {
        let container = self.flags.create(context.engine_to_create()?, false)?;
        terminal::keep_container();
        Out::new()
            .line(container.id().as_str())
            .map_err(CliError::stream(WRITE_OUTPUT))?;
        Ok(0)
    }

    fn failure_code(error: &CliError) -> u8 {
        match error {
            CliError::ListFile(_) | CliError::CidFileExists(_) => exit_code::ENGINE,
            _ => exit_code::FAILURE,
        }
    }
}
