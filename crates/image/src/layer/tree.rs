//! The tree of one layer.
//!
//! Inodes and names are apart, because hard links give one inode several names. Inode 0 is the root directory.

use std::collections::BTreeMap;

use super::BLOCK_SIZE;
use crate::budget::{heap, map, map_entry};

/// Number of an inode in its tree.
pub type InodeId = u32;

/// What every file system object has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attributes {
    /// Permission bits with set-uid, set-gid and sticky (`0o7777`).
    pub mode: u16,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Time of last modification, seconds since 1970.
    pub mtime: i64,
    /// Nanoseconds of that time, below 1,000,000,000.
    pub mtime_nsec: u32,
    /// Extended attributes by full name, such as `security.capability`.
    pub xattrs: BTreeMap<Box<[u8]>, Box<[u8]>>,
}

impl Attributes {
    /// What a directory gets that an archive uses but never describes: root's, `0755`.
    pub fn implicit() -> Self {
        Self {
            mode: 0o755,
            uid: 0,
            gid: 0,
            mtime: 0,
            mtime_nsec: 0,
            xattrs: BTreeMap::new(),
        }
    }
}

/// A run of a sparse file's contents.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extent {
    /// Where in the file it begins, in blocks.
    pub file_block: u64,
    /// Where in the layer's data it begins, in blocks.
    pub data_block: u32,
    /// How long it is, in blocks.
    pub blocks: u32,
}

/// Where a file's contents are in the layer's data.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Extents {
    /// In one run that begins at this block. An empty file has one too, of no length.
    Flat(u32),
    /// In pieces, with holes between them.
    Sparse {
        /// Every piece begins at a multiple of `4096 << chunk_bits` bytes of the file, and ends at one or at
        /// the file's end.
        chunk_bits: u8,
        /// In order of `file_block`, not touching.
        runs: Box<[Extent]>,
    },
}

/// What an inode is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    /// A directory.
    Directory {
        /// Nothing of the lower layers shows in it.
        opaque: bool,
        /// No entry describes it: where a lower layer has it, that one's attributes stay.
        implicit: bool,
        /// What this layer has or hides in it.
        children: BTreeMap<Box<[u8]>, Child>,
    },
    /// A regular file.
    File {
        /// In bytes.
        size: u64,
        /// Where they are.
        extents: Extents,
    },
    /// A symbolic link and its target.
    Symlink(Box<[u8]>),
    /// A character device: major, minor.
    CharDevice(u32, u32),
    /// A block device: major, minor.
    BlockDevice(u32, u32),
    /// A named pipe.
    Fifo,
}

/// An object of a layer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LayerInode {
    /// Owner, mode, times, extended attributes.
    pub attributes: Attributes,
    /// The rest.
    pub content: Content,
}

/// What a layer says about one name in a directory.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Child {
    /// What lower layers have under this name is hidden.
    pub whiteout: bool,
    /// What this layer has under this name.
    pub target: Option<Target>,
}

/// What a name stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// An inode of this layer.
    Inode(InodeId),
    /// A hard link to this path of the lower layers.
    LowerLink(Box<[u8]>),
}

/// One layer: its inodes, of which the first is the root directory, and the size of its data.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LayerTree {
    /// By number.
    pub inodes: Vec<LayerInode>,
    /// Length of the data blob, in blocks.
    pub data_blocks: u32,
}

impl LayerTree {
    /// A layer that changes nothing.
    pub fn new() -> Self {
        Self {
            inodes: vec![LayerInode {
                attributes: Attributes::implicit(),
                content: implicit_directory(),
            }],
            data_blocks: 0,
        }
    }

    /// The names of a directory; nothing for anything else.
    pub fn children(&self, inode: InodeId) -> Option<&BTreeMap<Box<[u8]>, Child>> {
        match &self.inodes.get(inode as usize)?.content {
            Content::Directory { children, .. } => Some(children),
            _ => None,
        }
    }

    pub(super) fn children_mut(
        &mut self,
        inode: InodeId,
    ) -> Option<&mut BTreeMap<Box<[u8]>, Child>> {
        match &mut self.inodes.get_mut(inode as usize)?.content {
            Content::Directory { children, .. } => Some(children),
            _ => None,
        }
    }
}

impl LayerInode {
    /// What the inode takes in memory beside its place in the tree: attributes, target, map.
    pub(crate) fn heap(&self) -> u64 {
        self.attributes.heap()
            + match &self.content {
                Content::Symlink(target) => heap(target.len()),
                Content::File { extents, .. } => extents.heap(),
                _ => 0,
            }
    }
}

impl Attributes {
    fn heap(&self) -> u64 {
        let contents: u64 = self
            .xattrs
            .iter()
            .map(|(name, value)| heap(name.len()) + heap(value.len()))
            .sum();
        contents + map::<Box<[u8]>, Box<[u8]>>(self.xattrs.len())
    }
}

impl Extents {
    fn heap(&self) -> u64 {
        match self {
            Self::Flat(_) => 0,
            Self::Sparse { runs, .. } => heap(size_of_val::<[Extent]>(runs)),
        }
    }
}

impl Child {
    /// What one more entry takes in the map of a directory that has `entries`.
    pub(crate) fn cost(entries: usize) -> u64 {
        map_entry::<Box<[u8]>, Self>(entries)
    }
}

impl Target {
    /// What it takes beside its place. A link to the layers below waits, with its path, until its layer is applied.
    pub(crate) fn heap(&self) -> u64 {
        match self {
            Self::Inode(_) => 0,
            Self::LowerLink(path) => 2 * heap(path.len()) + 112,
        }
    }
}

/// What the inodes of a tree and the maps of its directories take. Names, attributes, targets and extents are not
/// among it: they move into the merged tree.
pub(crate) fn structure(tree: &LayerTree) -> u64 {
    let maps: u64 = tree
        .inodes
        .iter()
        .map(|inode| match &inode.content {
            Content::Directory { children, .. } => map::<Box<[u8]>, Child>(children.len()),
            _ => 0,
        })
        .sum();
    maps + tree.inodes.len() as u64 * INODE_COST
}

/// What an inode takes in the tree, and in the list of what has become of it when its layer is applied.
pub(crate) const INODE_COST: u64 = size_of::<LayerInode>() as u64 + 8;

impl Default for LayerTree {
    fn default() -> Self {
        Self::new()
    }
}

pub(super) fn implicit_directory() -> Content {
    Content::Directory {
        opaque: false,
        implicit: true,
        children: BTreeMap::new(),
    }
}

/// Blocks that `bytes` bytes take.
pub(crate) fn blocks_of(bytes: u64) -> u64 {
    bytes.div_ceil(BLOCK_SIZE)
}
