//! The disk of an image: merged metadata, and the data of each layer behind it.

use std::fs;
use std::path::PathBuf;

use bulkhead_types::Digest;
use sha2::{Digest as _, Sha256};

use super::atomic::sync_parent;
use super::{Image, Store, StoreError, io_error};
use crate::disk;
use crate::layer;
use crate::manifest;
use crate::progress::{Outcome, Phase, Progress, Quiet};

/// Part of every key: raise it when disks made by older versions must not be used any more.
const FORMAT: u32 = 1;

/// What to show a guest: the parts, each padded with zeroes to 4 KiB, one after the other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageDisk {
    /// Metadata first, then the data of each layer, lowest first.
    pub parts: Vec<PathBuf>,
}

impl Store {
    /// What `image` has at each of these absolute paths. Its disk must have been made.
    ///
    /// # Errors
    /// [`StoreError::Disk`].
    pub fn look(&self, image: &Image, paths: &[String]) -> Result<Vec<disk::Found>, StoreError> {
        let dirs: Vec<PathBuf> = image.diff_ids.iter().map(|id| self.layer_dir(id)).collect();
        disk::look(&dirs, paths, self.bounds()).map_err(|source| StoreError::Disk {
            image: image.id.short(),
            source,
        })
    }

    /// The disk of `image`, made on first use: by one process, while others wait. Hold a
    /// [`super::Lease`] until a container that uses it is on record.
    ///
    /// # Errors
    /// [`StoreError::Disk`], [`StoreError::Layer`], [`StoreError::MissingBlob`],
    /// [`StoreError::DigestMismatch`], [`StoreError::Io`].
    pub fn disk(&self, image: &Image) -> Result<ImageDisk, StoreError> {
        self.disk_with(image, &Quiet)
    }

    /// As [`Store::disk`], with progress.
    ///
    /// # Errors
    /// As [`Store::disk`].
    pub fn disk_with(
        &self,
        image: &Image,
        progress: &dyn Progress,
    ) -> Result<ImageDisk, StoreError> {
        let key = disk_key(&image.diff_ids);
        let metadata = self.root().join("disks").join(format!("{key}.erofs"));
        let mut parts = vec![metadata.clone()];
        parts.extend(
            image
                .diff_ids
                .iter()
                .map(|id| self.layer_dir(id).join(layer::DATA_FILE)),
        );
        // Each has its name only once it is whole and on the disk.
        let complete = || parts.iter().all(|part| part.is_file());
        if complete() {
            return Ok(ImageDisk { parts });
        }
        let _content = self.using_content()?;
        let _lock = self.lock(&format!("disk-{key}"))?;
        if complete() {
            return Ok(ImageDisk { parts });
        }
        let layers = manifest::layers_of(&image.manifest, &image.config).map_err(|source| {
            StoreError::Document {
                digest: image.manifest_digest.clone(),
                source,
            }
        })?;
        for (blob, diff_id) in &layers {
            let outcome = self.ensure_layer(blob, diff_id, progress)?;
            if outcome == Outcome::Done
                && let Ok(digest) = manifest::digest_of(blob)
            {
                progress.finish(&digest.short(), outcome);
            }
        }
        let item = image.id.short();
        progress.start(&item, Phase::Merging, None);
        let dirs: Vec<PathBuf> = image.diff_ids.iter().map(|id| self.layer_dir(id)).collect();
        let temp = self.temp_dir()?;
        let made = temp.path().join("metadata");
        disk::build(&dirs, &made, self.bounds()).map_err(|source| StoreError::Disk {
            image: image.id.short(),
            source,
        })?;
        fs::File::open(&made)
            .and_then(|f| f.sync_all())
            .map_err(io_error("sync", &made))?;
        fs::rename(&made, &metadata).map_err(io_error("rename to", &metadata))?;
        sync_parent(&metadata)?;
        progress.finish(&item, Outcome::Done);
        Ok(ImageDisk { parts })
    }
}

/// Names the disk of these layers in this order.
pub(super) fn disk_key(diff_ids: &[Digest]) -> String {
    let mut hash = Sha256::new();
    hash.update(FORMAT.to_le_bytes());
    for id in diff_ids {
        hash.update(id.as_bytes());
    }
    Digest::from_bytes(hash.finalize().into()).hex()
}
