//! A container as it is kept on disk: everything that was decided when it was created, never
//! changed afterwards. What changes (running, exited…) is the sandbox's `state.json`.

use std::fs;
use std::path::Path;

use bulkhead_sandbox::{SandboxSpec, replace_file};
use bulkhead_types::{ContainerId, ContainerName, Digest};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::merge::{ContainerConfig, HostOptions};
use crate::kind::FileError;

/// Name of the file in a container's directory; a directory without it was never finished.
pub(crate) const FILE: &str = "config.json";
/// Raised when an older Bulkhead would misread a newer file.
const VERSION: u32 = 1;

/// Steps that bring a record up to date: the first makes version 2 of version 1, and so on. A change of [`Record`] or of
/// what is in it that a reader of the old form would not understand adds a step, a version and a sample to the tests.
const MIGRATIONS: [fn(&mut Value); VERSION as usize - 1] = [];

#[derive(Deserialize)]
struct OnlyVersion {
    version: u32,
}

/// Whether a power cut left `bytes` of a record that was not forced to the disk: nothing, or blocks of zeros.
fn is_unfinished(bytes: &[u8]) -> bool {
    bytes.iter().all(|byte| *byte == 0)
}

/// `config.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// Format of this file.
    pub version: u32,
    /// Identifier; equal to the directory's name.
    pub id: ContainerId,
    /// Name, unique under a root.
    pub name: ContainerName,
    /// When it was created.
    pub created: Timestamp,
    /// The image as the user named it.
    pub image: String,
    /// The image's identifier at creation: the configuration's digest.
    pub image_id: Digest,
    /// Flags merged over the image.
    pub config: ContainerConfig,
    /// Limits and switches.
    pub host: HostOptions,
    /// What the sandbox runs.
    pub sandbox: SandboxSpec,
}

/// A record that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// The file cannot be read.
    #[error(transparent)]
    File(#[from] FileError),
    /// The file is not a record.
    #[error("damaged container configuration {}", path.display())]
    Damaged {
        /// The file.
        path: std::path::PathBuf,
        /// Where and why.
        #[source]
        source: serde_json::Error,
    },
    /// A newer Bulkhead wrote it.
    #[error(
        "container configuration {} was written by a newer bulkhead: it has version {version}, and this one knows {VERSION}",
        path.display()
    )]
    Newer {
        /// The file.
        path: std::path::PathBuf,
        /// As found.
        version: u32,
    },
}

/// Whether the creation in `dir` was finished. A power cut after a record that was not forced to the disk leaves an empty
/// file or blocks of zeros, which is no record.
pub(crate) fn exists(dir: &Path) -> bool {
    match fs::read(dir.join(FILE)) {
        Ok(bytes) => !is_unfinished(&bytes),
        Err(e) => e.kind() != std::io::ErrorKind::NotFound,
    }
}

impl Record {
    /// The format that this version writes.
    pub(crate) const VERSION: u32 = VERSION;

    /// Reads the record of the container in `dir`; `None` when the directory or the file is missing, or when
    /// it was never finished.
    pub(crate) fn read(dir: &Path) -> Result<Option<Self>, RecordError> {
        let path = dir.join(FILE);
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(e)
                if matches!(
                    e.kind(),
                    std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory
                ) =>
            {
                return Ok(None);
            }
            Err(e) => return Err(FileError::at("read", &path)(e).into()),
        };
        let damaged = |source| RecordError::Damaged {
            path: path.clone(),
            source,
        };
        if is_unfinished(&bytes) {
            return Ok(None);
        }
        // The version before the contents, of which another version may have others.
        let mut value: Value = serde_json::from_slice(&bytes).map_err(damaged)?;
        let version = OnlyVersion::deserialize(&value).map_err(damaged)?.version;
        if version > VERSION {
            return Err(RecordError::Newer { path, version });
        }
        let steps = usize::try_from(version.saturating_sub(1)).unwrap_or(usize::MAX);
        for migrate in MIGRATIONS.iter().skip(steps) {
            migrate(&mut value);
        }
        let record = Self::deserialize(value).map_err(damaged)?;
        Ok(Some(record))
    }

    /// Writes the record: the last step of creation, and the one that makes the container exist.
    /// `durable` forces it to the disk; without that a power cut can leave an empty file, which is
    /// treated as a creation that was never finished.
    pub(crate) fn write(&self, dir: &Path, durable: bool) -> Result<(), FileError> {
        let path = dir.join(FILE);
        serde_json::to_vec(self)
            .map_err(std::io::Error::from)
            .and_then(|bytes| replace_file(&path, &bytes, durable))
            .map_err(FileError::at("write", &path))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIRST: &str = include_str!("../../testdata/config.v1.json");

    fn read(text: &[u8]) -> Result<Option<Record>, RecordError> {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(FILE), text).unwrap();
        Record::read(dir.path())
    }

    /// A sample for each version, as that version wrote it: never to be changed.
    #[test]
    fn a_record_of_every_version_is_still_read() {
        let record = read(FIRST.as_bytes()).unwrap().unwrap();
        assert_eq!((record.version, record.name.as_str()), (VERSION, "sample"));
        assert_eq!(record.host.ulimits, ["nofile=100:200"]);
        assert_eq!(record.sandbox.process.args, ["/bin/busybox", "true"]);
        assert_eq!(record.sandbox.memory.0, 106_954_752);
    }

    #[test]
    fn a_newer_record_is_refused_by_name_and_never_taken_for_an_older_one() {
        let newer = FIRST.replacen("\"version\":1", "\"version\":7", 1);
        for text in [newer.as_str(), r#"{"version": 7, "pods": []}"#] {
            let refused = read(text.as_bytes()).unwrap_err();
            assert!(matches!(refused, RecordError::Newer { version: 7, .. }));
            let words = refused.to_string();
            assert!(
                words.contains("was written by a newer bulkhead: it has version 7"),
                "{words}"
            );
            assert!(words.contains("config.json"), "{words}");
        }
    }

    /// It warned at every `ps`, for ever.
    #[test]
    fn what_a_power_cut_leaves_of_a_record_is_a_creation_that_was_never_finished() {
        for left in [&b""[..], &[0; 4096]] {
            assert!(read(left).unwrap().is_none());
            let dir = tempfile::tempdir().unwrap();
            fs::write(dir.path().join(FILE), left).unwrap();
            assert!(!exists(dir.path()));
        }
        // A part of one was forced to the disk as a whole once: it is damage, and somebody's container.
        let part = FIRST.as_bytes().get(..700).unwrap();
        assert!(matches!(read(part), Err(RecordError::Damaged { .. })));
        assert!(matches!(
            read(b"{\"version\": 1}"),
            Err(RecordError::Damaged { .. })
        ));
    }
}
