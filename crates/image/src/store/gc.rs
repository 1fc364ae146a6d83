//! Sweeping away what the index does not lead to.
//!
//! Marks from `index.json`, then deletes. Runs only with the `content` lock held exclusively, so
//! whatever lies in `tmp/` then belonged to a process that died.

use std::collections::HashSet;
use std::fs;
use std::io;
use std::path::Path;
use std::time::{Duration, SystemTime};

use bulkhead_types::Digest;
use oci_spec::image::Descriptor;

use super::atomic::TEMP_PREFIX;
use super::disk::disk_key;
use super::{Store, StoreError, io_error};
use crate::manifest::{self, CONFIG_MAX, Document, MANIFEST_MAX, digest_of};

/// Says that a sweep was due while the store was busy.
const PENDING: &str = "sweep-pending";
/// An interrupted download is worth resuming for this long.
const PARTIAL_AGE: Duration = Duration::from_secs(7 * 24 * 3600);

#[derive(Default)]
struct Marks {
    blobs: HashSet<String>,
    layers: HashSet<String>,
    disks: HashSet<String>,
}

impl Store {
    /// Sweeps now, or leaves word for whoever keeps the store busy.
    pub(crate) fn sweep_soon(&self) -> Result<(), StoreError> {
        let pending = self.root().join("locks").join(PENDING);
        fs::write(&pending, b"").map_err(io_error("write", &pending))?;
        self.sweep_if_pending()
    }

    /// Sweeps if one is due and nobody is busy. Call it after letting go of the content lock.
    pub(crate) fn sweep_if_pending(&self) -> Result<(), StoreError> {
        if self.root().join("locks").join(PENDING).exists() {
            self.sweep_now(false)?;
        }
        Ok(())
    }

