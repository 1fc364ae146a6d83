//! `completion`: what a shell needs to complete our commands. The scripts ask the hidden verb `__complete`.

use clap::{Args, ValueEnum};

use crate::args::{Arity, Execute};
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
        let script = match self.shell {
            Name::Bash => include_str!("bulkhead.bash"),
            Name::Fish => include_str!("bulkhead.fish"),
            Name::Zsh => include_str!("bulkhead.zsh"),
        };
        let mut out = Out::new();
        out.text(script)
            .and_then(|()| out.flush())
            .map_err(CliError::stream(WRITE_OUTPUT))?;
        Ok(0)
    }
}
