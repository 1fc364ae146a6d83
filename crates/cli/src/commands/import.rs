//! `import`: an image from the tar archive of a root file system.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use bulkhead_image::{Change, ImportOptions, Platform, Reference, import};
use clap::Args;

use crate::args::{Arity, Execute};
use crate::context::Context;
use crate::error::{CliError, WRITE_OUTPUT};
use crate::output::Out;
use crate::progress::{self, Work};

/// Arguments of `import`.
#[derive(Debug, Args)]
pub struct Import {
    /// Apply Dockerfile instruction to the created image
    #[arg(short, long, value_name = "list")]
    change: Vec<Change>,
    /// Set commit message for imported image
    #[arg(short, long, value_name = "string")]
    message: Option<String>,
    /// Platform that the image is for ("linux/amd64")
    #[arg(long, value_name = "string")]
    platform: Option<Platform>,
    /// Suppress progress output
    #[arg(short, long)]
    quiet: bool,
    #[arg(value_name = "FILE", hide = true)]
    file: String,
    #[arg(value_name = "REPOSITORY", hide = true)]
    repository: Option<String>,
}

impl Execute for Import {
    const ABOUT: &'static str = "Import the contents from a tarball to create a filesystem image";
    const USAGE: &'static str = "[OPTIONS] file|- [REPOSITORY[:TAG]]";
    const ARITY: Arity = Arity::AtLeast(1);

    fn execute(self, context: &Context) -> Result<u8, CliError> {
        if self.file.contains("://") {
            return Err(CliError::ImportUrl(self.file));
        }
        let options = ImportOptions {
            reference: self
                .repository
                .as_deref()
                .map(str::parse::<Reference>)
                .transpose()?,
            changes: self.change,
            message: self.message,
            platform: self.platform,
        };
        let mut input: Box<dyn Read> = if self.file == "-" {
            Box::new(std::io::stdin().lock())
        } else {
            let path = Path::new(&self.file);
            Box::new(File::open(path).map_err(CliError::file("open", path))?)
        };
        let progress = progress::choose(self.quiet, Work::Other);
        let image = import(
            context.engine_to_create()?.store()?,
            &mut input,
            &options,
            progress.as_ref(),
        )?;
        Out::new()
            .line(&image.id.to_string())
            .map_err(CliError::stream(WRITE_OUTPUT))?;
        Ok(0)
    }
}