    /// Removes unreachable blobs, layers and disks, and leftovers of killed processes; with
    /// `partials` also interrupted downloads of any age. Returns the bytes that became free: none
    /// when another process keeps the store busy for more than two seconds, who will sweep then.
    pub(super) fn sweep_now(&self, partials: bool) -> Result<u64, StoreError> {
        let patience = if partials { 20 } else { 1 };
        let mut lock = None;
        for attempt in 0..patience {
            lock = self.try_lock("content")?;
            if lock.is_some() || attempt + 1 == patience {
                break;
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        let pending = self.root().join("locks").join(PENDING);
        let Some(_exclusive) = lock else {
            fs::write(&pending, b"").map_err(io_error("write", &pending))?;
            return Ok(0);
        };
        let marks = self.mark()?;
        let hex = |name: &str| name.len() == 64 && name.bytes().all(|b| b.is_ascii_hexdigit());
        let mut freed = 0;
        freed += sweep_dir(&self.root().join("disks"), &|name, _| {
            let key = name.split('.').next().unwrap_or(name);
            hex(key) && !marks.disks.contains(key)
        })?;
        freed += sweep_dir(&self.root().join("layers"), &|name, _| {
            hex(name) && !marks.layers.contains(name)
        })?;
        freed += sweep_dir(&self.layout_dir().join("blobs/sha256"), &|name, _| {
            hex(name) && !marks.blobs.contains(name)
        })?;
        freed += sweep_dir(&self.temp_root(), &|name, _| name.starts_with(TEMP_PREFIX))?;
        let now = SystemTime::now();
        freed += sweep_dir(&self.root().join("partial"), &|name, meta| {
            let age = meta
                .modified()
                .ok()
                .and_then(|at| now.duration_since(at).ok());
            hex(name) && (partials || age.is_some_and(|age| age > PARTIAL_AGE))
        })?;
        sweep_dir(&self.root().join("locks"), &|name, _| {
            ["blob-", "layer-", "disk-"]
                .iter()
                .any(|prefix| name.starts_with(prefix))
                || name == PENDING
        })?;
        Ok(freed)
    }

    fn mark(&self) -> Result<Marks, StoreError> {
        let mut marks = Marks::default();
        for entry in self.load_index()?.manifests() {
            self.mark_entry(entry, &mut marks, 0)?;
        }
        Ok(marks)
    }

    /// Marks as far as content can be followed: a damaged image must not keep others from being
    /// swept. A file that cannot be read at the moment ends the sweep, though: it may lead to more.
    fn mark_entry(
        &self,
        entry: &Descriptor,
        marks: &mut Marks,
        depth: usize,
    ) -> Result<(), StoreError> {
        let Ok(digest) = digest_of(entry) else {
            return Ok(());
        };
        if depth > 3 || !marks.blobs.insert(digest.hex()) && depth > 0 {
            return Ok(());
        }
        let Some(bytes) = self.read_if_sound(&digest, MANIFEST_MAX)? else {
            return Ok(());
        };
        match manifest::parse_manifest(&bytes, None) {
            Ok(Document::Index(index)) => {
                for nested in index.manifests() {
                    self.mark_entry(nested, marks, depth + 1)?;
                }
            }
            Ok(Document::Manifest(image)) => {
                for descriptor in image.layers().iter().chain([image.config()]) {
                    marks.blobs.extend(digest_of(descriptor).map(|d| d.hex()));
                }
                let config = match digest_of(image.config()) {
                    Ok(digest) => self.read_if_sound(&digest, CONFIG_MAX)?,
                    Err(_) => None,
                };
                let config = config.and_then(|bytes| manifest::parse_config(&bytes).ok());
                let ids: Vec<Digest> = config
                    .and_then(|c| manifest::diff_ids(&c).ok())
                    .unwrap_or_default();
                marks.disks.insert(disk_key(&ids));
                marks.layers.extend(ids.iter().map(Digest::hex));
            }
            // Something that another tool keeps here, for example an artifact: keep what it names.
            Err(_) => mark_json(&serde_json::from_slice(&bytes).unwrap_or_default(), marks),
        }
        Ok(())
    }

    /// `None` where the blob is missing or damaged.
    fn read_if_sound(&self, digest: &Digest, limit: u64) -> Result<Option<Vec<u8>>, StoreError> {
        match self.read_blob(digest, limit) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(StoreError::MissingBlob { .. } | StoreError::DigestMismatch { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// Keeps every blob whose digest occurs in a document of unknown kind.
fn mark_json(value: &serde_json::Value, marks: &mut Marks) {
    match value {
        serde_json::Value::String(text) => marks
            .blobs
            .extend(text.parse::<Digest>().ok().map(|d| d.hex())),
        serde_json::Value::Array(list) => list.iter().for_each(|one| mark_json(one, marks)),
        serde_json::Value::Object(map) => map.values().for_each(|one| mark_json(one, marks)),
        _ => {}
    }
}

/// Removes the entries of `dir` that `garbage` picks; returns the bytes that became free.
fn sweep_dir(dir: &Path, garbage: &dyn Fn(&str, &fs::Metadata) -> bool) -> Result<u64, StoreError> {
    let mut freed = 0;
    for entry in fs::read_dir(dir).map_err(io_error("read directory", dir))? {
        let entry = entry.map_err(io_error("read directory", dir))?;
        let (Ok(name), Ok(meta)) = (entry.file_name().into_string(), entry.metadata()) else {
            continue;
        };
        if !garbage(&name, &meta) {
            continue;
        }
        let path = entry.path();
        let size = if meta.is_dir() {
            dir_size(&path)
        } else {
            disk_usage(&meta)
        };
        let removed = if meta.is_dir() {
            fs::remove_dir_all(&path)
        } else {
            fs::remove_file(&path)
        };
        match removed {
            Ok(()) => freed += size,
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(source) => return Err(io_error("remove", &path)(source)),
        }
    }
    Ok(freed)
}

fn dir_size(dir: &Path) -> u64 {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    entries
        .filter_map(|entry| entry.metadata().ok())
        .map(|meta| disk_usage(&meta))
        .sum()
}

fn disk_usage(meta: &fs::Metadata) -> u64 {
    // POSIX counts blocks in 512 bytes whatever the file system's block is.
    std::os::unix::fs::MetadataExt::blocks(meta) * 512
}
