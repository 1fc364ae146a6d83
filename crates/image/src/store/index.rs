//! `index.json`: which manifests the store keeps, and under which names.
//!
//! One descriptor per name. `org.opencontainers.image.ref.name` has the familiar name, so that
//! `skopeo inspect oci:PATH:debian:bookworm` and `umoci unpack --image PATH:debian:bookworm` take
//! what a user would type; `io.containerd.image.name` has the full one. A descriptor without either is an
//! image that lost its names. Descriptors that other tools add are taken as they are.

use std::collections::HashMap;
use std::fs;
use std::io;

use bulkhead_types::Digest;
use oci_spec::image::{Descriptor, ImageIndex, ImageIndexBuilder, MediaType};

use super::{Store, StoreError, io_error};
use crate::kind::ErrorKind;
use crate::manifest::{OCI_INDEX, digest_of};
use crate::reference::Reference;

pub(super) const REF_NAME: &str = "org.opencontainers.image.ref.name";
pub(super) const IMAGE_NAME: &str = "io.containerd.image.name";
/// Repository and digest that a registry knows the image by; space-separated where several.
pub(crate) const REPO_DIGEST: &str = "io.bulkhead.image.repo-digest";

impl Store {
    pub(super) fn load_index(&self) -> Result<ImageIndex, StoreError> {
        let path = self.layout_dir().join("index.json");
        match fs::read(&path) {
            Ok(bytes) => {
                serde_json::from_slice(&bytes).map_err(|source| StoreError::Index { path, source })
            }
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(empty()),
            Err(source) => Err(io_error("read", &path)(source)),
        }
    }

    /// Changes the index under its lock; nothing is written where `change` fails or changes nothing.
    pub(super) fn update_index<T>(
        &self,
        change: impl FnOnce(&mut Vec<Descriptor>) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let _lock = self.lock("index")?;
        let path = self.layout_dir().join("index.json");
        let mut index = self.load_index()?;
        let mut manifests = index.manifests().clone();
        let result = change(&mut manifests)?;
        if manifests != *index.manifests() || !path.exists() {
            index.set_manifests(manifests);
            let bytes = serde_json::to_vec(&index).map_err(|source| StoreError::Index {
                path: path.clone(),
                source,
            })?;
            let shrinks = fs::metadata(&path).is_ok_and(|old| old.len() >= bytes.len() as u64);
            match self.replace_file(&path, &bytes) {
                // Removing must work where nothing else does; what adds something may not use the reserve up.
                Err(error)
                    if shrinks
                        && error.kind() == ErrorKind::NoSpace
                        && self.replace_from_reserve(&path, &bytes)? => {}
                other => other?,
            }
            self.keep_reserve();
        }
        Ok(result)
    }
}

fn empty() -> ImageIndex {
    let mut index = ImageIndexBuilder::default()
        .schema_version(2u32)
        .manifests(Vec::new())
        .build()
        .unwrap_or_default();
    index.set_media_type(Some(MediaType::from(OCI_INDEX)));
    index
}

/// The name of a descriptor; Docker's rules complete what other tools wrote.
pub(crate) fn name_of(descriptor: &Descriptor) -> Option<Reference> {
    stated_name(descriptor)?.parse().ok()
}

/// The name of a descriptor as it is written there, which need not be one by Docker's rules.
pub(crate) fn stated_name(descriptor: &Descriptor) -> Option<&str> {
    let annotations = descriptor.annotations().as_ref()?;
    let text = annotations
        .get(IMAGE_NAME)
        .or_else(|| annotations.get(REF_NAME))?;
    Some(text)
}

/// Names that this descriptor's image has in registries, by digest.
pub(super) fn repo_digests_of(descriptor: &Descriptor) -> Vec<Reference> {
    let annotations = descriptor.annotations().as_ref();
    let text = annotations
        .and_then(|a| a.get(REPO_DIGEST))
        .map_or("", String::as_str);
    text.split(' ').filter_map(|one| one.parse().ok()).collect()
}

/// Replaces a descriptor's name and registry digests, and keeps its other annotations.
pub(crate) fn set_names(
    descriptor: &mut Descriptor,
    name: Option<&Reference>,
    repo_digests: &[Reference],
) {
    let mut annotations: HashMap<String, String> =
        descriptor.annotations().clone().unwrap_or_default();
    for key in [REF_NAME, IMAGE_NAME, REPO_DIGEST] {
        annotations.remove(key);
    }
    if let Some(name) = name {
        annotations.insert(REF_NAME.into(), name.familiar());
        annotations.insert(IMAGE_NAME.into(), name.to_string());
    }
    if !repo_digests.is_empty() {
        let list: Vec<String> = repo_digests.iter().map(Reference::to_string).collect();
        annotations.insert(REPO_DIGEST.into(), list.join(" "));
    }
    descriptor.set_annotations((!annotations.is_empty()).then_some(annotations));
}

/// A bare descriptor for content with a known digest.
pub(crate) fn describe(
    media_type: &str,
    digest: &Digest,
    size: u64,
) -> Result<Descriptor, StoreError> {
    // Both types hold the same text; the foreign one cannot be built from ours without parsing.
    let text = digest.to_string();
    let parsed = oci_spec::image::Digest::try_from(text.as_str());
    let digest = parsed.map_err(|_| StoreError::Document {
        digest: digest.clone(),
        source: crate::manifest::ManifestError::Digest(text.into()),
    })?;
    Ok(Descriptor::new(MediaType::from(media_type), size, digest))
}

pub(super) fn same_manifest(a: &Descriptor, b: &Digest) -> bool {
    digest_of(a).is_ok_and(|digest| digest == *b)
}
