//! `tag`: another name for an image.

use bulkhead_image::Reference;
use clap::Args;

use crate::args::{Arity, Execute};
use crate::context::Context;
use crate::error::CliError;

/// Arguments of `tag`.
#[derive(Debug, Args)]
pub struct Tag {
    #[arg(value_name = "SOURCE_IMAGE", hide = true)]
    source: String,
    #[arg(value_name = "TARGET_IMAGE", hide = true)]
    target: String,
}

impl Execute for Tag {
    const ABOUT: &'static str = "Create a tag TARGET_IMAGE that refers to SOURCE_IMAGE";
    const USAGE: &'static str = "SOURCE_IMAGE[:TAG] TARGET_IMAGE[:TAG]";
    const ARITY: Arity = Arity::Exactly(2);

    fn execute(self, context: &Context) -> Result<u8, CliError> {
        let target: Reference = self.target.parse()?;
        if target.digest().is_some() {
            return Err(CliError::TagIsDigest);
        }
        let engine = context.engine()?;
        engine.store()?.tag(&engine.image(&self.source)?, &target)?;
        Ok(0)
    }
}
