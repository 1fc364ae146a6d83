//! Extended attributes: inline after their inode, or in an area that all inodes share.

use std::collections::BTreeMap;

use crate::budget::{Budget, Exceeded, map_entry};
use crate::layer::Attributes;

/// Name prefixes that the format has numbers for. Those without a rest of the name come first.
const PREFIXES: [(u8, &[u8], bool); 5] = [
    (2, b"system.posix_acl_access", false),
    (3, b"system.posix_acl_default", false),
    (1, b"user.", true),
    (4, b"trusted.", true),
    (6, b"security.", true),
];

/// The largest value the format's 16-bit field takes.
const MAX_VALUE: usize = u16::MAX as usize;
/// `struct erofs_xattr_ibody_header`.
const HEADER: usize = 12;
const ENTRY: usize = 4;
/// An inode refers to at most so many shared attributes.
const MAX_SHARED: usize = 255;

fn split(name: &[u8]) -> Option<(u8, &[u8])> {
    PREFIXES.iter().find_map(|(index, prefix, has_rest)| {
        let rest = name.strip_prefix(*prefix)?;
        (rest.is_empty() != *has_rest).then_some((*index, rest))
    })
}

/// The full name of a stored attribute.
pub(super) fn full_name(index: u8, rest: &[u8]) -> Option<Vec<u8>> {
    let (_, prefix, has_rest) = PREFIXES.iter().find(|(known, ..)| *known == index)?;
    (rest.is_empty() != *has_rest).then(|| [*prefix, rest].concat())
}

/// Whether EROFS, and Linux, can have this attribute.
pub(crate) fn xattr_is_storable(name: &[u8], value: &[u8]) -> bool {
    name.len() <= 255 && !name.contains(&0) && value.len() <= MAX_VALUE && split(name).is_some()
}

/// One attribute as stored: header, name, value, padded to four bytes.
fn encode_entry(out: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    let Some((index, rest)) = split(name) else {
        return;
    };
    // Both lengths are what `xattr_is_storable` allows.
    out.push(rest.len() as u8);
    out.push(index);
    out.extend_from_slice(&(value.len() as u16).to_le_bytes());
    out.extend_from_slice(rest);
    out.extend_from_slice(value);
    out.resize(out.len().next_multiple_of(4), 0);
}

fn entry_size(name: &[u8], value: &[u8]) -> usize {
    let rest = split(name).map_or(0, |(_, rest)| rest.len());
    (ENTRY + rest + value.len()).next_multiple_of(4)
}

/// The attributes that several inodes have, stored once.
#[derive(Default)]
pub(super) struct Shared<'a> {
    /// Offset of each in the area, in units of four bytes.
    ids: BTreeMap<(&'a [u8], &'a [u8]), u32>,
    /// The area.
    pub(super) bytes: Vec<u8>,
}

impl<'a> Shared<'a> {
    /// Chooses what is worth sharing: where one copy and the references take less than all copies.
    pub(super) fn choose(
        all: impl Iterator<Item = &'a Attributes>,
        memory: &mut Budget,
    ) -> Result<Self, Exceeded> {
        let mut counts: BTreeMap<(&[u8], &[u8]), usize> = BTreeMap::new();
        for attributes in all {
            for (name, value) in &attributes.xattrs {
                let known = counts.len();
                *counts.entry((name, value)).or_default() += 1;
                if counts.len() > known {
                    memory.charge(map_entry::<(&[u8], &[u8]), usize>(known))?;
                }
            }
        }
        let is_shared = |(name, value): (&[u8], &[u8]), count: usize| {
            entry_size(name, value) * (count - 1) > ENTRY * count
        };
        let bytes: usize = counts
            .iter()
            .filter(|(pair, count)| is_shared(**pair, **count))
            .map(|((name, value), _)| entry_size(name, value))
            .sum();
        // Once here, once in the image.
        memory.charge(2 * bytes as u64)?;
        let mut shared = Self {
            ids: BTreeMap::new(),
            bytes: Vec::with_capacity(bytes),
        };
        for ((name, value), count) in counts {
            if is_shared((name, value), count)
                && let Ok(id) = u32::try_from(shared.bytes.len() / 4)
            {
                shared.ids.insert((name, value), id);
                encode_entry(&mut shared.bytes, name, value);
            }
        }
        Ok(shared)
    }

