//! Taking names and images away, by Docker's rules: a name goes, and the image with its last name.

use std::collections::BTreeSet;

use bulkhead_types::Digest;

use super::index::{name_of, repo_digests_of, same_manifest, set_names};
use super::{Image, Partials, Store, StoreError};
use crate::reference::Reference;

/// A container's claim on an image, as the engine knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageUse {
    /// The image's ID.
    pub image: Digest,
    /// The container, as messages should name it.
    pub container: String,
    /// A running container's image cannot be removed by force either.
    pub running: bool,
}

/// What a removal did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Removed {
    /// A name went.
    Untagged(Reference),
    /// The image went, with this ID.
    Deleted(Digest),
}

/// Which images `prune` takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PruneFilter {
    /// Those without a name.
    Dangling,
    /// Also those that no container uses.
    Unused,
}

/// What pruning did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Pruned {
    /// Names and images that went.
    pub removed: Vec<Removed>,
    /// Bytes of the store's files that went.
    pub reclaimed: u64,
}

impl Store {
    /// Removes a name, or by identifier an image with all its names.
    ///
    /// `uses` is asked while no new container can come to rely on an image (see [`Store::lease`]); when it
    /// cannot answer, nothing is removed. An image that a container uses keeps its content, without a name,
    /// even by force.
    ///
    /// # Errors
    /// [`StoreError::InUse`], [`StoreError::ManyNames`], those of [`Store::resolve`] and those of `uses`.
    pub fn remove<E: From<StoreError>>(
        &self,
        target: &str,
        force: bool,
        uses: &dyn Fn() -> Result<Vec<ImageUse>, E>,
    ) -> Result<Vec<Removed>, E> {
        let removed = {
            let _lease = self.lock("lease")?;
            let image = self.resolve(target)?;
            let name = target
                .parse::<Reference>()
                .ok()
                .filter(|name| image.names.contains(name));
            let users: Vec<ImageUse> = uses()?
                .into_iter()
                .filter(|one| one.image == image.id)
                .collect();
            let going = self.names_going(&image, name, target, force, &users)?;
            self.forget(&image, &going, !users.is_empty())?
        };
        self.tidy();
        self.renew_reserve();
        Ok(removed)
    }

    /// Decides which names go, or why none may.
    fn names_going(
        &self,
        image: &Image,
        name: Option<Reference>,
        target: &str,
        force: bool,
        users: &[ImageUse],
    ) -> Result<Vec<Reference>, StoreError> {
        let in_use = |user: &ImageUse| StoreError::InUse {
            image: image.id.short(),
            container: user.container.clone(),
            running: user.running,
        };
        match name {
            // One of several names: the image stays.
            Some(name) if image.names.len() > 1 => Ok(vec![name]),
            Some(name) => match users.first() {
                Some(user) if !force => Err(StoreError::NameInUse {
                    name: target.to_owned(),
                    image: image.id.short(),
                    container: user.container.clone(),
                }),
                _ => Ok(vec![name]),
            },
            None => {
                let running = users.iter().find(|one| one.running);
                let stopped = users.first().filter(|_| !force);
                if let Some(user) = running.or(stopped) {
                    return Err(in_use(user));
                }
                let repositories: BTreeSet<String> =
                    image.names.iter().map(Reference::name).collect();
                if repositories.len() > 1 && !force {
                    return Err(StoreError::ManyNames {
                        image: image.id.short(),
                        names: image.names.iter().map(Reference::familiar).collect(),
                    });
                }
                Ok(image.names.clone())
            }
        }
    }

    /// Takes `going` from the index, and the image too when no name is left and nothing keeps it.
    fn forget(
        &self,
        image: &Image,
        going: &[Reference],
        keep: bool,
    ) -> Result<Vec<Removed>, StoreError> {
        self.update_index(|entries| {
            let mut removed: Vec<Removed> = Vec::new();
            let mine = |entry: &oci_spec::image::Descriptor| {
                same_manifest(entry, &image.manifest_digest)
                    || self
                        .load_image(entry)
                        .is_ok_and(|other| other.id == image.id)
            };
            let (mine, mut rest): (Vec<_>, Vec<_>) = entries.drain(..).partition(mine);
            let mut left = Vec::new();
            let mut nameless = None;
            for mut entry in mine {
                match name_of(&entry) {
                    Some(name) if !going.contains(&name) => left.push(entry),
                    name => {
                        removed.extend(name.map(Removed::Untagged));
                        let repo_digests = repo_digests_of(&entry);
                        set_names(&mut entry, None, &repo_digests);
                        nameless = Some(entry);
                    }
                }
            }
            if left.is_empty() {
                match nameless {
                    Some(entry) if keep => rest.push(entry),
                    _ => removed.push(Removed::Deleted(image.id.clone())),
                }
            }
            rest.append(&mut left);
            *entries = rest;
            Ok(removed)
        })
    }

    /// Removes images that nobody needs; `also` narrows the choice, and `uses` is as for [`Store::remove`].
    ///
    /// # Errors
    /// [`StoreError::Io`], [`StoreError::Index`], and those of `uses`.
    pub fn prune<E: From<StoreError>>(
        &self,
        filter: PruneFilter,
        uses: &dyn Fn() -> Result<Vec<ImageUse>, E>,
        also: &dyn Fn(&Image) -> bool,
    ) -> Result<Pruned, E> {
        let mut pruned = Pruned::default();
        {
            let _lease = self.lock("lease")?;
            let used: BTreeSet<Digest> = uses()?.into_iter().map(|one| one.image).collect();
            for image in self.images()? {
                let wanted = filter == PruneFilter::Unused || image.names.is_empty();
                if wanted && !used.contains(&image.id) && also(&image) {
                    pruned
                        .removed
                        .extend(self.forget(&image, &image.names, false)?);
                }
            }
        }
        pruned.reclaimed = self.sweep_now(Partials::None, 20)?;
        self.renew_reserve();
        Ok(pruned)
    }
}
