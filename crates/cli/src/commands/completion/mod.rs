//! `completion`: what a shell needs to complete our commands.

use clap::{Args, ValueEnum};
use clap_complete::{Shell, generate};

use crate::args::{Arity, Execute, full_tree};
use crate::context::Context;
use crate::error::{CliError, WRITE_OUTPUT};
use crate::output::Out;

/// Shells that `make install` serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Name {
    Bash,
    Fish,
    Zsh,
}

/// Arguments of `completion`.
#[derive(Debug, Args)]
pub struct Completion {
    #[arg(value_name = "SHELL", value_enum, hide = true)]
    shell: Name,
}

impl Execute for Completion {
    const ABOUT: &'static str = "Print a completion script (bash, zsh, fish)";
    const USAGE: &'static str = "bash|zsh|fish";
    const ARITY: Arity = Arity::Exactly(1);

    fn execute(self, _: &Context) -> Result<u8, CliError> {
        let shell = match self.shell {
            Name::Bash => Shell::Bash,
            Name::Fish => Shell::Fish,
            Name::Zsh => Shell::Zsh,
        };
        let mut script = Vec::new();
        generate(shell, &mut full_tree(), "bulkhead", &mut script);
        let mut out = Out::new();
        out.text(&String::from_utf8_lossy(&script))
            .and_then(|()| out.flush())
            .map_err(CliError::stream(WRITE_OUTPUT))?;
        Ok(0)
    }
}
