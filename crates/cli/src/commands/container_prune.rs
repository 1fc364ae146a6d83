//! `container prune`: remove every container that does not run.

use bulkhead_engine::Filters;
use clap::Args;

use crate::args::{Arity, Execute};
use crate::context::Context;
use crate::error::{CliError, WRITE_OUTPUT};
use crate::output::{Out, size};
use crate::terminal::confirm;

/// Arguments of `container prune`.
#[derive(Debug, Args)]
pub struct ContainerPrune {
    /// Provide filter values (e.g. "until=24h")
    #[arg(long, value_name = "filter", value_parser = crate::args::filter_text)]
    filter: Vec<String>,
    /// Do not prompt for confirmation
    #[arg(short, long)]
    force: bool,
}

impl Execute for ContainerPrune {
    const ABOUT: &'static str = "Remove all stopped containers";
    const USAGE: &'static str = "[OPTIONS]";
    const ARITY: Arity = Arity::None;

    fn execute(self, context: &Context) -> Result<u8, CliError> {
        let filters = Filters::parse(&self.filter).map_err(bulkhead_engine::Error::from)?;
        const WARNING: &str = "WARNING! This will remove all stopped containers.";
        let confirmed =
            self.force || confirm(WARNING).map_err(CliError::stream("ask for confirmation"))?;
        if !confirmed {
            return Err(CliError::NotConfirmed("container prune"));
        }
        let report = context.engine()?.prune_containers(&filters)?;
        let mut text = String::new();
        if !report.removed.is_empty() {
            text.push_str("Deleted Containers:\n");
            for id in &report.removed {
                text.push_str(&format!("{id}\n"));
            }
            text.push('\n');
        }
        text.push_str(&format!(
            "Total reclaimed space: {}",
            size(report.reclaimed)
        ));
        Out::new()
            .line(&text)
            .map_err(CliError::stream(WRITE_OUTPUT))?;
        Ok(0)
    }
}
