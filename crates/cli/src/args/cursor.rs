//! What stands at the end of a command line that is being typed: for completions.

use std::ffi::OsString;

use clap::{Arg, Command};

use super::tree::{global_flags, globals_length, needs_next_word, takes_value, verb_flags};
use super::verb::{Arity, Group, Heading, Verb};
use crate::commands::{GROUPS, VERBS};

/// A word and what it is for.
pub type Suggestion = (String, String);

/// What may follow.
pub enum Cursor {
    /// These words, whatever the system's state.
    Words(Vec<Suggestion>),
    /// The value of an option; `prefix` is what of the word precedes it (`--format=`).
    Value {
        /// The verb, where the option is not a global one.
        verb: Option<&'static Verb>,
        /// The option.
        option: Box<Arg>,
        /// What stands before the value in the same word.
        prefix: String,
    },
    /// A word of a verb that is no flag.
    Operand {
        /// The verb.
        verb: &'static Verb,
        /// The name of the operand in the usage line, such as `CONTAINER`.
        name: String,
    },
    /// Whatever the shell thinks, such as names of files.
    Nothing,
}

/// What of the line's words belongs to the program: the words before the last, and the last, which is being typed.
pub struct Line {
    /// The words after the program's name that are complete.
    pub words: Vec<String>,
    /// The word at the cursor, perhaps empty.
    pub current: String,
}

impl Line {
    /// Splits a line as a shell does, quotes and backslashes removed. The first word is the program.
    pub fn parse(text: &str) -> Self {
        let mut words = Vec::new();
        let mut current = String::new();
        let mut begun = false;
        let mut quote = None;
        let mut characters = text.chars();
        while let Some(c) = characters.next() {
            match (quote, c) {
                (None, c) if c.is_whitespace() => {
                    if begun {
                        words.push(std::mem::take(&mut current));
                    }
                    begun = false;
                    continue;
                }
                (None, '\'' | '"') => quote = Some(c),
                (Some(open), c) if c == open => quote = None,
                (None | Some('"'), '\\') => current.extend(characters.next()),
                (_, c) => current.push(c),
            }
            begun = true;
        }
        if !words.is_empty() {
            words.remove(0);
        }
        Self { words, current }
    }

    /// The words before the verb, for the options that say which state directory is meant.
    pub fn globals(&self) -> Vec<OsString> {
        let words: Vec<OsString> = self.words.iter().map(OsString::from).collect();
        let length = globals_length(&words).min(words.len());
        std::iter::once(OsString::from("bulkhead"))
            .chain(words.into_iter().take(length))
            .collect()
    }

    /// What may stand at the cursor.
    pub fn cursor(&self) -> Cursor {
        let before = self.globals().len() - 1;
        let globals = global_flags();
        let last_global = before.checked_sub(1).and_then(|last| self.words.get(last));
        if before == self.words.len() {
            let waiting = last_global.filter(|word| needs_next_word(&globals, word));
            return match waiting.and_then(|word| option(&globals, word)) {
                Some(option) => value(None, option, ""),
                None if self.current.starts_with('-') => self.flag(None, &globals),
                None => Cursor::Words(commands()),
            };
        }
        let rest = self.words.get(before..).unwrap_or_default();
        let Some((first, rest)) = rest.split_first() else {
            return Cursor::Nothing;
        };
        if let Some(verb) = VERBS.iter().find(|verb| verb.is(first)) {
            return self.of_verb(verb, rest);
        }
        let Some(group) = GROUPS.iter().find(|group| group.name == first) else {
            return Cursor::Nothing;
        };
        match rest.split_first() {
            None => Cursor::Words(verbs(group)),
            Some((word, rest)) => match group.verbs.iter().find(|verb| verb.is(word)) {
                Some(verb) => self.of_verb(verb, rest),
                None => Cursor::Nothing,
            },
        }
    }

    fn of_verb(&self, verb: &'static Verb, words: &[String]) -> Cursor {
        let command = verb_flags(verb);
        let positionals: Vec<&Arg> = command.get_positionals().collect();
        // Behind the image or the container everything is the command's.
        let ends_flags = positionals.iter().any(|arg| arg.is_trailing_var_arg_set());
        let mut operands = 0;
        let mut flags = true;
        let mut waiting = None;
        for word in words {
            if waiting.take().is_some() {
                continue;
            }
            match word.as_str() {
                "--" if flags => flags = false,
                word if flags && word.len() > 1 && word.starts_with('-') => {
                    waiting = needs_next_word(&command, word)
                        .then(|| option(&command, word))
                        .flatten();
                }
                _ => {
                    operands += 1;
                    flags &= !ends_flags;
                }
            }
        }
        if let Some(option) = waiting {
            return value(Some(verb), option, "");
        }
        if flags && self.current.starts_with('-') {
            return self.flag(Some(verb), &command);
        }
        let most = match verb.arity {
            Arity::None => 0,
            Arity::Exactly(n) | Arity::AtMost(n) => n,
            Arity::AtLeast(_) if ends_flags => 1,
            Arity::AtLeast(_) => usize::MAX,
        };
        let operand = positionals.get(operands).or(positionals.last());
        match operand.filter(|_| operands < most) {
            Some(operand) if !operand.get_possible_values().is_empty() => {
                let values = operand.get_possible_values();
                let name = |value: &clap::builder::PossibleValue| {
                    (value.get_name().to_owned(), String::new())
                };
                Cursor::Words(values.iter().map(name).collect())
            }
            Some(operand) => Cursor::Operand {
                verb,
                name: operand
                    .get_value_names()
                    .and_then(|names| names.first())
                    .map_or_else(String::new, ToString::to_string),
            },
            None => Cursor::Nothing,
        }
    }

