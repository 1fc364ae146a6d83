//! From a reference to an image in the store.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Mutex, RwLock};

use bulkhead_types::Digest;
use futures::StreamExt;
use oci_spec::image::{Descriptor, ImageConfiguration, ImageManifest, PlatformBuilder};

use super::client::{Access, Client};
use super::documents::RawManifest;
use super::error::RegistryError;
use super::{RegistryOptions, block_on};
use crate::kind::ErrorKind;
use crate::manifest::{
    self, CONFIG_MAX, DOCKER_MANIFEST, Document, ManifestError, OCI_MANIFEST, Search, digest_of,
};
use crate::platform::Platform;
use crate::progress::{Outcome, Progress, Quiet};
use crate::reference::Reference;
use crate::store::{Image, Partials, Store, StoreError, describe};

/// Downloads at a time, as Docker has it: more gain little and are unfair.
const DOWNLOADS: usize = 3;
/// Conversions at a time: they are bound by the processor, and a download is running too.
const CONVERSIONS: usize = 2;

/// What to pull.
#[derive(Debug, Clone, Default)]
pub struct PullOptions {
    /// The platform to choose from an index; by default this host's.
    pub platform: Option<Platform>,
    /// How to speak to the registry.
    pub registry: RegistryOptions,
}

/// Pulls an image: manifest, configuration and layers, verified and converted. Blobs that are here
/// are not transferred, a blob that another process transfers is waited for, and one that was
/// interrupted is continued.
///
/// # Errors
/// [`RegistryError`]; nothing is recorded then, but verified blobs and the beginnings of others stay
/// for the next attempt, unless they are what is wrong.
pub fn pull(
    store: &Store,
    reference: &Reference,
    options: &PullOptions,
    progress: &dyn Progress,
) -> Result<Image, RegistryError> {
    let client = Client::new(reference, Access::Pull, &[], &options.registry, progress)?;
    let result = {
        let _content = store.using_content()?;
        pull_with(store, &client, options)
    };
    match result.as_ref().map_err(RegistryError::kind) {
        // What is here already would only be in the way.
        Err(ErrorKind::NoSpace) => store.tidy_with(Partials::None),
        Err(ErrorKind::Corrupt | ErrorKind::InvalidInput) => store.tidy(),
        _ => store.tidy_if_due(),
    }
    result
}

/// An image's documents, with its configuration in the store.
struct Found {
    top: Digest,
    raw: RawManifest,
    manifest: ImageManifest,
    config: ImageConfiguration,
}

fn pull_with(
    store: &Store,
    client: &Client<'_>,
    options: &PullOptions,
) -> Result<Image, RegistryError> {
    let document = |source| RegistryError::Document {
        reference: client.reference.familiar(),
        source,
    };
    let found = block_on(|| find(store, client, options))?;
    let layers = manifest::layers_of(&found.manifest, &found.config).map_err(document)?;
    transfer(store, client, layers)?;
    let digest = store.put_blob(&found.raw.bytes)?;
    let stated = found
        .manifest
        .media_type()
        .as_ref()
        .map(ToString::to_string);
    let media_type = match stated.or(found.raw.content_type) {
        Some(text) if text == DOCKER_MANIFEST => DOCKER_MANIFEST,
        _ => OCI_MANIFEST,
    };
    let size = u64::try_from(found.raw.bytes.len()).unwrap_or(u64::MAX);
    let mut descriptor = describe(media_type, &digest, size)?;
    descriptor.set_platform(
        PlatformBuilder::default()
            .architecture(found.config.architecture().clone())
            .os(found.config.os().clone())
            .build()
            .ok(),
    );
    let repo_digest = client.reference.at(found.top);
    let name = match client.reference.digest() {
        Some(_) => repo_digest.clone(),
        None => client.reference.clone(),
    };
    Ok(store.put_image(descriptor, &[&name], Some(&repo_digest))?)
}

/// Gets manifest and configuration, by way of an index where there is one.
async fn find(
    store: &Store,
    client: &Client<'_>,
    options: &PullOptions,
) -> Result<Found, RegistryError> {
    let reference = client.reference;
    let document = |source| RegistryError::Document {
        reference: reference.familiar(),
        source,
    };
    let platform = options.platform.clone().unwrap_or_else(Platform::host);
    let wanted = reference.digest().map(ToString::to_string);
    let wanted = wanted.unwrap_or_else(|| reference.tag().unwrap_or("latest").to_owned());
    let raw = client.manifest(&wanted).await?;
    let top = raw.digest.clone();
    let named = match reference.digest() {
        Some(_) => reference.to_string(),
        None => wanted,
    };
    client
        .progress
        .message(&format!("{named}: Pulling from {}", reference.repository()));
    let index = match parse(&raw).map_err(document)? {
        Document::Index(index) => index,
        Document::Manifest(manifest) => {
            let config = configuration(store, client, &manifest).await?;
            manifest::check_platform(&config, options.platform.as_ref()).map_err(document)?;
            return Ok(Found {
                top,
                raw,
                manifest: *manifest,
                config,
            });
        }
    };
    let mut search = Search::new(&index, &platform);
    loop {
        let candidate = search.next().map_err(document)?;
        let digest = digest_of(&candidate.descriptor).map_err(document)?;
        let raw = client.manifest(&digest.to_string()).await?;
        let manifest = match parse(&raw) {
            Ok(Document::Index(index)) => {
                search.descend(&candidate, &index);
                continue;
            }
            Ok(Document::Manifest(manifest)) => *manifest,
            Err(error) if error.is_no_image() => {
                search.refuse(error);
                continue;
            }
            Err(error) => return Err(document(error)),
        };
        let config = configuration(store, client, &manifest).await?;
        if search.fits(&candidate, &config) {
            return Ok(Found {
                top,
                raw,
                manifest,
                config,
            });
        }
    }
}

