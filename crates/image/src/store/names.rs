//! Giving images their names.

use std::collections::{HashMap, HashSet};

use bulkhead_types::Digest;
use oci_spec::image::Descriptor;

use super::index::{name_of, repo_digests_of, same_manifest, set_names};
use super::{Image, Store, StoreError};
use crate::manifest::digest_of;
use crate::reference::Reference;

impl Store {
    /// Gives `image` the name `name` too; another image that had it loses it.
    ///
    /// # Errors
    /// [`StoreError::TagHasDigest`], [`StoreError::NotFound`] where the image went meanwhile.
    pub fn tag(&self, image: &Image, name: &Reference) -> Result<(), StoreError> {
        if name.digest().is_some() {
            return Err(StoreError::TagHasDigest(name.familiar()));
        }
        self.update_index(|entries| {
            let source = entries
                .iter()
                .find(|entry| same_manifest(entry, &image.manifest_digest))
                .cloned();
            let Some(mut descriptor) = source else {
                return Err(StoreError::NotFound(image.display_name()));
            };
            set_names(&mut descriptor, None, &[]);
            put_entries(entries, &descriptor, &[name], None);
            Ok(())
        })
    }

    /// Records an image whose blobs are all here under all of `names`, or under none, and returns it. `repo_digest` is a digest that the caller
    /// compared with the bytes of the manifest, or of the index that led to it.
    ///
    /// A name with a digest is what a user trusts without looking: it is given only where the digest is the
    /// manifest's own or the one that the caller vouches for.
    pub(crate) fn put_image(
        &self,
        descriptor: Descriptor,
        names: &[&Reference],
        repo_digest: Option<&Reference>,
    ) -> Result<Image, StoreError> {
        let vouched = repo_digest.and_then(Reference::digest);
        let is_false = |name: &&&Reference| {
            name.digest().is_some_and(|digest| {
                !same_manifest(&descriptor, digest) && vouched != Some(digest)
            })
        };
        if let Some(name) = names.iter().find(is_false) {
            return Err(StoreError::FalseDigest {
                name: name.familiar(),
                actual: digest_of(&descriptor).map_err(|source| StoreError::Document {
                    digest: Digest::from_bytes([0; 32]),
                    source,
                })?,
            });
        }
        // An image that cannot be read, or whose layers do not fit together, must never be recorded. The disk
        // is wanted by the first run anyway.
        let mut image = self.load_image(&descriptor)?;
        let listed = digest_of(&descriptor).unwrap_or_else(|_| image.manifest_digest.clone());
        self.disk(&image)?;
        self.update_index(|entries| {
            put_entries(entries, &descriptor, names, repo_digest);
            image.add_names(entries.iter().filter(|entry| same_manifest(entry, &listed)));
            Ok(())
        })?;
        Ok(image)
    }

    /// The image that has each of these names now.
    pub(crate) fn holders(&self, names: &[Reference]) -> Result<Vec<Option<Digest>>, StoreError> {
        let wanted: HashSet<&Reference> = names.iter().collect();
        let index = self.load_index()?;
        let mut found: HashMap<Reference, Option<Digest>> = HashMap::new();
        for entry in index.manifests() {
            if let Some(name) = name_of(entry).filter(|name| wanted.contains(name)) {
                let id = self.load_image(entry).ok().map(|image| image.id);
                found.entry(name).or_insert(id);
            }
        }
        Ok(names
            .iter()
            .map(|name| found.get(name).cloned().flatten())
            .collect())
    }

    /// Remembers that a registry knows the image by this digest.
    pub(crate) fn add_repo_digest(
        &self,
        name: &Reference,
        manifest: &Digest,
        at: &Reference,
    ) -> Result<(), StoreError> {
        self.update_index(|entries| {
            let by_name = entries.iter_mut().find(|entry| {
                same_manifest(entry, manifest) && name_of(entry).as_ref() == Some(name)
            });
            if let Some(entry) = by_name {
                let mut known = repo_digests_of(entry);
                if !known.contains(at) {
                    known.push(at.clone());
                }
                let name = name_of(entry);
                set_names(entry, name.as_ref(), &known);
            }
            Ok(())
        })
    }
}

/// Gives the image of `descriptor` these names, or a nameless entry where there is none and it has none. One pass,
/// however many names: an archive may bring thousands.
fn put_entries(
    entries: &mut Vec<Descriptor>,
    descriptor: &Descriptor,
    names: &[&Reference],
    repo_digest: Option<&Reference>,
) {
    let Ok(digest) = digest_of(descriptor) else {
        return;
    };
    if names.is_empty() && entries.iter().any(|entry| same_manifest(entry, &digest)) {
        return;
    }
    let wanted: HashSet<&Reference> = names.iter().copied().collect();
    let mut known: HashMap<Reference, Vec<Reference>> = HashMap::new();
    let mut bereft = Vec::new();
    entries.retain(|entry| {
        let mine = same_manifest(entry, &digest);
        match name_of(entry) {
            Some(name) if wanted.contains(&name) => {
                if mine {
                    known.insert(name, repo_digests_of(entry));
                } else {
                    bereft.push(entry.clone());
                }
                false
            }
            // A nameless entry for the same image has got a name now.
            None => names.is_empty() || !mine,
            Some(_) => true,
        }
    });
    // An image that had one of the names stays, nameless, until it is pruned.
    let mut kept: HashSet<Digest> = entries.iter().filter_map(|e| digest_of(e).ok()).collect();
    for mut old in bereft {
        if digest_of(&old).is_ok_and(|digest| kept.insert(digest)) {
            let repo_digests = repo_digests_of(&old);
            set_names(&mut old, None, &repo_digests);
            entries.push(old);
        }
    }
    let mut put = |name: Option<&Reference>| {
        let mut known = name.and_then(|name| known.remove(name)).unwrap_or_default();
        if let Some(at) = repo_digest
            && !known.contains(at)
        {
            known.push(at.clone());
        }
        let mut entry = descriptor.clone();
        set_names(&mut entry, name, &known);
        entries.push(entry);
    };
    if names.is_empty() {
        put(None);
    }
    let mut done = HashSet::new();
    for name in names.iter().filter(|name| done.insert(**name)) {
        put(Some(name));
    }
}
