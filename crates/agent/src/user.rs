//! Who a process runs as: `user[:group]` resolved against the container's own files, as Docker does.
//!
//! The files come from the image or from the container itself, so they may hold anything: lines that
//! do not parse match nobody, and [`MAX_FILE`] bounds what is read.

/// More than any real account file holds; what is longer is refused, not cut.
pub(crate) const MAX_FILE: u64 = 4 << 20;

/// A resolved identity.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// User number.
    pub uid: u32,
    /// Primary group number.
    pub gid: u32,
    /// The primary group, then supplementary ones, in the file's order.
    pub groups: Vec<u32>,
    /// Home directory; `/` for a number without an entry.
    pub home: String,
}

/// Why no identity was found. The texts are those of Docker.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UserError {
    /// A name that the password file does not hold.
    #[error("unable to find user {0}: no matching entries in passwd file")]
    UnknownUser(String),
    /// A name that the group file does not hold.
    #[error("unable to find group {0}: no matching entries in group file")]
    UnknownGroup(String),
    /// A number beyond what Docker allows.
    #[error("uids and gids must be in range 0-2147483647")]
    OutOfRange,
}

/// A number where the text is one, with sign, as Go's `Atoi` reads it.
fn number(text: &[u8]) -> Option<i64> {
    std::str::from_utf8(text).ok()?.parse().ok()
}

fn in_range(number: i64) -> Result<u32, UserError> {
    i32::try_from(number)
        .ok()
        .and_then(|n| u32::try_from(n).ok())
        .ok_or(UserError::OutOfRange)
}

/// The first `N` fields of each line that has them.
fn entries<const N: usize>(file: &[u8]) -> impl Iterator<Item = [&[u8]; N]> {
    file.split(|byte| *byte == b'\n').filter_map(|line| {
        let mut fields = line.trim_ascii().split(|byte| *byte == b':');
        let mut out: [&[u8]; N] = [&[]; N];
        for slot in &mut out {
            *slot = fields.next()?;
        }
        Some(out)
    })
}

