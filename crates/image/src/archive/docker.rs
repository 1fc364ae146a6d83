//! docker-archive: `manifest.json` names configuration and layer files, as `docker save` writes it.

use serde::{Deserialize, Serialize};

use super::error::ArchiveError;
use super::recipe::{RecipeLayer, record};
use super::source::{Source, digest_bytes};
use crate::manifest::{self, CONFIG_MAX, MANIFEST_MAX};
use crate::progress::Progress;
use crate::reference::Reference;
use crate::store::{Image, Store, describe};

pub(super) const MANIFEST: &str = "manifest.json";

/// One image in `manifest.json`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Entry {
    pub(super) config: String,
    pub(super) repo_tags: Option<Vec<String>>,
    pub(super) layers: Option<Vec<String>>,
}

pub(super) fn load(
    store: &Store,
    source: &Source,
    progress: &dyn Progress,
) -> Result<Vec<Image>, ArchiveError> {
    let bytes = source.document(store, MANIFEST, MANIFEST_MAX)?;
    let entries: Vec<Entry> =
        serde_json::from_slice(&bytes).map_err(|source| ArchiveError::Parse {
            name: MANIFEST.into(),
            source,
        })?;
    if entries.is_empty() {
        return Err(ArchiveError::Empty);
    }
    entries
        .iter()
        .map(|entry| load_one(store, source, entry, progress))
        .collect()
}

fn load_one(
    store: &Store,
    source: &Source,
    entry: &Entry,
    progress: &dyn Progress,
) -> Result<Image, ArchiveError> {
    let document = |source| ArchiveError::Document {
        name: entry.config.clone(),
        source,
    };
    // Before anything is taken in: a name that cannot be given must not leave a nameless image.
    let tags = entry.repo_tags.iter().flatten();
    let names: Vec<Reference> = tags.map(|tag| parse_tag(tag)).collect::<Result<_, _>>()?;
    let bytes = source.document(store, &entry.config, CONFIG_MAX)?;
    let config = manifest::parse_config(&bytes).map_err(document)?;
    check_name(&entry.config, &bytes)?;
    let diff_ids = manifest::diff_ids(&config).map_err(document)?;
    let files = entry.layers.clone().unwrap_or_default();
    if files.len() != diff_ids.len() {
        return Err(document(manifest::ManifestError::LayerCount {
            layers: files.len(),
            diff_ids: diff_ids.len(),
        }));
    }
    let mut layers = Vec::new();
    for (file, diff_id) in files.iter().zip(&diff_ids) {
        let (digest, size) = source.blob(store, file, progress)?;
        // The media type is chosen when the manifest is written; conversion needs none.
        let blob = describe(manifest::OCI_LAYER, &digest, size)?;
        let outcome = store.ensure_layer(&blob, diff_id, progress)?;
        progress.finish(&digest.short(), outcome);
        layers.push(RecipeLayer { digest, size });
    }
    let digest = store.put_blob(&bytes)?;
    let names: Vec<Option<&Reference>> = names.iter().map(Some).collect();
    let size = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
    Ok(record(store, (&digest, size), &layers, &names)?)
}

/// A name in `RepoTags`, by the rules of Docker's `load`: it has a tag, and it has no digest. Whoever makes an
/// archive can write any digest there, and a name with a digest is one that users trust without looking.
fn parse_tag(text: &str) -> Result<Reference, ArchiveError> {
    let bad = |source| ArchiveError::BadTag {
        name: text.chars().take(200).collect(),
        source,
    };
    let reference: Reference = text.parse().map_err(|error| bad(Some(error)))?;
    if reference.digest().is_some() {
        return Err(ArchiveError::DigestAsTag {
            name: reference.familiar(),
        });
    }
    let tagged = reference
        .tag()
        .is_some_and(|tag| text.ends_with(&format!(":{tag}")));
    if !tagged {
        return Err(bad(None));
    }
    Ok(reference)
}

/// A configuration's file name is its digest, where it looks like one.
fn check_name(name: &str, bytes: &[u8]) -> Result<(), ArchiveError> {
    let file = name.rsplit('/').next().unwrap_or(name);
    let hex = file.strip_suffix(".json").unwrap_or(file);
    let promises = hex.len() == 64 && hex.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    let actual = digest_bytes(bytes);
    if promises && actual.hex() != hex {
        return Err(ArchiveError::DigestMismatch {
            name: name.to_owned(),
            actual,
        });
    }
    Ok(())
}
