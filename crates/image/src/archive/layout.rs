//! OCI image layouts, in a directory or in a tar archive.

use std::collections::HashMap;

use bulkhead_types::{Digest, GuestText};
use oci_spec::image::{Descriptor, ImageConfiguration, ImageIndex, ImageManifest};

use super::error::ArchiveError;
use super::load::Reporter;
use super::source::Source;
use crate::manifest::{
    self, CONFIG_MAX, Document, MANIFEST_MAX, ManifestError, Search, digest_of, known_manifest_type,
};
use crate::platform::Platform;
use crate::progress::Progress;
use crate::reference::{Reference, ReferenceError};
use crate::store::{Image, Store, describe, name_of, stated_name};

pub(super) const INDEX: &str = "index.json";

pub(super) fn load(
    store: &Store,
    source: &Source,
    wanted: Option<&Platform>,
    progress: &dyn Progress,
    reporter: &mut Reporter<'_>,
) -> Result<(), ArchiveError> {
    let bytes = source.document(store, INDEX, MANIFEST_MAX)?;
    let index: ImageIndex =
        manifest::parse_json("index", &bytes, MANIFEST_MAX).map_err(ArchiveError::parse(INDEX))?;
    let host = Platform::host();
    let platform = wanted.unwrap_or(&host);
    let best = best_ranks(&index, platform);
    let layout = Layout {
        store,
        source,
        platform,
        wanted,
        progress,
    };
    manifest::count("index", index.manifests().len()).map_err(ArchiveError::parse(INDEX))?;
    reporter.expect(index.manifests().len());
    for entry in index.manifests() {
        let name = name_of(entry);
        let what = name
            .as_ref()
            .map_or_else(|| entry.digest().to_string(), Reference::familiar);
        if let Err(error) = refuse_identifier(entry) {
            reporter.refuse(&what, error)?;
            continue;
        }
        if let Some(stated) = Platform::of_entry(entry) {
            match rank(platform, &stated) {
                None => {
                    let available = vec![stated.to_string()];
                    let source = ManifestError::NoPlatform {
                        wanted: platform.to_string(),
                        available,
                    };
                    let name = file_name(entry);
                    reporter.refuse(&what, ArchiveError::Document { name, source })?;
                    continue;
                }
                Some(rank) if best.get(&name).is_some_and(|best| *best < rank) => {
                    reporter.refuse(&what, ArchiveError::BetterFit)?;
                    continue;
                }
                Some(_) => {}
            }
        }
        let names: Vec<Reference> = name.into_iter().collect();
        reporter.take(store, &what, &names, || {
            layout.load_one(entry, names.first())
        })?;
    }
    Ok(())
}

/// An identifier as a name is never given, and said: whoever wrote it there wants this image to be found in the place of
/// another. Other texts that are no names of ours are taken for none, since the specification allows more than Docker.
fn refuse_identifier(entry: &Descriptor) -> Result<(), ArchiveError> {
    let text = stated_name(entry).unwrap_or_default();
    match text.parse::<Reference>() {
        Err(source @ ReferenceError::DigestAlgorithm { .. }) => Err(ArchiveError::BadTag {
            name: text.chars().take(200).collect(),
            source: Some(source),
        }),
        _ => Ok(()),
    }
}

fn rank(platform: &Platform, stated: &Platform) -> Option<usize> {
    platform.rank(&stated.os, &stated.architecture, stated.variant.as_deref())
}

/// How well the best image of each name fits, where several platforms are listed side by side; those without a name
/// are one image too.
fn best_ranks(index: &ImageIndex, platform: &Platform) -> HashMap<Option<Reference>, usize> {
    let mut best = HashMap::new();
    for entry in index.manifests() {
        let stated = Platform::of_entry(entry);
        if let Some(rank) = stated.and_then(|stated| rank(platform, &stated)) {
            let known = best.entry(name_of(entry)).or_insert(rank);
            *known = rank.min(*known);
        }
    }
    best
}

fn file_name(entry: &Descriptor) -> GuestText {
    let text = entry.digest().as_ref().replace(':', "/");
    GuestText::start(&format!("blobs/{text}"), 200)
}

struct Layout<'a> {
    store: &'a Store,
    source: &'a Source,
    platform: &'a Platform,
    /// The platform, where somebody asked for it.
    wanted: Option<&'a Platform>,
    progress: &'a dyn Progress,
}

/// An image's documents and where the manifest is.
struct Found {
    digest: Digest,
    size: u64,
    manifest: ImageManifest,
    config: ImageConfiguration,
}

