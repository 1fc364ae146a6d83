//! The rules by which one archive entry after the other changes a layer's tree.
//!
//! Later entries win over earlier ones; whiteouts only ever speak about lower layers, wherever in the archive
//! they stand; parents that no entry describes come into being; parents that are symbolic links of this layer
//! are followed within the layer.

use std::collections::btree_map::Entry;

use super::name::{components, show};
use super::resolve::{Found, ResolveProblem, resolve};
use super::tree::{
    Attributes, Child, Content, Extents, INODE_COST, InodeId, LayerInode, LayerTree, Target,
    implicit_directory,
};
use super::{BLOCK_SIZE, LayerError, Limits, index};
use crate::budget::{Budget, heap};

/// A tree under construction.
pub(super) struct TreeBuilder {
    pub(super) tree: LayerTree,
    max_entries: u64,
    entries: u64,
    max_path: usize,
    memory: Budget,
}

/// An entry's place: the parts of its parent's path, and its own name.
pub(super) struct Place<'a> {
    pub(super) parent: &'a [&'a [u8]],
    pub(super) name: &'a [u8],
    /// As the archive has it, for messages.
    pub(super) full: &'a [u8],
}

impl TreeBuilder {
    pub(super) fn new(limits: &Limits) -> Self {
        Self {
            tree: LayerTree::new(),
            max_entries: limits.max_entries,
            entries: 0,
            max_path: limits.max_path,
            memory: limits.memory.clone(),
        }
    }

    /// Names seen, directories that came into being by themselves included.
    pub(super) fn entries(&self) -> u64 {
        self.entries
    }

    /// Counts one more name against the limit.
    pub(super) fn count(&mut self, entry: &[u8]) -> Result<(), LayerError> {
        self.entries += 1;
        if self.entries > self.max_entries {
            return Err(LayerError::TooMuch {
                entry: show(entry),
                limit: self.max_entries,
                what: "entries",
            });
        }
        Ok(())
    }

    /// Takes memory for what an entry leaves in the tree.
    fn charge(&mut self, bytes: u64, entry: &[u8]) -> Result<(), LayerError> {
        self.memory
            .charge(bytes)
            .map_err(|exceeded| LayerError::Memory {
                entry: show(entry),
                limit: exceeded.limit,
            })
    }

    /// Describes a directory that is there. What it had before is not given back: an archive that says it again and
    /// again is no honest one.
    fn describe(
        &mut self,
        id: InodeId,
        attributes: Attributes,
        entry: &[u8],
    ) -> Result<(), LayerError> {
        let Some(inode) = self.tree.inodes.get_mut(id as usize) else {
            return Ok(());
        };
        inode.describe(attributes);
        let bytes = inode.heap() + index::stored(inode);
        self.charge(bytes, entry)
    }

    pub(super) fn set_root(
        &mut self,
        attributes: Attributes,
        entry: &[u8],
    ) -> Result<(), LayerError> {
        self.describe(0, attributes, entry)
    }

    /// Puts an object at its place. A directory that is there already keeps its contents.
    pub(super) fn place(&mut self, at: &Place<'_>, inode: LayerInode) -> Result<(), LayerError> {
        let parent = self.directory(at.parent, at.full)?;
        if matches!(inode.content, Content::Directory { .. })
            && let Some(existing) = self.subdirectory(parent, at.name)
        {
            return self.describe(existing, inode.attributes, at.full);
        }
        let id = self.add(inode, at.full)?;
        self.set_target(parent, at.name, Target::Inode(id), at.full)
    }

    /// Gives an existing object one more name.
    pub(super) fn hard_link(&mut self, at: &Place<'_>, target: &[u8]) -> Result<(), LayerError> {
        let bad_target = |source| LayerError::BadLinkTarget {
            entry: show(at.full),
            target: show(target),
            source,
        };
        let parts = components(target, self.max_path).map_err(bad_target)?;
        let Some((last, above)) = parts.split_last() else {
            return Err(bad_target(super::NameProblem::Empty));
        };
        let found = self.resolve(above, at.full)?;
        let existing = if found.missing.is_empty() {
            self.tree
                .children(found.directory)
                .and_then(|children| children.get(*last))
                .and_then(|child| child.target.clone())
        } else {
            None
        };
        let target = match existing {
            Some(Target::Inode(id)) if self.tree.children(id).is_some() => {
                return Err(LayerError::LinkToDirectory {
                    entry: show(at.full),
                    target: show(target),
                });
            }
            Some(existing) => existing,
            // Not in this layer (yet): it is up to the layers below.
            None => Target::LowerLink(parts.join(&b'/').into()),
        };
        let parent = self.directory(at.parent, at.full)?;
        self.set_target(parent, at.name, target, at.full)
    }

