//! Against Debian's docker-registry: what is pushed is pulled, by us and by skopeo, bit for bit.

mod support;

use std::collections::BTreeMap;
use std::sync::Mutex;

use bulkhead_image::{
    Credentials, ErrorKind, Outcome, Phase, Progress, PullOptions, Quiet, Reference, RegistryError,
    RegistryOptions, pull, push,
};
use support::fixture::{Fixture, digest, noise, tar};
use support::registry::Registry;
use support::{Scratch, skopeo, text};

fn reference(text: &str) -> Reference {
    text.parse().unwrap()
}

/// Puts an image into a registry with skopeo.
fn publish(registry: &Registry, image: &Fixture, name: &str) {
    let dir = tempfile::tempdir().unwrap();
    image.write_layout(dir.path(), "x");
    let from = format!("oci:{}:x", text(dir.path()));
    skopeo(&[
        "copy",
        "--preserve-digests",
        "--dest-tls-verify=false",
        &from,
        &format!("docker://{}", registry.name(name)),
    ]);
}

/// Remembers how each item ended and what it went through.
#[derive(Default)]
struct Record {
    ends: Mutex<BTreeMap<String, Outcome>>,
    bytes: Mutex<BTreeMap<String, u64>>,
    phases: Mutex<Vec<Phase>>,
}

impl Progress for Record {
    fn start(&self, item: &str, phase: Phase, _: Option<u64>) {
        self.phases.lock().unwrap().push(phase);
        self.bytes.lock().unwrap().insert(item.to_owned(), 0);
    }
    fn advance(&self, item: &str, bytes: u64) {
        *self
            .bytes
            .lock()
            .unwrap()
            .entry(item.to_owned())
            .or_default() += bytes;
    }
    fn finish(&self, item: &str, outcome: Outcome) {
        self.ends.lock().unwrap().insert(item.to_owned(), outcome);
    }
    fn message(&self, _: &str) {}
}

impl Record {
    fn count(&self, outcome: Outcome) -> usize {
        self.ends
            .lock()
            .unwrap()
            .values()
            .filter(|one| **one == outcome)
            .count()
    }
}

#[test]
fn skopeo_pushes_what_we_pull() {
    let registry = Registry::start();
    let image = Fixture::sample(1);
    publish(&registry, &image, "team/app:1.0");
    let scratch = Scratch::new();
    let name = reference(&registry.name("team/app:1.0"));
    let record = Record::default();
    let pulled = pull(&scratch.store, &name, &PullOptions::default(), &record).unwrap();
    assert_eq!(pulled.id, image.id());
    assert_eq!(
        record.count(Outcome::Done),
        3,
        "layers; the configuration is not listed"
    );
    assert!(record.phases.lock().unwrap().contains(&Phase::Converting));
    for layer in &image.layers {
        let item = digest(layer).short();
        let size = layer.len() as u64;
        assert_eq!(
            record.bytes.lock().unwrap()[&item],
            size,
            "progress adds up to the size"
        );
    }
    let record = Record::default();
    pull(&scratch.store, &name, &PullOptions::default(), &record).unwrap();
    assert_eq!(
        record.count(Outcome::Exists),
        3,
        "a second pull transfers nothing"
    );
}

#[test]
fn skopeo_reads_what_we_push_and_digests_do_not_change() {
    let registry = Registry::start();
    let image = Fixture::sample(2);
    publish(&registry, &image, "a/first:x");
    let scratch = Scratch::new();
    let first = reference(&registry.name("a/first:x"));
    let pulled = pull(&scratch.store, &first, &PullOptions::default(), &Quiet).unwrap();
    let second = reference(&registry.name("b/second:y"));
    scratch.store.tag(&pulled, &second).unwrap();
    let record = Record::default();
    let summary = push(
        &scratch.store,
        &second,
        &RegistryOptions::default(),
        &record,
    )
    .unwrap();
    assert_eq!(summary.digest, digest(&image.manifest));
    assert_eq!(
        record.count(Outcome::Mounted),
        3,
        "the registry takes blobs over from the other repository"
    );
    let seen = skopeo(&[
        "inspect",
        "--tls-verify=false",
        &format!("docker://{}", registry.name("b/second:y")),
    ]);
    assert!(seen.contains(&summary.digest.to_string()), "{seen}");
    let record = Record::default();
    push(
        &scratch.store,
        &second,
        &RegistryOptions::default(),
        &record,
    )
    .unwrap();
    assert_eq!(
        record.count(Outcome::Exists),
        3,
        "a second push transfers nothing"
    );
    let names = scratch
        .store
        .resolve(&second.to_string())
        .unwrap()
        .repo_digests;
    assert!(names.contains(&second.at(summary.digest)), "{names:?}");
}

