//! Options of `--tmpfs`: what mount(8) takes, checked against what tmpfs knows.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Options of a tmpfs. The flags are those that mount(2) takes; the rest is for the file system.
/// Written as one comma-separated text.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct TmpfsOptions {
    text: String,
    flags: u32,
    data: String,
}

/// An option that tmpfs does not have, or a value that it does not take.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid tmpfs option \"{0}\"")]
pub struct InvalidTmpfsOption(pub String);

/// What a tmpfs has unless its options say otherwise, as in Docker.
const DEFAULTS: [&str; 3] = ["noexec", "nosuid", "nodev"];
/// A flag, its opposite, and its bit (linux/mount.h). The opposite clears the bit.
const FLAGS: [(&str, &str, u32); 9] = [
    ("ro", "rw", READ_ONLY),
    ("nosuid", "suid", 1 << 1),
    ("nodev", "dev", 1 << 2),
    ("noexec", "exec", 1 << 3),
    ("sync", "async", 1 << 4),
    ("noatime", "atime", 1 << 10),
    ("nodiratime", "diratime", 1 << 11),
    ("relatime", "norelatime", 1 << 21),
    ("strictatime", "nostrictatime", 1 << 24),
];
const READ_ONLY: u32 = 1;

/// The longest value that is accepted, in bytes; the longest that makes sense is a list of memory nodes.
const MAX_VALUE: usize = 64;

impl TmpfsOptions {
    /// Flags of mount(2).
    pub fn flags(&self) -> u32 {
        self.flags
    }

    /// `key=value`s for the file system, separated by commas.
    pub fn data(&self) -> &str {
        &self.data
    }

    /// A mode was asked for, so the one of the directory underneath does not count.
    pub fn has_mode(&self) -> bool {
        self.data
            .split(',')
            .any(|option| option.starts_with("mode="))
    }

    /// Mounted read-only.
    pub fn read_only(&self) -> bool {
        self.flags & READ_ONLY != 0
    }
}

/// Whether tmpfs(5) takes this value for this key, so that a mount that was accepted here does not fail later.
fn is_valid(key: &str, value: &str) -> bool {
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    match key {
        "size" | "nr_blocks" | "nr_inodes" => {
            let number = match value.strip_suffix('%') {
                Some(percent) => return key == "size" && percent.len() <= 4 && digits(percent),
                None => value
                    .trim_end_matches(['k', 'm', 'g', 't', 'p', 'e', 'K', 'M', 'G', 'T', 'P', 'E']),
            };
            value.len() - number.len() <= 1 && number.parse::<u64>().is_ok() && digits(number)
        }
        "mode" => {
            digits(value)
                && value.len() <= 8
                && u32::from_str_radix(value, 8).is_ok_and(|mode| mode <= 0o7777)
        }
        "uid" | "gid" => digits(value) && value.parse::<u32>().is_ok_and(|id| id != u32::MAX),
        "mpol" => {
            let (policy, nodes) = value.split_once(':').unwrap_or((value, "0"));
            let (policy, kind) = policy.split_once('=').unwrap_or((policy, "static"));
            matches!(
                policy,
                "default" | "prefer" | "bind" | "interleave" | "local"
            ) && matches!(kind, "static" | "relative")
                && nodes
                    .bytes()
                    .all(|byte| byte.is_ascii_digit() || byte == b'-')
                && !nodes.is_empty()
        }
        _ => false,
    }
}

impl FromStr for TmpfsOptions {
    type Err = InvalidTmpfsOption;

