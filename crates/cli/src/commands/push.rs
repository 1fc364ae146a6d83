//! `push`: an image to a registry.

use bulkhead_image::{Reference, push};
use clap::Args;

use super::pull::registry_options;
use crate::args::{Arity, Execute};
use crate::context::Context;
use crate::error::{CliError, WRITE_OUTPUT};
use crate::output::Out;
use crate::progress;

/// Arguments of `push`.
#[derive(Debug, Args)]
pub struct Push {
    /// Push all tags of an image to the repository
    #[arg(short, long)]
    all_tags: bool,
    /// Suppress verbose output
    #[arg(short, long)]
    quiet: bool,
    #[arg(value_name = "NAME", hide = true)]
    name: String,
}

impl Execute for Push {
    const ABOUT: &'static str = "Upload an image to a registry";
    const USAGE: &'static str = "[OPTIONS] NAME[:TAG]";
    const ARITY: Arity = Arity::Exactly(1);

    fn execute(self, context: &Context) -> Result<u8, CliError> {
        let engine = context.engine()?;
        let store = engine.store()?;
        let reference: Reference = self.name.parse()?;
        let references = if self.all_tags {
            let images = store.images()?;
            let names = images.into_iter().flat_map(|image| image.names);
            let same =
                |name: &Reference| name.name() == reference.name() && name.digest().is_none();
            let found: Vec<Reference> = names.filter(same).collect();
            if found.is_empty() {
                return Err(CliError::NothingToPush(reference.familiar_name()));
            }
            found
        } else {
            vec![reference.clone()]
        };
        let progress = progress::choose(self.quiet);
        let options = registry_options(engine);
        let mut out = Out::new();
        let mut say = |line: &str| out.line(line).map_err(CliError::stream(WRITE_OUTPUT));
        if !self.quiet {
            say(&format!(
                "The push refers to repository [{}]",
                reference.name()
            ))?;
        }
        for reference in &references {
            let summary = push(store, reference, &options, progress.as_ref())?;
            if self.quiet {
                say(&reference.to_string())?;
            } else {
                let tag = reference.tag().unwrap_or("latest");
                say(&format!(
                    "{tag}: digest: {} size: {}",
                    summary.digest, summary.size
                ))?;
            }
        }
        Ok(0)
    }
}
