//! Sparse files: GNU's header form and the three PAX dialects, all turned into one list of segments.

use std::io::Read;

use tar::{GnuExtSparseHeader, GnuHeader, GnuSparseHeader};

use super::field::{decimal, unsigned};
use super::input::{BLOCK, Input};
use super::pax::PaxSparse;
use crate::layer::{LayerError, show};

/// A stretch of a file that the archive has bytes for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Segment {
    /// In the file.
    pub(crate) offset: u64,
    pub(crate) length: u64,
}

/// Collects a map of at most so many segments.
struct Map<'a> {
    segments: Vec<Segment>,
    max: usize,
    entry: &'a [u8],
}

impl<'a> Map<'a> {
    fn new(max: usize, entry: &'a [u8]) -> Self {
        Self {
            segments: Vec::new(),
            max,
            entry,
        }
    }

    fn push(&mut self, offset: Option<u64>, length: Option<u64>) -> Result<(), LayerError> {
        let (Some(offset), Some(length)) = (offset, length) else {
            return Err(bad_map(self.entry));
        };
        if self.segments.len() >= self.max {
            return Err(LayerError::TooMuch {
                entry: show(self.entry),
                limit: self.max as u64,
                what: "sparse segments",
            });
        }
        self.segments.push(Segment { offset, length });
        Ok(())
    }

    fn header(&mut self, headers: &[GnuSparseHeader]) -> Result<(), LayerError> {
        for header in headers {
            if header.offset[0] == 0 || header.numbytes[0] == 0 {
                break;
            }
            self.push(unsigned(&header.offset), unsigned(&header.numbytes))?;
        }
        Ok(())
    }
}

fn bad_map(entry: &[u8]) -> LayerError {
    LayerError::BadSparseMap { entry: show(entry) }
}

/// Reads GNU's own form: four segments in the header, more in blocks that follow it.
pub(super) fn gnu<R: Read>(
    header: &GnuHeader,
    input: &mut Input<R>,
    max: usize,
    entry: &[u8],
) -> Result<(Vec<Segment>, u64), LayerError> {
    let mut map = Map::new(max, entry);
    map.header(&header.sparse)?;
    let mut more = header.isextended[0] == 1;
    while more {
        let Some(block) = input.block()? else {
            return Err(input.truncated(&format!("the sparse map of {}", show(entry))));
        };
        let mut extended = GnuExtSparseHeader::new();
        extended.as_mut_bytes().copy_from_slice(&block);
        let before = map.segments.len();
        map.header(&extended.sparse)?;
        // Such a block exists to hold segments. One without any could go on for ever.
        if map.segments.len() == before {
            return Err(bad_map(entry));
        }
        more = extended.isextended[0] == 1;
    }
    let size = unsigned(&header.realsize).ok_or_else(|| bad_map(entry))?;
    Ok((map.segments, size))
}

/// The PAX dialects. `stored` is how many bytes the archive has for the entry; dialect 1.0 keeps its map in them, and
/// what the map took is subtracted. `None` where the entry is no sparse file.
pub(super) fn pax<R: Read>(
    records: &PaxSparse,
    stored: &mut u64,
    input: &mut Input<R>,
    max: usize,
    entry: &[u8],
) -> Result<Option<(Vec<Segment>, u64)>, LayerError> {
    let version = (records.major.as_deref(), records.minor.as_deref());
    let mut map = Map::new(max, entry);
    match version {
        (Some(b"1"), Some(b"0")) => map_in_content(&mut map, stored, input)?,
        (None, None) if records.map.is_none() && records.pairs.is_empty() => {
            // An empty map need not be written: a file that is one hole.
            if records.real_size.is_none() {
                return Ok(None);
            }
        }
        (None | Some(b"0"), None | Some(b"0" | b"1")) => {
            if let Some(text) = &records.map {
                let mut numbers = text.split(|byte| *byte == b',').map(decimal);
                while let Some(offset) = numbers.next() {
                    map.push(offset, numbers.next().flatten())?;
                }
            }
            let mut pairs = records.pairs.iter().map(|text| decimal(text));
            while let Some(offset) = pairs.next() {
                map.push(offset, pairs.next().flatten())?;
            }
        }
        _ => return Err(bad_map(entry)),
    }
    let size = records
        .real_size
        .as_deref()
        .and_then(decimal)
        .ok_or_else(|| bad_map(entry))?;
    Ok(Some((map.segments, size)))
}

/// Dialect 1.0: decimal numbers, each on a line, at the beginning of the content: how many segments, then
/// offset and length of each; padded to a block.
fn map_in_content<R: Read>(
    map: &mut Map<'_>,
    stored: &mut u64,
    input: &mut Input<R>,
) -> Result<(), LayerError> {
    let mut lines = Lines {
        block: [0; BLOCK],
        at: BLOCK,
    };
    let count = lines.number(stored, input, map.entry)?;
    if count > map.max as u64 {
        return Err(LayerError::TooMuch {
            entry: show(map.entry),
            limit: map.max as u64,
            what: "sparse segments",
        });
    }
    for _ in 0..count {
        let offset = lines.number(stored, input, map.entry)?;
        let length = lines.number(stored, input, map.entry)?;
        map.push(Some(offset), Some(length))?;
    }
    Ok(())
}

struct Lines {
    block: [u8; BLOCK],
    at: usize,
}

impl Lines {
    fn number<R: Read>(
        &mut self,
        stored: &mut u64,
        input: &mut Input<R>,
        entry: &[u8],
    ) -> Result<u64, LayerError> {
        let mut value = 0u64;
        let mut digits = 0;
        loop {
            if self.at == BLOCK {
                *stored = stored
                    .checked_sub(BLOCK as u64)
                    .ok_or_else(|| bad_map(entry))?;
                self.block = input.block()?.ok_or_else(|| {
                    input.truncated(&format!("the sparse map of {}", show(entry)))
                })?;
                self.at = 0;
            }
            let byte = self.block.get(self.at).copied().unwrap_or(0);
            self.at += 1;
            match byte {
                b'\n' if digits > 0 => return Ok(value),
                b'0'..=b'9' if digits < 20 => {
                    value = value
                        .checked_mul(10)
                        .and_then(|value| value.checked_add(u64::from(byte - b'0')))
                        .ok_or_else(|| bad_map(entry))?;
                    digits += 1;
                }
                _ => return Err(bad_map(entry)),
            }
        }
    }
}

/// Checks a map: in order, not overlapping, within the file, and as long in all as what the archive has.
pub(super) fn check(
    segments: &[Segment],
    size: u64,
    stored: u64,
    entry: &[u8],
) -> Result<(), LayerError> {
    let mut end = 0u64;
    let mut total = 0u64;
    for segment in segments {
        let next = segment.offset.checked_add(segment.length);
        match next {
            Some(next) if segment.offset >= end && next <= size => end = next,
            _ => return Err(bad_map(entry)),
        }
        total += segment.length;
    }
    if total != stored {
        return Err(bad_map(entry));
    }
    Ok(())
}
