//! A container as it is kept on disk: everything that was decided when it was created, never
//! changed afterwards. What changes (running, exited…) is the sandbox's `state.json`.

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;

use bulkhead_sandbox::SandboxSpec;
use bulkhead_types::{ContainerId, ContainerName, Digest};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::merge::{ContainerConfig, HostOptions};
use crate::kind::FileError;

/// Name of the file in a container's directory; a directory without it was never finished.
pub(crate) const FILE: &str = "config.json";
/// Raised when an older Bulkhead would misread a newer file.
const VERSION: u32 = 1;

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
    #[error("container configuration {} has version {version}, this is an older bulkhead that knows {VERSION}", path.display())]
    Version {
        /// The file.
        path: std::path::PathBuf,
        /// As found.
        version: u32,
    },
}

/// Whether the creation in `dir` was finished. A power cut after a record that was not forced to the disk
/// leaves an empty file, which is no record.
pub(crate) fn exists(dir: &Path) -> bool {
    match fs::metadata(dir.join(FILE)) {
        Ok(meta) => meta.len() > 0,
        Err(e) => e.kind() != std::io::ErrorKind::NotFound,
    }
}

impl Record {
    /// The format that this version writes.
    pub(crate) const VERSION: u32 = VERSION;

    /// Reads the record of the container in `dir`; `None` when the directory or the file is missing, or when
    /// the file is empty.
    pub(crate) fn read(dir: &Path) -> Result<Option<Self>, RecordError> {
        let path = dir.join(FILE);
        let bytes = match fs::read(&path) {
            Ok(bytes) if bytes.is_empty() => return Ok(None),
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
        #[derive(Deserialize)]
        struct OnlyVersion {
            version: u32,
        }
        match serde_json::from_slice::<Self>(&bytes) {
            Ok(record) if record.version == VERSION => Ok(Some(record)),
            Ok(Self { version, .. }) => Err(RecordError::Version { path, version }),
            Err(source) => match serde_json::from_slice::<OnlyVersion>(&bytes) {
                Ok(OnlyVersion { version }) if version != VERSION => {
                    Err(RecordError::Version { path, version })
                }
                _ => Err(RecordError::Damaged { path, source }),
            },
        }
    }

    /// Writes the record: the last step of creation, and the one that makes the container exist.
    /// `durable` forces it to the disk; without that a power cut can leave an empty file, which is
    /// treated as a creation that was never finished.
    pub(crate) fn write(&self, dir: &Path, durable: bool) -> Result<(), FileError> {
        let path = dir.join(FILE);
        let temporary = dir.join("config.json.new");
        let write = || -> std::io::Result<()> {
            let mut file = File::create_new(&temporary)?;
            file.write_all(&serde_json::to_vec(self)?)?;
            if durable {
                file.sync_data()?;
            }
            drop(file);
            fs::rename(&temporary, &path)?;
            if durable {
                File::open(dir)?.sync_all()?;
            }
            Ok(())
        };
        write().map_err(FileError::at("write", &path))
    }
}
