//! Giving images their names.

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
            put_entry(entries, descriptor, Some(name), None);
            Ok(())
        })
    }

    /// Records an image whose blobs are all here, and returns it. `repo_digest` is a digest that the caller
    /// compared with the bytes of the manifest, or of the index that led to it.
    ///
    /// A name with a digest is what a user trusts without looking: it is given only where the digest is the
    /// manifest's own or the one that the caller vouches for.
    pub(crate) fn put_image(
        &self,
        descriptor: Descriptor,
        name: Option<&Reference>,
        repo_digest: Option<&Reference>,
    ) -> Result<Image, StoreError> {
        if let Some(name) = name
            && let Some(digest) = name.digest()
            && !same_manifest(&descriptor, digest)
            && repo_digest.and_then(Reference::digest) != Some(digest)
        {
            return Err(StoreError::FalseDigest {
                name: name.familiar(),
                actual: digest_of(&descriptor).unwrap_or_else(|_| digest.clone()),
            });
        }
        // An image that cannot be read, or whose layers do not fit together, must never be recorded. The disk
        // is wanted by the first run anyway.
        let image = self.load_image(&descriptor)?;
        self.disk(&image)?;
        self.update_index(|entries| {
            put_entry(entries, descriptor, name, repo_digest);
            Ok(())
        })?;
        match name {
            Some(name) => self.resolve(&name.to_string()),
            None => Ok(image),
        }
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

fn put_entry(
    entries: &mut Vec<Descriptor>,
    mut descriptor: Descriptor,
    name: Option<&Reference>,
    repo_digest: Option<&Reference>,
) {
    let Ok(digest) = digest_of(&descriptor) else {
        return;
    };
    let mut known: Vec<Reference> = Vec::new();
    if let Some(name) = name {
        if let Some(at) = entries
            .iter()
            .position(|entry| name_of(entry).as_ref() == Some(name))
        {
            let mut old = entries.remove(at);
            if same_manifest(&old, &digest) {
                known = repo_digests_of(&old);
            } else if !entries
                .iter()
                .any(|entry| digest_of(entry).is_ok_and(|d| same_manifest(&old, &d)))
            {
                // The image that had this name stays, nameless, until it is pruned.
                let repo_digests = repo_digests_of(&old);
                set_names(&mut old, None, &repo_digests);
                entries.push(old);
            }
        }
        // A nameless entry for the same image has got a name now.
        entries.retain(|entry| !(same_manifest(entry, &digest) && name_of(entry).is_none()));
    } else if entries.iter().any(|entry| same_manifest(entry, &digest)) {
        return;
    }
    if let Some(at) = repo_digest
        && !known.contains(at)
    {
        known.push(at.clone());
    }
    set_names(&mut descriptor, name, &known);
    entries.push(descriptor);
}
