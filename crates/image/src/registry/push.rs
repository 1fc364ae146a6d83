//! From an image in the store to a registry.

use std::collections::BTreeSet;

use bulkhead_types::Digest;
use futures::StreamExt;
use reqwest::header::CONTENT_TYPE;

use super::client::{Access, Client};
use super::error::RegistryError;
use super::{RegistryOptions, block_on};
use crate::manifest::{OCI_MANIFEST, digest_of};
use crate::progress::{Progress, Quiet};
use crate::reference::Reference;
use crate::store::{Image, Store};

/// Uploads at a time.
const UPLOADS: usize = 3;

/// What was pushed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PushSummary {
    /// The manifest's digest, which is the one that the store has: not a byte was changed.
    pub digest: Digest,
    /// Bytes of the manifest.
    pub size: u64,
}

/// Pushes the image with this name. Blobs that the registry has are not sent.
///
/// # Errors
/// [`RegistryError`]; blobs that were sent stay in the registry, but no tag changes.
pub fn push(
    store: &Store,
    reference: &Reference,
    options: &RegistryOptions,
    progress: &dyn Progress,
) -> Result<PushSummary, RegistryError> {
    let Some(tag) = reference.tag().filter(|_| reference.digest().is_none()) else {
        return Err(RegistryError::NoTag(reference.familiar()));
    };
    let _content = store.using_content()?;
    let image = store.resolve(&reference.to_string())?;
    let sources = sources(&image, reference);
    let client = Client::new(reference, Access::Push, &sources, options, progress)?;
    let summary = block_on(|| push_with(store, &client, &image, tag, &sources))?;
    store.add_repo_digest(
        reference,
        &image.manifest_digest,
        &reference.at(summary.digest.clone()),
    )?;
    Ok(summary)
}

async fn push_with(
    store: &Store,
    client: &Client<'_>,
    image: &Image,
    tag: &str,
    sources: &[String],
) -> Result<PushSummary, RegistryError> {
    let document = |source| RegistryError::Document {
        reference: client.reference.familiar(),
        source,
    };
    let descriptors = image
        .manifest
        .layers()
        .iter()
        .chain([image.manifest.config()]);
    let blobs: BTreeSet<Digest> = descriptors
        .map(digest_of)
        .collect::<Result<_, _>>()
        .map_err(document)?;
    let config = digest_of(image.manifest.config()).map_err(document)?;
    let mut uploads = futures::stream::iter(&blobs)
        .map(|digest| {
            // The configuration is no layer, and people count those.
            let progress = match *digest == config {
                true => &Quiet,
                false => client.progress,
            };
            client.upload(store, digest, sources, progress)
        })
        .buffer_unordered(UPLOADS);
    while let Some(result) = uploads.next().await {
        result?;
    }
    let bytes = store.raw_manifest(image)?;
    let size = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
    let media_type = image
        .manifest
        .media_type()
        .as_ref()
        .map_or_else(|| OCI_MANIFEST.to_owned(), ToString::to_string);
    let put = |http: &reqwest::Client| {
        http.put(client.url(&format!("manifests/{tag}")))
            .header(CONTENT_TYPE, &media_type)
            .body(bytes.clone())
    };
    let answer = client
        .send("put the manifest", &[200, 201, 202], &put)
        .await?;
    let stored = answer
        .headers()
        .get("docker-content-digest")
        .and_then(|v| v.to_str().ok()?.parse::<Digest>().ok());
    let digest = image.manifest_digest.clone();
    match stored.filter(|stored| *stored != digest) {
        Some(actual) => {
            let what = "the pushed manifest".to_owned();
            Err(RegistryError::DigestMismatch {
                registry: client.registry(),
                what,
                expected: digest,
                actual,
            })
        }
        None => Ok(PushSummary { digest, size }),
    }
}

/// Repositories of the same registry that are known to have the image, or may have.
fn sources(image: &Image, target: &Reference) -> Vec<String> {
    let known = image.repo_digests.iter().chain(&image.names);
    let here = known.filter(|one| {
        one.registry() == target.registry() && one.repository() != target.repository()
    });
    let repositories: BTreeSet<String> = here.map(|one| one.repository().to_owned()).collect();
    repositories.into_iter().take(3).collect()
}
