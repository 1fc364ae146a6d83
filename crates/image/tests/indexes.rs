//! Which image an index leads to: by the processor's level, through indexes within indexes, past what is no image.

mod support;

use bulkhead_image::{Image, Platform, PullOptions, Quiet, RegistryError, pull};
use serde_json::{Value, json};
use support::Scratch;
use support::faulty::{Faulty, Reply};
use support::fixture::{Fixture, OCI_INDEX, OCI_MANIFEST, digest, tar};

/// Images and indexes under one name; the last document is what the tag names.
#[derive(Default)]
struct Served {
    images: Vec<Fixture>,
    documents: Vec<Vec<u8>>,
}

impl Served {
    /// An image whose one file says which it is.
    fn image(&mut self, mark: &str, architecture: &str) -> Value {
        let image = Fixture::with_platform(&[tar(&[("mark", mark.as_bytes())])], architecture);
        let entry = json!({"mediaType": OCI_MANIFEST, "digest": digest(&image.manifest).to_string(),
            "size": image.manifest.len()});
        self.images.push(image);
        entry
    }

    fn for_platform(&mut self, architecture: &str, variant: Option<&str>) -> Value {
        let mut entry = self.image(&format!("{architecture} {variant:?}"), architecture);
        entry["platform"] = json!({"os": "linux", "architecture": architecture});
        if let Some(variant) = variant {
            entry["platform"]["variant"] = json!(variant);
        }
        entry
    }

    /// A manifest of something that is no image.
    fn artifact(&mut self, seed: &str) -> Value {
        let document = json!({"schemaVersion": 2, "mediaType": OCI_MANIFEST, "layers": [],
            "annotations": {"seed": seed},
            "config": {"mediaType": "application/vnd.oci.empty.v1+json", "size": 2,
                "digest": digest(b"{}").to_string()}});
        self.document(document, OCI_MANIFEST)
    }

