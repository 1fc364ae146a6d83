//! `push`: an image to a registry.

use bulkhead_image::{Reference, Store, push};
use clap::Args;

use super::pull::{DEFAULT_TAG, registry_options};
use crate::args::{Arity, Execute};
use crate::context::Context;
use crate::error::{CliError, WRITE_OUTPUT};
use crate::output::Out;
use crate::progress::{self, Work};

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
        let progress = progress::choose(self.quiet, Work::Push);
        let options = registry_options(engine);
        let mut out = Out::new();
        let mut say = |line: &str| out.line(line).map_err(CliError::stream(WRITE_OUTPUT));
        if !self.quiet {
            if !self.all_tags && reference.is_name_only(&self.name) {
                say(DEFAULT_TAG)?;
            }
            say(&format!(
                "The push refers to repository [{}]",
                reference.name()
            ))?;
        }
        let here = tags_here(store, &reference)?;
        let references = if self.all_tags {
            here
        } else if reference.digest().is_none() && !here.contains(&reference) {
            return Err(CliError::NoSuchTag(reference.familiar()));
        } else {
            vec![reference.clone()]
        };
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

/// Every name with a tag that the repository of `reference` has in the store.
fn tags_here(store: &Store, reference: &Reference) -> Result<Vec<Reference>, CliError> {
    let names = store.images()?.into_iter().flat_map(|image| image.names);
    let same = |name: &Reference| name.name() == reference.name() && name.digest().is_none();
    let found: Vec<Reference> = names.filter(same).collect();
    match found.is_empty() {
        true => Err(CliError::NothingToPush(reference.familiar_name())),
        false => Ok(found),
    }
}
