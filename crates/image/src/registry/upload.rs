//! One blob from the store to a registry, streamed.

use std::fs::File;
use std::io::{self, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bulkhead_types::Digest;
use reqwest::header::{CONTENT_LENGTH, CONTENT_TYPE};
use reqwest::{Body, StatusCode, Url};

use super::client::Client;
use super::error::RegistryError;
use crate::progress::{Outcome, Phase, Progress};
use crate::store::{Store, StoreError};

const CHUNK: usize = 256 << 10;
/// How often progress is told while a body goes out.
const TICK: Duration = Duration::from_millis(100);

impl Client<'_> {
    /// Gives the registry a blob, unless it has it here or in one of the repositories `sources`;
    /// tells `progress`.
    pub(super) async fn upload(
        &self,
        store: &Store,
        digest: &Digest,
        sources: &[String],
        progress: &dyn Progress,
    ) -> Result<Outcome, RegistryError> {
        let item = digest.short();
        let operation = format!("look for blob {digest}");
        let head = |http: &reqwest::Client| http.head(self.url(&format!("blobs/{digest}")));
        let found = self.send(&operation, &[200, 404], &head).await?;
        if found.status() == StatusCode::OK {
            progress.finish(&item, Outcome::Exists);
            return Ok(Outcome::Exists);
        }
        for source in sources {
            let operation = format!("mount blob {digest} from {source}");
            let mount = |http: &reqwest::Client| {
                let url = self.url(&format!("blobs/uploads/?mount={digest}&from={source}"));
                http.post(url).header(CONTENT_LENGTH, 0)
            };
            // Refusals of every kind only mean that the bytes must travel.
            if let Ok(answer) = self
                .send(&operation, &[201, 202, 401, 403, 404, 405], &mount)
                .await
                && answer.status() == StatusCode::CREATED
            {
                progress.finish(&item, Outcome::Mounted);
                return Ok(Outcome::Mounted);
            }
        }
        let size = store
            .blob_size(digest)
            .ok_or_else(|| StoreError::MissingBlob {
                digest: digest.clone(),
                image: self.reference.familiar(),
            })?;
        let mut failed = 0;
        loop {
            progress.start(&item, Phase::Uploading, Some(size));
            match self
                .upload_once(store, digest, size, (&item, progress))
                .await
            {
                Ok(()) => break,
                Err(error @ RegistryError::Transport { .. }) => {
                    failed += 1;
                    self.pause(failed, (error, None)).await?;
                }
                Err(error) => return Err(error),
            }
        }
        progress.finish(&item, Outcome::Done);
        Ok(Outcome::Done)
    }

    async fn upload_once(
        &self,
        store: &Store,
        digest: &Digest,
        size: u64,
        (item, progress): (&str, &dyn Progress),
    ) -> Result<(), RegistryError> {
        let begin = |http: &reqwest::Client| {
            http.post(self.url("blobs/uploads/"))
                .header(CONTENT_LENGTH, 0)
        };
        let session = self.send("begin an upload", &[202], &begin).await?;
        let mut url: Url = self.locate(&session)?;
        url.query_pairs_mut()
            .append_pair("digest", &digest.to_string());
        let path = store.blob_path(digest);
        let sent = Arc::new(AtomicU64::new(0));
        let put = |http: &reqwest::Client| {
            sent.store(0, Ordering::Relaxed);
            http.put(url.clone())
                .header(CONTENT_TYPE, "application/octet-stream")
                .header(CONTENT_LENGTH, size)
                .body(stream(File::open(&path), Arc::clone(&sent)))
        };
        let operation = format!("upload blob {digest}");
        let request = self.send(&operation, &[201], &put);
        tokio::pin!(request);
        let mut told = 0;
        let mut tell = || {
            let now = sent.load(Ordering::Relaxed);
            progress.advance(item, now.saturating_sub(told));
            told = told.max(now);
        };
        loop {
            match tokio::time::timeout(TICK, &mut request).await {
                Ok(answer) => {
                    answer?;
                    tell();
                    return Ok(());
                }
                Err(_) => tell(),
            }
        }
    }
}

/// A body that reads the file as the connection takes it.
fn stream(file: io::Result<File>, sent: Arc<AtomicU64>) -> Body {
    let next = move |state: (io::Result<File>, Arc<AtomicU64>)| async move {
        let (file, sent) = state;
        let mut file = match file {
            Ok(file) => file,
            Err(error) => {
                return Some((
                    Err(error),
                    (Err(io::Error::from(io::ErrorKind::NotFound)), sent),
                ));
            }
        };
        let mut buffer = vec![0; CHUNK];
        match file.read(&mut buffer) {
            Ok(0) => None,
            Ok(n) => {
                buffer.truncate(n);
                sent.fetch_add(u64::try_from(n).unwrap_or_default(), Ordering::Relaxed);
                Some((Ok(buffer), (Ok(file), sent)))
            }
            Err(error) => Some((Err(error), (Ok(file), sent))),
        }
    };
    Body::wrap_stream(futures::stream::unfold((file, sent), next))
}
