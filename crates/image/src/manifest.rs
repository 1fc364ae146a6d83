//! Manifests, indexes and configurations: bytes from outside, parsed once and with bounds.
//!
//! Docker's schema 2 and the OCI image specification differ only in media types, so both become
//! the specification's types; everything that is not an image for a container is refused here.

use bulkhead_types::Digest;
use oci_spec::image::{Descriptor, ImageConfiguration, ImageIndex, ImageManifest};
use serde::Deserialize;

use crate::platform::Platform;

/// Manifests and indexes above this many bytes are refused (distribution specification,
/// "Pushing manifests": registries should enforce a limit, and at least 4 MiB is common).
pub const MANIFEST_MAX: u64 = 4 << 20;
/// Configurations above this many bytes are refused; history makes them longer than manifests.
pub const CONFIG_MAX: u64 = 8 << 20;
/// More layers than any engine stacks; bounds the work one manifest can cause.
const LAYERS_MAX: usize = 4096;

/// `application/vnd.oci.image.manifest.v1+json`
pub(crate) const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
/// `application/vnd.oci.image.index.v1+json`
pub(crate) const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
/// `application/vnd.oci.image.config.v1+json`
pub(crate) const OCI_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
/// `application/vnd.oci.image.layer.v1.tar`
pub(crate) const OCI_LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
/// `application/vnd.oci.image.layer.v1.tar+gzip`
pub(crate) const OCI_LAYER_GZIP: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
/// `application/vnd.oci.image.layer.v1.tar+zstd`
pub(crate) const OCI_LAYER_ZSTD: &str = "application/vnd.oci.image.layer.v1.tar+zstd";
/// Docker image manifest version 2, schema 2.
pub(crate) const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
/// Docker manifest list.
pub(crate) const DOCKER_INDEX: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
const DOCKER_CONFIG: &str = "application/vnd.docker.container.image.v1+json";
const SCHEMA_1: [&str; 2] = [
    "application/vnd.docker.distribution.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.v1+prettyjws",
];
const LAYERS: [&str; 9] = [
    OCI_LAYER,
    OCI_LAYER_GZIP,
    OCI_LAYER_ZSTD,
    "application/vnd.oci.image.layer.nondistributable.v1.tar",
    "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip",
    "application/vnd.oci.image.layer.nondistributable.v1.tar+zstd",
    "application/vnd.docker.image.rootfs.diff.tar",
    "application/vnd.docker.image.rootfs.diff.tar.gzip",
    "application/vnd.docker.image.rootfs.diff.tar.zstd",
];

/// Why a manifest, index or configuration is refused.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ManifestError {
    /// Not JSON, or a field is missing or of the wrong type.
    #[error("cannot parse the {document}")]
    Parse {
        /// Which document.
        document: &'static str,
        /// What the parser says.
        #[source]
        source: serde_json::Error,
    },
    /// Larger than any honest document.
    #[error("the {document} is {actual} bytes long, at most {limit} are accepted")]
    TooLarge {
        /// Which document.
        document: &'static str,
        /// Bytes.
        actual: u64,
        /// Bytes.
        limit: u64,
    },
    /// Docker's manifest format before 2016.
    #[error("the image has a schema 1 manifest, which is not supported")]
    Schema1,
    /// A schema version from the future.
    #[error("manifest schema version {0} is not supported")]
    SchemaVersion(u64),
    /// Neither a manifest nor an index, by what it says of itself or what the registry says of it.
    #[error("media type '{0}' is no image manifest and no image index")]
    MediaType(String),
    /// Could be read as a manifest and as an index (CVE-2021-41190).
    #[error("the manifest is ambiguous: it has layers and manifests")]
    AmbiguousDocument,
    /// An artifact that is no container image, for example a chart.
    #[error("not a container image: its configuration has media type '{0}'")]
    ConfigMediaType(String),
    /// A layer of a type that cannot be unpacked.
    #[error("layer {digest} has unsupported media type '{media_type}'")]
    LayerMediaType {
        /// The layer.
        digest: String,
        /// Its type.
        media_type: String,
    },
    /// A digest that is not `sha256`.
    #[error("digest '{0}' is not supported, only sha256 is")]
    Digest(String),
    /// Too many layers or manifests.
    #[error("the {document} lists {actual} entries, at most {limit} are accepted")]
    TooMany {
        /// Which document.
        document: &'static str,
        /// Entries.
        actual: usize,
        /// Entries.
        limit: usize,
    },
    /// The configuration and the manifest disagree.
    #[error("the manifest has {layers} layers but the configuration {diff_ids}")]
    LayerCount {
        /// In the manifest.
        layers: usize,
        /// In the configuration.
        diff_ids: usize,
    },
    /// An index without anything for the wanted platform.
    #[error("no image for platform {wanted}; available: {}", .available.join(", "))]
    NoPlatform {
        /// What was asked for.
        wanted: String,
        /// What there is.
        available: Vec<String>,
    },
}

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

