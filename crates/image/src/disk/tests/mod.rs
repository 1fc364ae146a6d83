//! Layers in, one file system out: read back by our reader, by erofs-utils, and by the kernel.

mod image;
mod listing;
mod look;
mod merge;
mod oracle;
mod tools;

use std::path::PathBuf;

use tempfile::TempDir;

use super::{DiskError, DiskSummary, build};
use crate::Bounds;
use crate::layer::testing::{Converted, Tar, converted};
use bulkhead_types::chain;

/// A disk with everything it is made from.
pub(super) struct Built {
    pub(super) dir: TempDir,
    pub(super) layers: Vec<Converted>,
    pub(super) summary: DiskSummary,
}

pub(super) fn try_build(archives: &[Vec<u8>]) -> Result<Built, DiskError> {
    let dir = TempDir::new().unwrap();
    let layers: Vec<Converted> = archives.iter().map(|archive| converted(archive)).collect();
    let dirs: Vec<PathBuf> = layers
        .iter()
        .map(|layer| layer.dir.path().to_owned())
        .collect();
    let summary = build(&dirs, &dir.path().join("metadata"), &Bounds::default())?;
    Ok(Built {
        dir,
        layers,
        summary,
    })
}

pub(super) fn built(archives: &[Vec<u8>]) -> Built {
    match try_build(archives) {
        Ok(built) => built,
        Err(error) => panic!("{}", chain(&error)),
    }
}

pub(super) fn finish(tars: Vec<Tar>) -> Vec<Vec<u8>> {
    tars.into_iter().map(Tar::finish).collect()
}
