//! One blob from a registry into the store: resumable, bounded, verified.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bulkhead_types::Digest;
use oci_spec::image::Descriptor;
use reqwest::header::{CONTENT_RANGE, RANGE};
use reqwest::{Response, StatusCode};
use sha2::{Digest as _, Sha256};

use super::client::Client;
use super::error::RegistryError;
use crate::budget::Space;
use crate::kind::ErrorKind;
use crate::manifest::digest_of;
use crate::progress::{Outcome, Phase, Progress};
use crate::store::{Lock, Store, StoreError, sync_parent};

/// How often to look whether another process is done with a blob.
const LOCK_POLL: Duration = Duration::from_millis(50);

/// A download that did not end well.
enum Failure {
    /// Worth another attempt that continues where this one stopped.
    Cut(Option<reqwest::Error>),
    /// What is here cannot be continued; worth one attempt from the start.
    Restart,
    Final(RegistryError),
}

/// The bytes of a blob that are here already.
struct Partial {
    file: File,
    path: PathBuf,
    hash: Sha256,
    length: u64,
    space: Space,
}

impl Client<'_> {
    /// Puts the blob into the store, unless it is there, and tells `progress`. Stops early, with no error of its own,
    /// once `stop` is set.
    pub(super) async fn fetch(
        &self,
        store: &Store,
        blob: &Descriptor,
        progress: &dyn Progress,
        stop: &AtomicBool,
    ) -> Result<Outcome, RegistryError> {
        let digest = self.digest(blob)?;
        let item = digest.short();
        if store.has_blob(&digest) {
            return Ok(Outcome::Exists);
        }
        let _lock = self.lock_blob(store, &digest, (&item, progress)).await?;
        if store.has_blob(&digest) {
            return Ok(Outcome::Exists);
        }
        let mut partial = Partial::open(
            store.partial_path(&digest),
            blob.size(),
            Space::new(store.bounds().keep_free),
        )?;
        let resumed = partial.length > 0;
        let mut fresh_start_left = true;
        let mut failed = 0;
        progress.start(&item, Phase::Downloading, Some(blob.size()));
        progress.advance(&item, partial.length);
        loop {
            if stop.load(Ordering::Relaxed) {
                return Ok(Outcome::Done);
            }
            let before = partial.length;
            let result = match partial.length == blob.size() {
                true => Ok(()),
                false => {
                    self.fetch_rest(&digest, blob.size(), &mut partial, (&item, progress), stop)
                        .await
                }
            };
            match result {
                Ok(()) => {
                    let actual = Digest::from_bytes(partial.hash.clone().finalize().into());
                    if actual == digest {
                        break;
                    }
                    // The beginning may stem from another day and another server.
                    if !(resumed && fresh_start_left) {
                        partial.discard();
                        let what = format!("blob {digest}");
                        return Err(RegistryError::DigestMismatch {
                            registry: self.registry(),
                            what,
                            expected: digest,
                            actual,
                        });
                    }
                    fresh_start_left = false;
                    partial.restart()?;
                    progress.start(&item, Phase::Downloading, Some(blob.size()));
                }
                Err(Failure::Restart) if fresh_start_left => {
                    fresh_start_left = false;
                    partial.restart()?;
                    progress.start(&item, Phase::Downloading, Some(blob.size()));
                }
                Err(Failure::Restart) => {
                    partial.discard();
                    let reason = "it does not honour ranges that it offered";
                    return Err(RegistryError::Protocol {
                        registry: self.registry(),
                        reason,
                    });
                }
                Err(Failure::Cut(source)) => {
                    failed = if partial.length > before {
                        1
                    } else {
                        failed + 1
                    };
                    let cut = RegistryError::Cut {
                        registry: self.registry(),
                        digest: digest.clone(),
                        received: partial.length,
                        expected: blob.size(),
                        source,
                    };
                    self.pause(failed, (cut, None)).await?;
                }
                Err(Failure::Final(error)) => {
                    if !matches!(
                        error.kind(),
                        ErrorKind::Unavailable | ErrorKind::RateLimited | ErrorKind::Unauthorized
                    ) {
                        partial.discard();
                    }
                    return Err(error);
                }
            }
        }
        partial.publish(store, &digest)?;
        Ok(Outcome::Done)
    }

    fn digest(&self, blob: &Descriptor) -> Result<Digest, RegistryError> {
        digest_of(blob).map_err(|source| RegistryError::Document {
            reference: self.reference.familiar(),
            source,
        })
    }

    /// Waits without blocking: two processes that fetch the same blobs in different order would
    /// otherwise wait for each other.
    async fn lock_blob(
        &self,
        store: &Store,
        digest: &Digest,
        (item, progress): (&str, &dyn Progress),
    ) -> Result<Lock, RegistryError> {
        let name = format!("blob-{}", digest.hex());
        let mut told = false;
        loop {
            if let Some(lock) = store.try_lock(&name)? {
                return Ok(lock);
            }
            if !told {
                progress.start(item, Phase::Waiting, None);
                told = true;
            }
            tokio::time::sleep(LOCK_POLL).await;
        }
    }

    async fn fetch_rest(
        &self,
        digest: &Digest,
        size: u64,
        partial: &mut Partial,
        (item, progress): (&str, &dyn Progress),
        stop: &AtomicBool,
    ) -> Result<(), Failure> {
        let offset = partial.length;
        let build = |http: &reqwest::Client| {
            let request = http.get(self.url(&format!("blobs/{digest}")));
            if offset > 0 {
                request.header(RANGE, format!("bytes={offset}-"))
            } else {
                request
            }
        };
        let operation = format!("get blob {digest}");
        let mut response = self
            .send(&operation, &[200, 206, 404, 416], &build)
            .await
            .map_err(Failure::Final)?;
        match response.status() {
            StatusCode::OK if offset > 0 => {
                // The server knows no ranges.
                partial.restart().map_err(|e| Failure::Final(e.into()))?;
                progress.start(item, Phase::Downloading, Some(size));
            }
            StatusCode::OK => {}
            StatusCode::PARTIAL_CONTENT if range_start(&response) == Some(offset) => {}
            StatusCode::PARTIAL_CONTENT | StatusCode::RANGE_NOT_SATISFIABLE => {
                return Err(Failure::Restart);
            }
            _ => {
                return Err(Failure::Final(RegistryError::BlobNotFound {
                    registry: self.registry(),
                    repository: self.reference.repository().to_owned(),
                    digest: digest.clone(),
                }));
            }
        }
        let wrong_size = |actual| {
            let what = format!("blob {digest}");
            Failure::Final(RegistryError::SizeMismatch {
                registry: self.registry(),
                what,
                expected: size,
                actual,
            })
        };
        if let Some(length) = response.content_length() {
            let actual = partial.length.saturating_add(length);
            if actual != size {
                return Err(wrong_size(actual));
            }
        }
        loop {
            let chunk = match response.chunk().await {
                Ok(Some(chunk)) => chunk,
                Ok(None) if partial.length == size => return Ok(()),
                Ok(None) => return Err(Failure::Cut(None)),
                Err(source) => return Err(Failure::Cut(Some(source))),
            };
            let length = u64::try_from(chunk.len()).unwrap_or(u64::MAX);
            if partial.length.saturating_add(length) > size {
                return Err(wrong_size(partial.length.saturating_add(length)));
            }
            partial
                .append(&chunk)
                .map_err(|e| Failure::Final(e.into()))?;
            progress.advance(item, length);
            if stop.load(Ordering::Relaxed) {
                return Err(Failure::Cut(None));
            }
        }
    }
}