    /// `--x=` begins a value, anything else a flag.
    fn flag(&self, verb: Option<&'static Verb>, command: &Command) -> Cursor {
        if let Some((name, _)) = self.current.split_once('=') {
            return match option(command, name) {
                Some(option) => value(verb, option, &format!("{name}=")),
                None => Cursor::Nothing,
            };
        }
        let visible = command
            .get_arguments()
            .filter(|arg| !arg.is_positional() && !arg.is_hide_set());
        let mut flags: Vec<Suggestion> = visible
            .filter_map(|arg| {
                let help = arg.get_help().map(ToString::to_string).unwrap_or_default();
                Some((format!("--{}", arg.get_long()?), help))
            })
            .collect();
        flags.sort();
        Cursor::Words(flags)
    }
}

fn value(verb: Option<&'static Verb>, option: Arg, prefix: &str) -> Cursor {
    Cursor::Value {
        verb,
        option: Box::new(option),
        prefix: prefix.to_owned(),
    }
}

/// The option that `word` names, the last one where it is several short ones.
fn option(command: &Command, word: &str) -> Option<Arg> {
    let named = |arg: &&Arg| match word.strip_prefix("--") {
        Some(long) => {
            arg.get_long() == Some(long)
                || arg.get_all_aliases().unwrap_or_default().contains(&long)
        }
        None => arg.get_short().is_some() && arg.get_short() == word.chars().last(),
    };
    let mut options = command.get_arguments().filter(|arg| takes_value(arg));
    options.find(named).cloned()
}

fn commands() -> Vec<Suggestion> {
    let shown = VERBS.iter().filter(|verb| verb.heading != Heading::Hidden);
    let mut words: Vec<Suggestion> = shown
        .map(|verb| (verb.name.to_owned(), verb.about.to_owned()))
        .collect();
    words.extend(
        GROUPS
            .iter()
            .map(|group| (group.name.to_owned(), group.about.to_owned())),
    );
    words.sort();
    words
}

fn verbs(group: &Group) -> Vec<Suggestion> {
    let mut words: Vec<Suggestion> = group
        .verbs
        .iter()
        .map(|verb| (verb.name.to_owned(), verb.about.to_owned()))
        .collect();
    words.sort();
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(line: &str) -> String {
        match Line::parse(line).cursor() {
            Cursor::Words(words) => words
                .into_iter()
                .map(|(word, _)| word)
                .collect::<Vec<_>>()
                .join(" "),
            Cursor::Value { option, prefix, .. } => format!("{prefix}<{}>", option.get_id()),
            Cursor::Operand { verb, name } => format!("{} {name}", verb.name),
            Cursor::Nothing => String::new(),
        }
    }

    #[test]
    fn a_line_is_split_as_a_shell_splits_it() {
        let line = Line::parse(r#"bulkhead run -e "A=1 2" -l 'x y'\ z im"#);
        assert_eq!(line.words, ["run", "-e", "A=1 2", "-l", "x y z"]);
        assert_eq!(line.current, "im");
        let line = Line::parse("bulkhead run ");
        assert_eq!((line.words.len(), line.current.as_str()), (1, ""));
    }

    #[test]
    fn what_may_follow_depends_on_what_was_typed() {
        assert!(at("bulkhead ").contains("run") && !at("bulkhead ").contains("gen-man"));
        assert!(at("bulkhead container ").contains("prune"));
        assert!(at("bulkhead --").contains("--root"));
        assert!(at("bulkhead run --").contains("--isolation"));
        assert_eq!(at("bulkhead --log-level "), "<log-level>");
        assert_eq!(at("bulkhead --root /x exec -"), at("bulkhead exec -"));
        assert_eq!(at("bulkhead run --isolation "), "<isolation>");
        assert_eq!(
            at("bulkhead run -it --isolation=k"),
            "--isolation=<isolation>"
        );
        assert_eq!(at("bulkhead run -ite "), "<env>");
        assert_eq!(at("bulkhead run -i "), "run IMAGE");
        assert_eq!(at("bulkhead run -it --name x "), "run IMAGE");
        assert_eq!(at("bulkhead run debian "), "");
        assert_eq!(at("bulkhead run debian --"), "");
        assert_eq!(at("bulkhead exec -it "), "exec CONTAINER");
        assert_eq!(at("bulkhead exec web "), "");
        assert_eq!(at("bulkhead rm a b "), "rm CONTAINER");
        assert_eq!(at("bulkhead logs a "), "");
        assert_eq!(at("bulkhead image rm "), "rm IMAGE");
        assert_eq!(at("bulkhead completion "), "bash fish zsh");
        assert_eq!(at("bulkhead nonsense "), "");
    }
}