/// The entry of `index` for `platform`; the first of several, as the specification asks.
///
/// # Errors
/// [`ManifestError::NoPlatform`], [`ManifestError::Digest`].
pub fn choose<'a>(
    index: &'a ImageIndex,
    platform: &Platform,
) -> Result<&'a Descriptor, ManifestError> {
    let usable = |d: &&Descriptor| known_manifest_type(d.media_type().as_ref());
    let found =
        index
            .manifests()
            .iter()
            .filter(usable)
            .find(|descriptor| match descriptor.platform() {
                Some(p) => platform.accepts(
                    &p.os().to_string(),
                    &p.architecture().to_string(),
                    p.variant().as_deref(),
                ),
                None => index.manifests().len() == 1,
            });
    if let Some(descriptor) = found {
        digest_of(descriptor)?;
        return Ok(descriptor);
    }
    let mut available: Vec<String> = index
        .manifests()
        .iter()
        .filter_map(|d| d.platform().as_ref())
        .map(|p| {
            let variant = p.variant().clone();
            Platform {
                os: p.os().to_string(),
                architecture: p.architecture().to_string(),
                variant,
            }
            .to_string()
        })
        // Attestations hide behind this platform.
        .filter(|text| text != "unknown/unknown")
        .take(100)
        .collect();
    available.dedup();
    if available.is_empty() {
        available.push("none".into());
    }
    Err(ManifestError::NoPlatform {
        wanted: platform.to_string(),
        available,
    })
}

/// A descriptor's digest as the only algorithm that the store knows.
pub(crate) fn digest_of(descriptor: &Descriptor) -> Result<Digest, ManifestError> {
    let text = descriptor.digest().as_ref();
    text.parse()
        .map_err(|_| ManifestError::Digest(text.chars().take(200).collect()))
}

/// Whether `media_type` names an index or a manifest list.
pub(crate) fn is_index_type(media_type: &str) -> bool {
    matches!(media_type, OCI_INDEX | DOCKER_INDEX)
}

fn known_manifest_type(media_type: &str) -> bool {
    is_index_type(media_type) || matches!(media_type, OCI_MANIFEST | DOCKER_MANIFEST)
}

