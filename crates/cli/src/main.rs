//! The bulkhead command line.
//!
//! | module | what it is for |
//! |---|---|
//! | `args` | words to a verb and its arguments, complaints in Docker's words |
//! | `commands` | one file per verb |
//! | `output`, `template` | tables, JSON, `--format` |
//! | `interrupted` | what is left to do when a signal ended a command |
//! | `terminal`, `progress` | the user's side of streams, signals and long operations |

mod args;
mod commands;
mod context;
mod error;
mod interrupted;
mod output;
mod progress;
mod template;
mod terminal;

use std::ffi::OsString;
use std::process::ExitCode;

use nix::sys::signal::Signal;

fn main() -> ExitCode {
    let words: Vec<OsString> = std::env::args_os().collect();
    // A sandbox is started for every container: nothing of the command line may stand in its way.
    if words
        .first()
        .is_some_and(|name| bulkhead_sandbox::is_monitor(name))
    {
        return bulkhead_sandbox::main();
    }
    if words
        .get(1)
        .is_some_and(|word| word == terminal::INTERRUPTED_VERB)
    {
        interrupted::main(words.get(2..).unwrap_or_default());
    }
    let parsed = match args::parse(&words) {
        Ok(Some(parsed)) => parsed,
        Ok(None) => return ExitCode::SUCCESS,
        Err(complaint) => {
            eprintln!("{}", complaint.text);
            return ExitCode::from(complaint.code);
        }
    };
    let context = context::Context::new(&parsed.globals);
    match (parsed.verb.execute)(&parsed.matches, &context) {
        Ok(code) => ExitCode::from(code),
        Err(error::CliError::Interrupted(signal)) => terminal::end_by(signal),
        Err(error) if error.is_broken_pipe() => terminal::end_by(Signal::SIGPIPE),
        Err(error) => {
            error::report(&error);
            ExitCode::from((parsed.verb.failure_code)(&error))
        }
    }
}
