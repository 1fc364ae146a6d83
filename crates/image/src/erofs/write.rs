//! From a tree to the bytes of a metadata image.

use sha2::{Digest, Sha256};

use super::crc32c::crc32c;
use super::directory::{self, Named};
use super::format::{
    BLOCK, CHECKSUM_OFFSET, CHUNK_BASED, FLAT_INLINE, INCOMPAT_CHUNKED_FILE, InodeRecord,
    NULL_ADDRESS, S_IFBLK, S_IFCHR, S_IFDIR, S_IFIFO, S_IFLNK, S_IFREG, SLOT, SUPER_OFFSET,
    Superblock, UUID_OFFSET, device_number, file_type,
};
use super::layout::{Layout, LayoutError, Placed, chunks, layout, names};
use super::tree::{Body, Inode, InodeId, Tree};
use super::xattr::count_field;
use crate::budget::Budget;
use crate::layer::Extents;

/// A metadata image.
#[derive(Debug)]
pub struct Image {
    /// Its bytes, whole blocks.
    pub metadata: Vec<u8>,
    /// Objects in the file system.
    pub inodes: u64,
    /// Of metadata and data together.
    pub blocks: u32,
}

/// Writes the metadata of `tree`, whose files' contents are in parts of `part_blocks` blocks each, which follow the
/// metadata on the disk in this order. The extents of each file must lie within its part.
///
/// The metadata are made in memory, which is taken from `memory`.
///
/// # Errors
///
/// [`LayoutError`] where the format cannot hold the tree, or the memory the metadata.
pub fn write(tree: &Tree, part_blocks: &[u32], memory: &mut Budget) -> Result<Image, LayoutError> {
    let layout = layout(tree, memory)?;
    let mut bases = Vec::with_capacity(part_blocks.len());
    let mut end = layout.blocks;
    for blocks in part_blocks {
        bases.push(end);
        end = end
            .checked_add(*blocks)
            .filter(|end| *end != NULL_ADDRESS)
            .ok_or(LayoutError::TooLarge)?;
    }
    let mut writer = Writer {
        tree,
        layout: &layout,
        bases: &bases,
        out: vec![0; layout.blocks as usize * BLOCK],
    };
    let mut chunked = false;
    for (number, placed) in layout.placed.iter().enumerate() {
        chunked |= placed.data_layout == CHUNK_BASED;
        writer.inode(number, placed)?;
    }
    writer.put(layout.shared_block as usize * BLOCK, &layout.shared.bytes)?;
    let root = writer.nid(0)?;
    let superblock = Superblock {
        incompat: if chunked { INCOMPAT_CHUNKED_FILE } else { 0 },
        // The root is the first inode, in the first two blocks.
        root: root as u16,
        inodes: layout.placed.len() as u64,
        time: layout.time,
        blocks: end,
        xattr_block: if layout.shared.bytes.is_empty() {
            0
        } else {
            layout.shared_block
        },
    };
    writer.put(SUPER_OFFSET, &superblock.encode())?;
    let mut metadata = writer.out;
    seal(&mut metadata);
    Ok(Image {
        metadata,
        inodes: layout.placed.len() as u64,
        blocks: end,
    })
}

/// Gives the file system a UUID made from its own bytes, and the superblock its checksum.
fn seal(metadata: &mut [u8]) {
    let digest = Sha256::digest(&*metadata);
    if let Some(uuid) = metadata.get_mut(UUID_OFFSET..UUID_OFFSET + 16) {
        for (place, byte) in uuid.iter_mut().zip(digest.iter()) {
            *place = *byte;
        }
        // RFC 9562: version 8, "custom", and the variant.
        uuid[6] = uuid[6] & 0x0f | 0x80;
        uuid[8] = uuid[8] & 0x3f | 0x80;
    }
    let checksum = crc32c(
        u32::MAX,
        metadata.get(SUPER_OFFSET..BLOCK).unwrap_or_default(),
    );
    if let Some(place) = metadata.get_mut(CHECKSUM_OFFSET..CHECKSUM_OFFSET + 4) {
        place.copy_from_slice(&checksum.to_le_bytes());
    }
}

struct Writer<'a> {
    tree: &'a Tree,
    layout: &'a Layout<'a>,
    /// First block of each part.
    bases: &'a [u32],
    out: Vec<u8>,
}

