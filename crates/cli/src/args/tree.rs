//! From words to a verb and its arguments.

use std::ffi::OsString;

use clap::error::ErrorKind;
use clap::{Arg, ArgAction, ArgMatches, Command};

use super::complaint::Complaint;
use super::verb::{Group, Heading, Verb};
use crate::commands::{GROUPS, VERBS};
use crate::terminal;

/// What was typed.
pub struct Parsed {
    /// Flags before the verb.
    pub globals: ArgMatches,
    /// The verb's own arguments.
    pub matches: ArgMatches,
    /// The verb.
    pub verb: &'static Verb,
}

/// Finds the verb and parses its arguments. `Ok(None)` means that help or the version was asked for and
/// printed.
///
/// # Errors
/// What does not fit, in Docker's words.
pub fn parse(words: &[OsString]) -> Result<Option<Parsed>, Complaint> {
    let globals_end = 1 + globals_length(words.get(1..).unwrap_or_default());
    let (head, rest) = words.split_at(globals_end.min(words.len()));
    let command = conventions(global_flags());
    let globals = match command.clone().try_get_matches_from(head) {
        Ok(matches) => matches,
        Err(error) if is_help(&error) => return print_help(root()),
        Err(error) => {
            return Err(Complaint::from_clap(
                &error, &command, "bulkhead", None, head,
            ));
        }
    };
    if globals.get_flag("version") {
        println!("bulkhead version {}", env!("CARGO_PKG_VERSION"));
        return Ok(None);
    }
    let Some((word, rest)) = rest.split_first() else {
        return print_help(root());
    };
    let word = word.to_string_lossy();
    if word == "help" {
        return help(rest);
    }
    if let Some(verb) = VERBS.iter().find(|verb| verb.is(&word)) {
        return verb_of(verb, format!("bulkhead {}", verb.name), globals, rest);
    }
    let Some(group) = GROUPS.iter().find(|group| group.name == word) else {
        return Err(Complaint::unknown_command("bulkhead", &word));
    };
    let path = format!("bulkhead {}", group.name);
    match rest.split_first() {
        None => print_help(group_command(group)),
        Some((word, rest)) => {
            let word = word.to_string_lossy();
            match group.verbs.iter().find(|verb| verb.is(&word)) {
                Some(verb) => verb_of(verb, format!("{path} {}", verb.name), globals, rest),
                None if word == "--help" || word == "-h" => print_help(group_command(group)),
                None if word.starts_with('-') => {
                    Err(Complaint::unknown_flag(&path, "COMMAND", &word))
                }
                None => Err(Complaint::unknown_command(&path, &word)),
            }
        }
    }
}

fn verb_of(
    verb: &'static Verb,
    path: String,
    globals: ArgMatches,
    rest: &[OsString],
) -> Result<Option<Parsed>, Complaint> {
    let command = conventions(verb_flags(verb));
    let first = OsString::from(path.as_str());
    let rest = super::empty::without(&command, rest);
    let words = std::iter::once(&first).chain(&rest);
    match command.clone().try_get_matches_from(words) {
        Ok(matches) => Ok(Some(Parsed {
            globals,
            matches,
            verb,
        })),
        Err(error) if is_help(&error) => print_help(verb_command(verb, &path)),
        Err(error) => Err(Complaint::from_clap(
            &error,
            &command,
            &path,
            Some(verb),
            &rest,
        )),
    }
}

fn is_help(error: &clap::Error) -> bool {
    error.kind() == ErrorKind::DisplayHelp
}

/// The flags before the verb, as they stand on a line that is being typed.
pub fn globals(words: &[OsString]) -> Option<ArgMatches> {
    conventions(global_flags()).try_get_matches_from(words).ok()
}

/// How many words before the verb are flags and their values.
pub(super) fn globals_length(words: &[OsString]) -> usize {
    let command = global_flags();
    let mut index = 0;
    while let Some(word) = words.get(index) {
        let word = word.to_string_lossy();
        if !word.starts_with('-') || word == "-" || word == "--" {
            break;
        }
        index += if needs_next_word(&command, &word) {
            2
        } else {
            1
        };
    }
    index
}

