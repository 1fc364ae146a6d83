//! The unprivileged host ids that a jail runs under when root starts it.

use serde::{Deserialize, Serialize};

/// A range of host uids (and gids, same numbers) set aside for sandboxes.
///
/// The default lies above what `useradd`, `systemd` (dynamic users and containers) and subordinate id
/// ranges hand out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IdRange {
    /// First id.
    pub first: u32,
    /// How many ids; at least one.
    pub count: u32,
}

impl Default for IdRange {
    fn default() -> Self {
        Self {
            first: 0x7000_0000,
            count: 0x0800_0000,
        }
    }
}

/// The host uid and gid that root inside a jail is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostIds {
    /// Host user id.
    pub uid: u32,
    /// Host group id.
    pub gid: u32,
}

impl Default for HostIds {
    /// The first of the default range.
    fn default() -> Self {
        let first = IdRange::default().first;
        Self {
            uid: first,
            gid: first,
        }
    }
}

impl HostIds {
    /// The ids for what `key` names: stable for one container, and spread over the range so that two
    /// containers share one only by rare accident (their other walls still separate them).
    pub fn stable(range: IdRange, key: &str) -> Self {
        // FNV-1a: no secret is kept here, only an even spread is wanted.
        let hash = key.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
        });
        let count = u64::from(range.count.max(1));
        let offset = u32::try_from((hash ^ (hash >> 32)) % count).unwrap_or(0);
        let id = range.first.saturating_add(offset);
        Self { uid: id, gid: id }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_stable_and_inside_their_range() {
        let range = IdRange {
            first: 5000,
            count: 10,
        };
        for key in ["a", "b", "0123456789ab", ""] {
            let ids = HostIds::stable(range, key);
            assert_eq!(ids, HostIds::stable(range, key));
            assert!((5000..5010).contains(&ids.uid), "{key}: {ids:?}");
        }
    }

    #[test]
    fn a_range_of_nothing_still_gives_an_id() {
        let range = IdRange { first: 9, count: 0 };
        assert_eq!(HostIds::stable(range, "x").uid, 9);
    }
}
