//! Images as a user meets them: listed, resolved, described.

use std::collections::BTreeMap;
use std::fs;

use bulkhead_types::{Digest, chain};
use jiff::Timestamp;
use oci_spec::image::{Descriptor, ImageConfiguration, ImageIndex, ImageManifest};

use super::index::{name_of, repo_digests_of, same_manifest};
use super::{Store, StoreError};
use crate::manifest::{self, CONFIG_MAX, Document, MANIFEST_MAX, Search, digest_of};
use crate::platform::Platform;
use crate::reference::Reference;

/// An image in the store.
#[derive(Debug, Clone)]
pub struct Image {
    /// The digest of the configuration: what Docker calls the image's ID.
    pub id: Digest,
    /// The digest of the manifest.
    pub manifest_digest: Digest,
    /// The manifest.
    pub manifest: ImageManifest,
    /// The configuration.
    pub config: ImageConfiguration,
    /// Names with tags (or digests, where pulled so), sorted.
    pub names: Vec<Reference>,
    /// Repository and digest in the registries that the image came from or went to.
    pub repo_digests: Vec<Reference>,
    /// Digests of the uncompressed layers, lowest first.
    pub diff_ids: Vec<Digest>,
    /// Bytes of the unpacked layers, or of the compressed blobs where a layer is not converted yet.
    pub size: u64,
    /// When the image was made, where it says so.
    pub created: Option<Timestamp>,
}

impl Image {
    /// The name to show first, familiar; the short identifier where there is none.
    pub fn display_name(&self) -> String {
        self.names
            .first()
            .map_or_else(|| self.id.short(), Reference::familiar)
    }
}

impl Image {
    /// Adds the names of these entries of the index, which are its own.
    pub(super) fn add_names<'a>(&mut self, entries: impl IntoIterator<Item = &'a Descriptor>) {
        for entry in entries {
            self.names.extend(name_of(entry));
            self.repo_digests.extend(repo_digests_of(entry));
        }
        self.names.sort();
        self.names.dedup();
        self.repo_digests.sort();
        self.repo_digests.dedup();
    }
}

/// One step of an image's making, newest first (`docker history`).
#[derive(Debug, Clone)]
pub struct HistoryEntry {
    /// The image's ID on the newest entry; older steps have none.
    pub id: Option<Digest>,
    /// When.
    pub created: Option<Timestamp>,
    /// The command.
    pub created_by: String,
    /// Bytes that the step added, unpacked where known.
    pub size: u64,
    /// A remark.
    pub comment: String,
    /// Whether the step changed the configuration only.
    pub empty_layer: bool,
}

impl Store {
    /// Every image, newest first. One that cannot be read is left out with a warning in the log.
    ///
    /// # Errors
    /// [`StoreError::Io`], [`StoreError::Index`].
    pub fn images(&self) -> Result<Vec<Image>, StoreError> {
        let index = self.load_index()?;
        // An image is read once, however many names it has.
        let mut entries: BTreeMap<&str, Vec<&Descriptor>> = BTreeMap::new();
        for entry in index.manifests() {
            entries
                .entry(entry.digest().as_ref())
                .or_default()
                .push(entry);
        }
        let mut by_id: BTreeMap<Digest, Image> = BTreeMap::new();
        for (digest, entries) in entries {
            let Some(first) = entries.first() else {
                continue;
            };
            match self.load_image(first) {
                Ok(image) => by_id
                    .entry(image.id.clone())
                    .or_insert(image)
                    .add_names(entries),
                Err(error) => {
                    tracing::warn!("image {digest} is left out: {}", chain(&error));
                }
            }
        }
        let mut images: Vec<Image> = by_id.into_values().collect();
        images.sort_by(|a, b| {
            b.created
                .cmp(&a.created)
                .then_with(|| a.names.cmp(&b.names))
        });
        Ok(images)
    }

