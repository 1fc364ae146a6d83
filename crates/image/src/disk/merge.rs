//! Layers on top of each other, as an overlay would show them (OCI image specification, "Applying changesets").

use std::collections::BTreeMap;

use crate::budget::{Budget, map_entry};
use crate::erofs::{Body, Inode, InodeId, Tree};
use crate::layer::{
    Attributes, Content, Found, LayerInode, LayerTree, Target, resolve, show, structure,
};

/// Why a layer does not fit onto those below it.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum MergeError {
    /// A hard link whose target is in none of the layers up to its own.
    #[error("hard link {name} points at {target}, which does not exist")]
    MissingTarget {
        /// The link's own name.
        name: String,
        /// The path it points at.
        target: String,
    },
    /// A hard link to a directory of a lower layer.
    #[error("hard link {name} points at the directory {target}")]
    LinkToDirectory {
        /// The link's own name.
        name: String,
        /// The path it points at.
        target: String,
    },
    /// The merged tree would take more memory than an image gets.
    #[error("{name} would take the image beyond the limit of {limit} bytes of memory")]
    Memory {
        /// The name at which the limit was passed.
        name: String,
        /// The limit.
        limit: u64,
    },
    /// More objects in all layers together than can be numbered.
    #[error("the image has more than 4 billion files")]
    TooMany,
}

/// The layers applied so far.
pub(super) struct Merged {
    tree: Tree,
    /// Of each directory, the one it is in.
    parents: Vec<InodeId>,
    parts: u32,
    /// For this tree and the layer that is read or applied.
    memory: Budget,
}

/// A directory of a layer whose contents are still to be put into one of the merged tree.
struct Step {
    upper: InodeId,
    lower: InodeId,
}

/// A directory that the layer uses without describing it, where the layers below have a symbolic link: if
/// the link leads to a directory, that one is meant.
struct Behind {
    upper: InodeId,
    parent: InodeId,
    name: Box<[u8]>,
}

/// A hard link whose target is not in the layer itself.
struct Link {
    parent: InodeId,
    name: Box<[u8]>,
    target: Box<[u8]>,
    /// What the layers below have there.
    found: Option<InodeId>,
}

/// One layer being applied.
struct Application {
    upper: Vec<Option<LayerInode>>,
    /// What has become of each of its inodes.
    merged: Vec<Option<InodeId>>,
    part: u32,
    steps: Vec<Step>,
    behind: Vec<Behind>,
    links: Vec<Link>,
    /// What the layers below have at the targets of links, looked up before anything is changed.
    targets: BTreeMap<Box<[u8]>, Option<InodeId>>,
}

impl Merged {
    pub(super) fn new(memory: Budget) -> Self {
        Self {
            tree: Tree {
                inodes: vec![Inode {
                    attributes: Attributes::implicit(),
                    body: Body::Directory(BTreeMap::new()),
                }],
            },
            parents: vec![0],
            parts: 0,
            memory,
        }
    }

    /// The memory that is left, from which the next layer's tree is to be taken before it is applied.
    pub(super) fn memory(&mut self) -> &mut Budget {
        &mut self.memory
    }

    pub(super) fn into_tree(self) -> (Tree, Budget) {
        (self.tree, self.memory)
    }

    /// Applies the next layer.
    pub(super) fn apply(&mut self, layer: LayerTree) -> Result<(), MergeError> {
        let structure = structure(&layer);
        let targets = self.lower_targets(&layer);
        let mut application = Application {
            merged: vec![None; layer.inodes.len()],
            upper: layer.inodes.into_iter().map(Some).collect(),
            part: self.parts,
            steps: vec![Step { upper: 0, lower: 0 }],
            behind: Vec::new(),
            links: Vec::new(),
            targets,
        };
        self.parts += 1;
        loop {
            while let Some(step) = application.steps.pop() {
                self.step(&mut application, step)?;
            }
            let Some(behind) = application.behind.pop() else {
                break;
            };
            let lower = match self.behind(&behind) {
                Some(directory) => directory,
                None => self.make_directory(behind.parent, behind.name)?,
            };
            application.steps.push(Step {
                upper: behind.upper,
                lower,
            });
        }
        for link in application.links {
            self.link(link)?;
        }
        // The layer's own nodes are gone; names, attributes and maps have moved into the merged tree.
        self.memory.release(structure);
        Ok(())
    }

