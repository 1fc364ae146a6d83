//! What Docker's command line has and this one has not: said by name, so that nobody looks for a typing mistake.
//!
//! The tables here and `docs/compatibility.md` say the same, which a test compares. A flag or command that
//! comes into being leaves both.

use super::verb::Verb;
use crate::commands::{GROUPS, VERBS};

/// Where the whole list is: a file that is there, installed or in the tree.
fn list() -> String {
    let installed = std::env::current_exe().ok().and_then(|program| {
        let prefix = program.parent()?.parent()?;
        let file = prefix.join("share/doc/bulkhead/compatibility.md");
        file.is_file().then_some(file)
    });
    let file = installed.map(|file| file.display().to_string());
    format!("see {}", file.as_deref().unwrap_or("docs/compatibility.md"))
}

/// Why something is not there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Why {
    /// To come; what stands in its place meanwhile, where there is something to say.
    NotYet(&'static str),
    /// Without a meaning here.
    Never(&'static str),
}

use Why::{Never, NotYet};

/// Flags that some verbs do not have, as `docker VERB --help` lists them: `--long` or `-s, --long`.
struct Flags {
    verbs: &'static [&'static str],
    flags: &'static [&'static str],
    why: Why,
}

/// Commands below `group` that do not exist; the group's name is empty at the top.
struct Commands {
    group: &'static str,
    names: &'static [&'static str],
    why: Why,
}

const CREATION: &[&str] = &["run", "create"];
const NO_NETWORK: Why = NotYet("a container has no network yet except loopback");
const NO_PLATFORM: Why = NotYet("an image here is of one platform");

#[rustfmt::skip]
const FLAGS: &[Flags] = &[
    Flags {
        verbs: CREATION,
        flags: &[
            "--add-host", "--dns", "--dns-opt", "--dns-option", "--dns-search", "--domainname", "--expose", "--ip",
            "--ip6", "--link", "--link-local-ip", "--mac-address", "--net", "--net-alias", "--network",
            "--network-alias", "-p, --publish", "-P, --publish-all",
        ],
        why: NO_NETWORK,
    },
    Flags {
        verbs: CREATION,
        flags: &["-v, --volume", "--mount", "--volume-driver", "--volumes-from"],
        why: NotYet("there are no bind mounts and no named volumes yet; an image's VOLUMEs and --tmpfs work"),
    },
    Flags {
        verbs: CREATION,
        flags: &[
            "--health-cmd", "--health-interval", "--health-retries", "--health-start-interval",
            "--health-start-period", "--health-timeout", "--no-healthcheck",
        ],
        why: NotYet("nobody looks after a container's health yet"),
    },
    Flags { verbs: CREATION, flags: &["--restart"], why: NotYet("nobody starts a container again yet") },
    Flags {
        verbs: CREATION,
        flags: &["--sysctl", "--group-add", "--annotation"],
        why: NotYet(""),
    },
    Flags {
        verbs: CREATION,
        flags: &[
            "--cpu-count", "--cpu-percent", "--cpu-period", "--cpu-quota", "--cpu-rt-period", "--cpu-rt-runtime",
            "-c, --cpu-shares", "--cpuset-cpus", "--cpuset-mems", "--blkio-weight", "--blkio-weight-device",
            "--device-read-bps", "--device-read-iops", "--device-write-bps", "--device-write-iops",
            "--io-maxbandwidth", "--io-maxiops", "--memory-reservation", "--memory-swap", "--memory-swappiness",
            "--kernel-memory", "--oom-kill-disable", "--oom-score-adj", "--pids-limit",
        ],
        why: NotYet("--cpus and --memory limit a container"),
    },
    Flags {
        verbs: CREATION,
        flags: &["--cgroup-parent", "--cgroupns", "--ipc", "--pid", "--userns", "--uts", "--runtime"],
        why: Never("it names a part of the host that a container with a kernel of its own does not have"),
    },
    Flags { verbs: CREATION, flags: &["--device-cgroup-rule", "--gpus"], why: NotYet("") },
    Flags {
        verbs: CREATION,
        flags: &["--log-driver", "--log-opt"],
        why: Never("there is one log; 'log.max-size' in the configuration is its size"),
    },
    Flags { verbs: CREATION, flags: &["--storage-opt"], why: Never("--disk is the size of the writable disk") },
    Flags { verbs: CREATION, flags: &["--disable-content-trust"], why: NotYet("") },
    Flags { verbs: CREATION, flags: &["--use-api-socket"], why: Never("there is no daemon") },
    Flags { verbs: &["start"], flags: &["--checkpoint", "--checkpoint-dir"], why: NotYet("") },
    Flags { verbs: &["rm"], flags: &["-l, --link"], why: NO_NETWORK },
    Flags { verbs: &["logs"], flags: &["--details"], why: NotYet("") },
    Flags { verbs: &["inspect"], flags: &["-s, --size"], why: Never("sizes are always shown") },
    Flags { verbs: &["pull"], flags: &["-a, --all-tags"], why: NotYet("pull the tags one by one") },
    Flags { verbs: &["pull", "push"], flags: &["--disable-content-trust"], why: NotYet("") },
    Flags { verbs: &["push"], flags: &["--platform"], why: NO_PLATFORM },
    Flags { verbs: &["images"], flags: &["--tree"], why: NotYet("") },
    Flags { verbs: &["history"], flags: &["--platform"], why: NO_PLATFORM },
    Flags {
        verbs: &["rmi"],
        flags: &["--no-prune"],
        why: Never("there are no intermediate images that would be pruned"),
    },
    Flags { verbs: &["rmi", "save"], flags: &["--platform"], why: NO_PLATFORM },
    Flags {
        verbs: &[""],
        flags: &[
            "-c, --context", "-H, --host", "--tls", "--tlscacert", "--tlscert", "--tlskey", "--tlsverify",
        ],
        why: Never("there is no daemon to connect to"),
    },
];

