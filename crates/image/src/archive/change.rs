//! The Dockerfile instructions that `--change` takes.

use std::str::FromStr;

use super::recipe::{ConfigSection, Empty};

/// One change to an image's configuration, for example `CMD ["bash"]` or `ENV A=b`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// Default arguments.
    Cmd(Vec<String>),
    /// Program that gets the arguments.
    Entrypoint(Vec<String>),
    /// Variables, as name and value.
    Env(Vec<(String, String)>),
    /// Working directory.
    WorkingDir(String),
    /// `user[:group]`.
    User(String),
    /// Ports, as `80/tcp`.
    Expose(Vec<String>),
    /// Labels, as name and value.
    Label(Vec<(String, String)>),
    /// Mount points of anonymous volumes.
    Volume(Vec<String>),
    /// The signal that asks for an end.
    StopSignal(String),
}

/// A text that is no change.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid change '{text}': {reason}")]
pub struct ParseChangeError {
    /// What was given, shortened.
    pub text: String,
    /// What is wrong with it.
    pub reason: &'static str,
}

impl FromStr for Change {
    type Err = ParseChangeError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let bad = |reason| ParseChangeError {
            text: text.chars().take(200).collect(),
            reason,
        };
        let trimmed = text.trim();
        let (word, rest) = trimmed
            .split_once(char::is_whitespace)
            .unwrap_or((trimmed, ""));
        let rest = rest.trim();
        if rest.is_empty() {
            return Err(bad("an instruction and its value are needed"));
        }
        match word.to_ascii_uppercase().as_str() {
            "CMD" => Ok(Self::Cmd(
                command(rest).ok_or_else(|| bad("its JSON form is malformed"))?,
            )),
            "ENTRYPOINT" => Ok(Self::Entrypoint(
                command(rest).ok_or_else(|| bad("its JSON form is malformed"))?,
            )),
            "ENV" => Ok(Self::Env(
                pairs(rest).ok_or_else(|| bad("name=value is needed"))?,
            )),
            "LABEL" => Ok(Self::Label(
                pairs(rest).ok_or_else(|| bad("name=value is needed"))?,
            )),
            "WORKDIR" if rest.starts_with('/') => Ok(Self::WorkingDir(rest.to_owned())),
            "WORKDIR" => Err(bad("the directory must be absolute")),
            "USER" => Ok(Self::User(rest.to_owned())),
            "EXPOSE" => {
                let ports: Option<Vec<String>> = rest.split_whitespace().map(port).collect();
                Ok(Self::Expose(
                    ports.ok_or_else(|| bad("port[/protocol] is needed"))?,
                ))
            }
            "VOLUME" => {
                let paths = if rest.starts_with('[') {
                    json_list(rest)
                } else {
                    words(rest)
                };
                let paths = paths.filter(|paths| paths.iter().all(|path| path.starts_with('/')));
                Ok(Self::Volume(
                    paths.ok_or_else(|| bad("absolute paths are needed"))?,
                ))
            }
            "STOPSIGNAL" => Ok(Self::StopSignal(rest.to_owned())),
            _ => Err(bad(
                "the instruction is not one of CMD, ENTRYPOINT, ENV, EXPOSE, LABEL, STOPSIGNAL, USER, VOLUME, WORKDIR",
            )),
        }
    }
}

impl Change {
    pub(super) fn apply(self, config: &mut ConfigSection) {
        let set = |names: Vec<String>| names.into_iter().map(|name| (name, Empty {}));
        match self {
            Self::Cmd(args) => config.cmd = Some(args),
            Self::Entrypoint(args) => config.entrypoint = Some(args),
            Self::Env(variables) => {
                for (name, value) in variables {
                    let prefix = format!("{name}=");
                    config.env.retain(|entry| !entry.starts_with(&prefix));
                    config.env.push(prefix + &value);
                }
            }
            Self::WorkingDir(dir) => config.working_dir = dir,
            Self::User(user) => config.user = user,
            Self::Expose(ports) => config.exposed_ports.extend(set(ports)),
            Self::Label(labels) => config.labels.extend(labels),
            Self::Volume(paths) => config.volumes.extend(set(paths)),
            Self::StopSignal(signal) => config.stop_signal = signal,
        }
    }
}