impl Writer<'_> {
    fn inode(&mut self, number: usize, placed: &Placed) -> Result<(), LayoutError> {
        let tree = self.tree;
        let inode = tree.get(placed.id).ok_or_else(inconsistent)?;
        let attributes = &inode.attributes;
        let xattrs = self.layout.shared.inline(attributes);
        let record = InodeRecord {
            extended: placed.extended,
            data_layout: placed.data_layout,
            xattr_count: count_field(xattrs.len()).ok_or_else(inconsistent)?,
            mode: mode(inode),
            nlink: placed.nlink,
            size: placed.size,
            union: self.union(inode, placed)?,
            // Only for what shows inode numbers in 32 bits.
            number: u32::try_from(number + 1).unwrap_or(u32::MAX),
            uid: attributes.uid,
            gid: attributes.gid,
            mtime: (attributes.mtime, attributes.mtime_nsec),
        };
        let (bytes, length) = record.encode();
        self.put(placed.offset, bytes.get(..length).unwrap_or(&bytes))?;
        self.put(placed.offset + length, &xattrs)?;
        let behind = placed.offset + length + xattrs.len();
        match &inode.body {
            Body::Directory(children) => {
                let contents = self.directory(placed, children)?;
                self.contents(placed, behind, &contents)
            }
            Body::Symlink(target) => self.contents(placed, behind, target),
            Body::File {
                size,
                part,
                extents,
            } => self.map(behind, *size, *part, extents),
            Body::CharDevice(..) | Body::BlockDevice(..) | Body::Fifo => Ok(()),
        }
    }

    fn union(&self, inode: &Inode, placed: &Placed) -> Result<u32, LayoutError> {
        Ok(match &inode.body {
            Body::Directory(_) | Body::Symlink(_) => placed.first_block,
            Body::File { size: 0, .. } | Body::Fifo => 0,
            Body::File { part, extents, .. } => match extents {
                Extents::Flat(block) => self.address(*part, *block)?,
                Extents::Sparse { chunk_bits, .. } => u32::from(*chunk_bits),
            },
            Body::CharDevice(major, minor) | Body::BlockDevice(major, minor) => {
                device_number(*major, *minor)
            }
        })
    }

    /// Where block `block` of part `part` is on the disk.
    fn address(&self, part: u32, block: u32) -> Result<u32, LayoutError> {
        self.bases
            .get(part as usize)
            .and_then(|base| base.checked_add(block))
            .ok_or_else(inconsistent)
    }

    /// A sparse file's map: the address of each chunk, or none.
    fn map(
        &mut self,
        at: usize,
        size: u64,
        part: u32,
        extents: &Extents,
    ) -> Result<(), LayoutError> {
        let Extents::Sparse { chunk_bits, runs } = extents else {
            return Ok(());
        };
        let count = chunks(size, *chunk_bits) as usize;
        let mut map = vec![NULL_ADDRESS; count];
        for run in runs {
            let first = (run.file_block >> chunk_bits) as usize;
            let base = self.address(part, run.data_block)?;
            let places = map.get_mut(first..).unwrap_or_default();
            for (place, offset) in places
                .iter_mut()
                .zip((0..run.blocks).step_by(1 << chunk_bits))
            {
                *place = base + offset;
            }
        }
        let bytes: Vec<u8> = map
            .iter()
            .flat_map(|address| address.to_le_bytes())
            .collect();
        self.put(at, &bytes)
    }

    fn directory(
        &self,
        placed: &Placed,
        children: &std::collections::BTreeMap<Box<[u8]>, InodeId>,
    ) -> Result<Vec<u8>, LayoutError> {
        let mut entries = Vec::with_capacity(children.len() + 2);
        let mut ids = children.iter();
        for name in names(children.keys().map(|name| &**name)) {
            let id = match name {
                b"." => placed.id,
                b".." => placed.parent,
                _ => *ids.next().ok_or_else(inconsistent)?.1,
            };
            let inode = self.tree.get(id).ok_or_else(inconsistent)?;
            entries.push(Named {
                name,
                nid: self.nid(id)?,
                file_type: file_type(mode(inode)),
            });
        }
        Ok(directory::encode(&entries))
    }

    fn nid(&self, id: InodeId) -> Result<u64, LayoutError> {
        let offset = self
            .layout
            .offsets
            .get(id as usize)
            .ok_or_else(inconsistent)?;
        Ok((offset / SLOT) as u64)
    }

    /// Stores what belongs to an inode: whole blocks elsewhere, and what is left right behind it.
    fn contents(
        &mut self,
        placed: &Placed,
        behind: usize,
        bytes: &[u8],
    ) -> Result<(), LayoutError> {
        let whole = if placed.data_layout == FLAT_INLINE {
            bytes.len() - bytes.len() % BLOCK
        } else {
            bytes.len()
        };
        let (blocks, tail) = bytes.split_at(whole);
        self.put(placed.first_block as usize * BLOCK, blocks)?;
        self.put(behind, tail)
    }

    fn put(&mut self, at: usize, bytes: &[u8]) -> Result<(), LayoutError> {
        if bytes.is_empty() {
            return Ok(());
        }
        self.out
            .get_mut(at..at + bytes.len())
            .ok_or_else(inconsistent)?
            .copy_from_slice(bytes);
        Ok(())
    }
}

fn mode(inode: &Inode) -> u16 {
    let kind = match inode.body {
        Body::Directory(_) => S_IFDIR,
        Body::File { .. } => S_IFREG,
        Body::Symlink(_) => S_IFLNK,
        Body::CharDevice(..) => S_IFCHR,
        Body::BlockDevice(..) => S_IFBLK,
        Body::Fifo => S_IFIFO,
    };
    kind | inode.attributes.mode
}

/// Layout and writing disagree, which the layout's own checks rule out.
fn inconsistent() -> LayoutError {
    LayoutError::Inconsistent {
        path: "/".to_owned(),
    }
}
