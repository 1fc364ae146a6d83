//! Where everything goes: sizes first, then places, so that it can be written in one pass.
//!
//! ```text
//! block 0   superblock at 1024, then inodes, each followed by its attributes and by what is stored inline:
//!           the end of a directory, a symbolic link's target, a sparse file's map
//! then      whole directory blocks, and targets that do not fit inline
//! then      attributes that inodes share
//! ```
//!
//! The inodes of one directory's entries lie together, in order of name, so that listing or searching a directory
//! reads few blocks.

use std::collections::HashMap;

use super::directory;
use super::format::{
    BLOCK, CHUNK_BASED, COMPACT_INODE, EXTENDED_INODE, FLAT_INLINE, FLAT_PLAIN, SLOT, SUPER_OFFSET,
    SUPER_SIZE,
};
use super::tree::{Body, Inode, InodeId, Tree};
use super::xattr::{Shared, count_field};
use crate::budget::{Budget, Exceeded};
use crate::layer::{BLOCK_SIZE, Extents};

/// Why a tree cannot be written.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum LayoutError {
    /// More blocks than 32-bit addresses reach.
    #[error("the image is larger than 16 TiB")]
    TooLarge,
    /// The metadata would take more memory than an image gets.
    #[error("{path} would take the image's metadata beyond the limit of {limit} bytes of memory")]
    Memory {
        /// The file at which the limit was passed.
        path: String,
        /// The limit.
        limit: u64,
    },
    /// An inode has more extended attributes than the format takes.
    #[error("the extended attributes of {path} take more than 256 KiB")]
    Xattrs {
        /// The file.
        path: String,
    },
    /// The tree is none: a name without an inode, or a directory with two names.
    #[error("the merged tree is inconsistent at {path}")]
    Inconsistent {
        /// The directory.
        path: String,
    },
}

/// One inode's place.
#[derive(Debug, Clone, Copy)]
pub(super) struct Placed {
    pub(super) id: InodeId,
    /// Offset of the inode in the image, in bytes.
    pub(super) offset: usize,
    pub(super) extended: bool,
    pub(super) data_layout: u16,
    /// Of directories and targets stored in blocks of their own.
    pub(super) first_block: u32,
    pub(super) size: u64,
    pub(super) nlink: u32,
    /// Of a directory.
    pub(super) parent: InodeId,
}

/// All places.
pub(super) struct Layout<'a> {
    /// In order of their offsets.
    pub(super) placed: Vec<Placed>,
    /// Of each inode of the tree, its offset; zero for those that no directory names.
    pub(super) offsets: Vec<usize>,
    pub(super) shared: Shared<'a>,
    pub(super) shared_block: u32,
    /// Blocks of metadata in all.
    pub(super) blocks: u32,
    /// The commonest time of modification: inodes that have it can be compact.
    pub(super) time: (i64, u32),
}

/// The order of inodes, and how many names each has.
struct Order {
    ids: Vec<InodeId>,
    parents: Vec<InodeId>,
    links: Vec<u32>,
}

/// What the lists made here take for an inode of the tree: a [`Placed`], an offset, and four numbers of 32 bits.
const PLACE_COST: u64 = size_of::<Placed>() as u64 + size_of::<usize>() as u64 + 16;