    /// Finds an image by name, by identifier (also shortened, with or without `sha256:`) or by
    /// repository and digest, in this order. A whole identifier, and one with `sha256:` before it, is no name by the
    /// grammar of [`Reference`], so that no name can take its place.
    ///
    /// # Errors
    /// [`StoreError::NotFound`], [`StoreError::Ambiguous`], or why the image cannot be read.
    pub fn resolve(&self, text: &str) -> Result<Image, StoreError> {
        let index = self.load_index()?;
        let reference = text.parse::<Reference>().ok();
        if let Some(reference) = &reference
            && let Some(entry) = find_entry(&index, reference)
        {
            return self.load_with_names(&index, entry);
        }
        let hex = text.strip_prefix("sha256:").unwrap_or(text);
        let hex_like = (1..=64).contains(&hex.len())
            && hex.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        if !hex_like {
            return Err(StoreError::NotFound(familiar_or(text, reference.as_ref())));
        }
        let mut found: BTreeMap<Digest, &Descriptor> = BTreeMap::new();
        for entry in index.manifests() {
            let manifest_fits = digest_of(entry).is_ok_and(|d| d.hex().starts_with(hex));
            match self.load_image(entry) {
                Ok(image) if manifest_fits || image.id.hex().starts_with(hex) => {
                    found.entry(image.id).or_insert(entry);
                }
                Ok(_) => {}
                Err(error) if manifest_fits => return Err(error),
                Err(_) => {}
            }
        }
        let candidates: Vec<String> = found.keys().take(10).map(Digest::short).collect();
        match (found.into_values().next(), candidates.len()) {
            (Some(entry), 1) => self.load_with_names(&index, entry),
            (Some(_), _) => Err(StoreError::Ambiguous {
                prefix: text.to_owned(),
                candidates,
            }),
            (None, _) => Err(StoreError::NotFound(familiar_or(text, reference.as_ref()))),
        }
    }

    /// The image's configuration exactly as it was made, for what the typed form leaves out.
    ///
    /// # Errors
    /// [`StoreError::MissingBlob`], [`StoreError::DigestMismatch`], [`StoreError::Io`].
    pub fn raw_config(&self, image: &Image) -> Result<Vec<u8>, StoreError> {
        self.read_blob(&image.id, CONFIG_MAX)
    }

    /// The manifest exactly as it was made.
    ///
    /// # Errors
    /// As [`Store::raw_config`].
    pub fn raw_manifest(&self, image: &Image) -> Result<Vec<u8>, StoreError> {
        self.read_blob(&image.manifest_digest, MANIFEST_MAX)
    }

    /// How the image was made, newest step first.
    pub fn history(&self, image: &Image) -> Vec<HistoryEntry> {
        let mut layers = image.manifest.layers().iter().zip(&image.diff_ids);
        let mut entries: Vec<HistoryEntry> = Vec::new();
        for step in image.config.history().iter().flatten() {
            let empty_layer = step.empty_layer().unwrap_or(false);
            let layer = if empty_layer { None } else { layers.next() };
            entries.push(HistoryEntry {
                id: None,
                created: step.created().as_deref().and_then(time),
                created_by: step.created_by().clone().unwrap_or_default(),
                size: layer.map_or(0, |(blob, id)| self.layer_size(blob, id)),
                comment: step.comment().clone().unwrap_or_default(),
                empty_layer,
            });
        }
        // History is optional: layers that it does not explain are still shown.
        for (blob, id) in layers {
            entries.push(HistoryEntry {
                id: None,
                created: image.created,
                created_by: String::new(),
                size: self.layer_size(blob, id),
                comment: String::new(),
                empty_layer: false,
            });
        }
        entries.reverse();
        if let Some(newest) = entries.first_mut() {
            newest.id = Some(image.id.clone());
        }
        entries
    }

    fn load_with_names(&self, index: &ImageIndex, entry: &Descriptor) -> Result<Image, StoreError> {
        let mut image = self.load_image(entry)?;
        let listed = digest_of(entry).unwrap_or_else(|_| image.manifest_digest.clone());
        let mine = |other: &&Descriptor| same_manifest(other, &listed);
        image.add_names(index.manifests().iter().filter(mine));
        Ok(image)
    }

    /// Reads the image that an index entry leads to, without its names.
    pub(super) fn load_image(&self, entry: &Descriptor) -> Result<Image, StoreError> {
        let (manifest_digest, manifest) = self.load_manifest(entry)?;
        let document = |digest: &Digest| {
            let digest = digest.clone();
            move |source| StoreError::Document { digest, source }
        };
        let id = digest_of(manifest.config()).map_err(document(&manifest_digest))?;
        let config =
            manifest::parse_config(&self.read_blob(&id, CONFIG_MAX)?).map_err(document(&id))?;
        let layers = manifest::layers_of(&manifest, &config).map_err(document(&manifest_digest))?;
        let size = layers
            .iter()
            .map(|(blob, diff_id)| self.layer_size(blob, diff_id))
            .fold(0, u64::saturating_add);
        let created = config.created().as_deref().and_then(time);
        let diff_ids = layers.into_iter().map(|(_, diff_id)| diff_id).collect();
        Ok(Image {
            id,
            manifest_digest,
            manifest,
            config,
            names: Vec::new(),
            repo_digests: Vec::new(),
            diff_ids,
            size,
            created,
        })
    }

