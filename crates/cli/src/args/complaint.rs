//! Wrong usage, in the words and with the exit codes of Docker's client.

use std::error::Error as _;
use std::ffi::OsString;

use bulkhead_types::exit_code;
use clap::Command;
use clap::error::{ContextKind, ContextValue, ErrorKind};

use super::absent;
use super::tree::needs_next_word;
use super::verb::{Arity, Verb};

/// What is wrong with a command line, ready to be printed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Complaint {
    /// All lines, without a final new line.
    pub text: String,
    /// 125 for flags, 1 for words.
    pub code: u8,
}

impl Complaint {
    /// A command that does not exist.
    pub fn unknown_command(path: &str, word: &str) -> Self {
        let usage = if path == "bulkhead" {
            String::new()
        } else {
            format!("\n\nUsage:  {path}")
        };
        let said = absent::command(path, word)
            .unwrap_or_else(|| format!("bulkhead: unknown command: {path} {word}{usage}"));
        Self {
            text: format!("{said}\n\nRun '{path} --help' for more information"),
            code: exit_code::FAILURE,
        }
    }

    /// A flag that does not exist.
    pub fn unknown_flag(path: &str, usage: &str, word: &str) -> Self {
        Self::flag(&unknown(word), path, usage)
    }

    /// `bulkhead help` about nothing.
    pub fn unknown_topic(words: &str) -> Self {
        Self {
            text: format!("unknown help topic: {words}"),
            code: exit_code::FAILURE,
        }
    }

    fn flag(message: &str, path: &str, usage: &str) -> Self {
        let usage = format!("{path} {usage}");
        Self {
            text: format!(
                "{message}\n\nUsage:  {}\n\nRun '{path} --help' for more information",
                usage.trim_end()
            ),
            code: exit_code::ENGINE,
        }
    }

    fn words(arity: Arity, path: &str, usage: &str) -> Self {
        let plural = |n: usize| if n == 1 { "argument" } else { "arguments" };
        let demand = match arity {
            Arity::None => "accepts no arguments".to_owned(),
            Arity::Exactly(n) => format!("requires {n} {}", plural(n)),
            Arity::AtLeast(n) => format!("requires at least {n} {}", plural(n)),
            Arity::AtMost(n) => format!("requires at most {n} {}", plural(n)),
        };
        let mut complaint = Self::flag(&format!("bulkhead: '{path}' {demand}"), path, usage);
        complaint.code = exit_code::FAILURE;
        complaint
    }

    /// Translates clap's error; `last` is the last word of the line.
    pub(super) fn from_clap(
        error: &clap::Error,
        command: &Command,
        path: &str,
        verb: Option<&Verb>,
        words: &[OsString],
    ) -> Self {
        let ends = words
            .last()
            .is_some_and(|word| needs_next_word(command, &word.to_string_lossy()));
        let usage = verb.map_or("[OPTIONS] COMMAND [ARG...]", |verb| verb.usage);
        let arity = verb.map_or(Arity::None, |verb| verb.arity);
        let argument = context(error, ContextKind::InvalidArg);
        let value = context(error, ContextKind::InvalidValue);
        match error.kind() {
            ErrorKind::UnknownArgument if argument.starts_with('-') && argument.len() > 1 => {
                let said = absent::flag(verb, &argument).unwrap_or_else(|| unknown(&argument));
                Self::flag(&said, path, usage)
            }
            ErrorKind::UnknownArgument
            | ErrorKind::MissingRequiredArgument
            | ErrorKind::TooManyValues
            | ErrorKind::TooFewValues
            | ErrorKind::WrongNumberOfValues
                if !argument.starts_with('-') =>
            {
                Self::words(arity, path, usage)
            }
            // An option at the end of the line shows as an empty value, and so does one of a list that was given as such.
            ErrorKind::InvalidValue | ErrorKind::TooFewValues | ErrorKind::WrongNumberOfValues
                if value.is_empty() && ends =>
            {
                Self::flag(&needs_value(&argument, words.last()), path, usage)
            }
            ErrorKind::InvalidValue | ErrorKind::ValueValidation | ErrorKind::TooManyValues => {
                let reason = error.source().map(ToString::to_string).unwrap_or_else(|| {
                    let valid = contexts(error, ContextKind::ValidValue);
                    format!("must be one of {}", valid.join(", "))
                });
                if !argument.starts_with('-') {
                    return Self::flag(&format!("bulkhead: {reason}"), path, usage);
                }
                let name = flag_names(command, &argument);
                let message = format!("invalid argument {value:?} for \"{name}\" flag: {reason}");
                Self::flag(&message, path, usage)
            }
            ErrorKind::InvalidUtf8 => {
                Self::flag("bulkhead: an argument is not valid UTF-8", path, usage)
            }
            _ => Self::flag(error.to_string().trim_end(), path, usage),
        }
    }
}

fn context(error: &clap::Error, kind: ContextKind) -> String {
    contexts(error, kind).join(", ")
}

fn contexts(error: &clap::Error, kind: ContextKind) -> Vec<String> {
    match error.get(kind) {
        Some(ContextValue::String(text)) => vec![text.clone()],
        Some(ContextValue::Strings(texts)) => texts.clone(),
        _ => Vec::new(),
    }
}

fn first_word(text: &str) -> &str {
    text.split_whitespace().next().unwrap_or(text)
}

fn unknown(word: &str) -> String {
    let name = word.split('=').next().unwrap_or(word);
    match word.strip_prefix('-').filter(|rest| !rest.starts_with('-')) {
        Some(shorts) => {
            let first = shorts.chars().next().unwrap_or('-');
            format!("unknown shorthand flag: '{first}' in -{shorts}")
        }
        None => format!("unknown flag: {name}"),
    }
}

/// clap names the flag as `--memory <bytes>`. What lacks a value is the end of the line, where pflag names a short flag as
/// it was typed: the last letter of several.
fn needs_value(argument: &str, typed: Option<&OsString>) -> String {
    let typed = typed.map(|word| word.to_string_lossy());
    let short = typed
        .as_deref()
        .filter(|word| word.starts_with('-') && !word.starts_with("--"))
        .and_then(|word| word.chars().next_back());
    match short {
        Some(short) => format!("flag needs an argument: '{short}' in -{short}"),
        None => format!("flag needs an argument: {}", first_word(argument)),
    }
}

/// `-m, --memory` for `--memory <bytes>`.
fn flag_names(command: &Command, argument: &str) -> String {
    let long = first_word(argument);
    let long = long.split(['=', '[']).next().unwrap_or(long);
    let found = command
        .get_arguments()
        .find(|arg| arg.get_long().is_some_and(|l| long == format!("--{l}")));
    match found.and_then(clap::Arg::get_short) {
        Some(short) => format!("-{short}, {long}"),
        None => long.to_owned(),
    }
}
