//! A small reader of what the writer writes.
//!
//! It exists to check the writer by another way of thinking: tests and the fuzzer read every image back through it. It believes
//! nothing it reads, so it is also safe on images from elsewhere, as far as they use the same features.

use std::fmt;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use super::crc32c::crc32c;
use super::format::{
    BLOCK, CHECKSUM_OFFSET, CHUNK_BASED, COMPACT_INODE, COMPAT_SB_CHKSUM, DIRENT, EXTENDED_INODE,
    FLAT_INLINE, FLAT_PLAIN, INCOMPAT_CHUNKED_FILE, MAGIC, NULL_ADDRESS, S_IFDIR, S_IFLNK, S_IFMT,
    S_IFREG, SLOT, SUPER_OFFSET,
};
use super::xattr;

/// Why an image cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// A part of the disk cannot be read.
    #[error("cannot read the image disk at byte {offset}")]
    Io {
        /// Where.
        offset: u64,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The image is no EROFS, or damaged.
    #[error("image disk is invalid: {0}")]
    Invalid(&'static str),
}

use ReadError::Invalid;

/// An extended attribute: full name and value.
pub type Xattr = (Vec<u8>, Vec<u8>);

/// What an inode says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stat {
    /// Type and permissions.
    pub mode: u16,
    /// Names it has; of a directory two more than it has subdirectories.
    pub nlink: u32,
    /// In bytes.
    pub size: u64,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Seconds since 1970, nanoseconds.
    pub mtime: (i64, u32),
    /// Device number as encoded, of devices.
    pub rdev: u32,
    data_layout: u16,
    union: u32,
    /// Where its attributes begin, and how long they are.
    xattrs: (u64, u64),
}

impl Stat {
    /// Whether it is a directory.
    pub fn is_dir(&self) -> bool {
        self.mode & S_IFMT == S_IFDIR
    }

    /// Whether it is a regular file.
    pub fn is_file(&self) -> bool {
        self.mode & S_IFMT == S_IFREG
    }

    /// Whether it is a symbolic link.
    pub fn is_symlink(&self) -> bool {
        self.mode & S_IFMT == S_IFLNK
    }
}

/// An image being read: the parts of its disk one after the other.
pub struct Reader {
    parts: Vec<Part>,
    root: u64,
    time: (i64, u32),
    xattr_offset: u64,
}

struct Part {
    start: u64,
    length: u64,
    file: File,
}

impl fmt::Debug for Reader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reader")
            .field("root", &self.root)
            .finish_non_exhaustive()
    }
}

impl Reader {
    /// Opens a disk and checks its superblock.
    ///
    /// # Errors
    ///
    /// [`ReadError`] says what is wrong.
    pub fn open(files: Vec<File>) -> Result<Self, ReadError> {
        let mut parts = Vec::new();
        let mut offset = 0u64;
        for file in files {
            let length = file
                .metadata()
                .map_err(|source| ReadError::Io { offset, source })?
                .len();
            parts.push(Part {
                start: offset,
                length,
                file,
            });
            offset += length.next_multiple_of(BLOCK as u64);
        }
        let mut reader = Self {
            parts,
            root: 0,
            time: (0, 0),
            xattr_offset: 0,
        };
        let mut block = reader.read(0, BLOCK as u64)?;
        let checksum = word(&block, CHECKSUM_OFFSET)?;
        if let Some(place) = block.get_mut(CHECKSUM_OFFSET..CHECKSUM_OFFSET + 4) {
            place.fill(0);
        }
        let superblock = block.get(SUPER_OFFSET..).unwrap_or_default();
        if word(superblock, 0)? != MAGIC {
            return Err(Invalid("no superblock"));
        }
        if word(superblock, 8)? & COMPAT_SB_CHKSUM == 0 || crc32c(u32::MAX, superblock) != checksum
        {
            return Err(Invalid("checksum of the superblock"));
        }
        if word(superblock, 80)? & !INCOMPAT_CHUNKED_FILE != 0 {
            return Err(Invalid("unknown feature"));
        }
        reader.root = u64::from(half(superblock, 14)?);
        reader.time = (long(superblock, 24)?.cast_signed(), word(superblock, 32)?);
        reader.xattr_offset = u64::from(word(superblock, 44)?) * BLOCK as u64;
        if u64::from(word(superblock, 36)?) * BLOCK as u64 != offset {
            return Err(Invalid("length of the disk"));
        }
        Ok(reader)
    }

