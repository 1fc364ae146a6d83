//! `version`: of the program, and of what runs containers.

use clap::Args;

use super::info::ObjectFormat;
use crate::args::{Arity, Execute};
use crate::context::Context;
use crate::error::CliError;
use crate::template::Value;

/// Arguments of `version`.
#[derive(Debug, Args)]
pub struct Version {
    /// Format output: 'json' or a Go template
    #[arg(short, long, value_name = "string")]
    format: Option<String>,
}

impl Execute for Version {
    const ABOUT: &'static str = "Show the Bulkhead version information";
    const USAGE: &'static str = "[OPTIONS]";
    const ARITY: Arity = Arity::None;

    fn execute(self, context: &Context) -> Result<u8, CliError> {
        let format = ObjectFormat::parse(self.format.as_deref())?;
        let version = context.engine()?.version();
        let value = Value::of(&version)?;
        // Scripts ask for .Client.Version and .Server.Version: here they are one program.
        let both = Value::Map(vec![
            ("Client".to_owned(), value.clone()),
            ("Server".to_owned(), value),
        ]);
        format.print(&both, || {
            let missing = || "none (see 'bulkhead doctor')".to_owned();
            format!(
                "Bulkhead:\n Version:       {}\n OS/Arch:       {}/{}\n Host kernel:   {}\n Guest kernel:  {}\n Agent:         {}\n",
                version.version,
                version.os,
                version.arch,
                version.kernel_version,
                version.guest_kernel.clone().unwrap_or_else(missing),
                version.agent.clone().unwrap_or_else(missing),
            )
        })
    }

    fn failure_code(error: &CliError) -> u8 {
        error.object_exit_code()
    }
}
