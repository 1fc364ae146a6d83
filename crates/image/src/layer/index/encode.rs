//! Tree to bytes.

use std::io::{self, Write};

use super::{FLAT, HEADER, MAGIC, VERSION, kind};
use crate::erofs::crc32c;
use crate::layer::tree::{Child, Content, Extents, InodeId, LayerInode, LayerTree, Target};

/// Writes what can be reached from the root; what later entries of the archive replaced is left behind. Nothing of the
/// index's size is held in memory but the inodes' numbers. Returns the checksum, which belongs into the header, where
/// zeros are written.
pub(super) fn encode(tree: &LayerTree, out: &mut impl Write) -> io::Result<u32> {
    let mut numbers: Vec<Option<u32>> = vec![None; tree.inodes.len()];
    let mut order: Vec<InodeId> = vec![0];
    if let Some(root) = numbers.first_mut() {
        *root = Some(0);
    }
    let mut entry_count = 0u32;
    let mut next = 0;
    while let Some(&id) = order.get(next) {
        next += 1;
        for child in tree
            .children(id)
            .into_iter()
            .flatten()
            .map(|(_, child)| child)
        {
            entry_count += 1;
            if let Some(Target::Inode(id)) = child.target {
                let slot = numbers.get_mut(id as usize).ok_or_else(overflow)?;
                if slot.is_none() {
                    *slot = Some(length(order.len())?);
                    order.push(id);
                }
            }
        }
    }

    let mut bytes = Vec::with_capacity(HEADER);
    bytes.extend_from_slice(MAGIC);
    bytes.extend_from_slice(&VERSION.to_le_bytes());
    bytes.extend_from_slice(&[0; 4]);
    out.write_all(&bytes)?;
    let mut out = Checked {
        out,
        checksum: u32::MAX,
    };
    bytes.clear();
    bytes.extend_from_slice(&tree.data_blocks.to_le_bytes());
    bytes.extend_from_slice(&length(order.len())?.to_le_bytes());
    bytes.extend_from_slice(&entry_count.to_le_bytes());
    bytes.extend_from_slice(&[0; 4]);
    out.put(&mut bytes)?;
    for id in &order {
        let one = tree.inodes.get(*id as usize).ok_or_else(overflow)?;
        inode(&mut bytes, one)?;
        out.put(&mut bytes)?;
    }
    for (directory, id) in order.iter().enumerate() {
        for (name, child) in tree.children(*id).into_iter().flatten() {
            entry(&mut bytes, length(directory)?, name, child, &numbers)?;
            out.put(&mut bytes)?;
        }
    }
    Ok(out.checksum)
}

/// Everything behind the checksum goes through here.
struct Checked<'a, W> {
    out: &'a mut W,
    checksum: u32,
}

impl<W: Write> Checked<'_, W> {
    /// Writes what was gathered, and empties it.
    fn put(&mut self, bytes: &mut Vec<u8>) -> io::Result<()> {
        self.checksum = crc32c(self.checksum, bytes);
        self.out.write_all(bytes)?;
        bytes.clear();
        Ok(())
    }
}

fn entry(
    out: &mut Vec<u8>,
    directory: u32,
    name: &[u8],
    child: &Child,
    numbers: &[Option<u32>],
) -> io::Result<()> {
    out.extend_from_slice(&directory.to_le_bytes());
    out.push(u8::from(child.whiteout));
    out.push(match child.target {
        None => 0,
        Some(Target::Inode(_)) => 1,
        Some(Target::LowerLink(_)) => 2,
    });
    out.push(short(name.len())?);
    out.extend_from_slice(name);
    match &child.target {
        None => Ok(()),
        Some(Target::Inode(id)) => {
            let number = numbers.get(*id as usize).copied().flatten();
            out.extend_from_slice(&number.ok_or_else(overflow)?.to_le_bytes());
            Ok(())
        }
        Some(Target::LowerLink(path)) => bytes16(out, path),
    }
}