    /// Address of the root directory.
    pub fn root(&self) -> u64 {
        self.root
    }

    /// Reads the inode at this address.
    ///
    /// # Errors
    ///
    /// [`ReadError`] says what is wrong.
    pub fn stat(&self, nid: u64) -> Result<Stat, ReadError> {
        let offset = nid
            .checked_mul(SLOT as u64)
            .ok_or(Invalid("address of an inode"))?;
        let mut bytes = self.read(offset, COMPACT_INODE as u64)?;
        let format = half(&bytes, 0)?;
        let extended = format & 1 != 0;
        let length = if extended {
            EXTENDED_INODE
        } else {
            COMPACT_INODE
        } as u64;
        if extended {
            bytes = self.read(offset, length)?;
        }
        let count = u64::from(half(&bytes, 2)?);
        let xattr_bytes = if count == 0 { 0 } else { 12 + 4 * (count - 1) };
        let union = word(&bytes, 16)?;
        let mode = half(&bytes, 4)?;
        let common = Stat {
            mode,
            nlink: 0,
            size: 0,
            uid: 0,
            gid: 0,
            mtime: self.time,
            rdev: if matches!(mode & S_IFMT, S_IFDIR | S_IFREG | S_IFLNK) {
                0
            } else {
                union
            },
            data_layout: format >> 1,
            union,
            xattrs: (offset + length, xattr_bytes),
        };
        Ok(if extended {
            Stat {
                nlink: word(&bytes, 44)?,
                size: long(&bytes, 8)?,
                uid: word(&bytes, 24)?,
                gid: word(&bytes, 28)?,
                mtime: (long(&bytes, 32)?.cast_signed(), word(&bytes, 40)?),
                ..common
            }
        } else {
            Stat {
                nlink: half(&bytes, 6)?.into(),
                size: word(&bytes, 8)?.into(),
                uid: half(&bytes, 24)?.into(),
                gid: half(&bytes, 26)?.into(),
                ..common
            }
        })
    }

    /// Lists a directory, `.` and `..` included, in the order it is stored.
    ///
    /// # Errors
    ///
    /// [`ReadError`] says what is wrong.
    pub fn list(&self, directory: &Stat) -> Result<Vec<(Vec<u8>, u64)>, ReadError> {
        let bytes = self.contents(directory, 0, directory.size)?;
        let mut out = Vec::new();
        for block in bytes.chunks(BLOCK) {
            let names = usize::from(half(block, 8)?);
            let count = names / DIRENT;
            for index in 0..count {
                let at = index * DIRENT;
                let start = usize::from(half(block, at + 8)?);
                let end = if index + 1 < count {
                    usize::from(half(block, at + DIRENT + 8)?)
                } else {
                    block.len()
                };
                let name = block.get(start..end).ok_or(Invalid("name of an entry"))?;
                let name = name.split(|byte| *byte == 0).next().unwrap_or_default();
                out.push((name.to_vec(), long(block, at)?));
            }
        }
        Ok(out)
    }

    /// Reads `length` bytes of a file, a directory or a symbolic link's target, from `start` on.
    ///
    /// # Errors
    ///
    /// [`ReadError`] says what is wrong.
    pub fn contents(&self, stat: &Stat, start: u64, length: u64) -> Result<Vec<u8>, ReadError> {
        let end = start
            .checked_add(length)
            .filter(|end| *end <= stat.size)
            .ok_or(Invalid("a read beyond the end"))?;
        let mut out = Vec::new();
        let mut position = start;
        while position < end {
            let (address, run) = self.locate(stat, position)?;
            let now = run.min(end - position);
            match address {
                Some(address) => out.extend(self.read(address, now)?),
                None => out.resize(out.len() + now as usize, 0),
            }
            position += now;
        }
        Ok(out)
    }

