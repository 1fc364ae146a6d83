//! `gen-man`: man pages, for `make install`. Not listed: nobody types it.

use std::path::{Path, PathBuf};

use clap::{Args, Command};
use clap_mangen::Man;

use crate::args::{Arity, Execute, full_tree};
use crate::context::Context;
use crate::error::CliError;

/// Arguments of `gen-man`.
#[derive(Debug, Args)]
pub struct GenMan {
    #[arg(value_name = "DIR", hide = true)]
    directory: PathBuf,
}

impl Execute for GenMan {
    const ABOUT: &'static str = "Write man pages into a directory";
    const USAGE: &'static str = "DIR";
    const ARITY: Arity = Arity::Exactly(1);

    fn execute(self, _: &Context) -> Result<u8, CliError> {
        std::fs::create_dir_all(&self.directory)
            .map_err(CliError::file("create directory", &self.directory))?;
        let mut tree = full_tree();
        tree.build();
        write(&tree, "bulkhead", &self.directory)?;
        Ok(0)
    }
}

/// A page for the command and one for each below it.
fn write(command: &Command, name: &str, directory: &Path) -> Result<(), CliError> {
    let path = directory.join(format!("{name}.1"));
    let mut page = Vec::new();
    Man::new(command.clone())
        .render(&mut page)
        .and_then(|()| std::fs::write(&path, &page))
        .map_err(CliError::file("write", &path))?;
    for sub in command.get_subcommands() {
        write(sub, &format!("{name}-{}", sub.get_name()), directory)?;
    }
    Ok(())
}
