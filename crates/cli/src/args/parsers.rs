//! Values of flags, in Docker's forms and with its messages.

use std::path::Path;

/// A value that a flag does not take; the message is what follows the flag's name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ValueError {
    /// Go's words for a switch.
    #[error("strconv.ParseBool: parsing {0:?}: invalid syntax")]
    Bool(String),
    /// Go's words for a whole number.
    #[error("strconv.ParseInt: parsing {0:?}: invalid syntax")]
    Int(String),
    /// Not a number of CPUs.
    #[error("failed to parse {0} as a rational number")]
    Cpus(String),
    /// A variable without a name.
    #[error("invalid environment variable: {0}")]
    Env(String),
    /// A label without a name.
    #[error("invalid label '{0}': empty name")]
    Label(String),
    /// A filter that is not `name=value`.
    #[error("bad format of filter (expected name=value)")]
    Filter,
}

/// A file of variables or labels that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ListFileError {
    /// Not readable.
    #[error("cannot read {path}")]
    Read {
        /// As given.
        path: String,
        /// The system's answer.
        #[source]
        source: std::io::Error,
    },
    /// Not text.
    #[error("{path}: line {line} is not valid UTF-8")]
    Encoding {
        /// As given.
        path: String,
        /// From 1.
        line: usize,
    },
    /// White space in a name.
    #[error("{path}: variable '{name}' contains whitespaces")]
    Space {
        /// As given.
        path: String,
        /// The name.
        name: String,
    },
    /// A value without a name.
    #[error("{path}: no variable name on line '{line}'")]
    NoName {
        /// As given.
        path: String,
        /// The line.
        line: String,
    },
}

/// What pflag takes for a switch.
pub fn boolean(text: &str) -> Result<bool, ValueError> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        other => Err(ValueError::Bool(other.to_owned())),
    }
}

/// A whole number of seconds, negative for no limit.
///
/// # Errors
/// Anything else.
pub fn seconds(text: &str) -> Result<i64, ValueError> {
    text.parse().map_err(|_| ValueError::Int(text.to_owned()))
}

/// A number of CPUs, such as 1.5.
///
/// # Errors
/// Anything else.
pub fn parse_cpus(text: &str) -> Result<f64, ValueError> {
    let plain = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit() || b == b'.');
    text.parse::<f64>()
        .ok()
        .filter(|_| plain)
        .ok_or_else(|| ValueError::Cpus(text.to_owned()))
}

/// A `--ulimit`: checked here, as Docker's client does, and read where it is used.
///
/// # Errors
/// What is no limit.
pub fn ulimit_text(text: &str) -> Result<String, bulkhead_engine::OptionError> {
    bulkhead_engine::check_ulimit(text).map(|()| text.to_owned())
}

/// A `--filter`: checked for its form here, for its meaning where it is used.
///
/// # Errors
/// No `=`.
pub fn filter_text(text: &str) -> Result<String, ValueError> {
    if text.contains('=') {
        Ok(text.to_owned())
    } else {
        Err(ValueError::Filter)
    }
}

/// A name and a value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyValue {
    /// Before the first `=`.
    pub key: String,
    /// After it; empty where there is none.
    pub value: String,
}

impl KeyValue {
    /// A `--label`.
    ///
    /// # Errors
    /// An empty name.
    pub fn label(text: &str) -> Result<Self, ValueError> {
        let (key, value) = text.split_once('=').unwrap_or((text, ""));
        if key.is_empty() {
            return Err(ValueError::Label(text.to_owned()));
        }
        Ok(Self {
            key: key.to_owned(),
            value: value.to_owned(),
        })
    }

    /// Docker's `-e`: `KEY=value` as it is, `KEY` with our own value, and nothing where we have none.
    ///
    /// # Errors
    /// An empty name.
    pub fn env(text: &str) -> Result<String, ValueError> {
        if text.is_empty() || text.starts_with('=') {
            return Err(ValueError::Env(text.to_owned()));
        }
        Ok(text.to_owned())
    }
}

/// The lines of an `--env-file`: blank lines and comments left out, `KEY` alone resolved by `lookup` and
/// left out where it has no value.
///
/// # Errors
/// An unreadable file or a line that names nothing.
pub fn env_file(
    path: &Path,
    lookup: impl Fn(&str) -> Option<String>,
) -> Result<Vec<String>, ListFileError> {
    let entries = list_file(path)?;
    Ok(entries
        .into_iter()
        .filter_map(|entry| {
            if entry.contains('=') {
                return Some(entry);
            }
            lookup(&entry).map(|value| format!("{entry}={value}"))
        })
        .collect())
}

