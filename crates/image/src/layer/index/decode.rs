//! Bytes to tree, nothing believed.

use std::collections::BTreeMap;

use super::{CHECKED, FLAT, HEADER, MAGIC, VERSION, kind};
use crate::budget::{Budget, Exceeded, heap};
use crate::erofs::{crc32c, xattr_is_storable};
use crate::layer::data::MAX_CHUNK_BITS;
use crate::layer::name::is_component;
use crate::layer::tree::{
    Attributes, Child, Content, Extent, Extents, INODE_COST, LayerInode, LayerTree, Target,
    blocks_of,
};

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Problem {
    Memory(Exceeded),
    Version,
    Checksum,
    Invalid(&'static str),
}

use Problem::Invalid;

impl From<Exceeded> for Problem {
    fn from(exceeded: Exceeded) -> Self {
        Self::Memory(exceeded)
    }
}

pub(super) fn decode(bytes: &[u8], memory: &mut Budget) -> Result<LayerTree, Problem> {
    let mut cursor = Cursor { bytes };
    if cursor.take(8).ok() != Some(MAGIC) || cursor.u32().ok() != Some(VERSION) {
        return Err(Problem::Version);
    }
    let checksum = cursor.u32()?;
    if crc32c(u32::MAX, bytes.get(CHECKED..).unwrap_or_default()) != checksum {
        return Err(Problem::Checksum);
    }
    let data_blocks = cursor.u32()?;
    let inode_count = cursor.u32()?;
    let entry_count = cursor.u32()?;
    if cursor.u32()? != 0 || bytes.len() < HEADER {
        return Err(Invalid("unknown header field"));
    }
    let mut inodes = Vec::new();
    for _ in 0..inode_count {
        let inode = inode(&mut cursor, data_blocks)?;
        memory.charge(INODE_COST + inode.heap())?;
        inodes.push(inode);
    }
    let mut tree = LayerTree {
        inodes,
        data_blocks,
    };
    if tree.children(0).is_none() {
        return Err(Invalid("the root is not a directory"));
    }
    entries(&mut cursor, entry_count, &mut tree, memory)?;
    if !cursor.bytes.is_empty() {
        return Err(Invalid("bytes after the end"));
    }
    Ok(tree)
}

fn inode(cursor: &mut Cursor<'_>, data_blocks: u32) -> Result<LayerInode, Problem> {
    let code = cursor.u8()?;
    let flags = cursor.u8()?;
    let mode = cursor.u16()?;
    let uid = cursor.u32()?;
    let gid = cursor.u32()?;
    let mtime = cursor.u64()?.cast_signed();
    let mtime_nsec = cursor.u32()?;
    if mode > 0o7777 || mtime_nsec >= 1_000_000_000 {
        return Err(Invalid("mode or time out of range"));
    }
    let mut xattrs = BTreeMap::new();
    for _ in 0..cursor.u16()? {
        let name_length = cursor.u8()?;
        let value_length = cursor.u16()?;
        let name = cursor.take(name_length.into())?;
        let value = cursor.take(value_length.into())?;
        if !xattr_is_storable(name, value) || xattrs.insert(name.into(), value.into()).is_some() {
            return Err(Invalid("extended attribute"));
        }
    }
    let content = match code {
        kind::DIRECTORY if flags <= 3 => Content::Directory {
            opaque: flags & 1 != 0,
            implicit: flags & 2 != 0,
            children: BTreeMap::new(),
        },
        _ if flags != 0 => return Err(Invalid("unknown flag")),
        kind::FILE => file(cursor, data_blocks)?,
        kind::SYMLINK => {
            let length = cursor.u16()?;
            let target = cursor.take(length.into())?;
            if target.is_empty() || target.contains(&0) {
                return Err(Invalid("target of a symbolic link"));
            }
            Content::Symlink(target.into())
        }
        kind::CHAR_DEVICE | kind::BLOCK_DEVICE => {
            let (major, minor) = (cursor.u32()?, cursor.u32()?);
            if major >= 1 << 12 || minor >= 1 << 20 {
                return Err(Invalid("device number"));
            }
            if code == kind::CHAR_DEVICE {
                Content::CharDevice(major, minor)
            } else {
                Content::BlockDevice(major, minor)
            }
        }
        kind::FIFO => Content::Fifo,
        _ => return Err(Invalid("unknown kind of inode")),
    };
    Ok(LayerInode {
        attributes: Attributes {
            mode,
            uid,
            gid,
            mtime,
            mtime_nsec,
            xattrs,
        },
        content,
    })
}

fn file(cursor: &mut Cursor<'_>, data_blocks: u32) -> Result<Content, Problem> {
    let size = cursor.u64()?;
    let all = blocks_of(size);
    let within = |start: u32, blocks: u64| u64::from(start) + blocks <= u64::from(data_blocks);
    let chunk_bits = cursor.u8()?;
    if chunk_bits == FLAT {
        let block = cursor.u32()?;
        if all > u64::from(data_blocks) || !within(block, all) {
            return Err(Invalid("a file outside the layer's data"));
        }
        return Ok(Content::File {
            size,
            extents: Extents::Flat(block),
        });
    }
    if chunk_bits > MAX_CHUNK_BITS || size == 0 || size > 1 << 56 {
        return Err(Invalid("size of a sparse file"));
    }
    let chunk = 1u64 << chunk_bits;
    let mut runs = Vec::new();
    let mut end = 0;
    for _ in 0..cursor.u32()? {
        let run = Extent {
            file_block: cursor.u64()?,
            data_block: cursor.u32()?,
            blocks: cursor.u32()?,
        };
        let next = run.file_block.checked_add(run.blocks.into());
        let next = next.ok_or(Invalid("runs of a sparse file"))?;
        let aligned =
            run.file_block.is_multiple_of(chunk) && (next.is_multiple_of(chunk) || next == all);
        if run.blocks == 0
            || run.file_block < end
            || next > all
            || !aligned
            || !within(run.data_block, run.blocks.into())
        {
            return Err(Invalid("runs of a sparse file"));
        }
        end = next;
        runs.push(run);
    }
    Ok(Content::File {
        size,
        extents: Extents::Sparse {
            chunk_bits,
            runs: runs.into(),
        },
    })
}

fn entries(
    cursor: &mut Cursor<'_>,
    count: u32,
    tree: &mut LayerTree,
    memory: &mut Budget,
) -> Result<(), Problem> {
    let mut named = vec![false; tree.inodes.len()];
    if let Some(root) = named.first_mut() {
        *root = true;
    }
    for _ in 0..count {
        let directory = cursor.u32()?;
        let flags = cursor.u8()?;
        let code = cursor.u8()?;
        let name_length = cursor.u8()?;
        let name = cursor.take(name_length.into())?;
        if flags > 1 || !is_component(name) {
            return Err(Invalid("name of an entry"));
        }
        let target = match code {
            0 if flags == 1 => None,
            1 => {
                let id = cursor.u32()?;
                let seen = named
                    .get_mut(id as usize)
                    .ok_or(Invalid("number of an inode"))?;
                let is_directory = tree.children(id).is_some();
                if id == 0 || is_directory && (*seen || id <= directory) {
                    return Err(Invalid("a directory with two names"));
                }
                *seen = true;
                Some(Target::Inode(id))
            }
            2 => {
                let length = cursor.u16()?;
                let path = cursor.take(length.into())?;
                if !path.split(|byte| *byte == b'/').all(is_component) {
                    return Err(Invalid("target of a hard link"));
                }
                Some(Target::LowerLink(path.into()))
            }
            _ => return Err(Invalid("unknown kind of entry")),
        };
        let child = Child {
            whiteout: flags == 1,
            target,
        };
        let children = tree
            .children_mut(directory)
            .ok_or(Invalid("an entry in what is not a directory"))?;
        let in_order = children
            .last_key_value()
            .is_none_or(|(last, _)| **last < *name);
        if !in_order {
            return Err(Invalid("entries out of order"));
        }
        let target = child.target.as_ref().map_or(0, Target::heap);
        memory.charge(Child::cost(children.len()) + heap(name.len()) + target)?;
        children.insert(name.into(), child);
    }
    if named.contains(&false) {
        return Err(Invalid("an inode without a name"));
    }
    Ok(())
}

struct Cursor<'a> {
    bytes: &'a [u8],
}

impl<'a> Cursor<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8], Problem> {
        let (head, rest) = self
            .bytes
            .split_at_checked(count)
            .ok_or(Invalid("it ends too early"))?;
        self.bytes = rest;
        Ok(head)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Problem> {
        let (head, rest) = self
            .bytes
            .split_first_chunk::<N>()
            .ok_or(Invalid("it ends too early"))?;
        self.bytes = rest;
        Ok(*head)
    }

    fn u8(&mut self) -> Result<u8, Problem> {
        self.array::<1>().map(u8::from_le_bytes)
    }

    fn u16(&mut self) -> Result<u16, Problem> {
        self.array().map(u16::from_le_bytes)
    }

    fn u32(&mut self) -> Result<u32, Problem> {
        self.array().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Result<u64, Problem> {
        self.array().map(u64::from_le_bytes)
    }
}
