//! The archive's bytes: counted, bounded, in large reads.

use std::io::{self, Read};

use crate::layer::LayerError;

/// One record of tar, in bytes.
pub(super) const BLOCK: usize = 512;
const BUFFER: usize = 256 << 10;

pub(super) struct Input<R> {
    inner: R,
    buffer: Box<[u8]>,
    start: usize,
    end: usize,
    /// Bytes handed out so far.
    offset: u64,
    max_bytes: u64,
}

impl<R: Read> Input<R> {
    pub(super) fn new(inner: R, max_bytes: u64) -> Self {
        Self {
            inner,
            buffer: vec![0; BUFFER].into_boxed_slice(),
            start: 0,
            end: 0,
            offset: 0,
            max_bytes,
        }
    }

    pub(super) fn offset(&self) -> u64 {
        self.offset
    }

    /// Bytes that may still be read before the limit.
    pub(super) fn left(&self) -> u64 {
        self.max_bytes.saturating_sub(self.offset)
    }

    /// The next bytes, at most `most`; none only at the end.
    pub(super) fn peek(&mut self, most: u64) -> Result<&[u8], LayerError> {
        while self.start == self.end {
            match self.inner.read(&mut self.buffer) {
                Ok(count) => {
                    self.start = 0;
                    self.end = count.min(self.buffer.len());
                    if count == 0 {
                        break;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(source) => {
                    return Err(LayerError::Read {
                        offset: self.offset,
                        source,
                    });
                }
            }
        }
        let have = self.buffer.get(self.start..self.end).unwrap_or_default();
        let most = usize::try_from(most).unwrap_or(usize::MAX);
        Ok(have.get(..most).unwrap_or(have))
    }

    /// Takes `count` of the bytes that [`Self::peek`] showed.
    pub(super) fn consume(&mut self, count: usize) {
        self.start = (self.start + count).min(self.end);
        self.offset += count as u64;
    }

    /// Reads one record. `None` at the end of the stream; an incomplete one is an error.
    pub(super) fn block(&mut self) -> Result<Option<[u8; BLOCK]>, LayerError> {
        let mut block = [0; BLOCK];
        let mut filled = 0;
        while filled < BLOCK {
            let piece = self.peek((BLOCK - filled) as u64)?;
            let count = piece.len();
            if count == 0 {
                if filled == 0 {
                    return Ok(None);
                }
                return Err(self.truncated("a tar header"));
            }
            if let Some(space) = block.get_mut(filled..filled + count) {
                space.copy_from_slice(piece);
            }
            filled += count;
            self.consume(count);
        }
        Ok(Some(block))
    }

    /// Passes over `count` bytes.
    pub(super) fn skip(&mut self, mut count: u64, within: &str) -> Result<(), LayerError> {
        while count > 0 {
            let now = self.peek(count)?.len();
            if now == 0 {
                return Err(self.truncated(within));
            }
            self.consume(now);
            count -= now as u64;
        }
        Ok(())
    }

    /// Reads to the end of the stream, so that whoever hashes it has seen all of it.
    pub(super) fn drain(&mut self) -> Result<(), LayerError> {
        loop {
            let now = self.peek(u64::MAX)?.len();
            if now == 0 {
                return Ok(());
            }
            self.consume(now);
            if self.offset > self.max_bytes {
                return Err(LayerError::TooMuch {
                    entry: "after the end of the archive".to_owned(),
                    limit: self.max_bytes,
                    what: "bytes",
                });
            }
        }
    }

    pub(super) fn truncated(&self, within: &str) -> LayerError {
        LayerError::Truncated {
            offset: self.offset,
            within: within.to_owned(),
        }
    }
}
