//! Which walls stand on this host, and why the others do not.
//!
//! A jail never falls back silently: without the walls that separate compartments from each other it does not start
//! unless its caller gave them up, and whatever part a host forbids is named here with the reason. The report travels to
//! the container's record, to `info` and to `doctor`.

use std::fmt;

use serde::{Deserialize, Serialize};

/// One part of the jail.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Wall {
    /// A user namespace: root inside is an unprivileged user outside.
    UserNamespace,
    /// A host uid that owns nothing else (only where started by root).
    DedicatedUid,
    /// A mount namespace whose root is an empty file system.
    EmptyRoot,
    /// A process namespace: other processes cannot be named, and all die with the first.
    PidNamespace,
    /// A network namespace without any interface that is up.
    NetNamespace,
    /// Own System V and POSIX message queues.
    IpcNamespace,
    /// Own host name.
    UtsNamespace,
    /// No view of the host's control group tree.
    CgroupNamespace,
    /// Landlock: no file may be opened but in the jail's own root.
    Landlock,
    /// A seccomp allowlist of system calls.
    Seccomp,
}

impl Wall {
    /// Every wall, in the order in which reports list them.
    pub const ALL: [Self; 10] = [
        Self::UserNamespace,
        Self::DedicatedUid,
        Self::EmptyRoot,
        Self::PidNamespace,
        Self::NetNamespace,
        Self::IpcNamespace,
        Self::UtsNamespace,
        Self::CgroupNamespace,
        Self::Landlock,
        Self::Seccomp,
    ];

    /// Whether a compartment reaches other processes or files of its user without it, so that none may start.
    fn separates(self, others: &[Self]) -> bool {
        match self {
            Self::EmptyRoot
            | Self::PidNamespace
            | Self::NetNamespace
            | Self::IpcNamespace
            | Self::UtsNamespace
            | Self::Seccomp => true,
            // Either of them makes the compartment somebody else than its caller.
            Self::UserNamespace => !others.contains(&Self::DedicatedUid),
            Self::DedicatedUid | Self::CgroupNamespace | Self::Landlock => false,
        }
    }

    /// The wall in a few words, for people.
    pub fn describe(self) -> &'static str {
        match self {
            Self::UserNamespace => "user namespace",
            Self::DedicatedUid => "uid of its own",
            Self::EmptyRoot => "empty root file system",
            Self::PidNamespace => "process namespace",
            Self::NetNamespace => "network namespace",
            Self::IpcNamespace => "IPC namespace",
            Self::UtsNamespace => "host name namespace",
            Self::CgroupNamespace => "control group namespace",
            Self::Landlock => "Landlock",
            Self::Seccomp => "seccomp",
        }
    }
}

impl fmt::Display for Wall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.describe())
    }
}

/// A wall that does not stand, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Missing {
    /// The wall.
    pub wall: Wall,
    /// Why the host refused it, in one line.
    pub reason: String,
}

/// What became of each wall.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct JailReport {
    /// Walls that stand.
    pub standing: Vec<Wall>,
    /// Walls that do not.
    pub missing: Vec<Missing>,
}

impl JailReport {
    /// Whether `wall` stands.
    pub fn stands(&self, wall: Wall) -> bool {
        self.standing.contains(&wall)
    }

    /// Whether no wall is missing.
    pub fn is_whole(&self) -> bool {
        self.missing.is_empty()
    }

    /// The missing walls without which a compartment is not separated from whatever else its user runs.
    pub fn weaknesses(&self) -> impl Iterator<Item = &Missing> {
        self.missing
            .iter()
            .filter(|missing| missing.wall.separates(&self.standing))
    }

    /// The weaknesses in one line; walls that are missing for the same reason share it. Empty when there is none.
    pub fn describe_weaknesses(&self) -> String {
        let mut text = String::new();
        let mut last: Option<&Missing> = None;
        for missing in self.weaknesses() {
            match last {
                Some(last) if last.reason == missing.reason => text.push_str(", "),
                Some(last) => text.push_str(&format!(" ({}); no ", last.reason)),
                None => text.push_str("no "),
            }
            text.push_str(missing.wall.describe());
            last = Some(missing);
        }
        if let Some(last) = last {
            text.push_str(&format!(" ({})", last.reason));
        }
        text
    }

    /// Notes that `wall` stands, unless it was already judged.
    pub(crate) fn up(&mut self, wall: Wall) {
        if !self.judged(wall) {
            self.standing.push(wall);
        }
    }

    /// Notes that `wall` does not stand, unless it was already judged.
    pub(crate) fn down(&mut self, wall: Wall, reason: impl Into<String>) {
        if !self.judged(wall) {
            self.missing.push(Missing {
                wall,
                reason: reason.into(),
            });
        }
    }

    fn judged(&self, wall: Wall) -> bool {
        self.stands(wall) || self.missing.iter().any(|m| m.wall == wall)
    }
}

impl fmt::Display for JailReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_whole() {
            return f.write_str("every wall stands");
        }
        for (index, missing) in self.missing.iter().enumerate() {
            if index > 0 {
                f.write_str("; ")?;
            }
            write!(f, "no {}: {}", missing.wall, missing.reason)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_judgement_of_a_wall_is_kept() {
        let mut report = JailReport::default();
        report.down(Wall::Landlock, "kernel too old");
        report.up(Wall::Landlock);
        assert!(!report.stands(Wall::Landlock));
        assert_eq!(report.to_string(), "no Landlock: kernel too old");
    }

    #[test]
    fn what_separates_compartments_is_a_weakness_when_it_is_missing_and_nothing_else_is() {
        let mut report = JailReport::default();
        report.down(Wall::Landlock, "kernel too old");
        report.down(Wall::CgroupNamespace, "kernel too old");
        assert_eq!(report.describe_weaknesses(), "");
        report.down(Wall::UserNamespace, "not permitted");
        report.down(Wall::PidNamespace, "not permitted");
        report.down(Wall::NetNamespace, "no space left");
        assert_eq!(
            report.describe_weaknesses(),
            "no user namespace, process namespace (not permitted); no network namespace (no space left)"
        );
        // Where root gives the jail a uid of its own the user namespace adds little.
        report.up(Wall::DedicatedUid);
        assert!(
            report
                .weaknesses()
                .all(|missing| missing.wall != Wall::UserNamespace)
        );
    }

    #[test]
    fn a_report_survives_the_pipe_between_processes() {
        let mut report = JailReport::default();
        report.up(Wall::EmptyRoot);
        report.down(Wall::UserNamespace, "operation not permitted");
        let text = serde_json::to_string(&report).expect("a report is plain data");
        assert_eq!(
            serde_json::from_str::<JailReport>(&text).expect("what was written is read"),
            report
        );
    }
}
