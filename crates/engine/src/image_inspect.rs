//! `inspect` of an image, in the shape of Docker's API (`GET /images/{name}/json`, v1.47).

use bulkhead_image::{Image, Reference};
use serde_json::{Map, Value, json};

use crate::Engine;
use crate::error::Error;

impl Engine {
    /// The image as `docker image inspect` shows it.
    pub fn inspect_image(&self, image: &Image) -> Result<Value, Error> {
        // The typed form drops what OCI does not know (health checks, shells); the raw one has it.
        let raw: Value =
            serde_json::from_slice(&self.store()?.raw_config(image)?).unwrap_or_default();
        let text = |key: &str| {
            raw.get(key)
                .and_then(Value::as_str)
                .unwrap_or_default()
                .to_owned()
        };
        let config = raw
            .get("config")
            .filter(|config| config.is_object())
            .cloned();
        let familiar =
            |list: &[Reference]| list.iter().map(Reference::familiar).collect::<Vec<_>>();
        let mut out = json!({
            "Id": image.id,
            "RepoTags": familiar(&image.names.iter().filter(|n| n.digest().is_none()).cloned().collect::<Vec<_>>()),
            "RepoDigests": familiar(&image.repo_digests),
            "Parent": "",
            "Comment": image.config.history().iter().flatten().last()
                .and_then(|step| step.comment().clone()).unwrap_or_default(),
            "Created": image.created.map(|at| at.to_string()).unwrap_or_default(),
            "DockerVersion": text("docker_version"),
            "Author": text("author"),
            "Architecture": text("architecture"),
            "Os": text("os"),
            "Size": image.size,
            "GraphDriver": { "Name": "bulkhead", "Data": null },
            "RootFS": { "Type": "layers", "Layers": image.diff_ids },
            "Metadata": { "LastTagTime": "0001-01-01T00:00:00Z" },
            "Descriptor": {
                "mediaType": image.manifest.media_type().as_ref().map(ToString::to_string),
                "digest": image.manifest_digest,
            },
            "Config": config.unwrap_or_else(|| Map::new().into()),
        });
        let variant = text("variant");
        if !variant.is_empty()
            && let Value::Object(map) = &mut out
        {
            map.insert("Variant".to_owned(), json!(variant));
        }
        Ok(out)
    }
}
