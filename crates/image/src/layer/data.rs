//! The data blob of a layer: file contents one after the other, each on a 4 KiB boundary.
//!
//! Zeros are kept as holes where that is cheap: a file above 64 KiB is looked at in chunks, a chunk of
//! nothing but zeros is not stored at all and becomes a hole of the file the guest sees. The chunk grows with the
//! file, so that the map of a file of any size stays small, and to what the file's holes allow. Whole blocks of zeros
//! within a stored chunk become holes of the blob itself.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use super::BLOCK_SIZE;
use super::tree::{Extent, Extents, blocks_of};
use crate::budget::Space;

/// Files up to this size are stored as they are.
const PLAIN_BYTES: u64 = 64 << 10;
/// Smallest chunk that can be a hole: finer maps cost the guest more than the zeros.
const MIN_CHUNK_BITS: u8 = 2;
/// Largest chunk of EROFS, whose inodes have five bits for this: 8 TiB.
pub(super) const MAX_CHUNK_BITS: u8 = 31;
/// Chunks in one file at most, and so 4-byte entries in its map.
const MAX_CHUNKS: u64 = 16 << 10;
/// What is examined for zeros, and written, at once.
const UNIT: u64 = 64 << 10;
const BUFFER: usize = 1 << 20;
/// How much is written between two requests to start writing to the disk, so that the final sync is short.
const WRITEBACK: u64 = 8 << 20;

/// Writes the blob.
pub(super) struct DataWriter {
    file: File,
    buffer: Vec<u8>,
    /// Where the buffer's first byte goes.
    flushed: u64,
    /// Up to where writing to the disk was started.
    started: u64,
    space: Space,
}

impl DataWriter {
    pub(super) fn new(file: File, space: Space) -> Self {
        Self {
            file,
            buffer: Vec::with_capacity(BUFFER),
            flushed: 0,
            started: 0,
            space,
        }
    }

    fn position(&self) -> u64 {
        self.flushed + self.buffer.len() as u64
    }

    fn flush(&mut self) -> io::Result<()> {
        self.space.take(&self.file, self.buffer.len() as u64)?;
        self.file.write_all_at(&self.buffer, self.flushed)?;
        self.flushed += self.buffer.len() as u64;
        self.buffer.clear();
        self.start_writeback();
        Ok(())
    }

    fn start_writeback(&mut self) {
        if self.flushed - self.started < WRITEBACK {
            return;
        }
        start_writeback(&self.file, self.started, self.flushed - self.started);
        self.started = self.flushed;
    }

    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        if self.buffer.len() + bytes.len() > BUFFER {
            self.flush()?;
        }
        if bytes.len() >= UNIT as usize && self.buffer.is_empty() {
            self.space.take(&self.file, bytes.len() as u64)?;
            self.file.write_all_at(bytes, self.flushed)?;
            self.flushed += bytes.len() as u64;
            self.start_writeback();
        } else {
            self.buffer.extend_from_slice(bytes);
        }
        Ok(())
    }

    /// Appends zeros. Whole blocks of them are holes of the blob: an archive can claim any number of zeros without
    /// having them, and they must not take space on the disk.
    fn zeros(&mut self, count: u64) -> io::Result<()> {
        const ZEROS: [u8; BLOCK_SIZE as usize] = [0; BLOCK_SIZE as usize];
        let into = self.position() % BLOCK_SIZE;
        let head = count.min((BLOCK_SIZE - into) % BLOCK_SIZE);
        self.append(&ZEROS[..head as usize])?;
        let tail = (count - head) % BLOCK_SIZE;
        let whole = count - head - tail;
        if whole > 0 {
            self.flush()?;
            self.flushed += whole;
        }
        self.append(&ZEROS[..tail as usize])
    }

    /// Starts a file of `size` bytes. Its contents are then given in order, and [`FileWriter::finish`] ends it.
    pub(super) fn file(&mut self, size: u64) -> FileWriter<'_> {
        let mut chunk_bits = MIN_CHUNK_BITS;
        while size >> chunk_bits > MAX_CHUNKS * BLOCK_SIZE {
            chunk_bits += 1;
        }
        FileWriter {
            plain: size <= PLAIN_BYTES,
            size,
            chunk_bits,
            position: 0,
            zeros: 0,
            open: false,
            runs: Vec::new(),
            data: self,
        }
    }

    /// Writes what is left and sets the blob's length; returns the file, not yet synced, and its length in blocks.
    pub(super) fn finish(mut self) -> io::Result<(File, u32)> {
        self.flush()?;
        self.file.set_len(self.flushed)?;
        let blocks = block_number(self.flushed)?;
        Ok((self.file, blocks))
    }
}

fn block_number(position: u64) -> io::Result<u32> {
    u32::try_from(position / BLOCK_SIZE).map_err(|_| io::Error::from(io::ErrorKind::FileTooLarge))
}

/// Asks the kernel to begin writing; only advice, so a failure says nothing that `fsync` will not say.
fn start_writeback(file: &File, offset: u64, length: u64) {
    use std::os::fd::AsRawFd;
    let (Ok(offset), Ok(length)) = (i64::try_from(offset), i64::try_from(length)) else {
        return;
    };
    // SAFETY: plain system call on a descriptor that `file` keeps open; no memory is passed.
    unsafe {
        libc::sync_file_range(
            file.as_raw_fd(),
            offset,
            length,
            libc::SYNC_FILE_RANGE_WRITE,
        );
    }
}

