//! Pieces of guest memory as one sequence of bytes, handed to the kernel without copying.
//!
//! This is the only file in which devices touch guest memory by address. Its safety rests on two
//! invariants:
//!
//! * every piece was obtained from the [`GuestMemory`] that the same [`Buffers`] holds, and that
//!   clone keeps the mapping alive as long as the pieces exist;
//! * no reference to the bytes is ever made: they are copied with volatile accesses or given to
//!   the kernel as an address, because the guest may change them at any time.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use vm_memory::{GuestAddress, GuestMemoryBackend, GuestMemoryError, VolatileSlice};

use crate::memory::GuestMemory;

/// The kernel takes at most this many pieces in one call (`UIO_MAXIOV`).
const MAX_PIECES_PER_CALL: usize = 1024;

/// Address and length, laid out as the kernel wants it.
#[derive(Clone, Copy)]
#[repr(transparent)]
struct Piece(libc::iovec);

// SAFETY: a piece is an address and a length; whoever uses it goes through `Buffers`, which keeps
// the mapping alive and is itself used by one thread at a time.
unsafe impl Send for Piece {}

impl Piece {
    fn len(&self) -> usize {
        self.0.iov_len
    }

    /// The part of the piece from `skip`, at most `limit` bytes; `skip` must not exceed its length.
    fn part(&self, skip: usize, limit: usize) -> Piece {
        let skip = skip.min(self.len());
        let base = self.0.iov_base.cast::<u8>().wrapping_add(skip);
        Piece(libc::iovec {
            iov_base: base.cast(),
            iov_len: (self.len() - skip).min(limit),
        })
    }
}

/// Guest memory, in order, seen as one sequence of bytes.
pub struct Buffers {
    memory: GuestMemory,
    pieces: Vec<Piece>,
    total: usize,
    window: Vec<Piece>,
}

impl std::fmt::Debug for Buffers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Buffers")
            .field("pieces", &self.pieces.len())
            .field("total", &self.total)
            .finish_non_exhaustive()
    }
}

impl Buffers {
    /// An empty sequence over `memory`.
    pub fn new(memory: &GuestMemory) -> Self {
        Self {
            memory: memory.clone(),
            pieces: Vec::new(),
            total: 0,
            window: Vec::new(),
        }
    }

    /// Forget all pieces, keep the room for them.
    pub fn clear(&mut self) {
        self.pieces.clear();
        self.total = 0;
    }

    /// Length in bytes.
    pub fn len(&self) -> usize {
        self.total
    }

    /// Whether there is no byte in it.
    pub fn is_empty(&self) -> bool {
        self.total == 0
    }

    /// Number of pieces.
    pub fn pieces(&self) -> usize {
        self.pieces.len()
    }

    /// Append `length` bytes of guest memory at `address`. On error nothing is usable.
    pub fn push(&mut self, address: GuestAddress, length: u32) -> Result<(), GuestMemoryError> {
        if length == 0 {
            // An empty descriptor still counts for the order of a chain.
            self.pieces.push(Piece(libc::iovec {
                iov_base: std::ptr::null_mut(),
                iov_len: 0,
            }));
            return Ok(());
        }
        let slices = GuestMemoryBackend::get_slices(&self.memory, address, length as usize);
        for slice in slices {
            let slice = slice?;
            let guard = slice.ptr_guard_mut();
            self.pieces.push(Piece(libc::iovec {
                iov_base: guard.as_ptr().cast(),
                iov_len: guard.len(),
            }));
            self.total = self
                .total
                .checked_add(guard.len())
                .ok_or(GuestMemoryError::GuestAddressOverflow)?;
        }
        Ok(())
    }

    /// Append `length` bytes of `other` from `start`; what lies past its end is left out. `false`
    /// if `other` belongs to another memory.
    pub fn append(&mut self, other: &Buffers, start: usize, length: usize) -> bool {
        if !self.same_memory(other) {
            return false;
        }
        let before = self.pieces.len();
        select(&other.pieces, start, length, usize::MAX, &mut self.pieces);
        self.total += self
            .pieces
            .iter()
            .skip(before)
            .map(Piece::len)
            .sum::<usize>();
        true
    }

    fn same_memory(&self, other: &Buffers) -> bool {
        let mut mine = self.memory.iter();
        let mut theirs = other.memory.iter();
        loop {
            match (mine.next(), theirs.next()) {
                (None, None) => return true,
                (Some(a), Some(b)) if a.as_ptr() == b.as_ptr() => (),
                _ => return false,
            }
        }
    }

