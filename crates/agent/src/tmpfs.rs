//! Options of `--tmpfs`: what mount(8) takes, checked against what tmpfs knows.

use std::ffi::CString;

use nix::mount::MsFlags;

/// Options as mount(2) takes them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TmpfsOptions {
    pub(crate) flags: MsFlags,
    /// Comma-separated `key=value`s for the file system.
    pub(crate) data: CString,
    /// A mode was asked for, so the one of the directory underneath does not count.
    pub(crate) mode_given: bool,
}

/// An option that tmpfs does not have.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid tmpfs option '{0}'")]
pub(crate) struct InvalidOption(pub(crate) String);

/// Parses `size=64m,mode=1770,exec…`; without options a tmpfs is nosuid, nodev and noexec, as Docker's.
pub(crate) fn parse(options: &str) -> Result<TmpfsOptions, InvalidOption> {
    let mut flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    let mut data = String::new();
    let mut mode_given = false;
    for option in options.split(',').filter(|option| !option.is_empty()) {
        match option {
            "defaults" | "rw" => flags.remove(MsFlags::MS_RDONLY),
            "ro" => flags.insert(MsFlags::MS_RDONLY),
            "suid" => flags.remove(MsFlags::MS_NOSUID),
            "nosuid" => flags.insert(MsFlags::MS_NOSUID),
            "dev" => flags.remove(MsFlags::MS_NODEV),
            "nodev" => flags.insert(MsFlags::MS_NODEV),
            "exec" => flags.remove(MsFlags::MS_NOEXEC),
            "noexec" => flags.insert(MsFlags::MS_NOEXEC),
            "sync" => flags.insert(MsFlags::MS_SYNCHRONOUS),
            "async" => flags.remove(MsFlags::MS_SYNCHRONOUS),
            "atime" => flags.remove(MsFlags::MS_NOATIME),
            "noatime" => flags.insert(MsFlags::MS_NOATIME),
            "nodiratime" => flags.insert(MsFlags::MS_NODIRATIME),
            "relatime" => flags.insert(MsFlags::MS_RELATIME),
            "strictatime" => flags.insert(MsFlags::MS_STRICTATIME),
            _ => {
                let known = option.split_once('=').is_some_and(|(key, value)| {
                    !value.is_empty()
                        && matches!(
                            key,
                            "size" | "mode" | "uid" | "gid" | "nr_inodes" | "nr_blocks"
                        )
                });
                if !known || option.contains('\0') {
                    return Err(InvalidOption(option.to_owned()));
                }
                mode_given |= option.starts_with("mode=");
                if !data.is_empty() {
                    data.push(',');
                }
                data.push_str(option);
            }
        }
    }
    let data = CString::new(data).map_err(|_| InvalidOption(options.to_owned()))?;
    Ok(TmpfsOptions {
        flags,
        data,
        mode_given,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_are_dockers() {
        let parsed = parse("").unwrap();
        assert_eq!(
            parsed.flags,
            MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC
        );
        assert_eq!(parsed.data.to_str(), Ok(""));
        assert!(!parsed.mode_given);
    }

    #[test]
    fn flags_and_data_are_told_apart_and_later_ones_win() {
        let parsed = parse("rw,exec,size=64m,mode=1770,ro,rw").unwrap();
        assert_eq!(parsed.flags, MsFlags::MS_NOSUID | MsFlags::MS_NODEV);
        assert_eq!(parsed.data.to_str(), Ok("size=64m,mode=1770"));
        assert!(parsed.mode_given);
    }

    #[test]
    fn what_tmpfs_does_not_know_is_refused() {
        for bad in ["lowerdir=/x", "size=", "size", "bind", "mode=1\0"] {
            assert!(parse(bad).is_err(), "{bad:?}");
        }
    }
}