/// Writes one file into the blob.
pub(super) struct FileWriter<'a> {
    data: &'a mut DataWriter,
    plain: bool,
    size: u64,
    chunk_bits: u8,
    /// In the file.
    position: u64,
    /// Zeros of the current chunk not stored yet, at its end so far.
    zeros: u64,
    /// Something of the current chunk is stored.
    open: bool,
    runs: Vec<Extent>,
}

impl FileWriter<'_> {
    fn chunk(&self) -> u64 {
        BLOCK_SIZE << self.chunk_bits
    }

    /// The next bytes of the file; not more than its size in all.
    pub(super) fn write(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        if self.plain {
            if bytes.is_empty() {
                return Ok(());
            }
            self.open_chunk()?;
            self.position += bytes.len() as u64;
            return self.data.append(bytes);
        }
        let unit = self.chunk().min(UNIT);
        while !bytes.is_empty() {
            let room = unit - self.position % unit;
            let (piece, rest) = bytes.split_at(bytes.len().min(room as usize));
            bytes = rest;
            if is_zero(piece) {
                self.hole(piece.len() as u64)?;
            } else {
                self.open_chunk()?;
                self.data.zeros(self.zeros)?;
                self.zeros = 0;
                self.data.append(piece)?;
                self.position += piece.len() as u64;
                self.end_chunk_if_due()?;
            }
        }
        Ok(())
    }

    /// The next `count` bytes of the file are zeros.
    pub(super) fn hole(&mut self, mut count: u64) -> io::Result<()> {
        if self.plain {
            if count == 0 {
                return Ok(());
            }
            self.open_chunk()?;
            self.position += count;
            return self.data.zeros(count);
        }
        let chunk = self.chunk();
        while count > 0 {
            let into = self.position % chunk;
            if into == 0 && count >= chunk {
                self.position += count - count % chunk;
                count %= chunk;
                continue;
            }
            let now = count.min(chunk - into);
            self.zeros += now;
            self.position += now;
            count -= now;
            self.end_chunk_if_due()?;
        }
        Ok(())
    }

    fn open_chunk(&mut self) -> io::Result<()> {
        if self.open {
            return Ok(());
        }
        self.open = true;
        let data_block = block_number(self.data.position())?;
        let start = if self.plain {
            0
        } else {
            self.position - self.position % self.chunk()
        };
        let end = if self.plain {
            self.size
        } else {
            self.size.min(start + self.chunk())
        };
        let file_block = start / BLOCK_SIZE;
        let blocks = u32::try_from(blocks_of(end - start))
            .map_err(|_| io::Error::from(io::ErrorKind::FileTooLarge))?;
        match self.runs.last_mut() {
            Some(last)
                if last.file_block + u64::from(last.blocks) == file_block
                    && last.blocks.checked_add(blocks).is_some() =>
            {
                last.blocks += blocks;
            }
            _ => self.runs.push(Extent {
                file_block,
                data_block,
                blocks,
            }),
        }
        Ok(())
    }

    fn end_chunk_if_due(&mut self) -> io::Result<()> {
        if self.position.is_multiple_of(self.chunk()) || self.position == self.size {
            if self.open {
                self.data.zeros(self.zeros)?;
            }
            self.open = false;
            self.zeros = 0;
        }
        Ok(())
    }

    /// Ends the file and says where its contents are.
    pub(super) fn finish(self) -> io::Result<Extents> {
        let tail = self.data.position() % BLOCK_SIZE;
        if tail != 0 {
            self.data.zeros(BLOCK_SIZE - tail)?;
        }
        let all = blocks_of(self.size);
        Ok(match self.runs.as_slice() {
            [] if self.size == 0 => Extents::Flat(0),
            [run] if u64::from(run.blocks) == all => Extents::Flat(run.data_block),
            runs => Extents::Sparse {
                chunk_bits: largest_chunk(self.chunk_bits, runs, all),
                runs: self.runs.into(),
            },
        })
    }
}

/// The largest chunks that these runs of a file of `all` blocks fall into. The disk has a map with an entry for each
/// chunk of the file, whatever it claims to be long: one for a file that is one hole.
fn largest_chunk(mut bits: u8, runs: &[Extent], all: u64) -> u8 {
    let fits = |bits: u8| {
        let chunk = 1 << bits;
        runs.iter().all(|run| {
            let end = run.file_block + u64::from(run.blocks);
            run.file_block.is_multiple_of(chunk) && (end.is_multiple_of(chunk) || end == all)
        })
    };
    while bits < MAX_CHUNK_BITS && all > 1 << bits && fits(bits + 1) {
        bits += 1;
    }
    bits
}

/// Whether there is nothing but zeros; stops at the first bytes that are something else.
fn is_zero(bytes: &[u8]) -> bool {
    let (words, tail) = bytes.as_chunks::<16>();
    words.iter().all(|word| u128::from_ne_bytes(*word) == 0) && tail.iter().all(|byte| *byte == 0)
}