    /// Copy bytes from `start` into `out`; returns how many there were.
    pub fn read_at(&self, start: usize, out: &mut [u8]) -> usize {
        let mut skip = start;
        let mut done = 0;
        for piece in &self.pieces {
            let Some(rest) = out.get_mut(done..).filter(|rest| !rest.is_empty()) else {
                break;
            };
            if skip >= piece.len() {
                skip -= piece.len();
                continue;
            }
            done += volatile(&piece.part(skip, rest.len())).copy_to(rest);
            skip = 0;
        }
        done
    }

    /// Copy `data` to the bytes from `start`; returns how many found room.
    pub fn write_at(&mut self, start: usize, data: &[u8]) -> usize {
        let mut skip = start;
        let mut done = 0;
        for piece in &self.pieces {
            let Some(rest) = data.get(done..).filter(|rest| !rest.is_empty()) else {
                break;
            };
            if skip >= piece.len() {
                skip -= piece.len();
                continue;
            }
            let part = piece.part(skip, rest.len());
            volatile(&part).copy_from(rest);
            done += part.len();
            skip = 0;
        }
        done
    }

    /// Write zeros to `length` bytes from `start`; returns how many found room.
    pub fn zero_at(&mut self, start: usize, length: usize) -> usize {
        const ZEROS: [u8; 4096] = [0; 4096];
        let mut done = 0;
        while done < length {
            let chunk = ZEROS.get(..length - done).unwrap_or(&ZEROS);
            let written = self.write_at(start + done, chunk);
            done += written;
            if written < chunk.len() {
                break;
            }
        }
        done
    }

    /// Read from `file` at `offset` into the bytes `start..start + length`, all of them.
    pub fn fill_from_file(
        &mut self,
        file: BorrowedFd<'_>,
        offset: u64,
        start: usize,
        length: usize,
    ) -> io::Result<()> {
        self.whole(offset, start, length, |window, count, offset| {
            // SAFETY: `window` holds `count` valid pieces (module invariants); the kernel writes
            // only inside them.
            unsafe { libc::preadv(file.as_raw_fd(), window, count, offset) }
        })
    }

    /// Write the bytes `start..start + length` to `file` at `offset`, all of them.
    pub fn drain_to_file(
        &mut self,
        file: BorrowedFd<'_>,
        offset: u64,
        start: usize,
        length: usize,
    ) -> io::Result<()> {
        self.whole(offset, start, length, |window, count, offset| {
            // SAFETY: `window` holds `count` valid pieces (module invariants); the kernel only
            // reads them.
            unsafe { libc::pwritev(file.as_raw_fd(), window, count, offset) }
        })
    }