    fn lower_targets(&self, layer: &LayerTree) -> BTreeMap<Box<[u8]>, Option<InodeId>> {
        let mut targets = BTreeMap::new();
        for inode in &layer.inodes {
            let Content::Directory { children, .. } = &inode.content else {
                continue;
            };
            for child in children.values() {
                if let Some(Target::LowerLink(path)) = &child.target {
                    targets
                        .entry(path.clone())
                        .or_insert_with(|| self.find(path));
                }
            }
        }
        targets
    }

    /// Puts the contents of one directory of the layer into the merged tree.
    fn step(&mut self, application: &mut Application, step: Step) -> Result<(), MergeError> {
        let Some(LayerInode {
            attributes,
            content:
                Content::Directory {
                    opaque,
                    implicit,
                    children,
                },
        }) = application.take(step.upper)
        else {
            return Ok(());
        };
        if let Some(lower) = self.tree.inodes.get_mut(step.lower as usize)
            && !implicit
        {
            lower.attributes = attributes;
        }
        if opaque && let Some(lower) = self.tree.children_mut(step.lower) {
            lower.clear();
        }
        for (name, child) in children {
            if child.whiteout
                && let Some(lower) = self.tree.children_mut(step.lower)
            {
                lower.remove(&name);
            }
            match child.target {
                None => {}
                Some(Target::LowerLink(target)) => application.links.push(Link {
                    parent: step.lower,
                    name,
                    found: application.targets.get(&target).copied().flatten(),
                    target,
                }),
                Some(Target::Inode(upper)) => {
                    self.child(application, step.lower, name, upper)?;
                }
            }
        }
        Ok(())
    }

    fn child(
        &mut self,
        application: &mut Application,
        parent: InodeId,
        name: Box<[u8]>,
        upper: InodeId,
    ) -> Result<(), MergeError> {
        match application.directory(upper) {
            Some(implicit) => {
                let existing = self.child_of(parent, &name);
                let lower = match existing.and_then(|id| Some((id, &self.tree.get(id)?.body))) {
                    Some((id, Body::Directory(_))) => id,
                    Some((_, Body::Symlink(_))) if implicit => {
                        application.behind.push(Behind {
                            upper,
                            parent,
                            name,
                        });
                        return Ok(());
                    }
                    _ => self.make_directory(parent, name)?,
                };
                application.steps.push(Step { upper, lower });
                Ok(())
            }
            None => {
                let id = match application.merged.get(upper as usize).copied().flatten() {
                    Some(id) => id,
                    None => {
                        let Some(inode) = application.take(upper) else {
                            return Ok(());
                        };
                        let id = self.add(convert(inode, application.part))?;
                        if let Some(place) = application.merged.get_mut(upper as usize) {
                            *place = Some(id);
                        }
                        id
                    }
                };
                self.insert(parent, name, id)
            }
        }
    }

    /// The directory that the symbolic link in the way leads to.
    fn behind(&self, behind: &Behind) -> Option<InodeId> {
        let trail = self.trail(behind.parent);
        let found = resolve(trail, &[&*behind.name], |directory, name| {
            self.lookup(directory, name)
        });
        found
            .ok()
            .filter(|found| found.missing.is_empty())
            .map(|found| found.directory)
    }

    /// The directories from the root to this one.
    fn trail(&self, mut directory: InodeId) -> Vec<InodeId> {
        let mut trail = vec![directory];
        while directory != 0 {
            directory = self.parents.get(directory as usize).copied().unwrap_or(0);
            trail.push(directory);
        }
        trail.reverse();
        trail
    }

