//! `--ulimit name=soft[:hard]`.

use bulkhead_types::{Resource, Rlimit};

use super::OptionError;

/// Open files of a process that was given no limit: what systemd, and so Docker's current default,
/// gives. A bare guest kernel's 4096 breaks databases.
const NOFILE: (u64, u64) = (1024, 524_288);

/// The limits of a process: the flags', and Docker's default for open files unless they set it.
pub(super) fn resolve(flags: &[String]) -> Result<Vec<Rlimit>, OptionError> {
    let mut limits = vec![Rlimit {
        resource: Resource::NOFILE,
        soft: NOFILE.0,
        hard: NOFILE.1,
    }];
    for flag in flags {
        let limit = parse(flag)?;
        // The last of several flags wins, as in Docker.
        match limits
            .iter_mut()
            .find(|known| known.resource == limit.resource)
        {
            Some(known) => *known = limit,
            None => limits.push(limit),
        }
    }
    Ok(limits)
}

/// Whether `flag` is a `--ulimit`.
///
/// # Errors
/// What is wrong with it, in Docker's words.
pub fn check_ulimit(flag: &str) -> Result<(), OptionError> {
    parse(flag).map(|_| ())
}

/// Parses one flag; -1 is unlimited, and a single number is both limits.
pub(super) fn parse(flag: &str) -> Result<Rlimit, OptionError> {
    let syntax = || OptionError::UlimitSyntax(flag.chars().take(100).collect());
    let (name, limits) = flag.split_once('=').ok_or_else(syntax)?;
    let resource = name.parse::<Resource>()?;
    let number = |text: &str| {
        text.parse::<i64>()
            .ok()
            .filter(|n| *n >= -1)
            .ok_or_else(syntax)
    };
    let (soft, hard) = match limits.split_once(':') {
        Some((soft, hard)) => (number(soft)?, number(hard)?),
        None => (number(limits)?, number(limits)?),
    };
    if hard != -1 && (soft == -1 || soft > hard) {
        return Err(OptionError::UlimitOrder { soft, hard });
    }
    // Only -1 does not convert.
    let value = |n: i64| u64::try_from(n).unwrap_or(u64::MAX);
    Ok(Rlimit {
        resource,
        soft: value(soft),
        hard: value(hard),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_parse_as_dockers() {
        let limit = |name: &str, soft, hard| Rlimit {
            resource: name.parse().unwrap(),
            soft,
            hard,
        };
        assert_eq!(
            parse("nofile=1024:2048").unwrap(),
            limit("nofile", 1024, 2048)
        );
        assert_eq!(parse("core=0").unwrap(), limit("core", 0, 0));
        assert_eq!(
            parse("memlock=-1").unwrap(),
            limit("memlock", u64::MAX, u64::MAX)
        );
        assert_eq!(parse("nproc=5:-1").unwrap(), limit("nproc", 5, u64::MAX));
        for bad in [
            "nofile",
            "nofile=",
            "nofile=a",
            "nofile=1:2:3",
            "nofile=5:4",
            "nofile=-1:4",
            "files=1",
            "core=-2",
        ] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_last_flag_wins_over_earlier_ones_and_the_default() {
        let limits = resolve(&["nofile=1".into(), "nofile=7:8".into(), "core=0".into()]).unwrap();
        assert_eq!(limits.len(), 2);
        assert_eq!((limits[0].soft, limits[0].hard), (7, 8));
        assert_eq!(resolve(&[]).unwrap()[0].hard, 524_288);
    }
}
