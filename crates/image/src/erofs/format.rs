//! Numbers and records of the format (`fs/erofs/erofs_fs.h`), little-endian throughout.

pub(super) const BLOCK: usize = 4096;
pub(super) const BLOCK_BITS: u8 = 12;
/// Inodes are addressed in units of this many bytes.
pub(super) const SLOT: usize = 32;

pub(super) const SUPER_OFFSET: usize = 1024;
pub(super) const SUPER_SIZE: usize = 128;
pub(super) const MAGIC: u32 = 0xe0f5_e1e2;
/// Where in the superblock its checksum is.
pub(super) const CHECKSUM_OFFSET: usize = SUPER_OFFSET + 4;
/// Where in the superblock the file system's UUID is.
pub(super) const UUID_OFFSET: usize = SUPER_OFFSET + 48;

pub(super) const COMPAT_SB_CHKSUM: u32 = 1;
/// The time in extended inodes is that of modification.
pub(super) const COMPAT_MTIME: u32 = 2;
pub(super) const INCOMPAT_CHUNKED_FILE: u32 = 4;

pub(super) const FLAT_PLAIN: u16 = 0;
pub(super) const FLAT_INLINE: u16 = 2;
pub(super) const CHUNK_BASED: u16 = 4;
/// "No block": a hole.
pub(super) const NULL_ADDRESS: u32 = u32::MAX;

pub(super) const COMPACT_INODE: usize = 32;
pub(super) const EXTENDED_INODE: usize = 64;
pub(super) const DIRENT: usize = 12;

pub(super) const S_IFIFO: u16 = 0o010_000;
pub(super) const S_IFCHR: u16 = 0o020_000;
pub(super) const S_IFDIR: u16 = 0o040_000;
pub(super) const S_IFBLK: u16 = 0o060_000;
pub(super) const S_IFREG: u16 = 0o100_000;
pub(super) const S_IFLNK: u16 = 0o120_000;
pub(super) const S_IFMT: u16 = 0o170_000;

/// The type that a directory entry repeats.
pub(super) fn file_type(mode: u16) -> u8 {
    match mode & S_IFMT {
        S_IFREG => 1,
        S_IFDIR => 2,
        S_IFCHR => 3,
        S_IFBLK => 4,
        S_IFIFO => 5,
        S_IFLNK => 7,
        _ => 0,
    }
}

/// Linux's encoding of a device number in 32 bits.
pub(super) fn device_number(major: u32, minor: u32) -> u32 {
    (minor & 0xff) | (major << 8) | ((minor & !0xff) << 12)
}

/// What the superblock says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Superblock {
    pub(super) incompat: u32,
    pub(super) root: u16,
    pub(super) inodes: u64,
    /// Time of compact inodes.
    pub(super) time: (i64, u32),
    /// Of the whole disk, data included.
    pub(super) blocks: u32,
    pub(super) xattr_block: u32,
}

impl Superblock {
    /// UUID and checksum are zero; they depend on everything else.
    pub(super) fn encode(&self) -> [u8; SUPER_SIZE] {
        let mut record = Record::new();
        record.u32(MAGIC);
        record.u32(0);
        record.u32(COMPAT_SB_CHKSUM | COMPAT_MTIME);
        record.u8(BLOCK_BITS);
        record.u8(0);
        record.u16(self.root);
        record.u64(self.inodes);
        record.u64(self.time.0.cast_unsigned());
        record.u32(self.time.1);
        record.u32(self.blocks);
        // Inodes are numbered from the disk's beginning.
        record.u32(0);
        record.u32(self.xattr_block);
        record.skip(32);
        record.u32(self.incompat);
        record.bytes
    }
}

/// One inode's fixed part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct InodeRecord {
    pub(super) extended: bool,
    pub(super) data_layout: u16,
    pub(super) xattr_count: u16,
    pub(super) mode: u16,
    pub(super) nlink: u32,
    pub(super) size: u64,
    /// Block address, device number or chunk format.
    pub(super) union: u32,
    pub(super) number: u32,
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) mtime: (i64, u32),
}