/// Whether `word`, which is a flag or several short ones, has its value in the next word.
pub(super) fn needs_next_word(command: &Command, word: &str) -> bool {
    let options = || command.get_arguments().filter(|arg| takes_value(arg));
    if let Some(long) = word.strip_prefix("--") {
        return options().any(|arg| {
            let aliases = arg.get_all_aliases().unwrap_or_default();
            arg.get_long() == Some(long) || aliases.contains(&long)
        });
    }
    let mut shorts = word.chars().skip(1);
    let option = shorts.find(|short| options().any(|arg| arg.get_short() == Some(*short)));
    option.is_some() && shorts.next().is_none()
}

/// The flags before the verb.
pub(super) fn global_flags() -> Command {
    let command = Command::new("bulkhead")
        .arg(Arg::new("root").long("root").value_name("dir").value_parser(clap::value_parser!(std::path::PathBuf)).help(
            "State directory (default \"/var/lib/bulkhead\" for root, \"~/.local/share/bulkhead\" for others; also BULKHEAD_ROOT)",
        ))
        .arg(
            Arg::new("config")
                .long("config")
                .value_name("file")
                .value_parser(clap::value_parser!(std::path::PathBuf))
                .help("Configuration file, instead of /etc/bulkhead/config.toml and ~/.config/bulkhead/config.toml"),
        )
        .arg(Arg::new("debug").short('D').long("debug").action(ArgAction::SetTrue).help("Enable debug mode"))
        .arg(
            Arg::new("log-level")
                .short('l')
                .long("log-level")
                .value_name("string")
                .value_parser(["trace", "debug", "info", "warn", "error"])
                .hide_possible_values(true)
                .help("Set the logging level (\"trace\", \"debug\", \"info\", \"warn\", \"error\") (default \"warn\")"),
        )
        .arg(
            Arg::new("version")
                .short('v')
                .long("version")
                .action(ArgAction::SetTrue)
                .help("Print version information and quit"),
        );
    with_help(command)
}

/// The command itself, for people to read.
fn root() -> Command {
    let mut list = String::new();
    section(
        &mut list,
        "Common Commands",
        &listed(VERBS, Heading::Common),
    );
    let groups: Vec<(&str, &str)> = GROUPS
        .iter()
        .map(|group| (group.name, group.about))
        .collect();
    section(&mut list, "Management Commands", &groups);
    section(&mut list, "Commands", &listed(VERBS, Heading::Other));
    global_flags()
        .override_usage("bulkhead [OPTIONS] COMMAND")
        .about("A container engine in which every container has a kernel of its own")
        // The lists stand in the template, where nothing wraps them: as in Docker only what says options is wrapped.
        .help_template(format!(
            "Usage:  {{usage}}\n\n{{about}}\n\n{list}\nGlobal Options:\n{{options}}{{after-help}}"
        ))
        .after_help("Run 'bulkhead COMMAND --help' for more information on a command.")
}

fn listed(verbs: &'static [Verb], heading: Heading) -> Vec<(&'static str, &'static str)> {
    let mut list: Vec<_> = verbs
        .iter()
        .filter(|v| v.heading == heading)
        .map(|v| (v.name, v.about))
        .collect();
    if heading == Heading::Other {
        list.sort_unstable();
    }
    list
}

fn section(out: &mut String, title: &str, entries: &[(&str, &str)]) {
    if !out.is_empty() {
        out.push('\n');
    }
    out.push_str(&format!("{title}:\n"));
    for (name, about) in entries {
        out.push_str(&format!("  {name:<11} {about}\n"));
    }
}

fn group_command(group: &Group) -> Command {
    let mut list = String::new();
    let mut entries: Vec<_> = group.verbs.iter().map(|v| (v.name, v.about)).collect();
    entries.sort_unstable();
    section(&mut list, "Commands", &entries);
    let path = format!("bulkhead {}", group.name);
    with_help(
        Command::new(group.name)
            .override_usage(format!("{path} COMMAND"))
            .about(group.about)
            .help_template(format!(
                "Usage:  {{usage}}\n\n{{about}}\n\n{list}\nRun '{path} COMMAND --help' for more information on a \
                 command."
            )),
    )
}

pub(super) fn verb_flags(verb: &Verb) -> Command {
    with_help((verb.augment)(Command::new(verb.name)))
}

