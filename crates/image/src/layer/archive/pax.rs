//! PAX extended headers (POSIX.1-2001, "pax Interchange Format").

use std::collections::BTreeMap;

use super::field::{decimal, time};

const XATTR: &[u8] = b"SCHILY.xattr.";

/// What the extended headers before an entry say about it. What they do not mention is as in the header.
#[derive(Default)]
pub(super) struct Pax {
    pub(super) path: Option<Vec<u8>>,
    pub(super) link: Option<Vec<u8>>,
    pub(super) size: Option<Vec<u8>>,
    pub(super) uid: Option<Vec<u8>>,
    pub(super) gid: Option<Vec<u8>>,
    pub(super) mtime: Option<Vec<u8>>,
    pub(super) xattrs: BTreeMap<Box<[u8]>, Box<[u8]>>,
    pub(super) sparse: PaxSparse,
}

/// The `GNU.sparse.` records, in their three dialects.
#[derive(Default)]
pub(super) struct PaxSparse {
    pub(super) major: Option<Vec<u8>>,
    pub(super) minor: Option<Vec<u8>>,
    pub(super) name: Option<Vec<u8>>,
    pub(super) real_size: Option<Vec<u8>>,
    /// Dialect 0.1: offset and length, by turns, separated by commas.
    pub(super) map: Option<Vec<u8>>,
    /// Dialect 0.0: offset and length as records of their own, by turns.
    pub(super) pairs: Vec<Vec<u8>>,
}

impl PaxSparse {
    /// Whether any record says that the file is sparse. A name alone does not: it only replaces the entry's.
    pub(super) fn is_used(&self) -> bool {
        let records = [&self.major, &self.minor, &self.real_size, &self.map];
        records.iter().any(|record| record.is_some()) || !self.pairs.is_empty()
    }
}

impl Pax {
    /// Adds the records of one extended header. `None` where they are malformed.
    pub(super) fn parse(&mut self, mut bytes: &[u8]) -> Option<()> {
        while !bytes.is_empty() {
            let space = bytes.iter().take(21).position(|byte| *byte == b' ')?;
            let length = usize::try_from(decimal(bytes.get(..space)?)?).ok()?;
            let record = bytes.get(space + 1..length)?.strip_suffix(b"\n")?;
            bytes = bytes.get(length..)?;
            let equals = record.iter().position(|byte| *byte == b'=')?;
            self.record(record.get(..equals)?, record.get(equals + 1..)?);
        }
        Some(())
    }

    fn record(&mut self, key: &[u8], value: &[u8]) {
        if let Some(name) = key.strip_prefix(XATTR) {
            self.xattrs.insert(name.into(), value.into());
            return;
        }
        if matches!(key, b"GNU.sparse.offset" | b"GNU.sparse.numbytes") {
            self.sparse.pairs.push(value.to_vec());
            return;
        }
        let place = match key {
            b"path" => &mut self.path,
            b"linkpath" => &mut self.link,
            b"size" => &mut self.size,
            b"uid" => &mut self.uid,
            b"gid" => &mut self.gid,
            b"mtime" => &mut self.mtime,
            b"GNU.sparse.major" => &mut self.sparse.major,
            b"GNU.sparse.minor" => &mut self.sparse.minor,
            b"GNU.sparse.name" => &mut self.sparse.name,
            b"GNU.sparse.size" | b"GNU.sparse.realsize" => &mut self.sparse.real_size,
            b"GNU.sparse.map" => &mut self.sparse.map,
            _ => return,
        };
        // An empty value takes the record back.
        *place = (!value.is_empty()).then(|| value.to_vec());
    }

    /// A number that overrides the header's: `Ok(None)` where there is none, `Err` where it is malformed.
    pub(super) fn number(value: &Option<Vec<u8>>) -> Result<Option<u64>, ()> {
        value
            .as_deref()
            .map(|text| decimal(text).ok_or(()))
            .transpose()
    }

    /// The time that overrides the header's, in the same way.
    pub(super) fn time(&self) -> Result<Option<(i64, u32)>, ()> {
        self.mtime
            .as_deref()
            .map(|text| time(text).ok_or(()))
            .transpose()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_read_and_values_may_be_binary() {
        let mut pax = Pax::default();
        let mut bytes = b"11 path=ab\n".to_vec();
        bytes.extend_from_slice(b"28 SCHILY.xattr.user.a=\0\n=\xff\n");
        assert_eq!(pax.parse(&bytes), Some(()));
        assert_eq!(pax.path.as_deref(), Some(&b"ab"[..]));
        assert_eq!(
            pax.xattrs.get(&b"user.a"[..]).map(|v| &v[..]),
            Some(&b"\0\n=\xff"[..])
        );
    }

    #[test]
    fn malformed_records_are_refused() {
        for bad in [
            &b"11 path=ab"[..],
            b"99 path=ab\n",
            b"3 a\n",
            b"x path=a\n",
            b"0 path=a\n",
            b" \n",
            b"6 path\n",
        ] {
            assert_eq!(
                Pax::default().parse(bad),
                None,
                "{}",
                String::from_utf8_lossy(bad)
            );
        }
    }

    #[test]
    fn an_empty_value_takes_a_record_back() {
        let mut pax = Pax::default();
        assert_eq!(pax.parse(b"10 uid=12\n7 uid=\n"), Some(()));
        assert_eq!(pax.uid, None);
    }
}