/// What `container` lacks is lacking at the top too.
const CONTAINER: &[&str] = &[
    "cp", "diff", "commit", "export", "stats", "top", "pause", "unpause", "port", "rename",
    "update",
];

#[rustfmt::skip]
const COMMANDS: &[Commands] = &[
    Commands { group: "", names: CONTAINER, why: NotYet("") },
    Commands { group: "container", names: CONTAINER, why: NotYet("") },
    Commands { group: "", names: &["events"], why: NotYet("") },
    Commands {
        group: "",
        names: &["build", "buildx", "builder"],
        why: NotYet("images come from pull, load, import and bootstrap"),
    },
    Commands { group: "image", names: &["build"], why: NotYet("images come from pull, load, import and bootstrap") },
    Commands {
        group: "",
        names: &["login", "logout"],
        why: NotYet("what 'docker login', 'podman login' or 'skopeo login' wrote is used"),
    },
    Commands { group: "", names: &["search", "manifest", "trust"], why: NotYet("") },
    Commands { group: "", names: &["network"], why: NO_NETWORK },
    Commands { group: "", names: &["volume"], why: NotYet("an image's VOLUMEs and --tmpfs work") },
    Commands {
        group: "",
        names: &["system"],
        why: NotYet("'bulkhead info', 'bulkhead container prune' and 'bulkhead image prune' work"),
    },
    Commands { group: "", names: &["compose", "plugin", "checkpoint"], why: NotYet("") },
    Commands { group: "", names: &["context"], why: Never("there is no daemon to connect to") },
    Commands {
        group: "",
        names: &["swarm", "config", "node", "secret", "service", "stack"],
        why: Never("there is no cluster"),
    },
];

