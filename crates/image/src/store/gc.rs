//! Sweeping away what the index does not lead to.
//!
//! Marks from `index.json`, then deletes. Runs only with the `content` lock held exclusively, so
//! whatever lies in `tmp/` then belonged to a process that died.

use std::collections::HashSet;
use std::fs;
use std::io;
use std::path::Path;
use std::time::{Duration, SystemTime};

use bulkhead_types::{Digest, chain};
use oci_spec::image::Descriptor;

use super::atomic::TEMP_PREFIX;
use super::disk::disk_key;
use super::{Store, StoreError, io_error};
use crate::manifest::{self, CONFIG_MAX, DEPTH_MAX, Document, MANIFEST_MAX, digest_of};

/// Says that a sweep was due while the store was busy.
const PENDING: &str = "sweep-pending";
/// An interrupted download is worth resuming for this long.
const PARTIAL_AGE: Duration = Duration::from_secs(7 * 24 * 3600);

/// Which interrupted downloads survive a sweep.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Partials {
    /// Those that are worth resuming.
    Young,
    /// None: space is wanted.
    None,
}

#[derive(Default)]
struct Marks {
    blobs: HashSet<String>,
    layers: HashSet<String>,
    disks: HashSet<String>,
}

impl Store {
    /// Sweeps after an operation that left garbage, or leaves word for whoever keeps the store busy.
    /// Call it after letting go of the content lock. A failure is logged only: what went before
    /// has its own result, and the next sweep does what this one could not.
    pub fn tidy(&self) {
        self.tidy_with(Partials::Young);
    }

    /// As [`Store::tidy`], and says what becomes of interrupted downloads.
    pub(crate) fn tidy_with(&self, partials: Partials) {
        if let Err(error) = self.sweep_now(partials, 1) {
            tracing::warn!("cannot tidy up the image store: {}", chain(&error));
        }
    }

    /// As [`Store::tidy`], where a sweep is due that could not be done while the store was busy.
    pub(crate) fn tidy_if_due(&self) {
        if self.root().join("locks").join(PENDING).exists() {
            self.tidy();
        }
    }

    /// Removes unreachable blobs, layers and disks, and leftovers of killed processes. Returns the
    /// bytes that became free: none when another process keeps the store busy at each of
    /// `attempts`, 100 ms apart; the next one to finish sweeps then.
    pub(super) fn sweep_now(&self, partials: Partials, attempts: u32) -> Result<u64, StoreError> {
        let mut lock = None;
        for attempt in 0..attempts {
            lock = self.try_lock("content")?;
            if lock.is_some() || attempt + 1 == attempts {
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
        freed += self.sweep_dir(&self.root().join("disks"), &|name, _| {
            let key = name.split('.').next().unwrap_or(name);
            hex(key) && !marks.disks.contains(key)
        })?;
        freed += self.sweep_dir(&self.root().join("layers"), &|name, _| {
            hex(name) && !marks.layers.contains(name)
        })?;
        freed += self.sweep_dir(&self.layout_dir().join("blobs/sha256"), &|name, _| {
            hex(name) && !marks.blobs.contains(name)
        })?;
        freed += self.sweep_dir(&self.temp_root(), &|name, _| name.starts_with(TEMP_PREFIX))?;
        let now = SystemTime::now();
        freed += self.sweep_dir(&self.root().join("partial"), &|name, meta| {
            let age = meta
                .modified()
                .ok()
                .and_then(|at| now.duration_since(at).ok());
            hex(name) && (partials == Partials::None || age.is_some_and(|age| age > PARTIAL_AGE))
        })?;
        self.sweep_dir(&self.root().join("locks"), &|name, _| {
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
        // As deep as a search for an image goes: its documents are one below the deepest index.
        if depth > DEPTH_MAX + 1 || !marks.blobs.insert(digest.hex()) && depth > 0 {
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
            Err(_) => mark_json(&bytes, marks),
        }
        Ok(())
    }

    /// Removes the entries of `dir` that `garbage` picks; returns the bytes that became free.
    fn sweep_dir(
        &self,
        dir: &Path,
        garbage: &dyn Fn(&str, &fs::Metadata) -> bool,
    ) -> Result<u64, StoreError> {
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
                self.remove_dir(&path, &name)
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

    /// Moves the directory out of sight first: half a layer must not be taken for a whole one by
    /// whoever comes after a kill in the middle.
    fn remove_dir(&self, path: &Path, name: &str) -> io::Result<()> {
        if path.parent() == Some(&self.temp_root()) {
            return fs::remove_dir_all(path);
        }
        let aside = self
            .temp_root()
            .join(format!("{TEMP_PREFIX}removed-{name}"));
        match fs::remove_dir_all(&aside) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
            _ => fs::rename(path, &aside)?,
        }
        fs::remove_dir_all(&aside)
    }

    /// `None` where the blob is missing, damaged or longer than `limit`.
    fn read_if_sound(&self, digest: &Digest, limit: u64) -> Result<Option<Vec<u8>>, StoreError> {
        match self.read_blob(digest, limit) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(
                StoreError::MissingBlob { .. }
                | StoreError::DigestMismatch { .. }
                | StoreError::Document { .. },
            ) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// Keeps every blob whose digest occurs in a document of unknown kind, as far as it is JSON.
fn mark_json(bytes: &[u8], marks: &mut Marks) {
    let _ = manifest::walk(bytes, &mut |text| {
        let digest = text.and_then(|text| text.parse::<Digest>().ok());
        marks.blobs.extend(digest.map(|digest| digest.hex()));
        Some(())
    });
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