/// The lines of a `--label-file`.
///
/// # Errors
/// As [`env_file`].
pub fn label_file(path: &Path) -> Result<Vec<KeyValue>, ListFileError> {
    let split = |entry: String| {
        let (key, value) = entry.split_once('=').unwrap_or((&entry, ""));
        KeyValue {
            key: key.to_owned(),
            value: value.to_owned(),
        }
    };
    Ok(list_file(path)?.into_iter().map(split).collect())
}

fn list_file(path: &Path) -> Result<Vec<String>, ListFileError> {
    let name = path.display().to_string();
    let bytes = std::fs::read(path).map_err(|source| ListFileError::Read {
        path: name.clone(),
        source,
    })?;
    parse_list(&bytes, &name)
}

fn parse_list(bytes: &[u8], path: &str) -> Result<Vec<String>, ListFileError> {
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    let mut entries = Vec::new();
    for (index, line) in bytes.split(|b| *b == b'\n').enumerate() {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        let line = std::str::from_utf8(line)
            .map_err(|_| ListFileError::Encoding {
                path: path.to_owned(),
                line: index + 1,
            })?
            .trim_start();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let (name, value) = match line.split_once('=') {
            Some((name, value)) => (name, Some(value)),
            None => (line.trim_end(), None),
        };
        if name.is_empty() {
            return Err(ListFileError::NoName {
                path: path.to_owned(),
                line: line.to_owned(),
            });
        }
        if name.contains(char::is_whitespace) {
            return Err(ListFileError::Space {
                path: path.to_owned(),
                name: name.to_owned(),
            });
        }
        entries.push(match value {
            Some(value) => format!("{name}={value}"),
            None => name.to_owned(),
        });
    }
    Ok(entries)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(text: &str) -> Result<Vec<String>, ListFileError> {
        parse_list(text.as_bytes(), "file")
    }

    #[test]
    fn env_files_keep_values_as_they_are() {
        let entries = list("\u{feff}A=1\n# comment\n\n  B = x \nC\nD=a=b #c\r\nE=\"q\"\n");
        assert!(matches!(entries, Err(ListFileError::Space { name, .. }) if name == "B "));
        let entries =
            list("\u{feff}A=1\n# comment\n\n  B= x \nC\nD=a=b #c\r\nE=\"q\"\nF=\n").unwrap();
        assert_eq!(entries, ["A=1", "B= x ", "C", "D=a=b #c", "E=\"q\"", "F="]);
    }

    #[test]
    fn env_files_with_nameless_or_broken_lines_are_refused() {
        assert!(matches!(list("=x"), Err(ListFileError::NoName { .. })));
        assert!(matches!(
            parse_list(b"A=1\nB=\xff", "f"),
            Err(ListFileError::Encoding { line: 2, .. })
        ));
    }

    #[test]
    fn a_variable_without_a_value_takes_ours_or_is_left_out() {
        let dir = std::env::temp_dir().join(format!("bulkhead-env-{}", std::process::id()));
        std::fs::write(&dir, "A\nB\nC=3\n").unwrap();
        let entries = env_file(&dir, |name| (name == "A").then(|| "1".to_owned()));
        std::fs::remove_file(&dir).unwrap();
        assert_eq!(entries.unwrap(), ["A=1", "C=3"]);
    }

    #[test]
    fn switches_and_numbers_are_read_as_go_reads_them() {
        assert!(boolean("T").unwrap());
        assert!(!boolean("0").unwrap());
        assert!(boolean("yes").is_err());
        assert_eq!(seconds("-1").unwrap(), -1);
        assert!(seconds("1.5").is_err());
        assert!((parse_cpus("1.5").unwrap() - 1.5).abs() < f64::EPSILON);
        for bad in ["", "-1", "inf", "nan", "1e3"] {
            assert!(parse_cpus(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn labels_need_a_name() {
        assert!(KeyValue::label("=x").is_err());
        assert_eq!(KeyValue::label("a").unwrap().value, "");
        assert_eq!(KeyValue::label("a=b=c").unwrap().value, "b=c");
    }
}