    fn link(&mut self, link: Link) -> Result<(), MergeError> {
        let Some(id) = link.found.or_else(|| self.find(&link.target)) else {
            return Err(MergeError::MissingTarget {
                name: show(&link.name),
                target: show(&link.target),
            });
        };
        if self.tree.children(id).is_some() {
            return Err(MergeError::LinkToDirectory {
                name: show(&link.name),
                target: show(&link.target),
            });
        }
        self.insert(link.parent, link.name, id)
    }

    /// What is at `path`; links in its directory part are followed.
    fn find(&self, path: &[u8]) -> Option<InodeId> {
        let parts: Vec<&[u8]> = path.split(|byte| *byte == b'/').collect();
        let (name, above) = parts.split_last()?;
        let found = resolve(vec![0], above, |directory, name| {
            self.lookup(directory, name)
        })
        .ok()?;
        if !found.missing.is_empty() {
            return None;
        }
        self.child_of(found.directory, name)
    }

    fn lookup(&self, directory: InodeId, name: &[u8]) -> Found<'_, InodeId> {
        let Some(id) = self.child_of(directory, name) else {
            return Found::Missing;
        };
        match self.tree.get(id).map(|inode| &inode.body) {
            Some(Body::Directory(_)) => Found::Directory(id),
            Some(Body::Symlink(target)) => Found::Symlink(target),
            _ => Found::Other,
        }
    }

    fn child_of(&self, directory: InodeId, name: &[u8]) -> Option<InodeId> {
        self.tree.children(directory)?.get(name).copied()
    }

    fn make_directory(&mut self, parent: InodeId, name: Box<[u8]>) -> Result<InodeId, MergeError> {
        let id = self.add(Inode {
            attributes: Attributes::implicit(),
            body: Body::Directory(BTreeMap::new()),
        })?;
        self.insert(parent, name, id)?;
        if let Some(place) = self.parents.get_mut(id as usize) {
            *place = parent;
        }
        Ok(id)
    }

    fn add(&mut self, inode: Inode) -> Result<InodeId, MergeError> {
        let id = InodeId::try_from(self.tree.inodes.len()).map_err(|_| MergeError::TooMany)?;
        self.tree.inodes.push(inode);
        self.parents.push(0);
        Ok(id)
    }

    /// Names an inode; memory is taken for the name and, though it may have others, for the inode.
    fn insert(&mut self, parent: InodeId, name: Box<[u8]>, id: InodeId) -> Result<(), MergeError> {
        let Some(children) = self.tree.children_mut(parent) else {
            return Ok(());
        };
        let bytes = map_entry::<Box<[u8]>, InodeId>(children.len()) + INODE_COST;
        self.memory
            .charge(bytes)
            .map_err(|exceeded| MergeError::Memory {
                name: show(&name),
                limit: exceeded.limit,
            })?;
        children.insert(name, id);
        Ok(())
    }
}

/// What an inode takes in the merged tree.
const INODE_COST: u64 = (size_of::<Inode>() + size_of::<InodeId>()) as u64;

impl Application {
    fn take(&mut self, upper: InodeId) -> Option<LayerInode> {
        self.upper.get_mut(upper as usize)?.take()
    }

    /// Whether an inode is a directory, and if so whether an implicit one.
    fn directory(&self, upper: InodeId) -> Option<bool> {
        match &self.upper.get(upper as usize)?.as_ref()?.content {
            Content::Directory { implicit, .. } => Some(*implicit),
            _ => None,
        }
    }
}

fn convert(inode: LayerInode, part: u32) -> Inode {
    let body = match inode.content {
        Content::Directory { .. } => Body::Directory(BTreeMap::new()),
        Content::File { size, extents } => Body::File {
            size,
            part,
            extents,
        },
        Content::Symlink(target) => Body::Symlink(target),
        Content::CharDevice(major, minor) => Body::CharDevice(major, minor),
        Content::BlockDevice(major, minor) => Body::BlockDevice(major, minor),
        Content::Fifo => Body::Fifo,
    };
    Inode {
        attributes: inode.attributes,
        body,
    }
}