/// JSON list as it is, or a line for a shell.
fn command(text: &str) -> Option<Vec<String>> {
    if text.starts_with('[') {
        return json_list(text);
    }
    Some(vec!["/bin/sh".into(), "-c".into(), text.into()])
}

fn json_list(text: &str) -> Option<Vec<String>> {
    serde_json::from_str(text).ok()
}

/// `name=value …` with quotes, or the old form `name value`.
fn pairs(text: &str) -> Option<Vec<(String, String)>> {
    let split = words(text)?;
    if !split.first()?.contains('=') {
        let (name, value) = text.split_once(char::is_whitespace)?;
        return Some(vec![(name.to_owned(), value.trim().to_owned())]);
    }
    let pair = |word: &String| {
        let (name, value) = word.split_once('=')?;
        (!name.is_empty()).then(|| (name.to_owned(), value.to_owned()))
    };
    split.iter().map(pair).collect()
}

/// Splits at white space; quotes and backslashes keep it.
fn words(text: &str) -> Option<Vec<String>> {
    let (mut words, mut word, mut quote, mut begun) = (Vec::new(), String::new(), None, false);
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match (c, quote) {
            ('\\', None | Some('"')) => {
                word.push(chars.next()?);
                begun = true;
            }
            (c, Some(q)) if c == q => quote = None,
            (c, Some(_)) => word.push(c),
            ('"' | '\'', None) => {
                quote = Some(c);
                begun = true;
            }
            (c, None) if c.is_whitespace() => {
                if begun {
                    words.push(std::mem::take(&mut word));
                    begun = false;
                }
            }
            (c, None) => {
                word.push(c);
                begun = true;
            }
        }
    }
    if begun {
        words.push(word);
    }
    (quote.is_none() && !words.is_empty()).then_some(words)
}

fn port(text: &str) -> Option<String> {
    let (number, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    let known = matches!(protocol, "tcp" | "udp" | "sctp");
    (number.parse::<u16>().is_ok() && known).then(|| format!("{number}/{protocol}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Change {
        text.parse().unwrap()
    }

    #[test]
    fn both_forms_of_commands_are_understood() {
        assert_eq!(
            parse(r#"CMD ["a", "b c"]"#),
            Change::Cmd(vec!["a".into(), "b c".into()])
        );
        assert_eq!(
            parse("cmd echo $X"),
            Change::Cmd(vec!["/bin/sh".into(), "-c".into(), "echo $X".into()])
        );
    }

    #[test]
    fn pairs_may_be_quoted() {
        let pair = |a: &str, b: &str| (a.to_owned(), b.to_owned());
        assert_eq!(
            parse(r#"ENV A=1 B="two words" C=x\ y"#),
            Change::Env(vec![
                pair("A", "1"),
                pair("B", "two words"),
                pair("C", "x y")
            ])
        );
        assert_eq!(
            parse("ENV A some words"),
            Change::Env(vec![pair("A", "some words")])
        );
        assert_eq!(parse("LABEL a.b=''"), Change::Label(vec![pair("a.b", "")]));
    }

    #[test]
    fn later_variables_replace_earlier_ones() {
        let mut config = ConfigSection::default();
        parse("ENV A=1 AB=2").apply(&mut config);
        parse("ENV A=3").apply(&mut config);
        assert_eq!(config.env, ["AB=2", "A=3"]);
    }

    #[test]
    fn malformed_changes_are_refused() {
        for bad in [
            "",
            "CMD",
            "CMD [\"a\"",
            "RUN x",
            "ENV A",
            "WORKDIR rel",
            "EXPOSE 99999",
            "EXPOSE 1/x",
            "VOLUME x",
            "ENV A=\"b",
            "ENV =x",
        ] {
            assert!(bad.parse::<Change>().is_err(), "{bad}");
        }
    }
}
