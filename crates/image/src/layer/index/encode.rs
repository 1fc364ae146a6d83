//! Tree to bytes.

use std::io;

use super::{CHECKED, FLAT, HEADER, MAGIC, VERSION, kind};
use crate::erofs::crc32c;
use crate::layer::tree::{Content, Extents, InodeId, LayerInode, LayerTree, Target};

/// Encodes what can be reached from the root; what later entries of the archive replaced is left behind.
pub(super) fn encode(tree: &LayerTree) -> io::Result<Vec<u8>> {
    let mut numbers: Vec<Option<u32>> = vec![None; tree.inodes.len()];
    let mut order: Vec<InodeId> = vec![0];
    if let Some(root) = numbers.first_mut() {
        *root = Some(0);
    }
    let mut entries = Vec::new();
    let mut entry_count = 0u32;
    let mut next = 0;
    while let Some(&id) = order.get(next) {
        let directory = length(next)?;
        next += 1;
        for (name, child) in tree.children(id).into_iter().flatten() {
            entry_count += 1;
            entries.extend_from_slice(&directory.to_le_bytes());
            entries.push(u8::from(child.whiteout));
            entries.push(match child.target {
                None => 0,
                Some(Target::Inode(_)) => 1,
                Some(Target::LowerLink(_)) => 2,
            });
            entries.push(short(name.len())?);
            entries.extend_from_slice(name);
            match &child.target {
                None => {}
                Some(Target::Inode(id)) => {
                    let slot = numbers.get_mut(*id as usize).ok_or_else(overflow)?;
                    let number = match *slot {
                        Some(number) => number,
                        None => {
                            let number = length(order.len())?;
                            order.push(*id);
                            *slot = Some(number);
                            number
                        }
                    };
                    entries.extend_from_slice(&number.to_le_bytes());
                }
                Some(Target::LowerLink(path)) => bytes16(&mut entries, path)?,
            }
        }
    }

    let mut out = Vec::with_capacity(HEADER + order.len() * 48 + entries.len());
    out.extend_from_slice(MAGIC);
    out.extend_from_slice(&VERSION.to_le_bytes());
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(&tree.data_blocks.to_le_bytes());
    out.extend_from_slice(&length(order.len())?.to_le_bytes());
    out.extend_from_slice(&entry_count.to_le_bytes());
    out.extend_from_slice(&[0; 4]);
    for id in order {
        inode(&mut out, tree.inodes.get(id as usize).ok_or_else(overflow)?)?;
    }
    out.extend_from_slice(&entries);
    let checksum = crc32c(u32::MAX, out.get(CHECKED..).unwrap_or_default());
    if let Some(place) = out.get_mut(CHECKED - 4..CHECKED) {
        place.copy_from_slice(&checksum.to_le_bytes());
    }
    Ok(out)
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
