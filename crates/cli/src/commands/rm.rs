//! `rm`: remove containers.

use bulkhead_engine::{ErrorKind, RemoveOptions};
use clap::Args;

use super::several;
use crate::args::{Arity, Execute};
use crate::context::Context;
use crate::error::CliError;
use crate::output::say;

/// Arguments of `rm`.
#[derive(Debug, Args)]
pub struct Rm {
    /// Force the removal of a running container (uses SIGKILL)
    #[arg(short, long)]
    force: bool,
    /// Remove anonymous volumes associated with the container (they always go with it)
    #[arg(short, long)]
    #[allow(
        dead_code,
        reason = "anonymous volumes are inside the container and go with it in any case"
    )]
    volumes: bool,
    #[arg(value_name = "CONTAINER", required = true, hide = true)]
    containers: Vec<String>,
}

impl Execute for Rm {
    const ABOUT: &'static str = "Remove one or more containers";
    const USAGE: &'static str = "[OPTIONS] CONTAINER [CONTAINER...]";
    const ARITY: Arity = Arity::AtLeast(1);

    fn execute(self, context: &Context) -> Result<u8, CliError> {
        let options = RemoveOptions { force: self.force };
        let engine = context.engine()?;
        several::each(&self.containers, |name| {
            match engine.remove(name, options) {
                // As in Docker, `rm -f` of what is not there is told but is no failure.
                Err(error) if self.force && error.kind() == ErrorKind::NotFound => {
                    say(format_args!("bulkhead: {error}"));
                    Ok(None)
                }
                other => other.map(|_| Some(name.to_owned())).map_err(CliError::from),
            }
        })
    }
}
