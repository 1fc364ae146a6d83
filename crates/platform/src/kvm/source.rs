//! A file on its way into guest memory: mapped where that is possible, read where it is not.
//!
//! A mapped page costs nothing before the guest touches it, and as long as the guest does not write it, it is the page
//! that the host's page cache has anyway, shared by every guest of the same kernel. The mapping is private: what a
//! guest writes stays its own.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::fd::{AsRawFd, BorrowedFd};
use std::os::unix::fs::FileExt;

use vm_memory::bitmap::BitmapSlice;
use vm_memory::{Bytes, ReadVolatile, VolatileMemoryError, VolatileSlice};

use super::layout::PAGE;
use super::memory::Memory;

/// Less than this is read: a mapping of its own costs more than the copy.
const WORTH_MAPPING: usize = 256 << 10;

/// How the pages of a file come into guest memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Pages {
    /// Shared with the host's page cache: for what stays.
    Mapped,
    /// Copied: for what is read once, from beginning to end, and then given up.
    Copied,
}

/// A file, from which whole pages are mapped into guest memory instead of being copied.
#[derive(Debug)]
pub(super) struct Source<'a> {
    file: File,
    memory: &'a Memory,
    length: u64,
    position: u64,
    pages: Pages,
}

impl<'a> Source<'a> {
    /// The file behind `descriptor`, for `memory`.
    pub(super) fn new(
        descriptor: BorrowedFd<'_>,
        memory: &'a Memory,
        pages: Pages,
    ) -> io::Result<Self> {
        let file = File::from(descriptor.try_clone_to_owned()?);
        let length = file.metadata()?.len();
        Ok(Self {
            file,
            memory,
            length,
            position: 0,
            pages,
        })
    }

    /// Bytes in the file.
    pub(super) fn length(&self) -> u64 {
        self.length
    }

    /// How many bytes, from the start of `slice`, have to be read before whole pages can be mapped, and how many bytes
    /// of pages there are. `None` where nothing can be mapped.
    fn mappable(&self, address: usize, bytes: usize) -> Option<(usize, usize)> {
        let page = PAGE as usize;
        let lead = address.next_multiple_of(page) - address;
        let aligned = self.position.checked_add(lead as u64)? % PAGE == 0;
        let middle = bytes.checked_sub(lead)? / page * page;
        let ours = self.memory.holds(address, bytes);
        (self.pages == Pages::Mapped && aligned && ours && middle >= WORTH_MAPPING)
            .then_some((lead, middle))
    }

    /// Maps `bytes` bytes from the present position to `address`.
    fn map(&mut self, address: *mut u8, bytes: usize) -> io::Result<()> {
        // SAFETY: whole pages of guest memory, which `mappable` checked, are replaced by pages of the file. No Rust
        // object lies in guest memory, and its owner unmaps the whole of it, whatever it consists of. The file is
        // long enough, which `read_volatile` checked. Who shortens it afterwards takes pages from the guest, and ends
        // it: the file belongs to the host's administrator or to this user.
        let mapped = unsafe {
            libc::mmap(
                address.cast(),
                bytes,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_FIXED,
                self.file.as_raw_fd(),
                libc::off_t::try_from(self.position).map_err(io::Error::other)?,
            )
        };
        if mapped == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        self.position += bytes as u64;
        Ok(())
    }

    fn copy<B: BitmapSlice>(
        &mut self,
        slice: &VolatileSlice<'_, B>,
    ) -> Result<(), VolatileMemoryError> {
        if slice.is_empty() {
            return Ok(());
        }
        // The file's own position, because that is what the call below reads from.
        self.file
            .seek(SeekFrom::Start(self.position))
            .map_err(VolatileMemoryError::IOError)?;
        slice.read_exact_volatile_from(0, &mut self.file, slice.len())?;
        self.position += slice.len() as u64;
        Ok(())
    }
}

impl Read for Source<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.file.read_at(buffer, self.position)?;
        self.position += count as u64;
        Ok(count)
    }
}