    /// Parses `size=64m,mode=1770,exec…` over the defaults; what comes later wins over what contradicts it.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut merged: Vec<&str> = DEFAULTS.to_vec();
        for option in text.split(',').filter(|option| !option.is_empty()) {
            let bad = || InvalidTmpfsOption(option.chars().take(100).collect());
            if option == "defaults" {
                continue;
            }
            if let Some((key, value)) = option.split_once('=') {
                if value.len() > MAX_VALUE || !is_valid(key, value) {
                    return Err(bad());
                }
                merged.retain(|known| known.split_once('=').map(|(k, _)| k) != Some(key));
            } else {
                let (set, clear, _) = FLAGS
                    .iter()
                    .find(|(set, clear, _)| *set == option || *clear == option)
                    .ok_or_else(bad)?;
                merged.retain(|known| known != set && known != clear);
            }
            merged.push(option);
        }
        let flags = FLAGS
            .iter()
            .filter(|(set, ..)| merged.contains(set))
            .fold(0, |flags, (.., bit)| flags | bit);
        // A guest has one memory node, of which every policy takes its pages; its kernel may not even know the option.
        let data: Vec<&str> = merged
            .iter()
            .copied()
            .filter(|option| option.contains('=') && !option.starts_with("mpol="))
            .collect();
        Ok(Self {
            text: merged.join(","),
            flags,
            data: data.join(","),
        })
    }
}

impl Default for TmpfsOptions {
    fn default() -> Self {
        Self {
            text: DEFAULTS.join(","),
            flags: (1 << 1) | (1 << 2) | (1 << 3),
            data: String::new(),
        }
    }
}

impl fmt::Display for TmpfsOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl TryFrom<String> for TmpfsOptions {
    type Error = InvalidTmpfsOption;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<TmpfsOptions> for String {
    fn from(options: TmpfsOptions) -> Self {
        options.text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str) -> (String, u32, String) {
        let parsed: TmpfsOptions = text.parse().unwrap();
        (parsed.to_string(), parsed.flags(), parsed.data().to_owned())
    }

    #[test]
    fn defaults_are_dockers() {
        assert_eq!(
            of(""),
            ("noexec,nosuid,nodev".into(), 0b1110, String::new())
        );
        assert_eq!("".parse(), Ok(TmpfsOptions::default()));
        assert!(!TmpfsOptions::default().has_mode());
    }

    #[test]
    fn later_options_win_and_flags_and_data_are_told_apart() {
        let (text, flags, data) = of("rw,exec,size=1m,size=64m,mode=1770,ro,rw");
        assert_eq!(text, "nosuid,nodev,exec,size=64m,mode=1770,rw");
        assert_eq!((flags, data.as_str()), (0b110, "size=64m,mode=1770"));
        let options: TmpfsOptions = "ro,mode=700".parse().unwrap();
        assert!(options.read_only() && options.has_mode());
    }

    #[test]
    fn every_option_that_docker_takes_is_data_or_a_flag() {
        for both in [
            "diratime",
            "norelatime",
            "nostrictatime",
            "atime",
            "async",
            "defaults",
        ] {
            assert_eq!(of(both).1, 0b1110, "{both}");
        }
        assert_eq!(of("noatime,nodiratime,relatime,strictatime").1, 0x120_0c0e);
        let (text, _, data) = of("mpol=interleave:0-3,size=1m");
        assert!(text.ends_with("mpol=interleave:0-3,size=1m"), "{text}");
        assert_eq!(data, "size=1m", "a guest has one memory node");
        assert_eq!(
            of("nr_inodes=1k,nr_blocks=2,uid=1,gid=0,size=50%").1,
            0b1110
        );
    }

    #[test]
    fn what_tmpfs_would_refuse_later_is_refused_now() {
        for bad in [
            "lowerdir=/x",
            "size=",
            "size",
            "bind",
            "remount",
            "mode=1\0",
            "size=abc",
            "size=1mm",
            "size=-1",
            "mode=9",
            "mode=+7",
            "mode=77777",
            "uid=root",
            "uid=4294967295",
            "gid=-1",
            "mpol=often",
            "mpol=bind:",
            "nr_inodes=5%",
            "colour=red",
        ] {
            assert!(bad.parse::<TmpfsOptions>().is_err(), "{bad:?}");
        }
    }
}