/// Resolves `spec` (`user`, `uid`, `user:group`, `uid:gid` or empty for root) against the contents
/// of `/etc/passwd` and `/etc/group`, either of which may be empty.
///
/// # Errors
///
/// A name without an entry, or a number that Docker would refuse.
pub fn resolve(spec: &str, passwd: &[u8], group: &[u8]) -> Result<Identity, UserError> {
    let (user_part, group_part) = spec.split_once(':').unwrap_or((spec, ""));
    let wanted_uid = if user_part.is_empty() {
        Some(0)
    } else {
        number(user_part.as_bytes())
    };

    let account = entries::<6>(passwd).find_map(|[name, _, uid, gid, _, home]| {
        let uid = number(uid)?;
        let gid = number(gid)?;
        let matches = match wanted_uid {
            Some(wanted) => uid == wanted,
            None => name == user_part.as_bytes(),
        };
        matches.then_some((name, uid, gid, home))
    });

    let mut identity = Identity {
        uid: 0,
        gid: 0,
        groups: Vec::new(),
        home: String::from("/"),
    };
    match (account, wanted_uid) {
        (Some((_, uid, gid, home)), _) => {
            identity.uid = in_range(uid)?;
            identity.gid = in_range(gid)?;
            identity.home = String::from_utf8_lossy(home).into_owned();
        }
        (None, Some(uid)) => identity.uid = in_range(uid)?,
        (None, None) => return Err(UserError::UnknownUser(user_part.to_owned())),
    }

    let mut supplementary = Vec::new();
    if !group_part.is_empty() {
        let wanted = number(group_part.as_bytes());
        let found = entries::<3>(group).find_map(|[name, _, gid]| {
            let gid = number(gid)?;
            let matches = match wanted {
                Some(wanted) => gid == wanted,
                None => name == group_part.as_bytes(),
            };
            matches.then_some(gid)
        });
        let gid = found
            .or(wanted)
            .ok_or_else(|| UserError::UnknownGroup(group_part.to_owned()))?;
        identity.gid = in_range(gid)?;
    } else if let Some((name, ..)) = account.filter(|(name, ..)| !name.is_empty()) {
        // An empty list of members has no member, not one without a name.
        for [_, _, gid, members] in entries::<4>(group) {
            if members
                .split(|byte| *byte == b',')
                .any(|member| member == name)
                && let Some(gid) = number(gid).and_then(|gid| in_range(gid).ok())
            {
                supplementary.push(gid);
            }
        }
    }
    identity.groups.push(identity.gid);
    identity.groups.extend(supplementary);
    // NGROUPS_MAX: setgroups(2) refuses more.
    identity.groups.truncate(65536);
    Ok(identity)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &[u8] = b"root:x:0:0:root:/root:/bin/sh\n\
        # a comment: with:colons\n\
        daemon:x:1:1::/usr/sbin:/usr/sbin/nologin\n\
        \n\
        broken line\n\
        nan:x:abc:1::/nan:/bin/sh\n\
        www:x:33:34:web,,,:/var/www:/bin/sh\n\
        www:x:99:99::/second:/bin/sh\n";
    const GROUP: &[u8] = b"root:x:0:\nbin:x:1:root,bin\nwww:x:34:\nadm:x:4:syslog,www\n\
        video:x:44:www\nbad:x:xx:www\nhuge:x:99999999999:www\n";

    fn of(spec: &str) -> Result<(u32, u32, Vec<u32>, String), UserError> {
        resolve(spec, PASSWD, GROUP).map(|id| (id.uid, id.gid, id.groups, id.home))
    }

    #[test]
    fn no_user_is_root_with_the_groups_that_list_root() {
        assert_eq!(of(""), Ok((0, 0, vec![0, 1], "/root".into())));
        assert_eq!(of("root"), of(""));
        assert_eq!(of("0"), of(""));
    }

    #[test]
    fn a_name_brings_home_group_and_supplementary_groups() {
        assert_eq!(of("www"), Ok((33, 34, vec![34, 4, 44], "/var/www".into())));
        assert_eq!(of("33"), of("www"));
    }

    #[test]
    fn an_explicit_group_replaces_all_others() {
        assert_eq!(of("www:adm"), Ok((33, 4, vec![4], "/var/www".into())));
        assert_eq!(of("www:4"), of("www:adm"));
        assert_eq!(of(":video"), Ok((0, 44, vec![44], "/root".into())));
        assert_eq!(of("1000:2000"), Ok((1000, 2000, vec![2000], "/".into())));
    }

    #[test]
    fn a_number_needs_no_entry_but_a_name_does() {
        assert_eq!(of("4242"), Ok((4242, 0, vec![0], "/".into())));
        assert_eq!(of("nobody"), Err(UserError::UnknownUser("nobody".into())));
        assert_eq!(of("nan"), Err(UserError::UnknownUser("nan".into())));
        assert_eq!(
            of("www:nogroup"),
            Err(UserError::UnknownGroup("nogroup".into()))
        );
        for bad in ["-1", "2147483648", "0:-1", "0:4294967295"] {
            assert_eq!(of(bad), Err(UserError::OutOfRange), "{bad}");
        }
    }

    #[test]
    fn an_account_without_a_name_is_in_no_group_without_members() {
        let passwd = b":x:1000:1000::/home:/bin/sh\n";
        let id = resolve("1000", passwd, b"root:x:0:\nadm:x:4:,\nwheel:x:10:a,,b\n").unwrap();
        assert_eq!((id.uid, id.gid, id.groups), (1000, 1000, vec![1000]));
    }

    #[test]
    fn images_without_account_files_still_have_root() {
        let id = resolve("", b"", b"").unwrap();
        assert_eq!(
            (id.uid, id.gid, id.groups, id.home),
            (0, 0, vec![0], "/".into())
        );
    }
}
