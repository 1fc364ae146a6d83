//! The documents of an image that is made here: configuration and manifest.

use std::collections::BTreeMap;

use bulkhead_types::Digest;
use jiff::Timestamp;
use serde::Serialize;

use super::change::Change;
use crate::manifest::{OCI_CONFIG, OCI_LAYER, OCI_LAYER_GZIP, OCI_LAYER_ZSTD, OCI_MANIFEST};
use crate::platform::Platform;
use crate::reference::Reference;
use crate::store::{Image, Store, StoreError, describe};

/// A layer for a manifest.
#[derive(Debug, Clone)]
pub(crate) struct RecipeLayer {
    pub(crate) digest: Digest,
    pub(crate) size: u64,
}

/// One layer and what its image says of itself.
#[derive(Debug)]
pub(crate) struct Recipe {
    pub(crate) layer: RecipeLayer,
    pub(crate) diff_id: Digest,
    pub(crate) changes: Vec<Change>,
    pub(crate) platform: Platform,
    pub(crate) created_by: String,
    pub(crate) comment: String,
}

#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct ConfigSection {
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(super) user: String,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) exposed_ports: BTreeMap<String, Empty>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) env: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) entrypoint: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) cmd: Option<Vec<String>>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) volumes: BTreeMap<String, Empty>,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(super) working_dir: String,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) labels: BTreeMap<String, String>,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(super) stop_signal: String,
}

/// How Go writes the members of a set.
#[derive(Debug, Default, Serialize)]
pub(super) struct Empty {}

#[derive(Serialize)]
struct ConfigDocument {
    created: String,
    architecture: String,
    os: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    variant: Option<String>,
    config: ConfigSection,
    rootfs: RootFs,
    history: Vec<HistoryStep>,
}

#[derive(Serialize)]
struct RootFs {
    #[serde(rename = "type")]
    kind: &'static str,
    diff_ids: Vec<Digest>,
}

#[derive(Serialize)]
struct HistoryStep {
    created: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    created_by: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    comment: String,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ManifestDocument {
    schema_version: u32,
    media_type: &'static str,
    config: DescriptorDocument,
    layers: Vec<DescriptorDocument>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct DescriptorDocument {
    media_type: &'static str,
    digest: Digest,
    size: u64,
}

impl Recipe {
    /// Writes the documents and records the image. Call with the content lock held.
    pub(crate) fn make(self, store: &Store, name: Option<&Reference>) -> Result<Image, StoreError> {
        let created = Timestamp::now().to_string();
        let mut config = ConfigSection::default();
        for change in self.changes {
            change.apply(&mut config);
        }
        let document = ConfigDocument {
            created: created.clone(),
            architecture: self.platform.architecture,
            os: self.platform.os,
            variant: self.platform.variant,
            config,
            rootfs: RootFs {
                kind: "layers",
                diff_ids: vec![self.diff_id],
            },
            history: vec![HistoryStep {
                created,
                created_by: self.created_by,
                comment: self.comment,
            }],
        };
        let bytes = to_json(store, &document)?;
        let config = store.put_blob(&bytes)?;
        let size = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        record(store, (&config, size), &[self.layer], name.as_slice())
    }
}

/// Writes a manifest for a configuration and layers that are in the store, and records the image
/// under each name, or without one.
pub(super) fn record(
    store: &Store,
    (config, config_size): (&Digest, u64),
    layers: &[RecipeLayer],
    names: &[&Reference],
) -> Result<Image, StoreError> {
    let describe_layer = |layer: &RecipeLayer| {
        let media_type = media_type_of(store, &layer.digest)?;
        Ok(DescriptorDocument {
            media_type,
            digest: layer.digest.clone(),
            size: layer.size,
        })
    };
    let document = ManifestDocument {
        schema_version: 2,
        media_type: OCI_MANIFEST,
        config: DescriptorDocument {
            media_type: OCI_CONFIG,
            digest: config.clone(),
            size: config_size,
        },
        layers: layers
            .iter()
            .map(describe_layer)
            .collect::<Result<_, StoreError>>()?,
    };
    let bytes = to_json(store, &document)?;
    let digest = store.put_blob(&bytes)?;
    let descriptor = describe(
        OCI_MANIFEST,
        &digest,
        u64::try_from(bytes.len()).unwrap_or(u64::MAX),
    )?;
    store.put_image(descriptor, names, None)
}

/// A layer's media type, from its first bytes.
fn media_type_of(store: &Store, digest: &Digest) -> Result<&'static str, StoreError> {
    use std::io::Read;
    let path = store.blob_path(digest);
    let mut magic = [0; 4];
    let read = std::fs::File::open(&path).and_then(|mut file| file.read(&mut magic));
    read.map_err(|source| StoreError::Io {
        operation: "read",
        path,
        source,
    })?;
    Ok(match magic {
        [0x1f, 0x8b, ..] => OCI_LAYER_GZIP,
        [0x28, 0xb5, 0x2f, 0xfd] | [0x50..=0x5f, 0x2a, 0x4d, 0x18] => OCI_LAYER_ZSTD,
        _ => OCI_LAYER,
    })
}

fn to_json(store: &Store, document: &impl Serialize) -> Result<Vec<u8>, StoreError> {
    serde_json::to_vec(document).map_err(|source| StoreError::Index {
        path: store.layout_dir(),
        source,
    })
}
