//! Which capabilities a container's processes have: Docker's default set, `--cap-add`, `--cap-drop`.

use bulkhead_types::Capabilities;

use super::OptionError;

/// Docker's default set. In a kernel of its own more would be harmless to the host, but a program
/// must meet the same limits here as it does under Docker.
const DEFAULT: [&str; 14] = [
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FSETID",
    "CAP_FOWNER",
    "CAP_MKNOD",
    "CAP_NET_RAW",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETFCAP",
    "CAP_SETPCAP",
    "CAP_NET_BIND_SERVICE",
    "CAP_SYS_CHROOT",
    "CAP_KILL",
    "CAP_AUDIT_WRITE",
];

/// capabilities(7), by number.
const ALL: [&str; 41] = [
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

/// `ALL` as a flag's value.
const EVERYTHING: &str = "ALL";

/// Docker's rules: `--cap-add ALL` starts from everything and `--cap-drop` takes away;
/// `--cap-drop ALL` leaves only what was added; otherwise what was dropped leaves the default set,
/// and then what was added joins it, so that adding wins.
pub(super) fn resolve(add: &[String], drop: &[String]) -> Result<Capabilities, OptionError> {
    let add = normalise("CapAdd", add)?;
    let drop = normalise("CapDrop", drop)?;
    let mut set: Vec<&str>;
    if add.contains(&EVERYTHING) {
        set = ALL.iter().filter(|c| !drop.contains(c)).copied().collect();
    } else {
        let all_dropped = drop.contains(&EVERYTHING);
        set = DEFAULT
            .iter()
            .filter(|c| !all_dropped && !drop.contains(c))
            .copied()
            .collect();
        for capability in add {
            if !set.contains(&capability) {
                set.push(capability);
            }
        }
    }
    Ok(Capabilities(set.into_iter().map(str::to_owned).collect()))
}

/// `net_admin`, `NET_ADMIN` and `CAP_NET_ADMIN` are the same.
fn normalise(flag: &'static str, names: &[String]) -> Result<Vec<&'static str>, OptionError> {
    names
        .iter()
        .map(|name| {
            let upper = name.to_ascii_uppercase();
            let bare = upper.strip_prefix("CAP_").unwrap_or(&upper);
            if bare == EVERYTHING {
                return Ok(EVERYTHING);
            }
            ALL.iter()
                .copied()
                .find(|known| known.strip_prefix("CAP_") == Some(bare))
                .ok_or_else(|| OptionError::Capability {
                    flag,
                    name: name.clone(),
                })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn caps(add: &[&str], drop: &[&str]) -> Vec<String> {
        let own = |names: &[&str]| names.iter().map(|n| (*n).to_owned()).collect::<Vec<_>>();
        resolve(&own(add), &own(drop)).unwrap().0
    }

    #[test]
    fn adding_and_dropping_follow_dockers_rules() {
        assert_eq!(caps(&[], &[]), DEFAULT);
        assert_eq!(caps(&[], &["ALL"]), Vec::<String>::new());
        assert_eq!(caps(&["chown"], &["all"]), ["CAP_CHOWN"]);
        assert_eq!(caps(&["ALL"], &[]), ALL);
        let without = caps(&["ALL"], &["cap_sys_admin"]);
        assert_eq!(without.len(), 40);
        assert!(!without.contains(&"CAP_SYS_ADMIN".to_owned()));
        assert_eq!(caps(&["ALL"], &["ALL"]).len(), 41);
        let dropped = caps(&[], &["NET_RAW", "Mknod"]);
        assert_eq!(dropped.len(), 12);
        let added = caps(&["NET_ADMIN", "CAP_CHOWN"], &[]);
        assert_eq!(added.len(), 15);
        assert!(added.contains(&"CAP_NET_ADMIN".to_owned()));
        assert!(
            caps(&["KILL"], &["KILL"]).contains(&"CAP_KILL".to_owned()),
            "adding wins"
        );
    }

    #[test]
    fn an_unknown_capability_is_named() {
        let error = resolve(&["FLY".into()], &[]).unwrap_err();
        assert_eq!(
            error.to_string(),
            "invalid CapAdd: unknown capability: \"FLY\""
        );
        assert!(resolve(&[], &["CAP_CAP_KILL".into()]).is_err());
    }
}