pub(super) fn layout<'t>(tree: &'t Tree, memory: &mut Budget) -> Result<Layout<'t>, LayoutError> {
    let whole = |exceeded: Exceeded| LayoutError::Memory {
        path: "/".to_owned(),
        limit: exceeded.limit,
    };
    memory
        .charge(tree.inodes.len() as u64 * PLACE_COST)
        .map_err(whole)?;
    let order = order(tree)?;
    let reachable = || order.ids.iter().filter_map(|id| tree.get(*id));
    let shared = Shared::choose(reachable().map(|inode| &inode.attributes), memory);
    let shared = shared.map_err(whole)?;
    let time = commonest_time(reachable());

    let mut placed = Vec::with_capacity(order.ids.len());
    let mut offsets = vec![0; tree.inodes.len()];
    let mut next = SUPER_OFFSET + SUPER_SIZE;
    for &id in &order.ids {
        let Some(inode) = tree.get(id) else { continue };
        let size = size(inode);
        let nlink = link(&order.links, id);
        let extended = !is_compact(inode, size, nlink, time);
        let xattrs = shared.inline(&inode.attributes).len();
        if count_field(xattrs).is_none() {
            return Err(LayoutError::Xattrs {
                path: path(tree, &order, id),
            });
        }
        let fixed = xattrs
            + if extended {
                EXTENDED_INODE
            } else {
                COMPACT_INODE
            };
        let (data_layout, inline) = choose(inode, size, fixed);
        let whole = fixed + inline;
        // Inline data must not cross a block boundary; neither should an inode, to be read at once. A map may.
        let unbroken = if data_layout == CHUNK_BASED {
            fixed
        } else {
            whole
        };
        let room = BLOCK - next % BLOCK;
        let mut skipped = 0;
        if unbroken > room && unbroken <= BLOCK {
            skipped = room;
            next += room;
        }
        if let Some(place) = offsets.get_mut(id as usize) {
            *place = next;
        }
        placed.push(Placed {
            id,
            offset: next,
            extended,
            data_layout,
            first_block: 0,
            size,
            nlink,
            parent: link(&order.parents, id),
        });
        let before = next;
        next = (next + whole).next_multiple_of(SLOT);
        // The image is made in memory. What lies in blocks of its own is counted where it is said to be.
        let blocks = match &inode.body {
            Body::Directory(_) | Body::Symlink(_) => size.next_multiple_of(BLOCK_SIZE),
            _ => 0,
        };
        let grown = (next - before) as u64 + skipped as u64 + blocks;
        memory
            .charge(grown)
            .map_err(|exceeded| LayoutError::Memory {
                path: path(tree, &order, id),
                limit: exceeded.limit,
            })?;
    }

    let mut block = block_number(next.div_ceil(BLOCK))?;
    for inode in &mut placed {
        let stored = match tree.get(inode.id).map(|inode| &inode.body) {
            Some(Body::Directory(_) | Body::Symlink(_)) => inode.size,
            _ => 0,
        };
        let blocks = if inode.data_layout == FLAT_INLINE {
            stored / BLOCK_SIZE
        } else {
            stored.div_ceil(BLOCK_SIZE)
        };
        if blocks > 0 {
            inode.first_block = block;
            block = u32::try_from(blocks)
                .ok()
                .and_then(|blocks| block.checked_add(blocks))
                .ok_or(LayoutError::TooLarge)?;
        }
    }
    let shared_block = block;
    let blocks = block
        .checked_add(block_number(shared.bytes.len().div_ceil(BLOCK))?)
        .ok_or(LayoutError::TooLarge)?;
    Ok(Layout {
        placed,
        offsets,
        shared,
        shared_block,
        blocks,
        time,
    })
}

fn block_number(value: usize) -> Result<u32, LayoutError> {
    u32::try_from(value).map_err(|_| LayoutError::TooLarge)
}

fn link(values: &[u32], id: InodeId) -> u32 {
    values.get(id as usize).copied().unwrap_or(0)
}

/// Directory by directory, the entries of each together.
fn order(tree: &Tree) -> Result<Order, LayoutError> {
    let count = tree.inodes.len();
    let mut order = Order {
        ids: vec![0],
        parents: vec![0; count],
        links: vec![0; count],
    };
    if tree.children(0).is_none() {
        return Err(LayoutError::Inconsistent {
            path: "/".to_owned(),
        });
    }
    let mut seen = vec![false; count];
    if let Some(root) = seen.first_mut() {
        *root = true;
    }
    let mut directories = vec![0];
    while let Some(directory) = directories.pop() {
        let mut links = 2;
        let mut below = Vec::new();
        for &child in tree
            .children(directory)
            .into_iter()
            .flatten()
            .map(|(_, id)| id)
        {
            let is_directory = tree.children(child).is_some();
            let Some(seen) = seen
                .get_mut(child as usize)
                .filter(|seen| !(is_directory && **seen))
            else {
                return Err(LayoutError::Inconsistent {
                    path: path(tree, &order, directory),
                });
            };
            if !*seen {
                *seen = true;
                order.ids.push(child);
                if let Some(parent) = order.parents.get_mut(child as usize) {
                    *parent = directory;
                }
            }
            if is_directory {
                links += 1;
                below.push(child);
            } else if let Some(links) = order.links.get_mut(child as usize) {
                *links += 1;
            }
        }
        if let Some(place) = order.links.get_mut(directory as usize) {
            *place = links;
        }
        directories.extend(below.into_iter().rev());
    }
    Ok(order)
}

