//! Resource limits by the names that `--ulimit` takes.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A resource of setrlimit(2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Resource(u8);

/// A name that is no resource.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid ulimit type: {0}")]
pub struct UnknownResource(pub String);

/// Names in the order of their numbers (asm-generic/resource.h), as Docker spells them.
const NAMES: [&str; 16] = [
    "cpu",
    "fsize",
    "data",
    "stack",
    "core",
    "rss",
    "nproc",
    "nofile",
    "memlock",
    "as",
    "locks",
    "sigpending",
    "msgqueue",
    "nice",
    "rtprio",
    "rttime",
];

impl Resource {
    /// Open files.
    pub const NOFILE: Self = Self(7);

    /// Every name.
    pub fn names() -> impl Iterator<Item = &'static str> {
        NAMES.into_iter()
    }

    /// The number that setrlimit(2) takes.
    pub fn number(self) -> u8 {
        self.0
    }

    /// The resource of that number, if there is one.
    pub fn from_number(number: u32) -> Option<Self> {
        u8::try_from(number)
            .ok()
            .filter(|number| usize::from(*number) < NAMES.len())
            .map(Self)
    }

    /// The lower-case name without `RLIMIT_`.
    pub fn name(self) -> &'static str {
        NAMES.get(usize::from(self.0)).copied().unwrap_or_default()
    }
}

impl fmt::Display for Resource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Resource {
    type Err = UnknownResource;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        (0u8..)
            .zip(NAMES)
            .find(|(_, known)| *known == name)
            .map(|(number, _)| Self(number))
            .ok_or_else(|| UnknownResource(name.chars().take(100).collect()))
    }
}

impl TryFrom<String> for Resource {
    type Error = UnknownResource;

    fn try_from(name: String) -> Result<Self, Self::Error> {
        name.parse()
    }
}

impl From<Resource> for String {
    fn from(resource: Resource) -> Self {
        resource.name().to_owned()
    }
}

/// One resource limit (setrlimit(2)).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rlimit {
    /// What is limited.
    #[serde(rename = "name")]
    pub resource: Resource,
    /// Soft limit; `u64::MAX` is unlimited.
    pub soft: u64,
    /// Hard limit; `u64::MAX` is unlimited.
    pub hard: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_the_kernels() {
        for (name, number) in [("cpu", 0), ("nofile", 7), ("memlock", 8), ("rttime", 15)] {
            let resource: Resource = name.parse().unwrap();
            assert_eq!((resource.number(), resource.name()), (number, name));
            assert_eq!(Resource::from_number(number.into()), Some(resource));
        }
        assert_eq!(Resource::NOFILE.name(), "nofile");
        assert_eq!(Resource::from_number(16), None);
        for bad in ["files", "NOFILE", "RLIMIT_NOFILE", ""] {
            assert!(bad.parse::<Resource>().is_err(), "{bad}");
        }
    }
}