fn parse(raw: &RawManifest) -> Result<Document, ManifestError> {
    manifest::parse_manifest(&raw.bytes, raw.content_type.as_deref())
}

/// Gets a manifest's configuration.
async fn configuration(
    store: &Store,
    client: &Client<'_>,
    manifest: &ImageManifest,
) -> Result<ImageConfiguration, RegistryError> {
    let document = |source| RegistryError::Document {
        reference: client.reference.familiar(),
        source,
    };
    let never = AtomicBool::new(false);
    let digest = digest_of(manifest.config()).map_err(document)?;
    // It is no layer, and people count those.
    client
        .fetch(store, manifest.config(), &Quiet, &never)
        .await?;
    manifest::parse_config(&store.read_blob(&digest, CONFIG_MAX)?).map_err(document)
}

/// Downloads layers while others, already verified, are being converted.
fn transfer(
    store: &Store,
    client: &Client<'_>,
    layers: Vec<(Descriptor, Digest)>,
) -> Result<(), RegistryError> {
    let mut seen = HashSet::new();
    let layers: Vec<_> = layers
        .into_iter()
        .filter(|(blob, _)| seen.insert(blob.digest().clone()))
        .collect();
    let stop = AtomicBool::new(false);
    let failure: Mutex<Option<StoreError>> = Mutex::new(None);
    let (verified, queue) = channel();
    let queue = Mutex::new(queue);
    let workers = CONVERSIONS.min(layers.len());
    let alone = RwLock::new(());
    let downloaded = std::thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|| {
                let conversion = Conversion {
                    store,
                    workers,
                    alone: &alone,
                    progress: client.progress,
                };
                if let Err(error) = conversion.all(&queue, &stop)
                    && !stop.swap(true, Ordering::Relaxed)
                    && let Ok(mut first) = failure.lock()
                {
                    *first = Some(error);
                }
            });
        }
        let result = block_on(|| download_all(store, client, &layers, &stop, verified));
        if result.is_err() {
            stop.store(true, Ordering::Relaxed);
        }
        result
    });
    if let Some(error) = failure
        .lock()
        .map(|mut first| first.take())
        .unwrap_or_default()
    {
        return Err(error.into());
    }
    downloaded
}

/// A layer whose blob is in the store.
struct Verified {
    blob: Descriptor,
    diff_id: Digest,
    outcome: Outcome,
}

async fn download_all(
    store: &Store,
    client: &Client<'_>,
    layers: &[(Descriptor, Digest)],
    stop: &AtomicBool,
    verified: Sender<Verified>,
) -> Result<(), RegistryError> {
    let mut downloads = futures::stream::iter(layers)
        .map(|(blob, diff_id)| async move {
            let outcome = client.fetch(store, blob, client.progress, stop).await?;
            Ok::<_, RegistryError>(Verified {
                blob: blob.clone(),
                diff_id: diff_id.clone(),
                outcome,
            })
        })
        .buffer_unordered(DOWNLOADS);
    while let Some(layer) = downloads.next().await {
        let layer = layer?;
        if stop.load(Ordering::Relaxed) {
            break;
        }
        // Nobody receives only when a conversion failed, which says why itself.
        let _ = verified.send(layer);
    }
    Ok(())
}

/// One of the workers that convert layers.
struct Conversion<'a> {
    store: &'a Store,
    workers: usize,
    /// Held for writing by a layer that needs the memory of all, for reading by others.
    alone: &'a RwLock<()>,
    progress: &'a dyn Progress,
}

impl Conversion<'_> {
    fn all(&self, queue: &Mutex<Receiver<Verified>>, stop: &AtomicBool) -> Result<(), StoreError> {
        loop {
            let next = match queue.lock() {
                Ok(queue) => queue.recv(),
                Err(_) => return Ok(()),
            };
            let Ok(layer) = next else { return Ok(()) };
            if stop.load(Ordering::Relaxed) {
                return Ok(());
            }
            let converted = self.convert(&layer)?;
            let outcome = if layer.outcome == Outcome::Exists {
                converted
            } else {
                layer.outcome
            };
            if let Ok(digest) = digest_of(&layer.blob) {
                self.progress.finish(&digest.short(), outcome);
            }
        }
    }

    /// An image has one bound on memory, however many of its layers are converted at a time. One that does not get
    /// by with its part waits until it is alone.
    fn convert(&self, layer: &Verified) -> Result<Outcome, StoreError> {
        let converted = {
            let _with_others = self.alone.read();
            self.store
                .ensure_layer_among(&layer.blob, &layer.diff_id, self.workers, self.progress)
        };
        match converted {
            Err(error) if self.workers > 1 && error.exceeds_memory() => {
                let _alone = self.alone.write();
                self.store
                    .ensure_layer(&layer.blob, &layer.diff_id, self.progress)
            }
            other => other,
        }
    }
}
