//! Manifests, indexes and configurations: bytes from outside, parsed once and with bounds.
//!
//! Docker's schema 2 and the OCI image specification differ only in media types, so both become
//! the specification's types; everything that is not an image for a container is refused here.

mod error;
mod media;
mod search;
mod walk;

use std::collections::HashMap;

use bulkhead_types::{Digest, GuestText};
use oci_spec::image::{Config, Descriptor, ImageConfiguration, ImageIndex, ImageManifest};
use serde::Deserialize;

pub use error::ManifestError;
use media::{DOCKER_CONFIG, LAYERS, SCHEMA_1, generic_type, is_index_type};
pub(crate) use media::{
    DOCKER_INDEX, DOCKER_MANIFEST, OCI_CONFIG, OCI_INDEX, OCI_LAYER, OCI_LAYER_GZIP,
    OCI_LAYER_ZSTD, OCI_MANIFEST, known_manifest_type,
};
pub use search::digests_searched;
pub(crate) use search::{DEPTH_MAX, Search};
pub(crate) use walk::{parse_json, walk};

use crate::platform::Platform;

/// Manifests and indexes above this many bytes are refused (distribution specification,
/// "Pushing manifests": registries should enforce a limit, and at least 4 MiB is common).
pub const MANIFEST_MAX: u64 = 4 << 20;
/// Configurations above this many bytes are refused, as in the library of skopeo and podman (`MaxConfigBodySize` of
/// containers/image).
pub const CONFIG_MAX: u64 = 4 << 20;
/// Entries of one list or map of a document: the layers of a manifest, the steps of a history, environment, labels.
/// Docker stacks 127 layers, and long histories have some hundred steps; bounds the work and the memory that one image
/// can cause each time that images are listed. More are refused.
const LIST_MAX: usize = 4096;

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
    let parse = |source| ManifestError::Parse {
        document: "manifest",
        source,
    };
    let shape: Shape = match parse_json("manifest", bytes, MANIFEST_MAX) {
        Ok(shape) => shape,
        Err(error @ ManifestError::Parse { .. }) => {
            // A page of HTML with status 200 is better named by its type than by its first byte.
            return Err(match content_type {
                Some(t) if !known_manifest_type(t) && !generic_type(t) => {
                    ManifestError::MediaType(GuestText::start(t, 200))
                }
                _ => error,
            });
        }
        Err(error) => return Err(error),
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
            return Err(ManifestError::MediaType(GuestText::start(media_type, 200)));
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
        return Err(ManifestError::ConfigMediaType(config_type.into()));
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
                digest: digest.to_string().into(),
                media_type: media_type.into(),
            });
        }
    }
    Ok(())
}

/// Parses an image configuration.
///
/// # Errors
/// [`ManifestError::Parse`], [`ManifestError::TooLarge`], [`ManifestError::TooManyValues`],
/// [`ManifestError::TooMany`], [`ManifestError::Digest`].
pub fn parse_config(bytes: &[u8]) -> Result<ImageConfiguration, ManifestError> {
    let config: ImageConfiguration = parse_json("configuration", bytes, CONFIG_MAX)?;
    count("configuration", config.rootfs().diff_ids().len())?;
    diff_ids(&config)?;
    let section = config.config().as_ref();
    let list = |get: fn(&Config) -> &Option<Vec<String>>| {
        section
            .and_then(|section| get(section).as_ref())
            .map_or(0, Vec::len)
    };
    let labels = section.and_then(|section| section.labels().as_ref());
    for (what, entries) in [
        (
            "history of the configuration",
            config.history().as_ref().map_or(0, Vec::len),
        ),
        ("Env of the configuration", list(Config::env)),
        ("Cmd of the configuration", list(Config::cmd)),
        ("Entrypoint of the configuration", list(Config::entrypoint)),
        ("Volumes of the configuration", list(Config::volumes)),
        (
            "ExposedPorts of the configuration",
            list(Config::exposed_ports),
        ),
        (
            "Labels of the configuration",
            labels.map_or(0, HashMap::len),
        ),
        (
            "os.features of the configuration",
            config.os_features().as_ref().map_or(0, Vec::len),
        ),
    ] {
        count(what, entries)?;
    }
    Ok(config)
}

/// The digests of a configuration's uncompressed layers, lowest first.
///
/// # Errors
/// [`ManifestError::Digest`].
pub fn diff_ids(config: &ImageConfiguration) -> Result<Vec<Digest>, ManifestError> {
    let parse = |text: &String| {
        text.parse()
            .map_err(|_| ManifestError::Digest(GuestText::start(text, 200)))
    };
    config.rootfs().diff_ids().iter().map(parse).collect()
}

/// Whether a lone image is for the platform that was asked for. Without one it is taken as it is, as Docker does.
///
/// # Errors
/// [`ManifestError::NoPlatform`].
pub(crate) fn check_platform(
    config: &ImageConfiguration,
    wanted: Option<&Platform>,
) -> Result<(), ManifestError> {
    match wanted {
        Some(platform) if !platform.accepts_image(config) => Err(ManifestError::NoPlatform {
            wanted: platform.to_string(),
            available: vec![Platform::of_image(config).to_string()],
        }),
        _ => Ok(()),
    }
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
        .map_err(|_| ManifestError::Digest(GuestText::start(text, 200)))
}

/// Whether a list may have so many entries.
pub(crate) fn count(document: &'static str, actual: usize) -> Result<(), ManifestError> {
    if actual > LIST_MAX {
        Err(ManifestError::TooMany {
            document,
            actual,
            limit: LIST_MAX,
        })
    } else {
        Ok(())
    }
}

#[cfg(test)]
mod tests;
