//! `rmi`: take names and images away.

use bulkhead_engine::ErrorKind;
use bulkhead_image::Removed;
use clap::Args;

use super::several;
use crate::args::{Arity, Execute};
use crate::context::Context;
use crate::error::CliError;
use crate::output::say;

/// Arguments of `rmi`.
#[derive(Debug, Args)]
pub struct Rmi {
    /// Force removal of the image
    #[arg(short, long)]
    force: bool,
    #[arg(value_name = "IMAGE", required = true, hide = true)]
    images: Vec<String>,
}

impl Execute for Rmi {
    const ABOUT: &'static str = "Remove one or more images";
    const USAGE: &'static str = "[OPTIONS] IMAGE [IMAGE...]";
    const ARITY: Arity = Arity::AtLeast(1);

    fn execute(self, context: &Context) -> Result<u8, CliError> {
        let engine = context.engine()?;
        several::each(&self.images, |name| {
            match engine.remove_image(name, self.force) {
                Err(error) if self.force && error.kind() == ErrorKind::NotFound => {
                    say(format_args!("bulkhead: {error}"));
                    Ok(None)
                }
                other => {
                    let lines: Vec<String> = other?.iter().map(line).collect();
                    Ok((!lines.is_empty()).then(|| lines.join("\n")))
                }
            }
        })
    }
}

/// A line for what went.
pub fn line(removed: &Removed) -> String {
    match removed {
        Removed::Untagged(name) => format!("Untagged: {}", name.familiar()),
        Removed::Deleted(id) => format!("Deleted: {id}"),
    }
}
