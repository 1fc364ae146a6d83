//! `pull`: an image from a registry.

use bulkhead_engine::Engine;
use bulkhead_image::{Image, Platform, Progress, PullOptions, Reference, RegistryOptions, pull};
use clap::Args;

use crate::args::{Arity, Execute};
use crate::context::Context;
use crate::error::{CliError, WRITE_OUTPUT};
use crate::output::Out;
use crate::progress::{self, Work};

/// What is said when a name alone was given.
pub const DEFAULT_TAG: &str = "Using default tag: latest";

/// Arguments of `pull`.
#[derive(Debug, Args)]
pub struct Pull {
    /// Choose this platform's image from an index ("linux/amd64")
    #[arg(long, value_name = "string")]
    platform: Option<Platform>,
    /// Suppress verbose output
    #[arg(short, long)]
    quiet: bool,
    #[arg(value_name = "NAME", hide = true)]
    name: String,
}

impl Execute for Pull {
    const ABOUT: &'static str = "Download an image from a registry";
    const USAGE: &'static str = "[OPTIONS] NAME[:TAG|@DIGEST]";
    const ARITY: Arity = Arity::Exactly(1);

    fn execute(self, context: &Context) -> Result<u8, CliError> {
        let engine = context.engine_to_create()?;
        let progress = progress::choose(self.quiet, Work::Pull);
        let mut out = Out::new();
        let mut say = |line: &str| out.line(line).map_err(CliError::stream(WRITE_OUTPUT));
        let reference: Reference = self.name.parse()?;
        if !self.quiet && reference.is_name_only(&self.name) {
            say(DEFAULT_TAG)?;
        }
        let before = engine.store()?.resolve(&reference.to_string()).ok();
        let image = pull_one(engine, &self.name, self.platform, progress.as_ref())?;
        if !self.quiet {
            let digest = reference.digest().unwrap_or(&image.manifest_digest);
            say(&format!("Digest: {digest}"))?;
            let same = before.is_some_and(|old| old.manifest_digest == image.manifest_digest);
            let what = if same {
                "Image is up to date"
            } else {
                "Downloaded newer image"
            };
            say(&format!("Status: {what} for {}", reference.familiar()))?;
        }
        say(&reference.to_string())?;
        Ok(0)
    }
}

/// Pulls by the name that the user typed.
pub fn pull_one(
    engine: &Engine,
    name: &str,
    platform: Option<Platform>,
    progress: &dyn Progress,
) -> Result<Image, CliError> {
    let reference: Reference = name.parse()?;
    let options = PullOptions {
        platform,
        registry: registry_options(engine),
    };
    Ok(pull(engine.store()?, &reference, &options, progress)?)
}

/// How the configuration says to speak to registries.
pub fn registry_options(engine: &Engine) -> RegistryOptions {
    RegistryOptions {
        insecure: engine.settings().insecure_registries.clone(),
        ..RegistryOptions::default()
    }
}