#[test]
fn blobs_are_uploaded_to_a_registry_that_has_none() {
    let (from, to) = (Registry::start(), Registry::start());
    let image = Fixture::new(&[tar(&[("big", &noise(5 << 20, 3))]), tar(&[("x", b"y")])]);
    publish(&from, &image, "x:1");
    let scratch = Scratch::new();
    let pulled = pull(
        &scratch.store,
        &reference(&from.name("x:1")),
        &PullOptions::default(),
        &Quiet,
    )
    .unwrap();
    let target = reference(&to.name("deep/er/x:2"));
    scratch.store.tag(&pulled, &target).unwrap();
    let record = Record::default();
    push(
        &scratch.store,
        &target,
        &RegistryOptions::default(),
        &record,
    )
    .unwrap();
    assert_eq!(record.count(Outcome::Done), 2);
    assert_eq!(
        record.bytes.lock().unwrap()[&digest(&image.layers[0]).short()],
        image.layers[0].len() as u64
    );
    let other = Scratch::new();
    assert_eq!(
        pull(&other.store, &target, &PullOptions::default(), &Quiet)
            .unwrap()
            .manifest_digest,
        pulled.manifest_digest
    );
}

#[test]
fn dockers_own_format_is_pulled_and_pushed() {
    let registry = Registry::start();
    let dir = tempfile::tempdir().unwrap();
    Fixture::new(&[tar(&[("a", b"1")])]).write_layout(dir.path(), "x");
    let from = format!("oci:{}:x", text(dir.path()));
    let to = format!("docker://{}", registry.name("d:1"));
    skopeo(&[
        "copy",
        "--format",
        "v2s2",
        "--dest-tls-verify=false",
        &from,
        &to,
    ]);
    let scratch = Scratch::new();
    let name = reference(&registry.name("d:1"));
    let image = pull(&scratch.store, &name, &PullOptions::default(), &Quiet).unwrap();
    assert!(
        image
            .manifest
            .media_type()
            .as_ref()
            .unwrap()
            .to_string()
            .contains("docker")
    );
    let target = reference(&registry.name("d:2"));
    scratch.store.tag(&image, &target).unwrap();
    assert_eq!(
        push(&scratch.store, &target, &RegistryOptions::default(), &Quiet)
            .unwrap()
            .digest,
        image.manifest_digest
    );
}

#[test]
fn an_image_is_pulled_by_digest() {
    let registry = Registry::start();
    let image = Fixture::sample(4);
    publish(&registry, &image, "x:1");
    let scratch = Scratch::new();
    let name = format!("{}@{}", registry.name("x"), digest(&image.manifest));
    let pulled = pull(
        &scratch.store,
        &reference(&name),
        &PullOptions::default(),
        &Quiet,
    )
    .unwrap();
    assert_eq!(pulled.names, [reference(&name)]);
    assert_eq!(scratch.store.resolve(&name).unwrap().id, image.id());
}

#[test]
fn two_pulls_at_once_share_the_work() {
    let registry = Registry::start();
    let image = Fixture::new(&[
        tar(&[("one", &noise(3 << 20, 5))]),
        tar(&[("two", &noise(3 << 20, 6))]),
    ]);
    publish(&registry, &image, "x:1");
    let scratch = Scratch::new();
    let name = reference(&registry.name("x:1"));
    let results: Vec<_> = std::thread::scope(|scope| {
        let pulls: Vec<_> = (0..4)
            .map(|_| scope.spawn(|| pull(&scratch.store, &name, &PullOptions::default(), &Quiet)))
            .collect();
        pulls.into_iter().map(|pull| pull.join().unwrap()).collect()
    });
    for result in results {
        assert_eq!(result.unwrap().id, image.id());
    }
    assert_eq!(scratch.store.images().unwrap().len(), 1);
    assert_eq!(scratch.count("tmp") + scratch.count("partial"), 0);
    assert_eq!(scratch.count("image/blobs/sha256"), 4);
}

#[test]
fn a_password_opens_the_registry() {
    let registry = Registry::start_with_password();
    let scratch = Scratch::new();
    let name = reference(&registry.name("x:1"));
    let error = pull(&scratch.store, &name, &PullOptions::default(), &Quiet).unwrap_err();
    assert!(
        matches!(error, RegistryError::NoCredentials { .. }),
        "{error:?}"
    );
    let image = Fixture::sample(7);
    let dir = tempfile::tempdir().unwrap();
    image.write_layout(dir.path(), "x");
    skopeo(&[
        "copy",
        "--dest-creds",
        "user:sesame",
        "--dest-tls-verify=false",
        &format!("oci:{}:x", text(dir.path())),
        &format!("docker://{}", registry.name("x:1")),
    ]);
    let mut options = PullOptions::default();
    options.registry.credentials = Some(Credentials::Password {
        user: "user".into(),
        password: "wrong".into(),
    });
    assert_eq!(
        pull(&scratch.store, &name, &options, &Quiet)
            .unwrap_err()
            .kind(),
        ErrorKind::Unauthorized
    );
    options.registry.credentials = Some(Credentials::Password {
        user: "user".into(),
        password: "sesame".into(),
    });
    let pulled = pull(&scratch.store, &name, &options, &Quiet).unwrap();
    let target = reference(&registry.name("y:2"));
    scratch.store.tag(&pulled, &target).unwrap();
    push(&scratch.store, &target, &options.registry, &Quiet).unwrap();
}

#[test]
fn an_unknown_tag_is_reported_as_such() {
    let registry = Registry::start();
    let scratch = Scratch::new();
    let error = pull(
        &scratch.store,
        &reference(&registry.name("none:1")),
        &PullOptions::default(),
        &Quiet,
    )
    .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
}
