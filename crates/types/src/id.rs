//! Identifiers and names of containers and executions.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A text that is not a valid identifier or name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParseIdError {
    /// Not 64 lower-case hex digits.
    #[error("'{0}' is not an identifier of 64 hex digits")]
    Id(String),
    /// Outside Docker's name grammar.
    #[error("invalid container name ({0}), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed")]
    Name(String),
}

/// Sixty-four lower-case hex digits: names a container everywhere, and is safe as a file name.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ContainerId(String);

impl ContainerId {
    /// The identifier with these 32 (random) bytes.
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(crate::Digest::from_bytes(bytes).hex())
    }

    /// All 64 digits.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The first twelve digits, as `docker ps` shows it.
    pub fn short(&self) -> &str {
        &self.0[..12]
    }
}

impl FromStr for ContainerId {
    type Err = ParseIdError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let hex = |b: u8| matches!(b, b'0'..=b'9' | b'a'..=b'f');
        if text.len() == 64 && text.bytes().all(hex) {
            Ok(Self(text.to_owned()))
        } else {
            Err(ParseIdError::Id(text.chars().take(100).collect()))
        }
    }
}

impl TryFrom<String> for ContainerId {
    type Error = ParseIdError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<ContainerId> for String {
    fn from(id: ContainerId) -> Self {
        id.0
    }
}

impl fmt::Display for ContainerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A container's name: `[a-zA-Z0-9][a-zA-Z0-9_.-]+`, as Docker has it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ContainerName(String);

impl ContainerName {
    /// The name as typed.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for ContainerName {
    type Err = ParseIdError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let text = text.strip_prefix('/').unwrap_or(text);
        let tail = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-');
        let bytes = text.as_bytes();
        let valid = (2..=255).contains(&bytes.len())
            && bytes[0].is_ascii_alphanumeric()
            && bytes.iter().copied().all(tail);
        if valid {
            Ok(Self(text.to_owned()))
        } else {
            Err(ParseIdError::Name(text.chars().take(100).collect()))
        }
    }
}

impl TryFrom<String> for ContainerName {
    type Error = ParseIdError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<ContainerName> for String {
    fn from(name: ContainerName) -> Self {
        name.0
    }
}

impl fmt::Display for ContainerName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_dockers_grammar() {
        for good in ["ab", "a.b-c_d", "/web", "0x"] {
            assert!(good.parse::<ContainerName>().is_ok(), "{good}");
        }
        for bad in ["", "a", "-a", "a b", "../x", "é1", "a/b"] {
            assert!(bad.parse::<ContainerName>().is_err(), "{bad}");
        }
    }

    #[test]
    fn identifiers_are_64_hex_digits() {
        let id = ContainerId::from_bytes([0xab; 32]);
        assert_eq!(id.as_str().parse::<ContainerId>().unwrap(), id);
        assert_eq!(id.short(), "abababababab");
        assert!("../../etc".parse::<ContainerId>().is_err());
    }
}