fn commonest_time<'a>(inodes: impl Iterator<Item = &'a Inode>) -> (i64, u32) {
    let mut counts: HashMap<(i64, u32), usize> = HashMap::new();
    for inode in inodes {
        let time = (inode.attributes.mtime, inode.attributes.mtime_nsec);
        *counts.entry(time).or_default() += 1;
    }
    // Of equally common ones the earliest, whatever order the map has.
    let best = counts
        .into_iter()
        .max_by_key(|(time, count)| (*count, std::cmp::Reverse(*time)));
    best.map_or((0, 0), |(time, _)| time)
}

fn is_compact(inode: &Inode, size: u64, nlink: u32, time: (i64, u32)) -> bool {
    let attributes = &inode.attributes;
    (attributes.mtime, attributes.mtime_nsec) == time
        && u16::try_from(attributes.uid).is_ok()
        && u16::try_from(attributes.gid).is_ok()
        && u16::try_from(nlink).is_ok()
        && u32::try_from(size).is_ok()
}

fn size(inode: &Inode) -> u64 {
    match &inode.body {
        Body::Directory(children) => directory::size(names(children.keys().map(|name| &**name))),
        Body::File { size, .. } => *size,
        Body::Symlink(target) => target.len() as u64,
        Body::CharDevice(..) | Body::BlockDevice(..) | Body::Fifo => 0,
    }
}

/// A directory's names as stored: `.` and `..` in their places in the order.
pub(super) fn names<'a>(
    children: impl Iterator<Item = &'a [u8]>,
) -> impl Iterator<Item = &'a [u8]> {
    let mut children = children.peekable();
    let mut dots = [&b"."[..], b".."].into_iter().peekable();
    std::iter::from_fn(move || match (dots.peek(), children.peek()) {
        (Some(dot), Some(child)) if *child < *dot => children.next(),
        (Some(_), _) => dots.next(),
        (None, _) => children.next(),
    })
}

/// How an inode's contents are stored, and how many bytes that puts right behind the inode.
fn choose(inode: &Inode, size: u64, fixed: usize) -> (u16, usize) {
    match &inode.body {
        Body::Directory(_) | Body::Symlink(_) => {
            let tail = (size % BLOCK_SIZE) as usize;
            if tail > 0 && fixed + tail <= BLOCK {
                (FLAT_INLINE, tail)
            } else {
                (FLAT_PLAIN, 0)
            }
        }
        Body::File {
            extents: Extents::Sparse { chunk_bits, .. },
            ..
        } => (CHUNK_BASED, 4 * chunks(size, *chunk_bits) as usize),
        _ => (FLAT_PLAIN, 0),
    }
}

/// Entries in a sparse file's map.
pub(super) fn chunks(size: u64, chunk_bits: u8) -> u64 {
    size.div_ceil(BLOCK_SIZE << chunk_bits)
}

fn path(tree: &Tree, order: &Order, id: InodeId) -> String {
    let mut parts = Vec::new();
    let mut id = id;
    while id != 0 && parts.len() < 64 {
        let parent = link(&order.parents, id);
        let name = tree
            .children(parent)
            .into_iter()
            .flatten()
            .find_map(|(name, child)| (*child == id).then_some(&**name));
        parts.push(name.unwrap_or(b"?"));
        id = parent;
    }
    parts.reverse();
    crate::layer::show(&[&b"/"[..], &parts.join(&b'/')].concat())
}