/// What to say about `flag` (`--long`, `-s` or several short ones, the unknown first) of `verb`; nothing where
/// Docker does not have it either.
pub(super) fn flag(verb: Option<&Verb>, flag: &str) -> Option<String> {
    let verb = verb.map_or("", canonical);
    let flag = flag.split('=').next().unwrap_or(flag);
    let wanted: String = if flag.starts_with("--") {
        flag.to_owned()
    } else {
        flag.chars().take(2).collect()
    };
    let entries = FLAGS.iter().filter(|entry| entry.verbs.contains(&verb));
    entries
        .flat_map(|entry| entry.flags.iter().map(|names| (names, entry.why)))
        .find(|(names, _)| names.split(", ").any(|name| name == wanted))
        .map(|(names, why)| sentence(names, why))
}

/// What to say about the command `word` of the group `path`, `bulkhead` or `bulkhead GROUP`.
pub(super) fn command(path: &str, word: &str) -> Option<String> {
    let group = path.strip_prefix("bulkhead").unwrap_or(path).trim_start();
    let mut commands = COMMANDS.iter().filter(|entry| entry.group == group);
    let found = commands.find(|entry| entry.names.contains(&word))?;
    Some(sentence(&format!("'{path} {word}'"), found.why))
}

fn sentence(what: &str, why: Why) -> String {
    let list = list();
    match why {
        NotYet("") => format!("bulkhead: {what} is not supported yet; {list}"),
        NotYet(why) => format!("bulkhead: {what} is not supported yet: {why}; {list}"),
        Never(why) => format!("bulkhead: {what} is not supported: {why}; {list}"),
    }
}

