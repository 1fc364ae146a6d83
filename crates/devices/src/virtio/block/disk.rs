//! Where a disk's bytes are.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;

use nix::errno::Errno;
use nix::fcntl::{FallocateFlags, fallocate};

use super::error::BlockError;
use super::request::{Keep, Range, SECTOR, Status};
use crate::virtio::queue::Buffers;

/// Every part of a concatenation begins on such a boundary.
const PART_ALIGNMENT: u64 = 4096;

#[derive(Debug)]
pub(super) enum Disk {
    /// Files end to end, each padded with zeros to 4 KiB. Never written.
    Joined(Joined),
    /// One file, of fixed size.
    Writable { file: File, bytes: u64 },
}

#[derive(Debug)]
pub(super) struct Joined {
    parts: Vec<Part>,
    bytes: u64,
}

#[derive(Debug)]
struct Part {
    file: File,
    /// First byte on the disk.
    start: u64,
    /// Bytes in the file; zeros follow up to the next part.
    bytes: u64,
}

fn regular_size(file: &File, part: usize) -> Result<u64, BlockError> {
    let metadata = file
        .metadata()
        .map_err(|source| BlockError::Size { part, source })?;
    if metadata.is_file() {
        Ok(metadata.len())
    } else {
        Err(BlockError::NotRegular { part })
    }
}

impl Joined {
    fn new(files: Vec<File>) -> Result<Self, BlockError> {
        let mut parts = Vec::with_capacity(files.len());
        let mut start = 0_u64;
        for (index, file) in files.into_iter().enumerate() {
            let bytes = regular_size(&file, index)?;
            parts.push(Part { file, start, bytes });
            start = bytes
                .checked_next_multiple_of(PART_ALIGNMENT)
                .and_then(|padded| start.checked_add(padded))
                .filter(|end| i64::try_from(*end).is_ok())
                .ok_or(BlockError::TooLarge)?;
        }
        Ok(Self {
            parts,
            bytes: start,
        })
    }

    fn read(
        &self,
        buffers: &mut Buffers,
        mut offset: u64,
        mut start: usize,
        length: usize,
    ) -> io::Result<()> {
        let end = start + length;
        // The part that holds `offset` is the last one that begins at or before it.
        let first = self.parts.partition_point(|part| part.start <= offset);
        let mut index = first.checked_sub(1).ok_or(io::ErrorKind::UnexpectedEof)?;
        while start < end {
            let part = self.parts.get(index);
            let part = part.ok_or(io::ErrorKind::UnexpectedEof)?;
            let next = self.parts.get(index + 1);
            let next = next.map_or(self.bytes, |next| next.start);
            let within = offset - part.start;
            let wanted = end - start;
            let moved = if within < part.bytes {
                let moved = bounded(part.bytes - within, wanted);
                buffers.fill_from_file(part.file.as_fd(), within, start, moved)?;
                moved
            } else if offset < next {
                let padding = bounded(next - offset, wanted);
                buffers.zero_at(start, padding);
                padding
            } else {
                index += 1;
                continue;
            };
            start += moved;
            offset += moved as u64;
        }
        Ok(())
    }
}

fn bounded(available: u64, wanted: usize) -> usize {
    usize::try_from(available).map_or(wanted, |available| available.min(wanted))
}

impl Disk {
    pub(super) fn joined(files: Vec<File>) -> Result<Self, BlockError> {
        Joined::new(files).map(Self::Joined)
    }

    pub(super) fn writable(file: File) -> Result<Self, BlockError> {
        let bytes = regular_size(&file, 0)?;
        if bytes.is_multiple_of(SECTOR) {
            Ok(Self::Writable { file, bytes })
        } else {
            Err(BlockError::Unaligned { bytes })
        }
    }

    /// Capacity in bytes.
    pub(super) fn bytes(&self) -> u64 {
        match self {
            Self::Joined(joined) => joined.bytes,
            Self::Writable { bytes, .. } => *bytes,
        }
    }

    pub(super) fn is_read_only(&self) -> bool {
        matches!(self, Self::Joined(_))
    }

    /// Read `length` bytes at `offset` into the beginning of `buffers`.
    pub(super) fn read(&self, buffers: &mut Buffers, offset: u64, length: usize) -> io::Result<()> {
        match self {
            Self::Joined(joined) => joined.read(buffers, offset, 0, length),
            Self::Writable { file, .. } => buffers.fill_from_file(file.as_fd(), offset, 0, length),
        }
    }

    /// Write the bytes of `buffers` from `start` at `offset`.
    pub(super) fn write(
        &self,
        buffers: &mut Buffers,
        start: usize,
        length: usize,
        offset: u64,
    ) -> io::Result<()> {
        let file = self.file()?;
        buffers.drain_to_file(file.as_fd(), offset, start, length)
    }

    /// Make earlier writes durable.
    pub(super) fn flush(&self) -> io::Result<()> {
        match self {
            Self::Joined(_) => Ok(()),
            Self::Writable { file, .. } => file.sync_data(),
        }
    }

    /// Discard or zero a range; [`Status::Unsupported`] where the host's file system cannot zero one without writing it.
    ///
    /// Zeros are never written here: 64 ranges of 1 GiB in one request would hold the device's thread for minutes. A
    /// driver that is told so writes them itself, in requests of its own (Linux: `blkdev_issue_zeroout`).
    pub(super) fn release(&self, range: Range, keep: Keep) -> io::Result<Status> {
        let file = self.file()?;
        if range.length == 0 {
            return Ok(Status::Ok);
        }
        let flags = if range.unmap {
            FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE
        } else {
            FallocateFlags::FALLOC_FL_ZERO_RANGE | FallocateFlags::FALLOC_FL_KEEP_SIZE
        };
        let (Ok(offset), Ok(length)) = (i64::try_from(range.offset), i64::try_from(range.length))
        else {
            return Err(io::ErrorKind::InvalidInput.into());
        };
        match fallocate(file, flags, offset, length) {
            Ok(()) => Ok(Status::Ok),
            Err(Errno::EOPNOTSUPP) if keep == Keep::Nothing => Ok(Status::Ok),
            Err(Errno::EOPNOTSUPP) => Ok(Status::Unsupported),
            Err(errno) => Err(errno.into()),
        }
    }

    fn file(&self) -> io::Result<&File> {
        match self {
            Self::Joined(_) => Err(io::ErrorKind::ReadOnlyFilesystem.into()),
            Self::Writable { file, .. } => Ok(file),
        }
    }
}