impl Layout<'_> {
    fn load_one(
        &self,
        entry: &Descriptor,
        name: Option<&Reference>,
    ) -> Result<Image, ArchiveError> {
        let found = self.find(entry)?;
        let document = |source| ArchiveError::Document {
            name: file_name(entry),
            source,
        };
        let layers = manifest::layers_of(&found.manifest, &found.config).map_err(document)?;
        for (blob, diff_id) in layers {
            let digest = digest_of(&blob).map_err(document)?;
            self.source.named_blob(self.store, &digest, self.progress)?;
            let outcome = self.store.ensure_layer(&blob, &diff_id, self.progress)?;
            self.progress.finish(&digest.short(), outcome);
        }
        let stated = found
            .manifest
            .media_type()
            .as_ref()
            .map(ToString::to_string);
        let media_type = stated.as_deref().unwrap_or(manifest::OCI_MANIFEST);
        let descriptor = describe(media_type, &found.digest, found.size)?;
        // The digest of an index or manifest whose bytes were compared with it: a name with this very digest says
        // the truth. `put_image` refuses any other.
        let verified = match name {
            Some(name) if name.digest().is_some() => {
                Some(name.at(digest_of(entry).map_err(document)?))
            }
            _ => None,
        };
        Ok(self
            .store
            .put_image(descriptor, name.as_slice(), verified.as_ref())?)
    }

    /// Follows an entry to the image for the platform.
    fn find(&self, entry: &Descriptor) -> Result<Found, ArchiveError> {
        let index = match self.document(entry)? {
            (digest, size, Document::Manifest(manifest)) => {
                let found = self.image(entry, digest, size, *manifest)?;
                if entry.platform().is_none() {
                    let name = || file_name(entry);
                    manifest::check_platform(&found.config, self.wanted).map_err(|source| {
                        ArchiveError::Document {
                            name: name(),
                            source,
                        }
                    })?;
                }
                return Ok(found);
            }
            (.., Document::Index(index)) => index,
        };
        let mut search = Search::new(&index, self.platform);
        let mut missing = None;
        loop {
            let candidate = match search.next() {
                Ok(candidate) => candidate,
                Err(source) => {
                    return Err(missing.unwrap_or_else(|| ArchiveError::Document {
                        name: file_name(entry),
                        source,
                    }));
                }
            };
            let entry = &candidate.descriptor;
            match self.document(entry) {
                Ok((.., Document::Index(index))) => search.descend(&candidate, &index),
                Ok((digest, size, Document::Manifest(manifest))) => {
                    let found = self.image(entry, digest, size, *manifest)?;
                    if search.fits(&candidate, &found.config) {
                        return Ok(found);
                    }
                }
                // Tools copy an index with only some of its images.
                Err(error @ ArchiveError::Missing(_)) => {
                    missing.get_or_insert(error);
                }
                Err(ArchiveError::Document { source, .. }) if source.is_no_image() => {
                    search.refuse(source);
                }
                Err(error) => return Err(error),
            }
        }
    }

    fn document(&self, entry: &Descriptor) -> Result<(Digest, u64, Document), ArchiveError> {
        let document = |source| ArchiveError::Document {
            name: file_name(entry),
            source,
        };
        // Something else than an image need not even be JSON.
        let media_type = entry.media_type().as_ref();
        if !known_manifest_type(media_type) {
            let media_type = GuestText::start(media_type, 200);
            return Err(document(ManifestError::MediaType(media_type)));
        }
        let digest = digest_of(entry).map_err(document)?;
        let size = self.source.named_blob(self.store, &digest, self.progress)?;
        let bytes = self.store.read_blob(&digest, MANIFEST_MAX)?;
        let parsed = manifest::parse_manifest(&bytes, None).map_err(document)?;
        Ok((digest, size, parsed))
    }

    fn image(
        &self,
        entry: &Descriptor,
        digest: Digest,
        size: u64,
        manifest: ImageManifest,
    ) -> Result<Found, ArchiveError> {
        let document = |source| ArchiveError::Document {
            name: file_name(entry),
            source,
        };
        let config_digest = digest_of(manifest.config()).map_err(document)?;
        self.source
            .named_blob(self.store, &config_digest, self.progress)?;
        let bytes = self.store.read_blob(&config_digest, CONFIG_MAX)?;
        let config = manifest::parse_config(&bytes).map_err(document)?;
        Ok(Found {
            digest,
            size,
            manifest,
            config,
        })
    }
}
