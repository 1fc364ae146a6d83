//! `load`: images from an archive or an OCI layout.

use std::io::IsTerminal;
use std::path::PathBuf;

use bulkhead_image::{LoadEvent, LoadFrom, LoadOptions, Platform, load_reporting};
use bulkhead_types::{GuestText, chain};
use clap::Args;

use crate::args::{Arity, Execute};
use crate::context::Context;
use crate::error::{CliError, WRITE_OUTPUT};
use crate::output::{Out, say};
use crate::progress::{self, Work};

/// Arguments of `load`.
#[derive(Debug, Args)]
pub struct Load {
    /// Read from an archive file or an OCI layout directory, instead of STDIN
    #[arg(short, long, value_name = "string")]
    input: Option<PathBuf>,
    /// Load only the given platform variant ("linux/amd64")
    #[arg(long, value_name = "string")]
    platform: Option<Platform>,
    /// Suppress the load output
    #[arg(short, long)]
    quiet: bool,
}

impl Execute for Load {
    const ABOUT: &'static str = "Load images from an archive, an OCI layout directory or STDIN";
    const USAGE: &'static str = "[OPTIONS]";
    const ARITY: Arity = Arity::None;

    fn execute(self, context: &Context) -> Result<u8, CliError> {
        let mut stdin = std::io::stdin().lock();
        let from = match &self.input {
            Some(path) => LoadFrom::Path(path),
            None if std::io::stdin().is_terminal() => return Err(CliError::LoadFromTerminal),
            None => LoadFrom::Reader(&mut stdin),
        };
        let progress = progress::choose(self.quiet, Work::Other);
        let options = LoadOptions {
            platform: self.platform,
        };
        let mut out = Out::new();
        let mut written = Ok(());
        let loaded = load_reporting(
            context.engine_to_create()?.store()?,
            from,
            &options,
            progress.as_ref(),
            // At once: an archive whose end is bad has loaded what it named before.
            &mut |event| {
                progress.aside(&mut || {
                    for line in said(&event) {
                        if written.is_ok() {
                            written = out.line(&line);
                        }
                    }
                    // The archive's own words are in it.
                    let words = |why| GuestText::line(&chain(why));
                    match event {
                        LoadEvent::Skipped { what, why } => {
                            say(format_args!("Skipped {what}: {}", words(why)));
                        }
                        LoadEvent::Failed { what, why } => {
                            say(format_args!("bulkhead: cannot load {what}: {}", words(why)));
                            if let Some(hint) = why.hint() {
                                say(format_args!("hint: {hint}"));
                            }
                        }
                        _ => {}
                    }
                });
            },
        );
        written.map_err(CliError::stream(WRITE_OUTPUT))?;
        loaded?;
        Ok(0)
    }
}

/// What Docker says of an image that is loaded.
fn said(event: &LoadEvent<'_>) -> Vec<String> {
    match event {
        LoadEvent::Renamed { name, old } => vec![format!(
            "The image {} already exists, renaming the old one with ID {old} to empty string",
            name.familiar()
        )],
        LoadEvent::Loaded { image, names: [] } => {
            vec![format!("Loaded image ID: {}", image.id)]
        }
        LoadEvent::Loaded { names, .. } => names
            .iter()
            .map(|name| format!("Loaded image: {}", name.familiar()))
            .collect(),
        LoadEvent::Skipped { .. } | LoadEvent::Failed { .. } => Vec::new(),
    }
}
