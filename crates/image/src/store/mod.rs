//! The image store: an OCI image layout, the converted layers, and the disks merged from them.
//!
//! Truth is `image/index.json` and the blobs it leads to; layers and disks can be made again from
//! blobs. Every file appears under its final name by rename, after it was synced, so that a process
//! killed at any moment leaves old truth or new truth and perhaps garbage, never half a file.
//!
//! Locks are flocks on files in `locks/`, and so end with the process that holds them:
//! * `content`: shared while blobs, layers or disks are added or relied upon; exclusive to sweep.
//! * `lease`: shared from resolving an image until a container that uses it is on record;
//!   exclusive while an image is removed.
//! * `index`: exclusive while `index.json` is read, changed and replaced.
//! * `blob-…`, `layer-…`, `disk-…`: exclusive while that one object is made.
//!
//! Everything is its owner's alone (`private`), and the owner is who runs this (`owner`): whoever can open a lock can hold it.

mod atomic;
mod blob;
mod disk;
mod error;
mod gc;
mod image;
mod index;
mod layers;
mod lock;
mod names;
mod owner;
mod private;
mod remove;
mod reserve;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bulkhead_types::Digest;

pub(crate) use atomic::sync_parent;
pub use disk::ImageDisk;
pub use error::StoreError;
pub(crate) use gc::Partials;
pub use image::{HistoryEntry, Image};
pub(crate) use index::{describe, name_of, set_names, stated_name};
pub use lock::Lease;
pub(crate) use lock::Lock;
pub use owner::claim;
pub use remove::{ImageUse, PruneFilter, Pruned, Removed};

use crate::budget::Bounds;
use error::io_error;

const OCI_LAYOUT: &str = r#"{"imageLayoutVersion":"1.0.0"}"#;

/// An image store in a directory. Cheap to clone; any number of processes may use one directory.
#[derive(Debug, Clone)]
pub struct Store {
    root: Arc<Path>,
    bounds: Bounds,
}

impl Store {
    /// Opens the store in `root`, and makes what is missing of it.
    ///
    /// # Errors
    /// [`StoreError::Io`]; [`StoreError::Layout`] where `root/image` is of another version;
    /// [`StoreError::Foreign`] and [`StoreError::Shared`] where somebody else could change it.
    pub fn open(root: &Path) -> Result<Self, StoreError> {
        let store = Self {
            root: Arc::from(root),
            bounds: Bounds::default(),
        };
        store.claim()?;
        let marker = store.layout_dir().join("oci-layout");
        match fs::read_to_string(&marker) {
            Ok(text) => {
                let version: Option<serde_json::Value> = serde_json::from_str(&text).ok();
                let version = version
                    .as_ref()
                    .and_then(|v| v.get("imageLayoutVersion"))
                    .and_then(|v| v.as_str());
                if version == Some("1.0.0") {
                    store.make_private_if_public()?;
                    Ok(store)
                } else {
                    Err(StoreError::Layout { path: marker })
                }
            }
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
                store.create()?;
                Ok(store)
            }
            Err(source) => Err(io_error("read", &marker)(source)),
        }
    }

    /// The store of a `root` that does not exist: nothing is in it, nothing can be added, and nothing is made.
    pub fn empty(root: &Path) -> Self {
        Self {
            root: Arc::from(root),
            bounds: Bounds::default(),
        }
    }

    /// The same store with other bounds on what one image may cost.
    pub fn with_bounds(self, bounds: Bounds) -> Self {
        Self { bounds, ..self }
    }

    /// What one image may cost.
    pub(crate) fn bounds(&self) -> &Bounds {
        &self.bounds
    }

    fn create(&self) -> Result<(), StoreError> {
        self.make_directories()?;
        self.update_index(|_| Ok(()))?;
        // Last: its presence says that all the rest is there.
        self.replace_file(&self.layout_dir().join("oci-layout"), OCI_LAYOUT.as_bytes())
    }

    /// The directory given to [`Store::open`].
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The OCI image layout, which skopeo and umoci read: what `info` reports as `ImageStore`.
    pub fn layout_dir(&self) -> PathBuf {
        self.root.join("image")
    }

    /// Where the blob with this digest is, or would be.
    pub fn blob_path(&self, digest: &Digest) -> PathBuf {
        let mut path = self.layout_dir();
        path.push("blobs/sha256");
        path.push(digest.hex());
        path
    }

    pub(crate) fn layer_dir(&self, diff_id: &Digest) -> PathBuf {
        let mut path = self.root.join("layers");
        path.push(diff_id.hex());
        path
    }

    pub(crate) fn partial_path(&self, digest: &Digest) -> PathBuf {
        let mut path = self.root.join("partial");
        path.push(digest.hex());
        path
    }

    pub(crate) fn temp_root(&self) -> PathBuf {
        self.root.join("tmp")
    }
}
