//! `load`: images from an archive or an OCI layout.

use std::io::IsTerminal;
use std::path::PathBuf;

use bulkhead_image::{LoadFrom, LoadOptions, Platform, load};
use clap::Args;

use crate::args::{Arity, Execute};
use crate::context::Context;
use crate::error::{CliError, WRITE_OUTPUT};
use crate::output::Out;
use crate::progress;

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
        let progress = progress::choose(self.quiet);
        let options = LoadOptions {
            platform: self.platform,
        };
        let images = load(
            context.engine_to_create()?.store()?,
            from,
            &options,
            progress.as_ref(),
        )?;
        let mut out = Out::new();
        for image in &images {
            let lines: Vec<String> = if image.names.is_empty() {
                vec![format!("Loaded image ID: {}", image.id)]
            } else {
                image
                    .names
                    .iter()
                    .map(|name| format!("Loaded image: {}", name.familiar()))
                    .collect()
            };
            for line in lines {
                out.line(&line).map_err(CliError::stream(WRITE_OUTPUT))?;
            }
        }
        Ok(0)
    }
}
