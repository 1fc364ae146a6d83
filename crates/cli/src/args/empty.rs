//! Empty values: `--name ""` counts as not given, as with Docker, where a text that nobody gave is empty.
//!
//! Of an option that has one text as its value. A number or a size cannot be empty, and a list has an empty entry then.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;

use clap::{Arg, ArgAction, Command, Id};

use super::tree::takes_value;

/// Kinds of values that are no text, by the names that help gives them.
const NUMBERS: [&str; 3] = ["bytes", "decimal", "int"];
/// Options of which an empty text says something: it takes the image's program away.
const MEANINGFUL: [&str; 1] = ["entrypoint"];

/// An option that was typed with a text as its value.
struct Given {
    option: Id,
    /// Its words, the last excluded.
    words: (usize, usize),
    /// What of its first word belongs to the switches before it (`-it` of `-itu`).
    before: OsString,
    empty: bool,
}

/// The words of a verb without the options that count as not given: where the last of several is empty, none of them
/// counts.
pub(super) fn without(command: &Command, words: &[OsString]) -> Vec<OsString> {
    let given = given(command, words);
    let gone = |one: &Given| {
        let last = given.iter().rev().find(|other| other.option == one.option);
        one.empty || last.is_some_and(|last| last.empty)
    };
    let mut left = Vec::with_capacity(words.len());
    let mut at = 0;
    for one in given.iter().filter(|one| gone(one)) {
        left.extend_from_slice(words.get(at..one.words.0).unwrap_or_default());
        if !one.before.is_empty() {
            left.push(one.before.clone());
        }
        at = one.words.1;
    }
    left.extend_from_slice(words.get(at..).unwrap_or_default());
    left
}

fn given(command: &Command, words: &[OsString]) -> Vec<Given> {
    // Behind the image or the container everything is the command's.
    let ends = command.get_positionals().any(Arg::is_trailing_var_arg_set);
    let mut found = Vec::new();
    let mut at = 0;
    while let Some(word) = words.get(at) {
        let bytes = word.as_bytes();
        if bytes == b"--" {
            break;
        }
        if bytes.len() < 2 || bytes.first() != Some(&b'-') {
            if ends {
                break;
            }
            at += 1;
            continue;
        }
        let Some(Spelled {
            option,
            before,
            value,
        }) = option(command, bytes)
        else {
            at += 1;
            continue;
        };
        let next = words.get(at + 1);
        let end = (at + if value.is_some() { 1 } else { 2 }).min(words.len());
        let value = value.or(next.map(|next| next.as_bytes()));
        if is_text(option) && value.is_some() {
            found.push(Given {
                option: option.get_id().clone(),
                words: (at, end),
                before: OsStr::from_bytes(before).to_owned(),
                empty: value == Some(b""),
            });
        }
        at = end;
    }
    found
}

/// What a word has of an option that takes a value.
struct Spelled<'a, 'b> {
    option: &'a Arg,
    /// Switches, `-it` of `-itu`.
    before: &'b [u8],
    /// Where it is in the same word.
    value: Option<&'b [u8]>,
}

fn option<'a, 'b>(command: &'a Command, word: &'b [u8]) -> Option<Spelled<'a, 'b>> {
    let mut options = command.get_arguments().filter(|arg| takes_value(arg));
    if let Some(long) = word.strip_prefix(b"--") {
        let mut parts = long.splitn(2, |byte| *byte == b'=');
        let name = parts.next().unwrap_or_default();
        let named = |arg: &&Arg| {
            let aliases = arg.get_all_aliases().unwrap_or_default();
            let mut names = arg.get_long().into_iter().chain(aliases);
            names.any(|known| known.as_bytes() == name)
        };
        return Some(Spelled {
            option: options.find(named)?,
            before: b"",
            value: parts.next(),
        });
    }
    let all: Vec<&Arg> = options.collect();
    let letter = |byte: u8| {
        all.iter()
            .find(|arg| arg.get_short() == Some(char::from(byte)))
    };
    let (index, option) = word
        .iter()
        .enumerate()
        .skip(1)
        .find_map(|(index, byte)| Some((index, letter(*byte)?)))?;
    let value = word.get(index + 1..).filter(|rest| !rest.is_empty());
    Some(Spelled {
        option,
        before: word.get(..index).filter(|_| index > 1).unwrap_or_default(),
        value: value.map(|value| value.strip_prefix(b"=").unwrap_or(value)),
    })
}

fn is_text(option: &Arg) -> bool {
    let names = option.get_value_names().unwrap_or_default();
    matches!(option.get_action(), ArgAction::Set)
        && !names.iter().any(|name| NUMBERS.contains(&name.as_str()))
        && !MEANINGFUL.contains(&option.get_id().as_str())
}

#[cfg(test)]
mod tests {
    use super::super::tree::{conventions, verb_flags};
    use super::*;
    use crate::commands::VERBS;

    fn left(verb: &str, words: &[&str]) -> Vec<String> {
        let verb = VERBS.iter().find(|known| known.name == verb).unwrap();
        let words: Vec<OsString> = words.iter().map(Into::into).collect();
        without(&conventions(verb_flags(verb)), &words)
            .into_iter()
            .map(|word| word.into_string().unwrap())
            .collect()
    }

    #[test]
    fn an_empty_text_counts_as_not_given() {
        for words in [
            &["--name", "", "image"][..],
            &["--name=", "image"],
            &["--name", "x", "--name", "", "image"],
            &[
                "-u",
                "",
                "-w=",
                "--pull=",
                "--platform",
                "",
                "--stop-signal",
                "",
                "image",
            ],
        ] {
            assert_eq!(left("run", words), ["image"], "{words:?}");
        }
        assert_eq!(
            left("run", &["--rm", "--detach-keys=", "image"]),
            ["--rm", "image"]
        );
        assert_eq!(left("run", &["-itu", "", "image"]), ["-it", "image"]);
        assert_eq!(left("stop", &["x", "-s", "", "y"]), ["x", "y"]);
        assert_eq!(left("save", &["-o", "", "x"]), ["x"]);
    }

    #[test]
    fn everything_else_stays() {
        for words in [
            &["--name", "", "--name", "x", "image"][..],
            &["--entrypoint", "", "image"],
            &["--memory", "", "-e", "", "--cpus=", "image", "--name", ""],
            &["--label", "--name", "", "image"],
            &["--rm=", "--unknown", "--", "", "--name", ""],
            &["--name"],
        ] {
            let expected: Vec<&str> = match words {
                ["--name", "", "--name", ..] => vec!["--name", "x", "image"],
                words => words.to_vec(),
            };
            assert_eq!(left("run", words), expected, "{words:?}");
        }
    }
}
