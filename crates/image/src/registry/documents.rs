//! Manifests and indexes as a registry gives them.

use bulkhead_types::Digest;
use reqwest::header::{ACCEPT, CONTENT_TYPE, HeaderValue};
use reqwest::{Method, StatusCode};
use sha2::{Digest as _, Sha256};

use super::answers::detail_of;
use super::client::Client;
use super::error::RegistryError;
use crate::manifest::{DOCKER_INDEX, DOCKER_MANIFEST, MANIFEST_MAX, OCI_INDEX, OCI_MANIFEST};

/// Enough for any error message, in bytes.
const ANSWER_MAX: u64 = 64 << 10;

/// A manifest as it came.
pub(super) struct RawManifest {
    pub(super) bytes: Vec<u8>,
    pub(super) digest: Digest,
    pub(super) content_type: Option<String>,
}

impl Client<'_> {
    /// Gets the manifest or index that a tag or digest names; repeated when cut.
    pub(super) async fn manifest(&self, tag_or_digest: &str) -> Result<RawManifest, RegistryError> {
        let operation = format!("get manifest {tag_or_digest}");
        let mut failed = 0;
        loop {
            let accept = [OCI_MANIFEST, OCI_INDEX, DOCKER_MANIFEST, DOCKER_INDEX].join(", ");
            let build = |http: &reqwest::Client| {
                http.request(Method::GET, self.url(&format!("manifests/{tag_or_digest}")))
                    .header(ACCEPT, &accept)
            };
            let response = self.send(&operation, &[200, 404], &build).await?;
            if response.status() == StatusCode::NOT_FOUND {
                let body = self
                    .body(response, "error", ANSWER_MAX)
                    .await
                    .unwrap_or_default();
                return Err(RegistryError::NotFound {
                    reference: self.reference.familiar(),
                    detail: detail_of(&body),
                });
            }
            let header = |name| {
                response
                    .headers()
                    .get(name)
                    .and_then(|v: &HeaderValue| v.to_str().ok())
            };
            let content_type = header(CONTENT_TYPE.as_str()).map(|text| {
                text.split(';')
                    .next()
                    .unwrap_or(text)
                    .trim()
                    .to_ascii_lowercase()
            });
            let promised: Option<Digest> =
                header("docker-content-digest").and_then(|text| text.parse().ok());
            let bytes = match self.body(response, "manifest", MANIFEST_MAX).await {
                Ok(bytes) => bytes,
                Err(error @ RegistryError::Transport { .. }) => {
                    failed += 1;
                    self.pause(failed, (error, None)).await?;
                    continue;
                }
                Err(error) => return Err(error),
            };
            let digest = Digest::from_bytes(Sha256::digest(&bytes).into());
            let expected = tag_or_digest.parse::<Digest>().ok().or(promised);
            if let Some(expected) = expected.filter(|expected| *expected != digest) {
                let what = format!("manifest {tag_or_digest}");
                return Err(RegistryError::DigestMismatch {
                    registry: self.registry(),
                    what,
                    expected,
                    actual: digest,
                });
            }
            return Ok(RawManifest {
                bytes,
                digest,
                content_type,
            });
        }
    }
}