/// Where a partial answer begins (RFC 9110, 14.4: `bytes FIRST-LAST/SIZE`).
fn range_start(response: &Response) -> Option<u64> {
    let text = response.headers().get(CONTENT_RANGE)?.to_str().ok()?;
    text.strip_prefix("bytes ")?
        .split('-')
        .next()?
        .trim()
        .parse()
        .ok()
}

impl Partial {
    /// Opens what an earlier attempt left, and hashes it.
    fn open(path: PathBuf, size: u64, space: Space) -> Result<Self, StoreError> {
        let io_error = |operation: &'static str| {
            let path = path.clone();
            move |source| StoreError::Io {
                operation,
                path,
                source,
            }
        };
        let mut file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .mode(0o600)
            .open(&path)
            .map_err(io_error("open"))?;
        let mut hash = Sha256::new();
        let mut length = 0;
        let mut buffer = vec![0; 256 << 10];
        loop {
            let n = file.read(&mut buffer).map_err(io_error("read"))?;
            if n == 0 {
                break;
            }
            hash.update(buffer.get(..n).unwrap_or_default());
            length += u64::try_from(n).unwrap_or_default();
        }
        let mut partial = Self {
            file,
            path,
            hash,
            length,
            space,
        };
        if partial.length > size {
            partial.restart()?;
        }
        Ok(partial)
    }

    fn append(&mut self, bytes: &[u8]) -> Result<(), StoreError> {
        self.space
            .take(&self.file, bytes.len() as u64)
            .and_then(|()| self.file.write_all(bytes))
            .map_err(|source| self.error("write", source))?;
        self.hash.update(bytes);
        self.length += u64::try_from(bytes.len()).unwrap_or_default();
        Ok(())
    }

    fn restart(&mut self) -> Result<(), StoreError> {
        let emptied = self
            .file
            .set_len(0)
            .and_then(|()| self.file.seek(SeekFrom::Start(0)));
        emptied.map_err(|source| self.error("truncate", source))?;
        self.hash = Sha256::new();
        self.length = 0;
        Ok(())
    }

    /// Removes what cannot be used; an error here would hide the one that led here.
    fn discard(self) {
        let _ = fs::remove_file(&self.path);
    }

    fn publish(self, store: &Store, digest: &Digest) -> Result<(), StoreError> {
        let target = store.blob_path(digest);
        if let Err(source) = self
            .file
            .sync_all()
            .and_then(|()| fs::rename(&self.path, &target))
        {
            let error = self.error("publish", source);
            self.discard();
            return Err(error);
        }
        sync_parent(&target)
    }

    fn error(&self, operation: &'static str, source: io::Error) -> StoreError {
        StoreError::Io {
            operation,
            path: self.path.clone(),
            source,
        }
    }
}

/// A download may end at any time, with its pull: one that never began leaves nothing to continue.
impl Drop for Partial {
    fn drop(&mut self) {
        if self.length == 0 {
            let _ = fs::remove_file(&self.path);
        }
    }
}