impl Seek for Source<'_> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let position = match to {
            SeekFrom::Start(position) => Some(position),
            SeekFrom::End(offset) => self.length.checked_add_signed(offset),
            SeekFrom::Current(offset) => self.position.checked_add_signed(offset),
        };
        self.position = position.ok_or(io::ErrorKind::InvalidInput)?;
        Ok(self.position)
    }
}

impl ReadVolatile for Source<'_> {
    fn read_volatile<B: BitmapSlice>(
        &mut self,
        slice: &mut VolatileSlice<'_, B>,
    ) -> Result<usize, VolatileMemoryError> {
        let bytes = slice.len();
        let end = self.position.checked_add(bytes as u64);
        if end.is_none_or(|end| end > self.length) {
            return Err(VolatileMemoryError::IOError(
                io::ErrorKind::UnexpectedEof.into(),
            ));
        }
        let address = slice.ptr_guard_mut().as_ptr();
        if let Some((lead, middle)) = self.mappable(address as usize, bytes) {
            self.copy(&slice.subslice(0, lead)?)?;
            // A file system that cannot map its files can still be read from.
            if self.map(address.wrapping_add(lead), middle).is_ok() {
                let rest = lead + middle;
                self.copy(&slice.subslice(rest, bytes - rest)?)?;
            } else {
                self.copy(&slice.subslice(lead, bytes - lead)?)?;
            }
        } else {
            self.copy(slice)?;
        }
        Ok(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::os::fd::AsFd;
    use vm_memory::GuestAddress;

    fn file(bytes: usize) -> (File, Vec<u8>) {
        let content: Vec<u8> = (0..bytes).map(|index| (index * 7 / 3) as u8).collect();
        let mut file = tempfile::tempfile().expect("a file");
        file.write_all(&content).expect("written");
        (file, content)
    }

    #[test]
    fn what_arrives_is_the_file_wherever_it_goes_and_begins() {
        let (file, content) = file(1 << 20);
        for pages in [Pages::Mapped, Pages::Copied] {
            for (address, offset) in [
                (0x10_0000, 0),
                (0x10_0123, 0x123),
                (0x10_0200, 0),
                (0x10_0fff, 4095),
            ] {
                let memory = Memory::allocate(4 << 20).expect("memory");
                let mut source = Source::new(file.as_fd(), &memory, pages).expect("a source");
                source.seek(SeekFrom::Start(offset)).expect("an offset");
                let count = content.len() - offset as usize - 77;
                memory
                    .guest
                    .read_exact_volatile_from(GuestAddress(address), &mut source, count)
                    .expect("it is there");
                let mut found = vec![0; count + 1];
                memory
                    .guest
                    .read_slice(&mut found, GuestAddress(address))
                    .expect("read");
                assert_eq!(found.pop(), Some(0), "nothing behind it is touched");
                assert!(
                    found == content[offset as usize..][..count],
                    "{pages:?} {address:#x}"
                );
                assert_eq!(
                    source.stream_position().expect("a position"),
                    offset + count as u64
                );
                drop(source);
                // SAFETY: nobody else has it.
                unsafe { memory.release() };
            }
        }
    }

    #[test]
    fn a_guest_that_writes_to_a_mapped_page_does_not_change_the_file() {
        let (file, content) = file(1 << 20);
        let memory = Memory::allocate(4 << 20).expect("memory");
        let mut source = Source::new(file.as_fd(), &memory, Pages::Mapped).expect("a source");
        memory
            .guest
            .read_exact_volatile_from(GuestAddress(0), &mut source, content.len())
            .expect("it is there");
        memory
            .guest
            .write_slice(&[0xff; 8192], GuestAddress(0x8000))
            .expect("written");
        let mut now = vec![0; content.len()];
        file.read_exact_at(&mut now, 0).expect("read");
        assert!(now == content);
    }

    #[test]
    fn a_file_that_is_too_short_is_an_error_and_not_a_trap() {
        let (file, content) = file(1 << 20);
        let memory = Memory::allocate(4 << 20).expect("memory");
        let mut source = Source::new(file.as_fd(), &memory, Pages::Mapped).expect("a source");
        let result =
            memory
                .guest
                .read_exact_volatile_from(GuestAddress(0), &mut source, content.len() + 1);
        assert!(result.is_err());
    }
}
