//! `doctor`: whether containers can run here, and what to do where they cannot.

use bulkhead_engine::{Check, CheckStatus};
use bulkhead_types::exit_code;
use clap::Args;

use super::info::ObjectFormat;
use crate::args::{Arity, Execute};
use crate::context::Context;
use crate::error::CliError;
use crate::template::Value;

/// Arguments of `doctor`.
#[derive(Debug, Args)]
pub struct Doctor {
    /// Format output: 'json' or a Go template
    #[arg(short, long, value_name = "string")]
    format: Option<String>,
}

impl Execute for Doctor {
    const ABOUT: &'static str = "Check whether containers can run here, and how well";
    const USAGE: &'static str = "[OPTIONS]";
    const ARITY: Arity = Arity::None;

    fn execute(self, context: &Context) -> Result<u8, CliError> {
        let format = ObjectFormat::parse(self.format.as_deref())?;
        let checks = context.engine()?.doctor();
        format.print(&Value::of(&checks)?, || checks.iter().map(line).collect())?;
        let failed = checks.iter().any(|check| check.status == CheckStatus::Fail);
        Ok(if failed { exit_code::FAILURE } else { 0 })
    }

    fn failure_code(error: &CliError) -> u8 {
        error.object_exit_code()
    }
}

fn line(check: &Check) -> String {
    let mark = match check.status {
        CheckStatus::Ok => "ok  ",
        CheckStatus::Warn => "warn",
        CheckStatus::Fail => "FAIL",
    };
    let mut text = format!("[{mark}] {}: {}\n", check.name, check.detail);
    if !check.remedy.is_empty() {
        text.push_str(&format!("       -> {}\n", check.remedy));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_comes_with_what_to_do() {
        let check = Check {
            name: "kernel".to_owned(),
            status: CheckStatus::Fail,
            detail: "not found".to_owned(),
            remedy: "make kernel".to_owned(),
        };
        assert_eq!(
            line(&check),
            "[FAIL] kernel: not found\n       -> make kernel\n"
        );
    }
}
