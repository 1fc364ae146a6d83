//! Converted layers: made once from a blob, shared by all images with the same uncompressed digest.

use std::fs::File;
use std::io::{self, BufReader, Read};

use bulkhead_types::Digest;
use oci_spec::image::Descriptor;
use sha2::{Digest as _, Sha256};

use super::{Store, StoreError};
use crate::decompress::Decoder;
use crate::layer::{self, Limits};
use crate::manifest::digest_of;
use crate::progress::{Outcome, Phase, Progress};

/// Big enough that a decompressor never waits for the system call.
const BUFFER: usize = 256 << 10;

impl Store {
    /// Whether the layer is converted. A layer comes and goes by rename; both files are looked for
    /// all the same, because whoever tidies by hand does not rename.
    pub(crate) fn has_layer(&self, diff_id: &Digest) -> bool {
        let dir = self.layer_dir(diff_id);
        dir.join(layer::INDEX_FILE).is_file() && dir.join(layer::DATA_FILE).is_file()
    }

    /// Converts a layer from its blob, unless that is done; waits for a process that is at it.
    /// Call with the content lock held, and finish the item (the blob's short digest) afterwards.
    pub(crate) fn ensure_layer(
        &self,
        blob: &Descriptor,
        diff_id: &Digest,
        progress: &dyn Progress,
    ) -> Result<Outcome, StoreError> {
        self.ensure_layer_among(blob, diff_id, 1, progress)
    }

    /// As [`Store::ensure_layer`] where so many layers are converted at the same time: each gets its part of the memory.
    pub(crate) fn ensure_layer_among(
        &self,
        blob: &Descriptor,
        diff_id: &Digest,
        sharers: usize,
        progress: &dyn Progress,
    ) -> Result<Outcome, StoreError> {
        if self.has_layer(diff_id) {
            return Ok(Outcome::Exists);
        }
        let digest = digest_of(blob).map_err(|source| StoreError::Document {
            digest: diff_id.clone(),
            source,
        })?;
        let item = digest.short();
        let name = format!("layer-{}", diff_id.hex());
        let _lock = match self.try_lock(&name)? {
            Some(lock) => lock,
            None => {
                progress.start(&item, Phase::Waiting, None);
                self.lock(&name)?
            }
        };
        if self.has_layer(diff_id) {
            return Ok(Outcome::Exists);
        }
        progress.start(&item, Phase::Converting, Some(blob.size()));
        self.convert_layer(&digest, Some(diff_id), sharers, &|bytes| {
            progress.advance(&item, bytes)
        })?;
        Ok(Outcome::Done)
    }

    /// Converts a layer whose uncompressed digest nobody knows yet, and returns that digest.
    pub(crate) fn add_layer(
        &self,
        digest: &Digest,
        progress: &dyn Progress,
    ) -> Result<Digest, StoreError> {
        let item = digest.short();
        progress.start(&item, Phase::Converting, self.blob_size(digest));
        let diff_id =
            self.convert_layer(digest, None, 1, &|bytes| progress.advance(&item, bytes))?;
        progress.finish(&item, Outcome::Done);
        Ok(diff_id)
    }

    fn convert_layer(
        &self,
        digest: &Digest,
        expected: Option<&Digest>,
        sharers: usize,
        advance: &dyn Fn(u64),
    ) -> Result<Digest, StoreError> {
        let file = self.open_blob(digest)?;
        let counted = BufReader::with_capacity(BUFFER, Counted { file, advance });
        let decompress = |source| StoreError::Decompress {
            digest: digest.clone(),
            source,
        };
        let decoder = Decoder::new(counted).map_err(decompress)?;
        let mut memory = self.bounds().budget().share(sharers);
        // Where this takes all of it, the first entry says so.
        let decoder_memory = decoder.memory().min(memory.left());
        let _ = memory.charge(decoder_memory);
        let limits = Limits {
            memory,
            keep_free: self.bounds().keep_free,
            ..Limits::default()
        };
        let mut hashed = Hashed {
            reader: decoder,
            hash: Sha256::new(),
            size: 0,
        };
        let dir = self.temp_dir()?;
        layer::convert(&mut hashed, dir.path(), &limits).map_err(|source| StoreError::Layer {
            digest: digest.clone(),
            source,
        })?;
        // An archive ends before its stream does: padding counts for the digest.
        let rest = limits
            .max_bytes
            .saturating_sub(hashed.size)
            .saturating_add(1);
        io::copy(&mut (&mut hashed).take(rest), &mut io::sink()).map_err(decompress)?;
        if hashed.size > limits.max_bytes {
            return Err(StoreError::SizeMismatch {
                what: format!("uncompressed layer {digest}"),
                expected: limits.max_bytes,
                actual: hashed.size,
            });
        }
        let actual = Digest::from_bytes(hashed.hash.finalize().into());
        if let Some(expected) = expected.filter(|expected| **expected != actual) {
            return Err(StoreError::DigestMismatch {
                what: format!("uncompressed layer {digest}"),
                expected: expected.clone(),
                actual,
            });
        }
        // Somebody may use the very layer that turned out to be this one: do not replace it.
        let _lock = match expected {
            Some(_) => None,
            None => Some(self.lock(&format!("layer-{}", actual.hex()))?),
        };
        if expected.is_some() || !self.has_layer(&actual) {
            self.publish_dir(dir, &self.layer_dir(&actual))?;
        }
        Ok(actual)
    }
}

struct Hashed<R> {
    reader: R,
    hash: Sha256,
    size: u64,
}

impl<R: Read> Read for Hashed<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.reader.read(buffer)?;
        self.hash.update(buffer.get(..n).unwrap_or_default());
        self.size = self
            .size
            .saturating_add(u64::try_from(n).unwrap_or_default());
        Ok(n)
    }
}

struct Counted<'a> {
    file: File,
    advance: &'a dyn Fn(u64),
}

impl Read for Counted<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.file.read(buffer)?;
        (self.advance)(u64::try_from(n).unwrap_or_default());
        Ok(n)
    }
}
