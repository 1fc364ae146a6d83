//! Blobs: content under the name of its digest.

use std::fs::{self, File};
use std::io::{self, Read, Write};

use bulkhead_types::Digest;
use sha2::{Digest as _, Sha256};

use super::{Store, StoreError, io_error};
use crate::budget::Space;
use crate::manifest::ManifestError;

/// Writes a blob whose digest may not be known yet; gone when dropped before it is committed.
pub(crate) struct BlobWriter {
    store: Store,
    file: tempfile::NamedTempFile,
    hash: Sha256,
    size: u64,
    space: Space,
}

impl BlobWriter {
    /// Gives the blob its name; `expected` must be its digest where given.
    pub(crate) fn commit(
        self,
        expected: Option<(&Digest, &str)>,
    ) -> Result<(Digest, u64), StoreError> {
        let digest = Digest::from_bytes(self.hash.finalize().into());
        if let Some((expected, what)) = expected
            && *expected != digest
        {
            return Err(StoreError::DigestMismatch {
                what: what.to_owned(),
                expected: expected.clone(),
                actual: digest,
            });
        }
        let path = self.store.blob_path(&digest);
        if !path.exists() {
            self.store.publish_file(self.file, &path)?;
        }
        Ok((digest, self.size))
    }
}

impl Write for BlobWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.space.take(self.file.as_file(), bytes.len() as u64)?;
        let n = self.file.write(bytes)?;
        self.hash.update(bytes.get(..n).unwrap_or_default());
        self.size += u64::try_from(n).unwrap_or_default();
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl Store {
    /// Whether the store has the blob.
    pub fn has_blob(&self, digest: &Digest) -> bool {
        self.blob_path(digest).is_file()
    }

    /// Begins a blob.
    pub(crate) fn blob_writer(&self) -> Result<BlobWriter, StoreError> {
        Ok(BlobWriter {
            store: self.clone(),
            file: self.temp_file()?,
            hash: Sha256::new(),
            size: 0,
            space: Space::new(self.bounds().keep_free),
        })
    }

    /// Adds a small blob.
    pub(crate) fn put_blob(&self, bytes: &[u8]) -> Result<Digest, StoreError> {
        let mut writer = self.blob_writer()?;
        writer
            .write_all(bytes)
            .map_err(io_error("write a blob in", &self.temp_root()))?;
        Ok(writer.commit(None)?.0)
    }

    /// The file of a blob, unverified.
    pub(super) fn open_blob(&self, digest: &Digest) -> Result<File, StoreError> {
        let path = self.blob_path(digest);
        File::open(&path).map_err(|source| match source.kind() {
            io::ErrorKind::NotFound => StoreError::MissingBlob {
                digest: digest.clone(),
                image: digest.short(),
            },
            _ => io_error("open", &path)(source),
        })
    }

    /// Reads a small blob of at most `limit` bytes, verified: whoever edits the layout by hand
    /// must not be believed.
    pub(crate) fn read_blob(&self, digest: &Digest, limit: u64) -> Result<Vec<u8>, StoreError> {
        let path = self.blob_path(digest);
        let file = self.open_blob(digest)?;
        let mut bytes = Vec::new();
        file.take(limit.saturating_add(1))
            .read_to_end(&mut bytes)
            .map_err(io_error("read", &path))?;
        let size = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        if size > limit {
            return Err(StoreError::Document {
                digest: digest.clone(),
                source: ManifestError::TooLarge {
                    document: "document",
                    actual: fs::metadata(&path).map_or(size, |meta| meta.len()),
                    limit,
                },
            });
        }
        let actual = Digest::from_bytes(Sha256::digest(&bytes).into());
        if actual == *digest {
            return Ok(bytes);
        }
        Err(StoreError::DigestMismatch {
            what: path.display().to_string(),
            expected: digest.clone(),
            actual,
        })
    }

    /// Size of a blob in bytes, where it is there.
    pub(crate) fn blob_size(&self, digest: &Digest) -> Option<u64> {
        fs::metadata(self.blob_path(digest)).ok().map(|m| m.len())
    }
}