    /// Follows an entry to a manifest; other tools may have put an index for several platforms here.
    fn load_manifest(&self, entry: &Descriptor) -> Result<(Digest, ImageManifest), StoreError> {
        let unknown = Digest::from_bytes([0; 32]);
        let top = digest_of(entry).map_err(|source| StoreError::Document {
            digest: unknown,
            source,
        })?;
        let document = |digest: &Digest| {
            let digest = digest.clone();
            move |source| StoreError::Document { digest, source }
        };
        let bytes = self.read_blob(&top, MANIFEST_MAX)?;
        let index = match manifest::parse_manifest(&bytes, None).map_err(document(&top))? {
            Document::Manifest(manifest) => return Ok((top, *manifest)),
            Document::Index(index) => index,
        };
        let platform = Platform::host();
        let mut search = Search::new(&index, &platform);
        let mut missing = None;
        loop {
            let candidate = match search.next() {
                Ok(candidate) => candidate,
                Err(source) => return Err(missing.unwrap_or_else(|| document(&top)(source))),
            };
            let digest = digest_of(&candidate.descriptor).map_err(document(&top))?;
            let bytes = match self.read_blob(&digest, MANIFEST_MAX) {
                Ok(bytes) => bytes,
                // Tools copy an index with only some of its images.
                Err(error @ StoreError::MissingBlob { .. }) => {
                    missing.get_or_insert(error);
                    continue;
                }
                Err(error) => return Err(error),
            };
            match manifest::parse_manifest(&bytes, None) {
                Ok(Document::Index(index)) => search.descend(&candidate, &index),
                Ok(Document::Manifest(manifest)) => {
                    let id = digest_of(manifest.config()).map_err(document(&digest))?;
                    let bytes = self.read_blob(&id, CONFIG_MAX)?;
                    let config = manifest::parse_config(&bytes).map_err(document(&id))?;
                    if search.fits(&candidate, &config) {
                        return Ok((digest, *manifest));
                    }
                }
                Err(error) if error.is_no_image() => search.refuse(error),
                Err(error) => return Err(document(&digest)(error)),
            }
        }
    }

    fn layer_size(&self, blob: &Descriptor, diff_id: &Digest) -> u64 {
        let data = self.layer_dir(diff_id).join("data");
        fs::metadata(data).map_or(blob.size(), |m| m.len())
    }
}

/// A time in a configuration. Go's zero time, midnight of the first day of year 1, stands for none.
fn time(text: &str) -> Option<Timestamp> {
    let zero = text.starts_with("0001-01-01T00:00:00");
    text.parse().ok().filter(|_| !zero)
}

/// The entry with this name, or else one that a registry knows by this digest.
pub(super) fn find_entry<'a>(
    index: &'a ImageIndex,
    reference: &Reference,
) -> Option<&'a Descriptor> {
    let entries = || index.manifests().iter();
    if let Some(entry) = entries().find(|entry| name_of(entry).as_ref() == Some(reference)) {
        return Some(entry);
    }
    let digest = reference.digest()?;
    let same_repository = |other: &Reference| other.name() == reference.name();
    entries()
        .find(|entry| {
            repo_digests_of(entry)
                .iter()
                .any(|other| same_repository(other) && other.digest() == Some(digest))
        })
        .or_else(|| {
            entries().find(|entry| {
                same_manifest(entry, digest)
                    && name_of(entry).is_some_and(|name| same_repository(&name))
            })
        })
}

fn familiar_or(text: &str, reference: Option<&Reference>) -> String {
    reference.map_or_else(|| text.chars().take(200).collect(), Reference::familiar)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gos_zero_time_is_none() {
        assert_eq!(time("0001-01-01T00:00:00Z"), None);
        assert_eq!(time("1970-01-01T00:00:00Z"), Some(Timestamp::UNIX_EPOCH));
        assert_eq!(time("yesterday"), None);
    }
}
