//! `bootstrap`: an image of a Debian suite from Debian's own packages.

use bulkhead_image::{BootstrapOptions, Reference, bootstrap};
use clap::Args;

use crate::args::{Arity, Execute};
use crate::context::Context;
use crate::error::{CliError, WRITE_OUTPUT};
use crate::output::Out;
use crate::progress::{self, Work};

/// Arguments of `bootstrap`.
#[derive(Debug, Args)]
pub struct Bootstrap {
    /// Packages to install besides the minimum (comma separated or repeated)
    #[arg(long, value_name = "list", value_delimiter = ',')]
    include: Vec<String>,
    /// Mirror or line for sources.list (default: Debian's own)
    #[arg(long, value_name = "list")]
    mirror: Vec<String>,
    /// How mmdebstrap gets the rights it needs: "auto", "root", "unshare", "fakechroot" (default "auto")
    #[arg(long, value_name = "string")]
    mode: Option<String>,
    /// Suppress progress output
    #[arg(short, long)]
    quiet: bool,
    /// Which packages are the minimum: mmdebstrap's variant (default "minbase")
    #[arg(long, value_name = "string")]
    variant: Option<String>,
    #[arg(value_name = "SUITE", hide = true)]
    suite: String,
    #[arg(value_name = "REPOSITORY", hide = true)]
    repository: Option<String>,
}

impl Execute for Bootstrap {
    const ABOUT: &'static str = "Make an image of a Debian suite from its own packages";
    const USAGE: &'static str = "[OPTIONS] SUITE [REPOSITORY[:TAG]]";
    const ARITY: Arity = Arity::AtLeast(1);

    fn execute(self, context: &Context) -> Result<u8, CliError> {
        let mut options = BootstrapOptions::new(self.suite);
        options.include = self.include;
        options.mirrors = self.mirror;
        options.mode = self.mode.unwrap_or(options.mode);
        options.variant = self.variant.unwrap_or(options.variant);
        options.reference = self
            .repository
            .as_deref()
            .map(str::parse::<Reference>)
            .transpose()?;
        let progress = progress::choose(self.quiet, Work::Other);
        let image = bootstrap(
            context.engine_to_create()?.store()?,
            &options,
            progress.as_ref(),
        )?;
        Out::new()
            .line(&image.id.to_string())
            .map_err(CliError::stream(WRITE_OUTPUT))?;
        Ok(0)
    }
}
