//! Archives made byte by byte, for tests: also such as no honest tool would write.

use bulkhead_types::chain;
use tar::{EntryType, Header};
use tempfile::TempDir;

use super::{LayerError, LayerSummary, LayerTree, Limits, convert, read_index};

/// An archive under construction.
#[derive(Default, Clone)]
pub(crate) struct Tar {
    bytes: Vec<u8>,
}

impl Tar {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// A header with everything set to something harmless.
    pub(crate) fn header(kind: u8, name: &[u8]) -> Header {
        let mut header = Header::new_gnu();
        header.set_entry_type(EntryType::new(kind));
        header.as_old_mut().name[..name.len()].copy_from_slice(name);
        header.set_mode(if kind == b'5' { 0o755 } else { 0o644 });
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(1_000_000_000);
        header.set_size(0);
        header
    }

    /// Appends a header, its checksum made right, and content, padded.
    pub(crate) fn raw(mut self, mut header: Header, content: &[u8]) -> Self {
        header.set_cksum();
        self.bytes.extend_from_slice(header.as_bytes());
        self.content(content)
    }

    pub(crate) fn content(mut self, content: &[u8]) -> Self {
        self.bytes.extend_from_slice(content);
        self.bytes.resize(self.bytes.len().next_multiple_of(512), 0);
        self
    }

    pub(crate) fn with(
        self,
        kind: u8,
        name: &str,
        content: &[u8],
        change: impl FnOnce(&mut Header),
    ) -> Self {
        let mut header = Self::header(kind, name.as_bytes());
        header.set_size(content.len() as u64);
        change(&mut header);
        self.raw(header, content)
    }

    pub(crate) fn file(self, name: &str, content: &[u8]) -> Self {
        self.with(b'0', name, content, |_| {})
    }

    pub(crate) fn dir(self, name: &str) -> Self {
        self.with(b'5', name, b"", |_| {})
    }

    pub(crate) fn dir_mode(self, name: &str, mode: u32) -> Self {
        self.with(b'5', name, b"", |header| header.set_mode(mode))
    }

    pub(crate) fn symlink(self, name: &str, target: &str) -> Self {
        self.link(b'2', name, target)
    }

    pub(crate) fn hard_link(self, name: &str, target: &str) -> Self {
        self.link(b'1', name, target)
    }

    fn link(self, kind: u8, name: &str, target: &str) -> Self {
        self.with(kind, name, b"", |header| {
            header.as_old_mut().linkname[..target.len()].copy_from_slice(target.as_bytes());
        })
    }

    pub(crate) fn device(self, kind: u8, name: &str, major: u32, minor: u32) -> Self {
        self.with(kind, name, b"", |header| {
            header.set_device_major(major).unwrap();
            header.set_device_minor(minor).unwrap();
        })
    }

    /// A PAX header for the next entry.
    pub(crate) fn pax(self, records: &[(&str, &[u8])]) -> Self {
        let mut content = Vec::new();
        for (key, value) in records {
            let rest = key.len() + value.len() + 3;
            let mut length = rest + 1;
            while length != rest + length.to_string().len() {
                length += 1;
            }
            content.extend_from_slice(format!("{length} {key}=").as_bytes());
            content.extend_from_slice(value);
            content.push(b'\n');
        }
        self.with(b'x', "PaxHeaders/x", &content, |_| {})
    }

    /// Appends the entries of another archive.
    pub(crate) fn then(mut self, other: Self) -> Self {
        self.bytes.extend_from_slice(&other.bytes);
        self
    }

    /// The archive so far, without an end.
    pub(crate) fn unfinished(self) -> Vec<u8> {
        self.bytes
    }

    /// The whole archive.
    pub(crate) fn finish(mut self) -> Vec<u8> {
        self.bytes.resize(self.bytes.len() + 1024, 0);
        self.bytes
    }
}

/// A converted layer, in a directory that goes with it.
pub(crate) struct Converted {
    pub(crate) dir: TempDir,
    pub(crate) summary: LayerSummary,
}

impl Converted {
    pub(crate) fn tree(&self) -> LayerTree {
        read_index(self.dir.path()).unwrap()
    }
}

pub(crate) fn try_convert(archive: &[u8], limits: &Limits) -> Result<Converted, LayerError> {
    let dir = TempDir::new().unwrap();
    let summary = convert(archive, dir.path(), limits)?;
    Ok(Converted { dir, summary })
}

pub(crate) fn converted(archive: &[u8]) -> Converted {
    match try_convert(archive, &Limits::default()) {
        Ok(converted) => converted,
        Err(error) => panic!("{}", chain(&error)),
    }
}

/// What converting an archive complains about.
pub(crate) fn complaint(archive: &[u8]) -> String {
    complaint_within(archive, &Limits::default())
}

pub(crate) fn complaint_within(archive: &[u8], limits: &Limits) -> String {
    match try_convert(archive, limits) {
        Ok(converted) => panic!("converted without complaint: {:?}", converted.tree()),
        Err(error) => chain(&error),
    }
}