/// What an inode takes in the index, in bytes.
pub(in crate::layer) fn stored(inode: &LayerInode) -> u64 {
    let xattrs: usize = inode
        .attributes
        .xattrs
        .iter()
        .map(|(name, value)| 3 + name.len() + value.len())
        .sum();
    let content = match &inode.content {
        Content::Directory { .. } | Content::Fifo => 0,
        Content::File { extents, .. } => match extents {
            Extents::Flat(_) => 13,
            Extents::Sparse { runs, .. } => 13 + 16 * runs.len(),
        },
        Content::Symlink(target) => 2 + target.len(),
        Content::CharDevice(..) | Content::BlockDevice(..) => 8,
    };
    (26 + xattrs + content) as u64
}

/// What a name takes in the index with an inode behind it, in bytes.
pub(in crate::layer) fn stored_name(name: &[u8]) -> u64 {
    (11 + name.len()) as u64
}

fn inode(out: &mut Vec<u8>, inode: &LayerInode) -> io::Result<()> {
    let (code, flags) = match &inode.content {
        Content::Directory {
            opaque, implicit, ..
        } => (
            kind::DIRECTORY,
            u8::from(*opaque) | u8::from(*implicit) << 1,
        ),
        Content::File { .. } => (kind::FILE, 0),
        Content::Symlink(_) => (kind::SYMLINK, 0),
        Content::CharDevice(..) => (kind::CHAR_DEVICE, 0),
        Content::BlockDevice(..) => (kind::BLOCK_DEVICE, 0),
        Content::Fifo => (kind::FIFO, 0),
    };
    let attributes = &inode.attributes;
    out.extend_from_slice(&[code, flags]);
    out.extend_from_slice(&attributes.mode.to_le_bytes());
    out.extend_from_slice(&attributes.uid.to_le_bytes());
    out.extend_from_slice(&attributes.gid.to_le_bytes());
    out.extend_from_slice(&attributes.mtime.to_le_bytes());
    out.extend_from_slice(&attributes.mtime_nsec.to_le_bytes());
    out.extend_from_slice(&word(attributes.xattrs.len())?.to_le_bytes());
    for (name, value) in &attributes.xattrs {
        out.push(short(name.len())?);
        out.extend_from_slice(&word(value.len())?.to_le_bytes());
        out.extend_from_slice(name);
        out.extend_from_slice(value);
    }
    match &inode.content {
        Content::Directory { .. } | Content::Fifo => {}
        Content::File { size, extents } => {
            out.extend_from_slice(&size.to_le_bytes());
            match extents {
                Extents::Flat(block) => {
                    out.push(FLAT);
                    out.extend_from_slice(&block.to_le_bytes());
                }
                Extents::Sparse { chunk_bits, runs } => {
                    out.push(*chunk_bits);
                    out.extend_from_slice(&length(runs.len())?.to_le_bytes());
                    for run in runs {
                        out.extend_from_slice(&run.file_block.to_le_bytes());
                        out.extend_from_slice(&run.data_block.to_le_bytes());
                        out.extend_from_slice(&run.blocks.to_le_bytes());
                    }
                }
            }
        }
        Content::Symlink(target) => bytes16(out, target)?,
        Content::CharDevice(major, minor) | Content::BlockDevice(major, minor) => {
            out.extend_from_slice(&major.to_le_bytes());
            out.extend_from_slice(&minor.to_le_bytes());
        }
    }
    Ok(())
}

fn bytes16(out: &mut Vec<u8>, bytes: &[u8]) -> io::Result<()> {
    out.extend_from_slice(&word(bytes.len())?.to_le_bytes());
    out.extend_from_slice(bytes);
    Ok(())
}

fn short(value: usize) -> io::Result<u8> {
    u8::try_from(value).map_err(|_| overflow())
}

fn word(value: usize) -> io::Result<u16> {
    u16::try_from(value).map_err(|_| overflow())
}

fn length(value: usize) -> io::Result<u32> {
    u32::try_from(value).map_err(|_| overflow())
}

/// The limits of a conversion are tighter than the format's fields, unless a caller set them higher.
fn overflow() -> io::Error {
    io::Error::from(io::ErrorKind::FileTooLarge)
}