    /// What follows the inode that has `attributes`; nothing where there are none.
    pub(super) fn inline(&self, attributes: &Attributes) -> Vec<u8> {
        let mut out = Vec::new();
        if attributes.xattrs.is_empty() {
            return out;
        }
        let mut references = Vec::new();
        let mut entries = Vec::new();
        for (name, value) in &attributes.xattrs {
            match self.ids.get(&(&**name, &**value)) {
                Some(id) if references.len() < MAX_SHARED => references.push(*id),
                _ => encode_entry(&mut entries, name, value),
            }
        }
        out.extend_from_slice(&[0, 0, 0, 0, references.len() as u8]);
        out.resize(HEADER, 0);
        for id in references {
            out.extend_from_slice(&id.to_le_bytes());
        }
        out.extend_from_slice(&entries);
        out
    }
}

/// What the inode's 16-bit field says about `bytes` bytes of inline attributes. `None` where they are too many.
pub(super) fn count_field(bytes: usize) -> Option<u16> {
    if bytes == 0 {
        return Some(0);
    }
    u16::try_from((bytes - HEADER) / 4 + 1).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attributes(xattrs: &[(&[u8], &[u8])]) -> Attributes {
        let mut attributes = Attributes::implicit();
        for (name, value) in xattrs {
            attributes.xattrs.insert((*name).into(), (*value).into());
        }
        attributes
    }

    #[test]
    fn only_names_that_the_format_knows_are_storable() {
        for name in [
            &b"user.a"[..],
            b"trusted.x",
            b"security.capability",
            b"system.posix_acl_access",
            b"system.posix_acl_default",
        ] {
            assert!(xattr_is_storable(name, b"v"), "{}", name.escape_ascii());
            let (index, rest) = split(name).unwrap();
            assert_eq!(full_name(index, rest).as_deref(), Some(name));
        }
        for name in [
            &b"user."[..],
            b"user",
            b"",
            b"system.nfs4_acl",
            b"system.posix_acl_accessx",
            b"com.apple.quarantine",
            b"user.a\0b",
        ] {
            assert!(!xattr_is_storable(name, b"v"), "{}", name.escape_ascii());
        }
        assert!(!xattr_is_storable(
            &[&b"user."[..], &[b'a'; 251]].concat(),
            b""
        ));
        assert!(!xattr_is_storable(b"user.a", &vec![0; 65536]));
        assert!(xattr_is_storable(b"user.a", &vec![0; 65535]));
    }

    #[test]
    fn a_single_attribute_is_laid_out_as_documented() {
        let one = attributes(&[(b"security.capability", b"\x01\x02\x03")]);
        let bytes = Shared::default().inline(&one);
        assert_eq!(bytes[..12], [0; 12]);
        assert_eq!(bytes[12..16], [10, 6, 3, 0]);
        assert_eq!(&bytes[16..29], b"capability\x01\x02\x03");
        assert_eq!(bytes.len(), 32);
        assert_eq!(count_field(bytes.len()), Some(6));
        assert_eq!(count_field(0), Some(0));
    }

    #[test]
    fn attributes_that_many_inodes_have_are_stored_once() {
        let label = attributes(&[
            (b"security.selinux", b"system_u:object_r:etc_t"),
            (b"user.own", b"1"),
        ]);
        let all = vec![label.clone(); 3];
        let shared = Shared::choose(all.iter(), &mut Budget::of(u64::MAX)).unwrap();
        // `user.own` shrinks too: 12 bytes twice saved against three references of four.
        assert_eq!(shared.ids.len(), 2);
        let bytes = shared.inline(&label);
        assert_eq!(bytes[4], 2);
        assert_eq!(bytes.len(), 12 + 8);
        let one = Shared::choose(all.iter().take(1), &mut Budget::of(u64::MAX)).unwrap();
        assert!(one.ids.is_empty());
    }
}
