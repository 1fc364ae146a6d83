//! What one descriptor chain asks of the disk (section 5.2.6).
//!
//! Parsing reads the header once into our memory and decides everything from that copy; the
//! result says which bytes of the chain are data and where the status byte goes.

use super::config::{MAX_RANGE_SECTORS, MAX_RANGES};
use crate::virtio::queue::{Buffers, Chain};

/// Bytes of a sector, the unit of all addresses in requests.
pub(super) const SECTOR: u64 = 512;
/// Type, reserved word, sector.
pub(super) const HEADER_LENGTH: usize = 16;
/// Sector, count, flags.
const RANGE_LENGTH: usize = 16;
/// Length of the identification string (`VIRTIO_BLK_ID_BYTES`).
pub(super) const ID_LENGTH: usize = 20;

const T_IN: u32 = 0;
const T_OUT: u32 = 1;
const T_FLUSH: u32 = 4;
const T_GET_ID: u32 = 8;
const T_DISCARD: u32 = 11;
const T_WRITE_ZEROES: u32 = 13;

/// In a range's flags: the sectors may be deallocated.
const RANGE_UNMAP: u32 = 1;

/// Outcome of a request, as the driver reads it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Status {
    Ok = 0,
    IoError = 1,
    Unsupported = 2,
}

/// A request with a place for its status.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Action {
    /// Read `length` bytes at `offset` into the writable part.
    Read { offset: u64, length: usize },
    /// Write `length` bytes, which follow the header, at `offset`.
    Write { offset: u64, length: usize },
    /// Make earlier writes durable.
    Flush,
    /// Give the serial.
    GetId,
    /// `count` ranges follow the header.
    Ranges { count: usize, keep: Keep },
    /// Not a request that can be carried out; only the status is written.
    Refused(Status),
}

/// What is to become of the sectors of a range.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Keep {
    /// Their content is not needed any more.
    Nothing,
    /// They must read as zeros.
    Zeros,
}

/// A byte range of the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Range {
    pub offset: u64,
    pub length: u64,
    /// Whether the host may free the space.
    pub unmap: bool,
}

/// Why a chain is no request at all: there is no header or no room for a status.
pub(super) type Malformed = &'static str;

/// A half-open span of `length` bytes at `sector`, if it lies on a disk of `capacity` bytes.
fn span(sector: u64, length: u64, capacity: u64) -> Option<u64> {
    let offset = sector.checked_mul(SECTOR)?;
    let end = offset.checked_add(length)?;
    (end <= capacity).then_some(offset)
}

/// Decide what `chain` asks of a disk of `capacity` bytes.
pub(super) fn parse(chain: &Chain, capacity: u64) -> Result<Action, Malformed> {
    let mut header = [0_u8; HEADER_LENGTH];
    if chain.readable.read_at(0, &mut header) < HEADER_LENGTH {
        return Err("the header is shorter than 16 bytes");
    }
    if chain.writable.is_empty() {
        return Err("there is no room for a status");
    }
    let [t0, t1, t2, t3, _, _, _, _, s0, s1, s2, s3, s4, s5, s6, s7] = header;
    let kind = u32::from_le_bytes([t0, t1, t2, t3]);
    let sector = u64::from_le_bytes([s0, s1, s2, s3, s4, s5, s6, s7]);
    let input = chain.writable.len() - 1;
    let output = chain.readable.len() - HEADER_LENGTH;
    let whole = |length: usize| length.is_multiple_of(SECTOR as usize);
    Ok(match kind {
        T_IN => match span(sector, input as u64, capacity) {
            Some(offset) if whole(input) => Action::Read {
                offset,
                length: input,
            },
            _ => Action::Refused(Status::IoError),
        },
        T_OUT => match span(sector, output as u64, capacity) {
            Some(offset) if whole(output) => Action::Write {
                offset,
                length: output,
            },
            _ => Action::Refused(Status::IoError),
        },
        T_FLUSH => Action::Flush,
        T_GET_ID if input >= ID_LENGTH => Action::GetId,
        T_GET_ID => Action::Refused(Status::IoError),
        T_DISCARD | T_WRITE_ZEROES => {
            let count = output / RANGE_LENGTH;
            if !output.is_multiple_of(RANGE_LENGTH) || count == 0 || count > MAX_RANGES as usize {
                Action::Refused(Status::IoError)
            } else {
                Action::Ranges {
                    count,
                    keep: if kind == T_DISCARD {
                        Keep::Nothing
                    } else {
                        Keep::Zeros
                    },
                }
            }
        }
        _ => Action::Refused(Status::Unsupported),
    })
}

/// Read and check the range at `index`; the status to answer with if it is not acceptable
/// (section 5.2.6.2).
pub(super) fn range(
    readable: &Buffers,
    index: usize,
    keep: Keep,
    capacity: u64,
) -> Result<Range, Status> {
    let mut raw = [0_u8; RANGE_LENGTH];
    if readable.read_at(HEADER_LENGTH + index * RANGE_LENGTH, &mut raw) < RANGE_LENGTH {
        return Err(Status::IoError);
    }
    let [
        s0,
        s1,
        s2,
        s3,
        s4,
        s5,
        s6,
        s7,
        n0,
        n1,
        n2,
        n3,
        f0,
        f1,
        f2,
        f3,
    ] = raw;
    let sector = u64::from_le_bytes([s0, s1, s2, s3, s4, s5, s6, s7]);
    let sectors = u32::from_le_bytes([n0, n1, n2, n3]);
    let flags = u32::from_le_bytes([f0, f1, f2, f3]);
    let unmap = flags & RANGE_UNMAP != 0;
    if flags & !RANGE_UNMAP != 0 || (keep == Keep::Nothing && unmap) {
        return Err(Status::Unsupported);
    }
    if sectors > MAX_RANGE_SECTORS {
        return Err(Status::IoError);
    }
    let length = u64::from(sectors) * SECTOR;
    let offset = span(sector, length, capacity).ok_or(Status::IoError)?;
    Ok(Range {
        offset,
        length,
        unmap: unmap || keep == Keep::Nothing,
    })
}