/// The name at the top of a verb that may have been typed below a group, under another name.
fn canonical(verb: &Verb) -> &'static str {
    let same = |other: &&Verb| other.about == verb.about && other.usage == verb.usage;
    let top = VERBS.iter().find(same);
    let grouped = GROUPS.iter().flat_map(|group| group.verbs).find(same);
    top.or(grouped).map_or("", |verb| verb.name)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    const DOCUMENT: &str = include_str!("../../../../docs/compatibility.md");

    /// The cells of the rows of a section's tables.
    fn rows(section: &str) -> Vec<Vec<&'static str>> {
        let mut lines = DOCUMENT.lines();
        lines
            .by_ref()
            .find(|line| line.strip_prefix("## ") == Some(section))
            .unwrap_or_else(|| panic!("no section {section}"));
        lines
            .take_while(|line| !line.starts_with("## "))
            .filter_map(|line| line.strip_prefix("| "))
            .map(|line| {
                line.trim_end_matches('|')
                    .split('|')
                    .map(str::trim)
                    .collect()
            })
            .collect()
    }

    fn quoted(text: &'static str) -> impl Iterator<Item = &'static str> {
        text.split('`').skip(1).step_by(2)
    }

    /// What stands behind `absent:` up to the end of the sentence.
    fn absent(cell: &'static str) -> &'static str {
        let Some(at) = cell.to_ascii_lowercase().find("absent: ") else {
            return "";
        };
        let rest = &cell[at..];
        rest.find(". ")
            .or(rest.find(';'))
            .map_or(rest, |end| &rest[..end])
    }

    fn fits(pattern: &str, name: &str) -> bool {
        match pattern.split_once('*') {
            Some((start, end)) => {
                name.len() >= start.len() + end.len()
                    && name.starts_with(start)
                    && name.ends_with(end)
            }
            None => pattern == name,
        }
    }

    /// Verb and pattern of every flag that the document calls absent.
    fn documented_flags() -> BTreeSet<(&'static str, &'static str)> {
        let mut found = BTreeSet::new();
        for row in rows("run, create").iter().filter(|row| row[1] == "absent") {
            for flag in quoted(row[0]) {
                found.extend(CREATION.iter().map(|verb| (*verb, flag)));
            }
        }
        for section in ["Other verbs for containers", "Images", "System"] {
            for row in rows(section) {
                for flag in row.iter().flat_map(|cell| quoted(absent(cell))) {
                    let verbs = quoted(row[0]).filter(|_| flag.starts_with('-'));
                    found.extend(verbs.map(|verb| (verb, flag)));
                }
            }
        }
        let globals = DOCUMENT
            .lines()
            .find(|line| line.starts_with("Global flags"));
        found.extend(quoted(absent(globals.expect("global flags"))).map(|flag| ("", flag)));
        found
    }

    #[test]
    fn absent_flags_are_those_of_the_document() {
        let documented = documented_flags();
        assert!(documented.len() > 60, "{documented:?}");
        let mut used: BTreeSet<&(&str, &str)> = BTreeSet::new();
        for entry in FLAGS {
            for (verb, names) in entry
                .verbs
                .iter()
                .flat_map(|v| entry.flags.iter().map(move |f| (v, f)))
            {
                let patterns: Vec<_> = documented
                    .iter()
                    .filter(|(of, pattern)| {
                        of == verb && names.split(", ").any(|name| fits(pattern, name))
                    })
                    .collect();
                assert!(
                    !patterns.is_empty(),
                    "the document does not call {verb} {names} absent"
                );
                used.extend(patterns);
            }
        }
        let unused: Vec<_> = documented
            .iter()
            .filter(|entry| !used.contains(entry))
            .collect();
        assert!(unused.is_empty(), "nothing is said about {unused:?}");
    }

    #[test]
    fn absent_commands_are_those_of_the_document() {
        let is_absent = |row: &&Vec<&str>| {
            row[1..]
                .iter()
                .any(|cell| cell.starts_with("absent") && !cell.starts_with("absent:"))
        };
        let mut documented = BTreeSet::new();
        for section in ["Other verbs for containers", "Images", "System"] {
            for row in rows(section).iter().filter(is_absent) {
                documented.extend(quoted(row[0]));
            }
        }
        let ours: BTreeSet<&str> = COMMANDS
            .iter()
            .flat_map(|entry| entry.names)
            .copied()
            .collect();
        assert_eq!(ours, documented);
    }

    #[test]
    fn nothing_that_exists_is_called_absent() {
        for entry in FLAGS {
            for verb in VERBS.iter().filter(|verb| entry.verbs.contains(&verb.name)) {
                let command = (verb.augment)(clap::Command::new(verb.name));
                for names in entry.flags {
                    for name in names.split(", ").filter_map(|name| name.strip_prefix("--")) {
                        let exists = command
                            .get_arguments()
                            .any(|arg| arg.get_long() == Some(name));
                        assert!(!exists, "{} --{name} exists", verb.name);
                    }
                }
            }
        }
        for entry in COMMANDS {
            let exists = |name: &&&str| match GROUPS.iter().find(|group| group.name == entry.group)
            {
                Some(group) => group.verbs.iter().any(|verb| verb.is(name)),
                None => {
                    VERBS.iter().any(|verb| verb.is(name))
                        || GROUPS.iter().any(|g| g.name == **name)
                }
            };
            assert_eq!(entry.names.iter().find(exists), None);
        }
    }

    #[test]
    fn the_sentence_names_the_flag_as_help_would() {
        let verb = |name: &str| VERBS.iter().find(|verb| verb.name == name);
        let said = flag(verb("run"), "-p").expect("absent");
        assert!(
            said.starts_with("bulkhead: -p, --publish is not supported yet: "),
            "{said}"
        );
        assert!(said.ends_with("; see docs/compatibility.md"), "{said}");
        assert_eq!(
            flag(verb("run"), "--network=host"),
            flag(verb("create"), "--network")
        );
        assert_eq!(flag(verb("ps"), "-p"), None);
        assert_eq!(flag(verb("run"), "--foo"), None);
        assert!(flag(None, "-H").is_some());
        assert!(command("bulkhead container", "cp").is_some());
        assert_eq!(command("bulkhead image", "cp"), None);
        assert_eq!(command("bulkhead", "foo"), None);
    }
}