/// Types that plain file servers give to everything.
fn generic_type(media_type: &str) -> bool {
    matches!(
        media_type,
        "application/json" | "text/plain" | "application/octet-stream" | ""
    )
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
mod tests {
    use super::*;

    fn manifest(layer_type: &str, config_type: &str, extra: &str) -> String {
        let hex = "a".repeat(64);
        format!(
            r#"{{"schemaVersion":2,"mediaType":"{OCI_MANIFEST}",{extra}
            "config":{{"mediaType":"{config_type}","digest":"sha256:{hex}","size":2}},
            "layers":[{{"mediaType":"{layer_type}","digest":"sha256:{hex}","size":3}}]}}"#
        )
    }

    #[test]
    fn docker_and_oci_types_are_both_images() {
        let oci = manifest(OCI_LAYER_ZSTD, OCI_CONFIG, "");
        assert!(matches!(
            parse_manifest(oci.as_bytes(), Some(OCI_MANIFEST)),
            Ok(Document::Manifest(_))
        ));
        let docker = manifest(
            "application/vnd.docker.image.rootfs.diff.tar.gzip",
            DOCKER_CONFIG,
            "",
        )
        .replace(OCI_MANIFEST, DOCKER_MANIFEST);
        assert!(matches!(
            parse_manifest(docker.as_bytes(), None),
            Ok(Document::Manifest(_))
        ));
    }

    #[test]
    fn what_is_no_image_is_named() {
        let parse = |text: String, t: Option<&str>| parse_manifest(text.as_bytes(), t).unwrap_err();
        let good = || manifest(OCI_LAYER, OCI_CONFIG, "");
        assert!(matches!(
            parse(manifest("text/x", OCI_CONFIG, ""), None),
            ManifestError::LayerMediaType { media_type, .. } if media_type == "text/x"
        ));
        assert!(
            matches!(parse(manifest(OCI_LAYER, "a/chart", ""), None), ManifestError::ConfigMediaType(t) if t == "a/chart")
        );
        assert!(matches!(
            parse(good(), Some("application/pdf")),
            ManifestError::MediaType(_)
        ));
        assert!(matches!(
            parse("<html>".into(), Some("text/html")),
            ManifestError::MediaType(_)
        ));
        assert!(matches!(
            parse("<html>".into(), None),
            ManifestError::Parse { .. }
        ));
        assert!(matches!(
            parse(r#"{"schemaVersion":1,"fsLayers":[]}"#.into(), None),
            ManifestError::Schema1
        ));
        assert!(matches!(
            parse(r#"{"schemaVersion":2}"#.into(), Some(SCHEMA_1[1])),
            ManifestError::Schema1
        ));
        assert!(matches!(
            parse(r#"{"schemaVersion":3,"layers":[]}"#.into(), None),
            ManifestError::SchemaVersion(3)
        ));
        assert!(matches!(
            parse(manifest(OCI_LAYER, OCI_CONFIG, r#""manifests":[],"#), None),
            ManifestError::AmbiguousDocument
        ));
        let untyped = good().replace(&format!(r#""mediaType":"{OCI_MANIFEST}","#), "");
        assert!(matches!(
            parse(untyped, Some(OCI_INDEX)),
            ManifestError::AmbiguousDocument
        ));
        let sha512 = good().replace(
            &format!("sha256:{}", "a".repeat(64)),
            &format!("sha512:{}", "a".repeat(128)),
        );
        assert!(matches!(parse(sha512, None), ManifestError::Digest(_)));
        let long = format!("{}{}", good(), " ".repeat(5 << 20));
        assert!(matches!(parse(long, None), ManifestError::TooLarge { .. }));
    }

    #[test]
    fn an_index_is_chosen_from_by_platform_and_says_what_it_has() {
        let entry = |arch: &str, c: &str| {
            format!(
                r#"{{"mediaType":"{OCI_MANIFEST}","digest":"sha256:{}","size":1,"platform":{{"os":"linux","architecture":"{arch}"}}}}"#,
                c.repeat(64)
            )
        };
        let text = format!(
            r#"{{"schemaVersion":2,"manifests":[{},{},{}]}}"#,
            entry("arm64", "a"),
            entry("amd64", "b"),
            entry("unknown", "c").replace("linux", "unknown")
        );
        let Document::Index(index) = parse_manifest(text.as_bytes(), Some(OCI_INDEX)).unwrap()
        else {
            panic!("not an index")
        };
        let platform = |text: &str| text.parse::<Platform>().unwrap();
        assert!(
            choose(&index, &platform("linux/amd64"))
                .unwrap()
                .digest()
                .as_ref()
                .ends_with('b')
        );
        let ManifestError::NoPlatform { available, .. } =
            choose(&index, &platform("linux/s390x")).unwrap_err()
        else {
            panic!("wrong error")
        };
        assert_eq!(available, ["linux/arm64", "linux/amd64"]);
    }

    #[test]
    fn a_configuration_with_nulls_as_go_writes_them_is_read() {
        let text = format!(
            r#"{{"architecture":"amd64","os":"linux","config":{{"Env":null,"Volumes":null,"ExposedPorts":null,
            "OnBuild":null,"Labels":null,"Healthcheck":{{}}}},"rootfs":{{"type":"layers","diff_ids":["sha256:{}"]}},
            "history":null}}"#,
            "0".repeat(64)
        );
        assert_eq!(
            diff_ids(&parse_config(text.as_bytes()).unwrap())
                .unwrap()
                .len(),
            1
        );
        assert!(parse_config(text.replace("sha256", "sha1").as_bytes()).is_err());
    }
}
