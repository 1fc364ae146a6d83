//! Resource limits by the names that `--ulimit` takes.

/// A limit as setrlimit(2) takes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Limit {
    pub(crate) resource: u32,
    pub(crate) soft: u64,
    pub(crate) hard: u64,
}

/// A name that is no resource limit.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown resource limit {0}")]
pub(crate) struct UnknownLimit(pub(crate) String);

/// Finds the resource; the name may carry `RLIMIT_` and be in either case.
pub(crate) fn limit(name: &str, soft: u64, hard: u64) -> Result<Limit, UnknownLimit> {
    let lower = name.to_ascii_lowercase();
    let resource = match lower.strip_prefix("rlimit_").unwrap_or(&lower) {
        "as" => libc::RLIMIT_AS,
        "core" => libc::RLIMIT_CORE,
        "cpu" => libc::RLIMIT_CPU,
        "data" => libc::RLIMIT_DATA,
        "fsize" => libc::RLIMIT_FSIZE,
        "locks" => libc::RLIMIT_LOCKS,
        "memlock" => libc::RLIMIT_MEMLOCK,
        "msgqueue" => libc::RLIMIT_MSGQUEUE,
        "nice" => libc::RLIMIT_NICE,
        "nofile" => libc::RLIMIT_NOFILE,
        "nproc" => libc::RLIMIT_NPROC,
        "rss" => libc::RLIMIT_RSS,
        "rtprio" => libc::RLIMIT_RTPRIO,
        "rttime" => libc::RLIMIT_RTTIME,
        "sigpending" => libc::RLIMIT_SIGPENDING,
        "stack" => libc::RLIMIT_STACK,
        _ => return Err(UnknownLimit(name.to_owned())),
    };
    Ok(Limit {
        resource,
        soft,
        hard,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_found_with_and_without_prefix() {
        let expected = Limit {
            resource: libc::RLIMIT_NOFILE,
            soft: 1,
            hard: 2,
        };
        assert_eq!(limit("nofile", 1, 2), Ok(expected));
        assert_eq!(limit("RLIMIT_NOFILE", 1, 2), Ok(expected));
        assert_eq!(limit("files", 1, 2), Err(UnknownLimit("files".into())));
    }
}