    pub(super) fn whiteout(&mut self, at: &Place<'_>) -> Result<(), LayerError> {
        let parent = self.directory(at.parent, at.full)?;
        self.charge_name(parent, at.name, None, at.full)?;
        if let Some(children) = self.tree.children_mut(parent) {
            children.entry(at.name.into()).or_default().whiteout = true;
        }
        Ok(())
    }

    pub(super) fn opaque(&mut self, directory: &[&[u8]], full: &[u8]) -> Result<(), LayerError> {
        let id = self.directory(directory, full)?;
        if let Some(LayerInode {
            content: Content::Directory { opaque, .. },
            ..
        }) = self.tree.inodes.get_mut(id as usize)
        {
            *opaque = true;
        }
        Ok(())
    }

    fn resolve(
        &self,
        path: &[&[u8]],
        entry: &[u8],
    ) -> Result<super::resolve::Resolution<InodeId>, LayerError> {
        resolve(vec![0], path, |directory, name| {
            lookup(&self.tree, directory, name)
        })
        .map_err(|source| bad_parent(entry, source))
    }

    /// The directory at `path`, made where it is missing.
    fn directory(&mut self, path: &[&[u8]], entry: &[u8]) -> Result<InodeId, LayerError> {
        let found = self.resolve(path, entry)?;
        let mut directory = found.directory;
        for name in &found.missing {
            self.count(entry)?;
            let inode = LayerInode {
                attributes: Attributes::implicit(),
                content: implicit_directory(),
            };
            let id = self.add(inode, entry)?;
            self.set_target(directory, name, Target::Inode(id), entry)?;
            directory = id;
        }
        Ok(directory)
    }

    fn subdirectory(&self, parent: InodeId, name: &[u8]) -> Option<InodeId> {
        match lookup(&self.tree, parent, name) {
            Found::Directory(id) => Some(id),
            _ => None,
        }
    }

    /// Adds an inode; charged is also what it will take in the index and, of a sparse file, in the disk's map.
    fn add(&mut self, inode: LayerInode, entry: &[u8]) -> Result<InodeId, LayerError> {
        let map = match &inode.content {
            Content::File {
                size,
                extents: Extents::Sparse { chunk_bits, .. },
            } => 4 * size.div_ceil(BLOCK_SIZE << chunk_bits),
            _ => 0,
        };
        self.charge(
            INODE_COST + inode.heap() + index::stored(&inode) + map,
            entry,
        )?;
        let id = self.tree.inodes.len();
        self.tree.inodes.push(inode);
        // The limit on entries, itself far below u32::MAX inodes, is checked before anything is added.
        Ok(InodeId::try_from(id).unwrap_or(InodeId::MAX))
    }

    /// Takes memory for a name, unless its directory has it; and for what it stands for.
    fn charge_name(
        &mut self,
        parent: InodeId,
        name: &[u8],
        target: Option<&Target>,
        entry: &[u8],
    ) -> Result<(), LayerError> {
        let mut bytes = target.map_or(0, Target::heap);
        match self.tree.children(parent) {
            Some(children) if !children.contains_key(name) => {
                bytes += Child::cost(children.len()) + heap(name.len()) + index::stored_name(name);
            }
            _ => {}
        }
        self.charge(bytes, entry)
    }

    fn set_target(
        &mut self,
        parent: InodeId,
        name: &[u8],
        target: Target,
        full: &[u8],
    ) -> Result<(), LayerError> {
        self.charge_name(parent, name, Some(&target), full)?;
        let Some(children) = self.tree.children_mut(parent) else {
            return Ok(());
        };
        match children.entry(name.into()) {
            Entry::Occupied(mut entry) => entry.get_mut().target = Some(target),
            Entry::Vacant(entry) => {
                entry.insert(Child {
                    whiteout: false,
                    target: Some(target),
                });
            }
        }
        Ok(())
    }
}

impl LayerInode {
    fn describe(&mut self, attributes: Attributes) {
        self.attributes = attributes;
        if let Content::Directory { implicit, .. } = &mut self.content {
            *implicit = false;
        }
    }
}

fn lookup<'t>(tree: &'t LayerTree, directory: InodeId, name: &[u8]) -> Found<'t, InodeId> {
    let child = tree
        .children(directory)
        .and_then(|children| children.get(name))
        .and_then(|child| child.target.as_ref());
    match child {
        None => Found::Missing,
        Some(Target::LowerLink(_)) => Found::Other,
        Some(Target::Inode(id)) => {
            match tree.inodes.get(*id as usize).map(|inode| &inode.content) {
                Some(Content::Directory { .. }) => Found::Directory(*id),
                Some(Content::Symlink(target)) => Found::Symlink(target),
                _ => Found::Other,
            }
        }
    }
}

fn bad_parent(entry: &[u8], source: ResolveProblem) -> LayerError {
    LayerError::BadParent {
        entry: show(entry),
        source,
    }
}
