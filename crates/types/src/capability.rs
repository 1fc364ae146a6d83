//! Capabilities by the names that `--cap-add` takes, as the set of numbers that the kernel takes.

use std::fmt;

use serde::{Deserialize, Serialize};

/// All names, in the order of their numbers (linux/capability.h).
const NAMES: [&str; 41] = [
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_DAC_READ_SEARCH",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETPCAP",
    "CAP_LINUX_IMMUTABLE",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_BROADCAST",
    "CAP_NET_ADMIN",
    "CAP_NET_RAW",
    "CAP_IPC_LOCK",
    "CAP_IPC_OWNER",
    "CAP_SYS_MODULE",
    "CAP_SYS_RAWIO",
    "CAP_SYS_CHROOT",
    "CAP_SYS_PTRACE",
    "CAP_SYS_PACCT",
    "CAP_SYS_ADMIN",
    "CAP_SYS_BOOT",
    "CAP_SYS_NICE",
    "CAP_SYS_RESOURCE",
    "CAP_SYS_TIME",
    "CAP_SYS_TTY_CONFIG",
    "CAP_MKNOD",
    "CAP_LEASE",
    "CAP_AUDIT_WRITE",
    "CAP_AUDIT_CONTROL",
    "CAP_SETFCAP",
    "CAP_MAC_OVERRIDE",
    "CAP_MAC_ADMIN",
    "CAP_SYSLOG",
    "CAP_WAKE_ALARM",
    "CAP_BLOCK_SUSPEND",
    "CAP_AUDIT_READ",
    "CAP_PERFMON",
    "CAP_BPF",
    "CAP_CHECKPOINT_RESTORE",
];

/// A name that is no capability.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown capability: \"{0}\"")]
pub struct UnknownCapability(pub String);

/// The bounding, permitted and effective set of a process: bit `n` is the capability of number `n`.
/// Written as a list of `CAP_…` names.
#[derive(Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(try_from = "Vec<String>", into = "Vec<String>")]
pub struct Capabilities(u64);

impl Capabilities {
    /// No capability.
    pub const NONE: Self = Self(0);
    /// Every capability that this program knows.
    pub const ALL: Self = Self((1 << NAMES.len()) - 1);

    /// The set of one capability; `net_admin`, `NET_ADMIN` and `CAP_NET_ADMIN` are the same.
    ///
    /// # Errors
    ///
    /// A name that is no capability.
    pub fn named(name: &str) -> Result<Self, UnknownCapability> {
        let upper = name.to_ascii_uppercase();
        let bare = upper.strip_prefix("CAP_").unwrap_or(&upper);
        NAMES
            .iter()
            .position(|known| known.strip_prefix("CAP_") == Some(bare))
            .map(|number| Self(1 << number))
            .ok_or_else(|| UnknownCapability(name.to_owned()))
    }

    /// Both sets together.
    #[must_use]
    pub fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// This set without the other.
    #[must_use]
    pub fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// Whether all of the other set are in this one.
    pub fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// One bit for each capability, by its number.
    pub fn bits(self) -> u64 {
        self.0
    }

    /// The names in the order of their numbers.
    pub fn names(self) -> impl Iterator<Item = &'static str> {
        NAMES
            .iter()
            .enumerate()
            .filter(move |(number, _)| self.0 & (1 << number) != 0)
            .map(|(_, name)| *name)
    }
}

impl fmt::Debug for Capabilities {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.names()).finish()
    }
}

impl From<Capabilities> for Vec<String> {
    fn from(set: Capabilities) -> Self {
        set.names().map(str::to_owned).collect()
    }
}

impl TryFrom<Vec<String>> for Capabilities {
    type Error = UnknownCapability;

    fn try_from(names: Vec<String>) -> Result<Self, Self::Error> {
        names
            .iter()
            .try_fold(Self::NONE, |set, name| Ok(set.with(Self::named(name)?)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_the_kernels() {
        for (name, number) in [
            ("CHOWN", 0),
            ("cap_sys_admin", 21),
            ("CAP_CHECKPOINT_RESTORE", 40),
        ] {
            assert_eq!(
                Capabilities::named(name).unwrap().bits(),
                1 << number,
                "{name}"
            );
        }
        assert_eq!(Capabilities::ALL.bits(), (1 << 41) - 1);
        assert_eq!(Capabilities::ALL.names().count(), 41);
    }

    #[test]
    fn a_set_is_written_as_names_and_an_unknown_name_is_an_error() {
        let set = Capabilities::try_from(vec!["CAP_KILL".into(), "CAP_CHOWN".into()]).unwrap();
        assert_eq!(Vec::<String>::from(set), ["CAP_CHOWN", "CAP_KILL"]);
        assert_eq!(format!("{set:?}"), r#"["CAP_CHOWN", "CAP_KILL"]"#);
        for bad in ["FLY", "CAP_CAP_KILL", ""] {
            assert_eq!(Capabilities::named(bad), Err(UnknownCapability(bad.into())));
        }
    }

    #[test]
    fn sets_are_joined_and_subtracted() {
        let kill = Capabilities::named("KILL").unwrap();
        let rest = Capabilities::ALL.without(kill);
        assert!(!rest.contains(kill) && Capabilities::ALL.contains(kill));
        assert_eq!(rest.with(kill), Capabilities::ALL);
    }
}