/// A verb, for people to read.
fn verb_command(verb: &Verb, path: &str) -> Command {
    let aliases = aliases(verb).map(|all| format!("Aliases:\n  {all}\n\n"));
    let command = verb_flags(verb)
        .override_usage(format!("{path} {}", verb.usage).trim_end().to_owned())
        .about(verb.about)
        .help_template(format!(
            "Usage:  {{usage}}\n\n{{about}}\n\n{}Options:\n{{options}}",
            aliases.unwrap_or_default()
        ));
    let mut names: Vec<String> = command
        .get_arguments()
        .filter_map(|arg| arg.get_long().map(str::to_owned))
        .collect();
    names.sort_unstable();
    command.mut_args(|arg| {
        let place = names
            .iter()
            .position(|name| arg.get_long() == Some(name.as_str()));
        arg.display_order(place.unwrap_or(names.len()))
    })
}

/// Every way to type the verb, where there is more than one.
fn aliases(verb: &Verb) -> Option<String> {
    let mut ways = Vec::new();
    for group in GROUPS {
        for other in group.verbs {
            if other.about == verb.about && other.usage == verb.usage {
                let names = std::iter::once(&other.name).chain(other.aliases);
                ways.extend(names.map(|name| format!("bulkhead {} {name}", group.name)));
            }
        }
    }
    for other in VERBS {
        if other.about == verb.about && other.usage == verb.usage {
            let names = std::iter::once(&other.name).chain(other.aliases);
            ways.extend(names.map(|name| format!("bulkhead {name}")));
        }
    }
    (ways.len() > 1).then(|| ways.join(", "))
}

/// `--help`, beside a `-h` that may mean something else.
fn with_help(command: Command) -> Command {
    let short_h_is_free = !command
        .get_arguments()
        .any(|arg| arg.get_short() == Some('h'));
    let help = Arg::new("help")
        .long("help")
        .action(ArgAction::Help)
        .help("Print usage");
    command
        .disable_help_flag(true)
        .disable_version_flag(true)
        .disable_help_subcommand(true)
        .arg(if short_h_is_free {
            help.short('h')
        } else {
            help
        })
}

/// Whether the word behind this option is its value. Words without an option in front of them are none, and neither is the
/// word behind a switch, whose value follows `=`.
pub(super) fn takes_value(arg: &Arg) -> bool {
    !arg.is_positional()
        && !arg.is_require_equals_set()
        && matches!(arg.get_action(), ArgAction::Set | ArgAction::Append)
}

/// pflag's conventions: `--flag=false`, the last of several wins, and the word behind an option is its value
/// whatever it looks like, `--` included.
pub(super) fn conventions(command: Command) -> Command {
    command.args_override_self(true).mut_args(|arg| {
        if takes_value(&arg) {
            return arg.allow_hyphen_values(true);
        }
        if !matches!(arg.get_action(), ArgAction::SetTrue) {
            return arg;
        }
        let default = if arg.get_default_values().iter().any(|v| v == "true") {
            "true"
        } else {
            "false"
        };
        arg.action(ArgAction::Set)
            .num_args(0..=1)
            .require_equals(true)
            .default_missing_value("true")
            .default_value(default)
            .value_parser(super::parsers::boolean)
    })
}

/// How wide help is where no terminal says it, as Docker's.
const NO_TERMINAL_COLUMNS: u16 = 80;

fn print_help(command: Command) -> Result<Option<Parsed>, Complaint> {
    use std::io::Write;
    let columns = terminal::size().map_or(NO_TERMINAL_COLUMNS, |size| size.columns);
    let mut command = command.term_width(usize::from(columns));
    let text = command.render_help().to_string();
    // A reader that left early has seen what it wanted.
    let _ = std::io::stdout().write_all(text.as_bytes());
    Ok(None)
}

/// `bulkhead help [COMMAND…]`
fn help(words: &[OsString]) -> Result<Option<Parsed>, Complaint> {
    let words: Vec<String> = words
        .iter()
        .map(|w| w.to_string_lossy().into_owned())
        .collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words.as_slice() {
        [] => print_help(root()),
        [first, rest @ ..] => {
            if let Some(verb) = VERBS.iter().find(|verb| verb.is(first)) {
                return print_help(verb_command(verb, &format!("bulkhead {}", verb.name)));
            }
            let Some(group) = GROUPS.iter().find(|group| group.name == *first) else {
                return Err(Complaint::unknown_topic(&words.join(" ")));
            };
            match rest
                .first()
                .map(|word| (word, group.verbs.iter().find(|verb| verb.is(word))))
            {
                None => print_help(group_command(group)),
                Some((_, Some(verb))) => print_help(verb_command(
                    verb,
                    &format!("bulkhead {} {}", group.name, verb.name),
                )),
                Some((_, None)) => Err(Complaint::unknown_topic(&words.join(" "))),
            }
        }
    }
}

