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

/// `ALL` as a flag's value.
const EVERYTHING: &str = "ALL";

/// Docker's rules: `--cap-add ALL` starts from everything and `--cap-drop` takes away;
/// `--cap-drop ALL` leaves only what was added; otherwise what was dropped leaves the default set,
/// and then what was added joins it, so that adding wins. A privileged container has everything, whatever is dropped.
pub(super) fn resolve(
    privileged: bool,
    add: &[String],
    drop: &[String],
) -> Result<Capabilities, OptionError> {
    let add = Wanted::parse("CapAdd", add)?;
    let drop = Wanted::parse("CapDrop", drop)?;
    Ok(if privileged {
        Capabilities::ALL
    } else if add.everything {
        Capabilities::ALL.without(drop.named)
    } else if drop.everything {
        add.named
    } else {
        default().without(drop.named).with(add.named)
    })
}

fn default() -> Capabilities {
    DEFAULT
        .iter()
        .filter_map(|name| Capabilities::named(name).ok())
        .fold(Capabilities::NONE, Capabilities::with)
}

/// What one of the two flags names.
struct Wanted {
    everything: bool,
    named: Capabilities,
}

impl Wanted {
    fn parse(flag: &'static str, names: &[String]) -> Result<Self, OptionError> {
        let mut wanted = Self {
            everything: false,
            named: Capabilities::NONE,
        };
        for name in names {
            if name.eq_ignore_ascii_case(EVERYTHING) || name.eq_ignore_ascii_case("CAP_ALL") {
                wanted.everything = true;
                continue;
            }
            let capability = Capabilities::named(name).map_err(|_| OptionError::Capability {
                flag,
                name: name.clone(),
            })?;
            wanted.named = wanted.named.with(capability);
        }
        Ok(wanted)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn caps(add: &[&str], drop: &[&str]) -> Vec<String> {
        let own = |names: &[&str]| names.iter().map(|n| (*n).to_owned()).collect::<Vec<_>>();
        resolve(false, &own(add), &own(drop)).unwrap().into()
    }

    #[test]
    fn adding_and_dropping_follow_dockers_rules() {
        let mut sorted = caps(&[], &[]);
        let mut expected = DEFAULT.map(String::from);
        sorted.sort();
        expected.sort();
        assert_eq!(sorted, expected);
        assert_eq!(caps(&[], &["ALL"]), Vec::<String>::new());
        assert_eq!(caps(&["chown"], &["all"]), ["CAP_CHOWN"]);
        assert_eq!(caps(&["ALL"], &[]).len(), 41);
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
    fn a_privileged_container_has_every_capability() {
        let all = resolve(true, &[], &["ALL".into(), "KILL".into()]).unwrap();
        assert_eq!(all, Capabilities::ALL);
    }

    #[test]
    fn an_unknown_capability_is_named() {
        let error = resolve(false, &["FLY".into()], &[]).unwrap_err();
        assert_eq!(
            error.to_string(),
            "invalid CapAdd: unknown capability: \"FLY\""
        );
        assert!(resolve(true, &[], &["CAP_CAP_KILL".into()]).is_err());
    }
}
