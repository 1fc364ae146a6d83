//! From an index to the image for a platform: entries tried in the order in which they fit.
//!
//! An index may hold indexes, and entries may leave their platform out. As in containerd (`images.Manifest`), entries
//! whose platform fits come first, the best fit before all, and what says no platform after them: the configuration
//! of such an image tells. Whoever has the documents drives the search, so that a registry, an archive and the store
//! search alike.

use bulkhead_types::Digest;
use oci_spec::image::{Descriptor, ImageConfiguration, ImageIndex};

use super::digest_of;
use super::error::ManifestError;
use super::media::known_manifest_type;
use crate::platform::Platform;

/// Indexes within indexes are followed this deep; image builders stop at one, hand-made layouts at two.
pub(crate) const DEPTH_MAX: usize = 4;
/// Documents that one search reads. An honest index needs one, or one for each entry without a platform.
const DOCUMENTS_MAX: usize = 64;
/// Platforms that an error lists.
const LISTED_MAX: usize = 100;

/// An entry of an index that may lead to the image.
#[derive(Debug)]
pub(crate) struct Candidate {
    pub(crate) descriptor: Descriptor,
    /// Whether the index says that its platform fits; else the image's configuration has to say so.
    pub(crate) stated: bool,
    depth: usize,
}

/// A search under way.
#[derive(Debug)]
pub(crate) struct Search<'a> {
    platform: &'a Platform,
    /// The next one is the last.
    open: Vec<Candidate>,
    read: usize,
    available: Vec<String>,
    refused: Option<ManifestError>,
}

impl<'a> Search<'a> {
    /// Begins with the outermost index.
    pub(crate) fn new(index: &ImageIndex, platform: &'a Platform) -> Self {
        let mut search = Self {
            platform,
            open: Vec::new(),
            read: 0,
            available: Vec::new(),
            refused: None,
        };
        search.take(index, 0);
        search
    }

    /// The entry whose document is to be read next.
    ///
    /// # Errors
    /// When none is left: [`ManifestError::NoPlatform`], or why the first one that looked right was
    /// [refused](Self::refuse); [`ManifestError::SearchTooLong`].
    pub(crate) fn next(&mut self) -> Result<Candidate, ManifestError> {
        while let Some(candidate) = self.open.pop() {
            if let Err(error) = digest_of(&candidate.descriptor) {
                self.refuse(error);
                continue;
            }
            self.read += 1;
            if self.read > DOCUMENTS_MAX {
                return Err(ManifestError::SearchTooLong {
                    wanted: self.platform.to_string(),
                    limit: DOCUMENTS_MAX,
                });
            }
            return Ok(candidate);
        }
        if let Some(error) = self.refused.take() {
            return Err(error);
        }
        let mut available = std::mem::take(&mut self.available);
        available.dedup();
        if available.is_empty() {
            available.push("none".into());
        }
        Err(ManifestError::NoPlatform {
            wanted: self.platform.to_string(),
            available,
        })
    }

    /// Goes on inside `index`, which is what the candidate turned out to be.
    pub(crate) fn descend(&mut self, candidate: &Candidate, index: &ImageIndex) {
        if candidate.depth < DEPTH_MAX {
            self.take(index, candidate.depth + 1);
        } else {
            self.refuse(ManifestError::TooDeep(DEPTH_MAX));
        }
    }

    /// Whether the image that the candidate turned out to be is the one; the search goes on otherwise.
    pub(crate) fn fits(&mut self, candidate: &Candidate, config: &ImageConfiguration) -> bool {
        let fits = candidate.stated || self.platform.accepts_image(config);
        if !fits {
            self.list(Platform::of_image(config));
        }
        fits
    }

    /// The candidate is no image; said where nothing better is found.
    pub(crate) fn refuse(&mut self, error: ManifestError) {
        self.refused.get_or_insert(error);
    }

    fn take(&mut self, index: &ImageIndex, depth: usize) {
        let mut fitting: Vec<(usize, &Descriptor)> = Vec::new();
        for entry in index.manifests() {
            if !known_manifest_type(entry.media_type().as_ref()) {
                continue;
            }
            let Some(platform) = Platform::of_entry(entry) else {
                fitting.push((usize::MAX, entry));
                continue;
            };
            let variant = platform.variant.as_deref();
            match self
                .platform
                .rank(&platform.os, &platform.architecture, variant)
            {
                Some(rank) => fitting.push((rank, entry)),
                None => self.list(platform),
            }
        }
        // The first of several is taken, as the specification asks: the sort keeps their order.
        fitting.sort_by_key(|(rank, _)| *rank);
        let candidates = fitting.into_iter().rev().map(|(rank, entry)| Candidate {
            descriptor: entry.clone(),
            stated: rank != usize::MAX,
            depth,
        });
        self.open.extend(candidates);
    }

    fn list(&mut self, platform: Platform) {
        // Attestations hide behind this platform.
        let text = platform.to_string();
        if text != "unknown/unknown" && self.available.len() < LISTED_MAX {
            self.available.push(text);
        }
    }
}

/// The digests that a search reads when every entry of `index` turns out to be `index` itself. For the fuzz target of
/// indexes, which has no other documents.
#[doc(hidden)]
pub fn digests_searched(index: &ImageIndex, platform: &Platform) -> Vec<Digest> {
    let mut search = Search::new(index, platform);
    let mut read = Vec::new();
    while let Ok(candidate) = search.next() {
        read.extend(digest_of(&candidate.descriptor));
        search.descend(&candidate, index);
    }
    read
}
