//! Signals by the names and numbers that `docker kill` takes.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A Linux (x86-64) signal number, 1 to 64.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "u8", into = "u8")]
pub struct Signal(u8);

/// A text or number that is no signal.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid signal: {0}")]
pub struct ParseSignalError(pub String);

/// Names from signal(7) for numbers 1 to 31, in order.
const NAMES: [&str; 31] = [
    "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2",
    "PIPE", "ALRM", "TERM", "STKFLT", "CHLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG",
    "XCPU", "XFSZ", "VTALRM", "PROF", "WINCH", "IO", "PWR", "SYS",
];
/// First real-time signal that programs may use; glibc keeps 32 and 33.
const RTMIN: u8 = 34;
const RTMAX: u8 = 64;

impl Signal {
    /// `SIGINT`.
    pub const INT: Self = Self(2);
    /// `SIGKILL`.
    pub const KILL: Self = Self(9);
    /// `SIGTERM`.
    pub const TERM: Self = Self(15);

    /// The names of the signals that are not real-time ones, without `SIG`.
    pub fn names() -> impl Iterator<Item = &'static str> {
        NAMES.into_iter()
    }

    /// The number that kill(2) takes.
    pub fn number(self) -> u8 {
        self.0
    }
}

impl TryFrom<u8> for Signal {
    type Error = ParseSignalError;

    fn try_from(number: u8) -> Result<Self, Self::Error> {
        if (1..=RTMAX).contains(&number) {
            Ok(Self(number))
        } else {
            Err(ParseSignalError(number.to_string()))
        }
    }
}

impl From<Signal> for u8 {
    fn from(signal: Signal) -> Self {
        signal.0
    }
}

impl FromStr for Signal {
    type Err = ParseSignalError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let bad = || ParseSignalError(text.chars().take(40).collect());
        if let Ok(number) = text.parse::<u8>() {
            return Self::try_from(number).map_err(|_| bad());
        }
        let upper = text.to_ascii_uppercase();
        let name = upper.strip_prefix("SIG").unwrap_or(&upper);
        if let Some(index) = NAMES.iter().position(|known| *known == name) {
            return u8::try_from(index + 1).map(Self).map_err(|_| bad());
        }
        match name {
            "IOT" => return Ok(Self(6)),
            "CLD" => return Ok(Self(17)),
            "POLL" => return Ok(Self(29)),
            "RTMIN" => return Ok(Self(RTMIN)),
            "RTMAX" => return Ok(Self(RTMAX)),
            _ => {}
        }
        let real_time = if let Some(offset) = name.strip_prefix("RTMIN+") {
            offset.parse::<u8>().ok().and_then(|n| RTMIN.checked_add(n))
        } else if let Some(offset) = name.strip_prefix("RTMAX-") {
            offset.parse::<u8>().ok().and_then(|n| RTMAX.checked_sub(n))
        } else {
            None
        };
        real_time
            .filter(|n| (RTMIN..=RTMAX).contains(n))
            .map(Self)
            .ok_or_else(bad)
    }
}

impl fmt::Display for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match NAMES.get(usize::from(self.0) - 1) {
            Some(name) => write!(f, "SIG{name}"),
            None => write!(f, "SIGRTMIN+{}", self.0.saturating_sub(RTMIN)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_numbers_and_prefixes_agree() {
        for text in ["15", "TERM", "SIGTERM", "sigterm", "term"] {
            assert_eq!(text.parse::<Signal>().unwrap(), Signal::TERM, "{text}");
        }
        assert_eq!("RTMIN+3".parse::<Signal>().unwrap().number(), 37);
        assert_eq!(Signal::KILL.to_string(), "SIGKILL");
        for bad in ["", "0", "65", "-1", "FOO", "RTMIN+99", "RTMAX-60", "SIG"] {
            assert!(bad.parse::<Signal>().is_err(), "{bad}");
        }
    }
}