    fn whole(
        &mut self,
        offset: u64,
        start: usize,
        length: usize,
        mut call: impl FnMut(*const libc::iovec, libc::c_int, libc::off_t) -> isize,
    ) -> io::Result<()> {
        let mut done = 0;
        while done < length {
            let at = offset
                .checked_add(done as u64)
                .and_then(|at| libc::off_t::try_from(at).ok())
                .ok_or(io::ErrorKind::InvalidInput)?;
            let (window, count) = self.window(start + done, length - done);
            match usize::try_from(call(window, count, at)) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(moved) => done += moved,
                Err(_) => {
                    let error = io::Error::last_os_error();
                    if error.kind() != io::ErrorKind::Interrupted {
                        return Err(error);
                    }
                }
            }
        }
        Ok(())
    }

    /// Send the bytes from `start` to a connected stream socket without blocking and without
    /// SIGPIPE; returns how many it took.
    pub fn send(&mut self, socket: BorrowedFd<'_>, start: usize) -> io::Result<usize> {
        let (window, count) = self.window(start, usize::MAX);
        let message = message(window, count);
        retry(|| {
            // SAFETY: `message` points to `count` valid pieces (module invariants), which the
            // kernel only reads, and to nothing else.
            unsafe {
                libc::sendmsg(
                    socket.as_raw_fd(),
                    &message,
                    libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL,
                )
            }
        })
    }

    /// Receive from a stream socket into at most `limit` bytes from the start, without blocking;
    /// zero is end of file.
    pub fn receive(&mut self, socket: BorrowedFd<'_>, limit: usize) -> io::Result<usize> {
        let (window, count) = self.window(0, limit);
        let mut message = message(window, count);
        retry(|| {
            // SAFETY: `message` points to `count` valid pieces (module invariants); the kernel
            // writes only inside them and to the header, which lives on our stack.
            unsafe { libc::recvmsg(socket.as_raw_fd(), &mut message, libc::MSG_DONTWAIT) }
        })
    }

    /// Return the pages to the host: their content is lost, and the next access finds zeros. Pieces
    /// that lie side by side are one range; what is no whole page of a range stays.
    pub fn give_back(&mut self) -> io::Result<()> {
        let mut range = 0..0;
        for index in 0..self.pieces.len() {
            let Some(piece) = self.pieces.get(index).filter(|piece| piece.len() > 0) else {
                continue;
            };
            let start = piece.0.iov_base.addr();
            let end = start + piece.len();
            if start == range.end {
                range.end = end;
            } else if end == range.start {
                range.start = start;
            } else {
                self.discard(std::mem::replace(&mut range, start..end))?;
            }
        }
        self.discard(range)
    }

    fn discard(&self, range: std::ops::Range<usize>) -> io::Result<()> {
        let page = page_size();
        // Neighbours need not be of one region, nor of one kind.
        for region in self.memory.iter() {
            if region.prot() & libc::PROT_WRITE == 0 {
                continue;
            }
            let first = region.as_ptr().addr();
            let last = first + region.size();
            let start = range.start.max(first).next_multiple_of(page);
            let end = range.end.min(last) / page * page;
            let Some(length) = end.checked_sub(start).filter(|length| *length > 0) else {
                continue;
            };
            let advice = if region.flags() & libc::MAP_SHARED == 0 {
                libc::MADV_DONTNEED
            } else {
                libc::MADV_REMOVE
            };
            let address = region.as_ptr().wrapping_add(start - first);
            // SAFETY: the range lies in this region (clamped above), whose mapping `memory` keeps
            // alive; no reference to its bytes exists, and that they change is what a guest does
            // at any time.
            if unsafe { libc::madvise(address.cast(), length, advice) } != 0 {
                return Err(io::Error::last_os_error());
            }
        }
        Ok(())
    }

    /// The pieces of `start..start + length`, as many as one call takes.
    fn window(&mut self, start: usize, length: usize) -> (*const libc::iovec, libc::c_int) {
        self.window.clear();
        select(
            &self.pieces,
            start,
            length,
            MAX_PIECES_PER_CALL,
            &mut self.window,
        );
        // `Piece` is a transparent `iovec`; the count is bounded by `MAX_PIECES_PER_CALL`.
        (
            self.window.as_ptr().cast(),
            self.window.len() as libc::c_int,
        )
    }
}

/// Append to `out` the parts of `pieces` that make up `start..start + length`, at most `most`.
fn select(pieces: &[Piece], start: usize, length: usize, most: usize, out: &mut Vec<Piece>) {
    let mut skip = start;
    let mut wanted = length;
    let mut room = most;
    for piece in pieces {
        if wanted == 0 || room == 0 {
            break;
        }
        if skip >= piece.len() {
            skip -= piece.len();
            continue;
        }
        let part = piece.part(skip, wanted);
        skip = 0;
        wanted -= part.len();
        room -= 1;
        out.push(part);
    }
}

fn volatile(piece: &Piece) -> VolatileSlice<'_> {
    // SAFETY: the piece lies in a mapping that its `Buffers` keeps alive for longer than this
    // borrow, and all accesses to guest memory in this process are volatile.
    unsafe { VolatileSlice::new(piece.0.iov_base.cast(), piece.len()) }
}

fn page_size() -> usize {
    // SAFETY: the call takes no pointers.
    let size = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    usize::try_from(size).unwrap_or(4096)
}

fn message(window: *const libc::iovec, count: libc::c_int) -> libc::msghdr {
    // SAFETY: all-zero is a valid `msghdr`: no name, no control data.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_iov = window.cast_mut();
    message.msg_iovlen = count as usize;
    message
}

fn retry(mut call: impl FnMut() -> isize) -> io::Result<usize> {
    loop {
        match usize::try_from(call()) {
            Ok(moved) => return Ok(moved),
            Err(_) => {
                let error = io::Error::last_os_error();
                if error.kind() != io::ErrorKind::Interrupted {
                    return Err(error);
                }
            }
        }
    }
}
