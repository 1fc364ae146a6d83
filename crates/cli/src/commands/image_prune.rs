//! `image prune`: remove images that nobody needs.

use bulkhead_engine::Filters;
use clap::Args;

use super::rmi::line;
use crate::args::{Arity, Execute};
use crate::context::Context;
use crate::error::{CliError, WRITE_OUTPUT};
use crate::output::{Out, size};
use crate::terminal::confirm;

/// Arguments of `image prune`.
#[derive(Debug, Args)]
pub struct ImagePrune {
    /// Remove all unused images, not just dangling ones
    #[arg(short, long)]
    all: bool,
    /// Provide filter values (e.g. "until=24h")
    #[arg(long, value_name = "filter", value_parser = crate::args::filter_text)]
    filter: Vec<String>,
    /// Do not prompt for confirmation
    #[arg(short, long)]
    force: bool,
}

impl Execute for ImagePrune {
    const ABOUT: &'static str = "Remove unused images";
    const USAGE: &'static str = "[OPTIONS]";
    const ARITY: Arity = Arity::None;

    fn execute(self, context: &Context) -> Result<u8, CliError> {
        let filters = Filters::parse(&self.filter).map_err(bulkhead_engine::Error::from)?;
        let warning = if self.all {
            "WARNING! This will remove all images without at least one container associated to them."
        } else {
            "WARNING! This will remove all dangling images."
        };
        let confirmed =
            self.force || confirm(warning).map_err(CliError::stream("ask for confirmation"))?;
        if !confirmed {
            return Err(CliError::NotConfirmed("image prune"));
        }
        let pruned = context.engine()?.prune_images(self.all, &filters)?;
        let mut text = String::new();
        if !pruned.removed.is_empty() {
            text.push_str("Deleted Images:\n");
            for removed in &pruned.removed {
                text.push_str(&line(removed).replacen('U', "u", 1).replacen('D', "d", 1));
                text.push('\n');
            }
            text.push('\n');
        }
        text.push_str(&format!(
            "Total reclaimed space: {}",
            size(pruned.reclaimed)
        ));
        Out::new()
            .line(&text)
            .map_err(CliError::stream(WRITE_OUTPUT))?;
        Ok(0)
    }
}
