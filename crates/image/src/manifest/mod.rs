//! Manifests, indexes and configurations: bytes from outside, parsed once and with bounds.
//!
//! Docker's schema 2 and the OCI image specification differ only in media types, so both become
//! the specification's types; everything that is not an image for a container is refused here.

mod error;
mod media;
mod search;

use bulkhead_types::Digest;
use oci_spec::image::{Descriptor, ImageConfiguration, ImageIndex, ImageManifest};
use serde::Deserialize;

pub use error::ManifestError;
use media::{DOCKER_CONFIG, LAYERS, SCHEMA_1, generic_type, is_index_type, known_manifest_type};
pub(crate) use media::{
    DOCKER_INDEX, DOCKER_MANIFEST, OCI_CONFIG, OCI_INDEX, OCI_LAYER, OCI_LAYER_GZIP,
    OCI_LAYER_ZSTD, OCI_MANIFEST,
};
pub use search::digests_searched;
pub(crate) use search::{DEPTH_MAX, Search};

/// Manifests and indexes above this many bytes are refused (distribution specification,
/// "Pushing manifests": registries should enforce a limit, and at least 4 MiB is common).
pub const MANIFEST_MAX: u64 = 4 << 20;
/// Configurations above this many bytes are refused; history makes them longer than manifests.
pub const CONFIG_MAX: u64 = 8 << 20;
/// More layers than any engine stacks; bounds the work one manifest can cause.
const LAYERS_MAX: usize = 4096;

/// What a manifest's bytes turned out to be.
#[derive(Debug, Clone, PartialEq)]
pub enum Document {
    /// One image.
    Manifest(Box<ImageManifest>),
    /// A choice of images by platform.
    Index(Box<ImageIndex>),
}

/// The fields that tell the formats apart, read before anything else is believed.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Shape {
    schema_version: Option<u64>,
    media_type: Option<String>,
    #[serde(default)]
    layers: Option<serde::de::IgnoredAny>,
    #[serde(default)]
    config: Option<serde::de::IgnoredAny>,
    #[serde(default)]
    manifests: Option<serde::de::IgnoredAny>,
    #[serde(rename = "fsLayers", default)]
    fs_layers: Option<serde::de::IgnoredAny>,
}

/// Parses what a registry or an archive calls a manifest. `content_type` is what the transport
/// says, without parameters; where both it and the document name a type, both must be known.
///
/// # Errors
/// Everything but [`ManifestError::NoPlatform`] and [`ManifestError::LayerCount`].
pub fn parse_manifest(bytes: &[u8], content_type: Option<&str>) -> Result<Document, ManifestError> {
    bound("manifest", bytes, MANIFEST_MAX)?;
    let parse = |source| ManifestError::Parse {
        document: "manifest",
        source,
    };
    let shape: Shape = match serde_json::from_slice(bytes) {
        Ok(shape) => shape,
        Err(source) => {
            // A page of HTML with status 200 is better named by its type than by its first byte.
            return Err(match content_type {
                Some(t) if !known_manifest_type(t) && !generic_type(t) => {
                    ManifestError::MediaType(t.to_owned())
                }
                _ => parse(source),
            });
        }
    };
    let says = shape.media_type.as_deref();
    for media_type in [says, content_type.filter(|t| !generic_type(t))]
        .into_iter()
        .flatten()
    {
        if SCHEMA_1.contains(&media_type) {
            return Err(ManifestError::Schema1);
        }
        if !known_manifest_type(media_type) {
            return Err(ManifestError::MediaType(
                media_type.chars().take(200).collect(),
            ));
        }
    }
    match shape.schema_version {
        Some(2) => {}
        Some(1) => return Err(ManifestError::Schema1),
        None if shape.fs_layers.is_some() => return Err(ManifestError::Schema1),
        other => return Err(ManifestError::SchemaVersion(other.unwrap_or(0))),
    }
    let is_manifest = shape.layers.is_some() || shape.config.is_some();
    if is_manifest && shape.manifests.is_some() {
        return Err(ManifestError::AmbiguousDocument);
    }
    if is_manifest {
        if says.or(content_type).is_some_and(is_index_type) {
            return Err(ManifestError::AmbiguousDocument);
        }
        let manifest: ImageManifest = serde_json::from_slice(bytes).map_err(parse)?;
        check_manifest(&manifest)?;
        Ok(Document::Manifest(Box::new(manifest)))
    } else {
        if says
            .or(content_type)
            .is_some_and(|t| !is_index_type(t) && !generic_type(t))
        {
            return Err(ManifestError::AmbiguousDocument);
        }
        let index: ImageIndex = serde_json::from_slice(bytes).map_err(parse)?;
        count("index", index.manifests().len())?;
        Ok(Document::Index(Box::new(index)))
    }
}