/// Every verb with every argument: for completions and man pages.
pub fn full_tree() -> Command {
    let with_aliases =
        |verb: &Verb, path: &str| verb_command(verb, path).visible_aliases(verb.aliases.to_vec());
    let mut command = root();
    for verb in VERBS.iter().filter(|verb| verb.heading != Heading::Hidden) {
        command = command.subcommand(with_aliases(verb, &format!("bulkhead {}", verb.name)));
    }
    for group in GROUPS {
        let mut sub = group_command(group);
        for verb in group.verbs {
            sub = sub.subcommand(with_aliases(
                verb,
                &format!("bulkhead {} {}", group.name, verb.name),
            ));
        }
        command = command.subcommand(sub);
    }
    command
}

#[cfg(test)]
mod tests {
    use clap::builder::OsStringValueParser;

    use super::*;

    /// Every verb as it parses, with its path.
    fn verbs() -> Vec<(String, &'static Verb)> {
        let top = VERBS.iter().map(|verb| (verb.name.to_owned(), verb));
        let grouped = GROUPS.iter().flat_map(|group| {
            let path = move |verb: &Verb| format!("{} {}", group.name, verb.name);
            group.verbs.iter().map(move |verb| (path(verb), verb))
        });
        top.chain(grouped).collect()
    }

    /// Switches parse as options whose value follows `=`.
    fn is_switch(arg: &Arg) -> bool {
        arg.is_require_equals_set()
    }

    #[test]
    fn the_word_behind_an_option_is_its_value_whatever_it_looks_like() {
        let mut options = 0;
        let commands = verbs()
            .into_iter()
            .map(|(path, verb)| (path, verb_flags(verb)));
        for (path, command) in commands.chain([(String::new(), global_flags())]) {
            let parsed = conventions(command);
            // One value for each occurrence, as it is declared.
            let command = parsed.clone().mut_args(|arg| match takes_value(&arg) {
                true => arg.required(false).value_parser(OsStringValueParser::new()),
                false => arg.required(false),
            });
            for arg in parsed
                .get_arguments()
                .filter(|arg| takes_value(arg) && !is_switch(arg))
            {
                let long = arg.get_long().map(|long| format!("--{long}"));
                let short = arg.get_short().map(|short| format!("-{short}"));
                for spelling in long.iter().chain(&short) {
                    options += 1;
                    for value in [
                        "-1", "-1h", "-9", "-A=1", "-x", "--rm", "--help", "-h", "--", "-",
                    ] {
                        let words = ["bulkhead", spelling, value];
                        let matches = command.clone().try_get_matches_from(words);
                        let matches = matches.unwrap_or_else(|e| panic!("{path} {words:?}: {e}"));
                        let raw = matches.get_raw(arg.get_id().as_str()).expect("given");
                        assert_eq!(raw.collect::<Vec<_>>(), [value], "{path} {words:?}");
                    }
                }
            }
        }
        assert!(options > 100, "{options}");
    }

    #[test]
    fn words_behind_the_image_are_the_containers() {
        let run = VERBS.iter().find(|verb| verb.name == "run").expect("run");
        let command = conventions(verb_flags(run));
        let words = ["run", "-e", "-A=1", "image", "-e", "--", "--rm"];
        let matches = command.try_get_matches_from(words).expect("fits");
        let given: Vec<_> = matches.get_raw("words").expect("given").collect();
        assert_eq!(given, ["image", "-e", "--", "--rm"]);
        assert!(!matches.get_one::<bool>("rm").expect("has a default"));
    }

    #[test]
    fn the_verb_is_found_behind_flags_with_values() {
        let length = |words: &[&str]| {
            let words: Vec<OsString> = words.iter().map(Into::into).collect();
            globals_length(&words)
        };
        assert_eq!(length(&["--root", "-x", "ps"]), 2);
        assert_eq!(length(&["--root=/x", "ps"]), 1);
        assert_eq!(length(&["-D", "-l", "debug", "ps"]), 3);
        assert_eq!(length(&["-Dl", "debug", "ps"]), 2);
        assert_eq!(length(&["-ldebug", "ps"]), 1);
        assert_eq!(length(&["ps", "-l"]), 0);
    }
}