    fn index(&mut self, entries: &[Value]) -> Value {
        let document = json!({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": entries});
        self.document(document, OCI_INDEX)
    }

    fn document(&mut self, document: Value, media_type: &str) -> Value {
        let bytes = document.to_string().into_bytes();
        let entry = json!({"mediaType": media_type, "digest": digest(&bytes).to_string(), "size": bytes.len()});
        self.documents.push(bytes);
        entry
    }

    fn pull(&self, platform: Option<&str>) -> Result<Image, RegistryError> {
        let (images, documents) = (self.images.clone(), self.documents.clone());
        let registry = Faulty::serve(Fixture::sample(1), move |request, _| {
            let last = request.path.rsplit('/').next().unwrap_or_default();
            let named = |bytes: &&Vec<u8>| digest(bytes).to_string() == last;
            let document = match last {
                "tag" => documents.last(),
                _ => documents.iter().find(named),
            };
            if let Some(document) = document {
                let text = String::from_utf8_lossy(document);
                let kind = if text.contains("manifests") {
                    OCI_INDEX
                } else {
                    OCI_MANIFEST
                };
                return Some(Reply::new(200, document.clone()).header("content-type", kind));
            }
            let blob = images.iter().find_map(|image| image.blob(last))?;
            Some(Reply::new(200, blob).header("content-type", OCI_MANIFEST))
        });
        let options = PullOptions {
            platform: platform.map(|text| text.parse().unwrap()),
            ..PullOptions::default()
        };
        let scratch = Scratch::new();
        let name = registry.name("some/image:tag").parse().unwrap();
        pull(&scratch.store, &name, &options, &Quiet)
    }

    /// Which of the images it was.
    fn pulled(&self, platform: Option<&str>) -> usize {
        let id = self.pull(platform).unwrap().id;
        self.images
            .iter()
            .position(|image| image.id() == id)
            .unwrap()
    }
}

#[test]
fn the_best_level_that_the_processor_has_is_taken() {
    let mut served = Served::default();
    // Best last, so that the order cannot be what decides; the fifth level no processor has.
    let entries: Vec<Value> = [Some("v5"), None, Some("v2"), Some("v3"), Some("v4")]
        .into_iter()
        .map(|variant| served.for_platform("amd64", variant))
        .collect();
    served.index(&entries);
    let level = |text: &str| usize::from(text.as_bytes()[text.len() - 1] - b'0');
    let host = level(&Platform::host_in_full().to_string());
    assert_eq!(served.pulled(None), host);
    assert_eq!(served.pulled(Some("linux/amd64")), host);
    for variant in ["linux/amd64/v1", "linux/amd64/v2", "linux/amd64/v3"] {
        assert_eq!(served.pulled(Some(variant)), level(variant), "{variant}");
    }
}

#[test]
fn a_variant_takes_what_it_is_compatible_with_and_nothing_else() {
    let mut served = Served::default();
    let entries = [
        served.for_platform("amd64", None),
        served.for_platform("arm", Some("v5")),
        served.for_platform("arm", Some("v6")),
        served.for_platform("arm64", Some("v8")),
    ];
    served.index(&entries);
    assert_eq!(served.pulled(Some("linux/amd64/v3")), 0);
    assert_eq!(served.pulled(Some("linux/amd64/v1")), 0);
    assert_eq!(served.pulled(Some("linux/arm/v7")), 2);
    assert_eq!(served.pulled(Some("linux/arm/v5")), 1);
    assert_eq!(served.pulled(Some("linux/arm64")), 3);
    let error = served.pull(Some("linux/s390x")).unwrap_err();
    let text = std::error::Error::source(&error).unwrap().to_string();
    assert!(text.contains("linux/arm/v6, linux/arm64/v8"), "{text}");
}

#[test]
fn an_index_in_an_index_is_followed() {
    let mut served = Served::default();
    let arm = served.for_platform("arm64", None);
    let amd = served.for_platform("amd64", None);
    let inner = served.index(&[arm]);
    let other = served.index(&[amd]);
    let middle = served.index(&[inner, other]);
    served.index(&[middle]);
    assert_eq!(served.pulled(Some("linux/amd64")), 1);
    assert_eq!(served.pulled(Some("linux/arm64")), 0);
}

#[test]
fn indexes_that_nest_without_end_are_left() {
    let mut served = Served::default();
    let mut entry = served.for_platform("amd64", None);
    for _ in 0..8 {
        entry = served.index(&[entry]);
    }
    let error = served.pull(Some("linux/amd64")).unwrap_err();
    let text = std::error::Error::source(&error).unwrap().to_string();
    assert!(text.contains("deep"), "{text}");
    let mut served = Served::default();
    let entries: Vec<Value> = (0..100)
        .map(|n| served.image(&n.to_string(), "s390x"))
        .collect();
    served.index(&entries);
    let error = served.pull(Some("linux/amd64")).unwrap_err();
    let text = std::error::Error::source(&error).unwrap().to_string();
    assert!(text.contains("first 64 documents"), "{text}");
}

#[test]
fn entries_without_a_platform_are_told_by_their_configuration() {
    let mut served = Served::default();
    let entries = [
        served.artifact("first"),
        served.image("arm", "arm64"),
        served.image("amd", "amd64"),
    ];
    served.index(&entries);
    assert_eq!(served.pulled(Some("linux/amd64")), 1);
    assert_eq!(served.pulled(Some("linux/arm64")), 0);
    let mut served = Served::default();
    let entries = [
        served.image("says nothing", "amd64"),
        served.for_platform("amd64", None),
    ];
    served.index(&entries);
    assert_eq!(
        served.pulled(Some("linux/amd64")),
        1,
        "what says that it fits comes first"
    );
}

#[test]
fn an_index_of_artifacts_alone_says_what_is_in_it() {
    let mut served = Served::default();
    let entries = [served.artifact("a"), served.artifact("b")];
    served.index(&entries);
    let error = served.pull(None).unwrap_err();
    let text = std::error::Error::source(&error).unwrap().to_string();
    assert!(text.contains("application/vnd.oci.empty.v1+json"), "{text}");
}
