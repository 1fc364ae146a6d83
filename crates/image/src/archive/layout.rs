//! OCI image layouts, in a directory or in a tar archive.

use oci_spec::image::{Descriptor, ImageIndex};

use super::error::ArchiveError;
use super::source::Source;
use crate::manifest::{self, CONFIG_MAX, Document, MANIFEST_MAX, digest_of};
use crate::platform::Platform;
use crate::progress::Progress;
use crate::reference::Reference;
use crate::store::{Image, Store, describe, name_of};

pub(super) const INDEX: &str = "index.json";
/// Indexes within indexes are followed this deep.
const DEPTH: usize = 3;

pub(super) fn load(
    store: &Store,
    source: &Source,
    platform: &Platform,
    progress: &dyn Progress,
) -> Result<Vec<Image>, ArchiveError> {
    let bytes = source.document(store, INDEX, MANIFEST_MAX)?;
    let index: ImageIndex =
        serde_json::from_slice(&bytes).map_err(|source| ArchiveError::Parse {
            name: INDEX.into(),
            source,
        })?;
    if index.manifests().is_empty() {
        return Err(ArchiveError::Empty);
    }
    let mut images = Vec::new();
    for entry in index.manifests() {
        // Several platforms listed side by side: only those that were asked for.
        let other = entry.platform().as_ref().is_some_and(|p| {
            !platform.accepts(
                &p.os().to_string(),
                &p.architecture().to_string(),
                p.variant().as_deref(),
            )
        });
        if !other {
            images.push(load_one(store, source, entry, platform, progress)?);
        }
    }
    if images.is_empty() {
        let choice = manifest::choose(&index, platform);
        let name = INDEX.to_owned();
        choice.map_err(|source| ArchiveError::Document { name, source })?;
    }
    Ok(images)
}

fn load_one(
    store: &Store,
    source: &Source,
    entry: &Descriptor,
    platform: &Platform,
    progress: &dyn Progress,
) -> Result<Image, ArchiveError> {
    let mut current = entry.clone();
    let mut depth = 0;
    loop {
        let name = format!("blobs/{}", current.digest().as_ref().replace(':', "/"));
        let document = |source| ArchiveError::Document {
            name: name.clone(),
            source,
        };
        let digest = digest_of(&current).map_err(document)?;
        let size = source.named_blob(store, &digest, progress)?;
        let bytes = store.read_blob(&digest, MANIFEST_MAX)?;
        let manifest = match manifest::parse_manifest(&bytes, None).map_err(document)? {
            Document::Index(index) if depth < DEPTH => {
                current = manifest::choose(&index, platform).map_err(document)?;
                depth += 1;
                continue;
            }
            Document::Index(_) => {
                return Err(document(manifest::ManifestError::MediaType(
                    "an index in an index".into(),
                )));
            }
            Document::Manifest(manifest) => manifest,
        };
        let config_digest = digest_of(manifest.config()).map_err(document)?;
        source.named_blob(store, &config_digest, progress)?;
        let config = manifest::parse_config(&store.read_blob(&config_digest, CONFIG_MAX)?)
            .map_err(document)?;
        for (blob, diff_id) in manifest::layers_of(&manifest, &config).map_err(document)? {
            let digest = digest_of(&blob).map_err(document)?;
            source.named_blob(store, &digest, progress)?;
            let outcome = store.ensure_layer(&blob, &diff_id, progress)?;
            progress.finish(&digest.short(), outcome);
        }
        let stated = manifest.media_type().as_ref().map(ToString::to_string);
        let descriptor = describe(
            stated.as_deref().unwrap_or(manifest::OCI_MANIFEST),
            &digest,
            size,
        )?;
        let name: Option<Reference> = name_of(entry);
        // The digest of an index or manifest whose bytes were compared with it above: a name with this very
        // digest says the truth. `put_image` refuses any other.
        let verified = match &name {
            Some(name) if name.digest().is_some() => {
                Some(name.at(digest_of(entry).map_err(document)?))
            }
            _ => None,
        };
        return Ok(store.put_image(descriptor, name.as_ref(), verified.as_ref())?);
    }
}
