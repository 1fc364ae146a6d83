//! docker-archive: `manifest.json` names configuration and layer files, as `docker save` writes it.

use std::fs::File;
use std::io::BufReader;

use serde::{Deserialize, Serialize};

use super::error::{ArchiveError, io_error};
use super::load::Reporter;
use super::recipe::{RecipeLayer, record};
use super::recompress::{self, gzip_to_blob};
use super::source::{Source, digest_bytes};
use crate::manifest::{self, CONFIG_MAX, MANIFEST_MAX};
use crate::platform::Platform;
use crate::progress::Progress;
use crate::reference::Reference;
use crate::store::{Image, Store, describe};

pub(super) const MANIFEST: &str = "manifest.json";
const BUFFER: usize = 256 << 10;

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
    wanted: Option<&Platform>,
    progress: &dyn Progress,
    reporter: &mut Reporter<'_>,
) -> Result<(), ArchiveError> {
    let bytes = source.document(store, MANIFEST, MANIFEST_MAX)?;
    let entries: Vec<Entry> = manifest::parse_json("list of images", &bytes, MANIFEST_MAX)
        .map_err(ArchiveError::parse(MANIFEST))?;
    let names = entries
        .iter()
        .flat_map(|entry| &entry.repo_tags)
        .map(Vec::len)
        .sum();
    manifest::count("list of images", entries.len()).map_err(ArchiveError::parse(MANIFEST))?;
    manifest::count("RepoTags of the list of images", names)
        .map_err(ArchiveError::parse(MANIFEST))?;
    reporter.expect(entries.len());
    for entry in &entries {
        let tags = entry.repo_tags.iter().flatten();
        let what = tags.map(String::as_str).next().unwrap_or(&entry.config);
        // Before anything is taken in: a name that cannot be given must not leave a nameless image.
        let tags = entry.repo_tags.iter().flatten();
        match tags
            .map(|tag| parse_tag(tag))
            .collect::<Result<Vec<_>, _>>()
        {
            Ok(names) => reporter.take(store, what, &names, || {
                load_one(store, source, entry, &names, wanted, progress)
            })?,
            Err(error) => reporter.refuse(what, error)?,
        }
    }
    Ok(())
}

fn load_one(
    store: &Store,
    source: &Source,
    entry: &Entry,
    names: &[Reference],
    wanted: Option<&Platform>,
    progress: &dyn Progress,
) -> Result<Image, ArchiveError> {
    let document = |source| ArchiveError::Document {
        name: entry.config.as_str().into(),
        source,
    };
    let bytes = source.document(store, &entry.config, CONFIG_MAX)?;
    let config = manifest::parse_config(&bytes).map_err(document)?;
    check_name(&entry.config, &bytes)?;
    manifest::check_platform(&config, wanted).map_err(document)?;
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
        let layer = portable(store, RecipeLayer { digest, size })?;
        // The media type is chosen when the manifest is written; conversion needs none.
        let blob = describe(manifest::OCI_LAYER, &layer.digest, layer.size)?;
        let outcome = store.ensure_layer(&blob, diff_id, progress)?;
        progress.finish(&layer.digest.short(), outcome);
        layers.push(layer);
    }
    let digest = store.put_blob(&bytes)?;
    let names: Vec<&Reference> = names.iter().collect();
    let size = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
    Ok(record(store, (&digest, size), &layers, &names)?)
}

/// The layer in a format that has a media type: other engines would not read what is pushed or saved otherwise.
fn portable(store: &Store, layer: RecipeLayer) -> Result<RecipeLayer, ArchiveError> {
    let path = store.blob_path(&layer.digest);
    let file = File::open(&path).map_err(io_error("open", &path))?;
    let mut input = BufReader::with_capacity(BUFFER, file);
    let foreign =
        recompress::foreign(&mut input).map_err(|source| ArchiveError::Read { source })?;
    match foreign {
        Some(decoder) => Ok(gzip_to_blob(store, decoder, &|_| {})?),
        None => Ok(layer),
    }
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
    if reference.is_name_only(text) {
        return Err(bad(None));
    }
    Ok(reference)
}

/// A file of the OCI layout that newer versions of Docker write beside `manifest.json` is named by its digest. Any
/// other file name of a configuration promises nothing: the image's ID is the digest of its content.
fn check_name(name: &str, bytes: &[u8]) -> Result<(), ArchiveError> {
    let actual = digest_bytes(bytes);
    match name.strip_prefix("blobs/sha256/") {
        Some(hex) if hex != actual.hex() => Err(ArchiveError::DigestMismatch {
            name: name.into(),
            actual,
        }),
        _ => Ok(()),
    }
}