impl InodeRecord {
    /// The record and how many of its bytes count. Compact records need values that fit; the layout sees to it.
    pub(super) fn encode(&self) -> ([u8; SUPER_SIZE], usize) {
        let mut record = Record::new();
        record.u16(u16::from(self.extended) | self.data_layout << 1);
        record.u16(self.xattr_count);
        record.u16(self.mode);
        if self.extended {
            record.u16(0);
            record.u64(self.size);
            record.u32(self.union);
            record.u32(self.number);
            record.u32(self.uid);
            record.u32(self.gid);
            record.u64(self.mtime.0.cast_unsigned());
            record.u32(self.mtime.1);
            record.u32(self.nlink);
            (record.bytes, EXTENDED_INODE)
        } else {
            record.u16(self.nlink as u16);
            record.u32(self.size as u32);
            record.u32(0);
            record.u32(self.union);
            record.u32(self.number);
            record.u16(self.uid as u16);
            record.u16(self.gid as u16);
            (record.bytes, COMPACT_INODE)
        }
    }
}

/// Fills a record field by field.
struct Record {
    bytes: [u8; SUPER_SIZE],
    at: usize,
}

impl Record {
    fn new() -> Self {
        Self {
            bytes: [0; SUPER_SIZE],
            at: 0,
        }
    }

    fn skip(&mut self, count: usize) {
        self.at += count;
    }

    fn put(&mut self, value: &[u8]) {
        self.bytes[self.at..self.at + value.len()].copy_from_slice(value);
        self.at += value.len();
    }

    fn u8(&mut self, value: u8) {
        self.put(&[value]);
    }

    fn u16(&mut self, value: u16) {
        self.put(&value.to_le_bytes());
    }

    fn u32(&mut self, value: u32) {
        self.put(&value.to_le_bytes());
    }

    fn u64(&mut self, value: u64) {
        self.put(&value.to_le_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn device_numbers_are_encoded_as_linux_does() {
        assert_eq!(device_number(1, 3), 0x103);
        assert_eq!(device_number(8, 0x12345), 0x1230_0845);
        assert_eq!(device_number(4095, 0xfffff), 0xffff_ffff);
    }

    #[test]
    fn records_have_their_documented_places() {
        let superblock = Superblock {
            incompat: 4,
            root: 36,
            inodes: 7,
            time: (1, 2),
            blocks: 3,
            xattr_block: 5,
        }
        .encode();
        assert_eq!(superblock[..4], [0xe2, 0xe1, 0xf5, 0xe0]);
        assert_eq!(superblock[12], 12);
        assert_eq!(superblock[14], 36);
        assert_eq!(superblock[16], 7);
        assert_eq!(superblock[36], 3);
        assert_eq!(superblock[44], 5);
        assert_eq!(superblock[80], 4);
        let inode = InodeRecord {
            extended: true,
            data_layout: FLAT_INLINE,
            xattr_count: 2,
            mode: 3,
            nlink: 4,
            size: 5,
            union: 6,
            number: 7,
            uid: 8,
            gid: 9,
            mtime: (10, 11),
        };
        let (bytes, length) = inode.encode();
        assert_eq!(length, 64);
        for (at, value) in [
            (0, 5),
            (2, 2),
            (4, 3),
            (8, 5),
            (16, 6),
            (20, 7),
            (24, 8),
            (28, 9),
            (32, 10),
            (40, 11),
            (44, 4),
        ] {
            assert_eq!(bytes[at], value, "offset {at}");
        }
        let (bytes, length) = InodeRecord {
            extended: false,
            ..inode
        }
        .encode();
        assert_eq!(length, 32);
        for (at, value) in [
            (0, 4),
            (2, 2),
            (4, 3),
            (6, 4),
            (8, 5),
            (16, 6),
            (20, 7),
            (24, 8),
            (26, 9),
        ] {
            assert_eq!(bytes[at], value, "offset {at}");
        }
    }
}
