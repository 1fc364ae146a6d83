//! `save`: images to an archive or an OCI layout.

use std::io::{BufWriter, IsTerminal, Write};
use std::path::PathBuf;

use bulkhead_image::{SaveFormat, SaveTo, save};
use clap::{Args, ValueEnum};

use crate::args::{Arity, Execute};
use crate::context::Context;
use crate::error::{CliError, WRITE_OUTPUT};
use crate::progress::{self, Work};

/// Kinds of archives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    DockerArchive,
    OciArchive,
    OciDir,
}

/// Arguments of `save`.
#[derive(Debug, Args)]
pub struct Save {
    /// Kind of archive: "docker-archive", "oci-archive", "oci-dir" (default "docker-archive")
    #[arg(long, value_name = "string", value_enum, hide_possible_values = true)]
    format: Option<Format>,
    /// Write to a file (or directory), instead of STDOUT
    #[arg(short, long, value_name = "string")]
    output: Option<PathBuf>,
    #[arg(value_name = "IMAGE", required = true, hide = true)]
    images: Vec<String>,
}

impl Execute for Save {
    const ABOUT: &'static str =
        "Save one or more images to an archive (streamed to STDOUT by default)";
    const USAGE: &'static str = "[OPTIONS] IMAGE [IMAGE...]";
    const ARITY: Arity = Arity::AtLeast(1);

    fn execute(self, context: &Context) -> Result<u8, CliError> {
        let format = match self.format {
            None | Some(Format::DockerArchive) => SaveFormat::DockerArchive,
            Some(Format::OciArchive) => SaveFormat::OciArchive,
            Some(Format::OciDir) => SaveFormat::OciDirectory,
        };
        let stdout = std::io::stdout();
        if self.output.is_none() && format == SaveFormat::OciDirectory {
            return Err(CliError::Conflict(
                "an OCI layout directory needs the -o flag",
            ));
        }
        if self.output.is_none() && stdout.is_terminal() {
            return Err(CliError::SaveToTerminal);
        }
        // Bars would be drawn while another program reads the archive: only a file is worth them.
        let progress = progress::choose(self.output.is_none(), Work::Other);
        let store = context.engine_to_write()?.store()?;
        let mut out = BufWriter::with_capacity(256 << 10, stdout.lock());
        let to = match &self.output {
            Some(path) => SaveTo::Path(path),
            None => SaveTo::Writer(&mut out),
        };
        save(store, &self.images, format, to, progress.as_ref())?;
        out.flush().map_err(CliError::stream(WRITE_OUTPUT))?;
        Ok(0)
    }
}