fn check_manifest(manifest: &ImageManifest) -> Result<(), ManifestError> {
    let config = manifest.config();
    let config_type = config.media_type().to_string();
    if config_type != OCI_CONFIG && config_type != DOCKER_CONFIG {
        return Err(ManifestError::ConfigMediaType(config_type));
    }
    if config.size() > CONFIG_MAX {
        return Err(ManifestError::TooLarge {
            document: "configuration",
            actual: config.size(),
            limit: CONFIG_MAX,
        });
    }
    digest_of(config)?;
    count("manifest", manifest.layers().len())?;
    for layer in manifest.layers() {
        let digest = digest_of(layer)?;
        let media_type = layer.media_type().to_string();
        if !LAYERS.contains(&media_type.as_str()) {
            return Err(ManifestError::LayerMediaType {
                digest: digest.to_string(),
                media_type,
            });
        }
    }
    Ok(())
}

/// Parses an image configuration.
///
/// # Errors
/// [`ManifestError::Parse`], [`ManifestError::TooLarge`], [`ManifestError::TooMany`],
/// [`ManifestError::Digest`].
pub fn parse_config(bytes: &[u8]) -> Result<ImageConfiguration, ManifestError> {
    bound("configuration", bytes, CONFIG_MAX)?;
    let config: ImageConfiguration =
        serde_json::from_slice(bytes).map_err(|source| ManifestError::Parse {
            document: "configuration",
            source,
        })?;
    count("configuration", config.rootfs().diff_ids().len())?;
    diff_ids(&config)?;
    Ok(config)
}

/// The digests of a configuration's uncompressed layers, lowest first.
///
/// # Errors
/// [`ManifestError::Digest`].
pub fn diff_ids(config: &ImageConfiguration) -> Result<Vec<Digest>, ManifestError> {
    let parse = |text: &String| {
        text.parse()
            .map_err(|_| ManifestError::Digest(text.chars().take(200).collect()))
    };
    config.rootfs().diff_ids().iter().map(parse).collect()
}

/// Pairs each layer with the digest of its uncompressed tar, lowest first.
///
/// # Errors
/// [`ManifestError::LayerCount`], [`ManifestError::Digest`].
pub(crate) fn layers_of(
    manifest: &ImageManifest,
    config: &ImageConfiguration,
) -> Result<Vec<(Descriptor, Digest)>, ManifestError> {
    let ids = diff_ids(config)?;
    if ids.len() != manifest.layers().len() {
        return Err(ManifestError::LayerCount {
            layers: manifest.layers().len(),
            diff_ids: ids.len(),
        });
    }
    Ok(manifest.layers().iter().cloned().zip(ids).collect())
}

/// A descriptor's digest as the only algorithm that the store knows.
pub(crate) fn digest_of(descriptor: &Descriptor) -> Result<Digest, ManifestError> {
    let text = descriptor.digest().as_ref();
    text.parse()
        .map_err(|_| ManifestError::Digest(text.chars().take(200).collect()))
}

fn bound(document: &'static str, bytes: &[u8], limit: u64) -> Result<(), ManifestError> {
    let actual = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
    if actual > limit {
        Err(ManifestError::TooLarge {
            document,
            actual,
            limit,
        })
    } else {
        Ok(())
    }
}

fn count(document: &'static str, actual: usize) -> Result<(), ManifestError> {
    if actual > LAYERS_MAX {
        Err(ManifestError::TooMany {
            document,
            actual,
            limit: LAYERS_MAX,
        })
    } else {
        Ok(())
    }
}

#[cfg(test)]
mod tests;
