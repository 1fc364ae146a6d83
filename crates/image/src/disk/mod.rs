//! One read-only disk per image: its layers merged, as a small metadata image that points into their data.
//!
//! The disk is the concatenation `metadata ‖ data₁ ‖ data₂ …`, one part per layer, lowest first, each a whole number of
//! 4 KiB blocks (a layer without contents has an empty part). The host composes it; nothing is copied.

mod look;
mod merge;
#[cfg(test)]
mod tests;

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

pub use look::{Found, look};
pub use merge::MergeError;

use crate::budget::{Bounds, Space};
use crate::erofs::{self, LayoutError};
use crate::layer::{BLOCK_SIZE, DATA_FILE, IndexError, read_within};

/// Why a disk could not be built.
#[derive(Debug, thiserror::Error)]
pub enum DiskError {
    /// A layer's index cannot be used.
    #[error("cannot use the layer {}", layer.display())]
    Index {
        /// The layer's directory.
        layer: PathBuf,
        /// What is wrong with it.
        #[source]
        source: IndexError,
    },
    /// A layer's data cannot be examined.
    #[error("cannot examine layer data {}", path.display())]
    Data {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// A layer's data is not as long as its index says.
    #[error("layer data {} has {actual} bytes instead of {expected}", path.display())]
    DataSize {
        /// The file.
        path: PathBuf,
        /// Its length, in bytes.
        actual: u64,
        /// What the index says.
        expected: u64,
    },
    /// A layer does not fit onto those below it.
    #[error("cannot apply the layer {}", layer.display())]
    Merge {
        /// The layer's directory.
        layer: PathBuf,
        /// What does not fit.
        #[source]
        source: MergeError,
    },
    /// The merged tree does not fit into the format.
    #[error("cannot lay out the image disk {}", path.display())]
    Layout {
        /// The metadata image.
        path: PathBuf,
        /// What does not fit.
        #[source]
        source: LayoutError,
    },
    /// The metadata image cannot be written.
    #[error("cannot write the image disk {}", path.display())]
    Write {
        /// The metadata image.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

/// One part of a disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DiskPart {
    /// The file.
    pub path: PathBuf,
    /// Its length, a multiple of 4096, in bytes.
    pub bytes: u64,
}

/// What was built.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DiskSummary {
    /// The disk is these files one after the other: the metadata image, then the data of each layer.
    pub parts: Vec<DiskPart>,
    /// Files, directories and so on in the merged tree.
    pub inodes: u64,
}

/// Merges the layers in these directories (made by [`crate::layer::convert`]), lowest first, and writes the metadata image to
/// `out_metadata`, synced. Callers who must not see half a file give a temporary name and rename it.
///
/// The same layers give the same bytes.
///
/// # Errors
///
/// [`DiskError`] names the layer and what is wrong with it, or the file at which a bound was passed.
pub fn build(
    layers: &[PathBuf],
    out_metadata: &Path,
    bounds: &Bounds,
) -> Result<DiskSummary, DiskError> {
    let mut merged = merge::Merged::new(bounds.budget());
    let mut parts = vec![DiskPart {
        path: out_metadata.to_owned(),
        bytes: 0,
    }];
    let mut part_blocks = Vec::with_capacity(layers.len());
    for layer in layers {
        let tree = read_within(layer, merged.memory()).map_err(|source| DiskError::Index {
            layer: layer.clone(),
            source,
        })?;
        let blocks = tree.data_blocks;
        parts.push(data_part(layer, blocks)?);
        part_blocks.push(blocks);
        merged.apply(tree).map_err(|source| DiskError::Merge {
            layer: layer.clone(),
            source,
        })?;
    }
    let (tree, mut memory) = merged.into_tree();
    let image =
        erofs::write(&tree, &part_blocks, &mut memory).map_err(|source| DiskError::Layout {
            path: out_metadata.to_owned(),
            source,
        })?;
    let written = write(out_metadata, &image.metadata, bounds.keep_free);
    written.map_err(|source| DiskError::Write {
        path: out_metadata.to_owned(),
        source,
    })?;
    if let Some(first) = parts.first_mut() {
        first.bytes = image.metadata.len() as u64;
    }
    Ok(DiskSummary {
        parts,
        inodes: image.inodes,
    })
}

/// The data of a layer, which must be as long as its index says: otherwise everything behind it would be elsewhere.
fn data_part(layer: &Path, blocks: u32) -> Result<DiskPart, DiskError> {
    let path = layer.join(DATA_FILE);
    let expected = u64::from(blocks) * BLOCK_SIZE;
    match std::fs::metadata(&path) {
        Ok(metadata) if metadata.len() == expected => Ok(DiskPart {
            path,
            bytes: expected,
        }),
        Ok(metadata) => Err(DiskError::DataSize {
            path,
            actual: metadata.len(),
            expected,
        }),
        Err(source) => Err(DiskError::Data { path, source }),
    }
}

fn write(path: &Path, bytes: &[u8], keep_free: u8) -> io::Result<()> {
    let mut file: File = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path)?;
    Space::new(keep_free).take(&file, bytes.len() as u64)?;
    file.write_all(bytes)?;
    file.sync_all()
}