    /// Where in the disk byte `position` is, unless in a hole, and for how many bytes that holds.
    fn locate(&self, stat: &Stat, position: u64) -> Result<(Option<u64>, u64), ReadError> {
        let block = BLOCK as u64;
        let behind = stat.xattrs.0 + stat.xattrs.1;
        let whole = stat.size - stat.size % block;
        match stat.data_layout {
            FLAT_INLINE if position >= whole => {
                if behind % block + (stat.size - whole) > block {
                    return Err(Invalid("inline data across blocks"));
                }
                Ok((Some(behind + position - whole), stat.size - position))
            }
            FLAT_INLINE => Ok((
                Some(u64::from(stat.union) * block + position),
                whole - position,
            )),
            FLAT_PLAIN => Ok((
                Some(u64::from(stat.union) * block + position),
                stat.size - position,
            )),
            CHUNK_BASED if stat.union < 32 => {
                let chunk = block << stat.union;
                let entry = self.read(behind + 4 * (position / chunk), 4)?;
                let address = word(&entry, 0)?;
                let into = position % chunk;
                let address =
                    (address != NULL_ADDRESS).then_some(u64::from(address) * block + into);
                Ok((address, chunk - into))
            }
            _ => Err(Invalid("unknown data layout")),
        }
    }

    /// Reads an inode's extended attributes, by full name.
    ///
    /// # Errors
    ///
    /// [`ReadError`] says what is wrong.
    pub fn xattrs(&self, stat: &Stat) -> Result<Vec<Xattr>, ReadError> {
        let mut out = Vec::new();
        let (offset, length) = stat.xattrs;
        if length == 0 {
            return Ok(out);
        }
        let bytes = self.read(offset, length)?;
        let shared = usize::from(*bytes.get(4).ok_or(Invalid("attribute header"))?);
        for index in 0..shared {
            let id = u64::from(word(&bytes, 12 + 4 * index)?);
            let at = self.xattr_offset + 4 * id;
            let header = self.read(at, 4)?;
            let size = entry_length(&header)?;
            out.push(entry(&self.read(at, size as u64)?)?);
        }
        let mut rest = bytes.get(12 + 4 * shared..).unwrap_or_default();
        while !rest.is_empty() {
            let size = entry_length(rest)?;
            out.push(entry(rest)?);
            rest = rest
                .get(size.next_multiple_of(4)..)
                .ok_or(Invalid("attribute length"))?;
        }
        out.sort();
        Ok(out)
    }

    fn read(&self, offset: u64, length: u64) -> Result<Vec<u8>, ReadError> {
        // Empty parts begin where the next does; the last that begins here is the one with the bytes.
        let index = self.parts.partition_point(|part| part.start <= offset);
        let part = index
            .checked_sub(1)
            .and_then(|index| self.parts.get(index))
            .filter(|part| {
                let end = (offset - part.start).checked_add(length);
                end.is_some_and(|end| end <= part.length)
            })
            .ok_or(Invalid("an address outside the disk"))?;
        let mut bytes = vec![0; length as usize];
        part.file
            .read_exact_at(&mut bytes, offset - part.start)
            .map_err(|source| ReadError::Io { offset, source })?;
        Ok(bytes)
    }
}

fn entry_length(bytes: &[u8]) -> Result<usize, ReadError> {
    let name = usize::from(*bytes.first().ok_or(Invalid("attribute length"))?);
    Ok(4 + name + usize::from(half(bytes, 2)?))
}

fn entry(bytes: &[u8]) -> Result<Xattr, ReadError> {
    let size = entry_length(bytes)?;
    let name_end = 4 + usize::from(*bytes.first().ok_or(Invalid("attribute length"))?);
    let index = *bytes.get(1).ok_or(Invalid("attribute length"))?;
    let rest = bytes.get(4..name_end).ok_or(Invalid("attribute length"))?;
    let value = bytes
        .get(name_end..size)
        .ok_or(Invalid("attribute length"))?;
    let name = xattr::full_name(index, rest).ok_or(Invalid("attribute name"))?;
    Ok((name, value.to_vec()))
}

fn array<const N: usize>(bytes: &[u8], at: usize) -> Result<[u8; N], ReadError> {
    bytes
        .get(at..)
        .and_then(<[u8]>::first_chunk)
        .copied()
        .ok_or(Invalid("a record that ends too early"))
}

fn half(bytes: &[u8], at: usize) -> Result<u16, ReadError> {
    array(bytes, at).map(u16::from_le_bytes)
}

fn word(bytes: &[u8], at: usize) -> Result<u32, ReadError> {
    array(bytes, at).map(u32::from_le_bytes)
}

fn long(bytes: &[u8], at: usize) -> Result<u64, ReadError> {
    array(bytes, at).map(u64::from_le_bytes)
}
