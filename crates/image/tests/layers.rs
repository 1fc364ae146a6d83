//! Layers of unusual kinds: empty ones, foreign ones, and ones whose label is wrong.

mod support;

use bulkhead_image::{
    Image, LoadFrom, LoadOptions, PullOptions, Quiet, RegistryOptions, SaveFormat, SaveTo, load,
    pull, push, save,
};
use support::Scratch;
use support::faulty::Faulty;
use support::fixture::{Fixture, digest, gzip, tar, zstd};
use support::registry::Registry;

const GZIP: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
const PLAIN: &str = "application/vnd.oci.image.layer.v1.tar";

/// An image of layers with their uncompressed content and their type.
fn image(layers: &[(Vec<u8>, &[u8], &str)]) -> Fixture {
    let diff_ids: Vec<String> = layers
        .iter()
        .map(|(_, tar, _)| digest(tar).to_string())
        .collect();
    let types: Vec<String> = layers
        .iter()
        .map(|(_, _, kind)| (*kind).to_owned())
        .collect();
    let blobs = layers.iter().map(|(blob, ..)| blob.clone()).collect();
    Fixture::assemble(blobs, &diff_ids, &types, "amd64")
}

fn load_named(scratch: &Scratch, image: &Fixture, name: &str) -> Image {
    let dir = scratch.path("layout");
    image.write_layout(&dir, name);
    let loaded = load(
        &scratch.store,
        LoadFrom::Path(&dir),
        &LoadOptions::default(),
        &Quiet,
    );
    loaded.unwrap();
    scratch.store.resolve(name).unwrap()
}

fn types(image: &Image) -> Vec<String> {
    let layers = image.manifest.layers().iter();
    layers.map(|layer| layer.media_type().to_string()).collect()
}

#[test]
fn empty_layers_are_layers() {
    let some = tar(&[("hello", b"hi\n")]);
    let zeros = vec![0; 1024];
    let fixture = image(&[
        (Vec::new(), b"", PLAIN),
        (gzip(&some), &some, GZIP),
        (gzip(b""), b"", GZIP),
        (gzip(&zeros), &zeros, GZIP),
    ]);
    let scratch = Scratch::new();
    let loaded = load_named(&scratch, &fixture, "empty:1");
    assert_eq!(loaded.id, fixture.id());
    scratch.store.disk(&loaded).unwrap();

    let mut archive = Vec::new();
    let targets = ["empty:1".to_owned()];
    let to = SaveTo::Writer(&mut archive);
    save(
        &scratch.store,
        &targets,
        SaveFormat::DockerArchive,
        to,
        &Quiet,
    )
    .unwrap();
    let other = Scratch::new();
    let from = LoadFrom::Reader(&mut &archive[..]);
    load(&other.store, from, &LoadOptions::default(), &Quiet).unwrap();
    assert_eq!(other.store.resolve("empty:1").unwrap().id, fixture.id());

    let registry = Faulty::serve(fixture.clone(), |_, _| None);
    let third = Scratch::new();
    let name = registry.name("empty:1").parse().unwrap();
    let pulled = pull(&third.store, &name, &PullOptions::default(), &Quiet).unwrap();
    assert_eq!(pulled.id, fixture.id());
    assert_eq!(third.count("partial"), 0);
}

#[test]
fn foreign_layers_are_taken_where_their_content_is_there() {
    let one = tar(&[("one", b"1")]);
    for kind in [
        "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
        "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip",
    ] {
        let fixture = image(&[(gzip(&one), &one, kind)]);
        let registry = Faulty::serve(fixture.clone(), |_, _| None);
        let scratch = Scratch::new();
        let name = registry.name("foreign:1").parse().unwrap();
        let pulled = pull(&scratch.store, &name, &PullOptions::default(), &Quiet).unwrap();
        assert_eq!(types(&pulled), [kind]);
        assert_eq!(
            load_named(&Scratch::new(), &fixture, "foreign:1").id,
            fixture.id()
        );
    }
}

#[test]
fn a_wrong_label_stays_with_the_manifest_whose_digest_is_its_name() {
    let (one, two) = (tar(&[("one", b"1")]), tar(&[("two", b"2")]));
    // Plain and zstd, both said to be gzip.
    let fixture = image(&[(one.clone(), &one, GZIP), (zstd(&two), &two, GZIP)]);
    let registry = Registry::start();
    let scratch = Scratch::new();
    let name = registry.name("mislabelled:1");
    let loaded = load_named(&scratch, &fixture, &name);
    let pushed = push(
        &scratch.store,
        &name.parse().unwrap(),
        &RegistryOptions::default(),
        &Quiet,
    );
    assert_eq!(pushed.unwrap().digest, digest(&fixture.manifest));
    let other = Scratch::new();
    let pulled = pull(
        &other.store,
        &name.parse().unwrap(),
        &PullOptions::default(),
        &Quiet,
    )
    .unwrap();
    assert_eq!((types(&pulled), pulled.id), (types(&loaded), fixture.id()));

    // A docker-archive has no labels: the manifest that is made of it says what the layers are.
    let mut archive = Vec::new();
    let to = SaveTo::Writer(&mut archive);
    save(
        &scratch.store,
        std::slice::from_ref(&name),
        SaveFormat::DockerArchive,
        to,
        &Quiet,
    )
    .unwrap();
    let third = Scratch::new();
    let from = LoadFrom::Reader(&mut &archive[..]);
    load(&third.store, from, &LoadOptions::default(), &Quiet).unwrap();
    let again = third.store.resolve(&name).unwrap();
    assert_eq!(
        (types(&again), again.id),
        (vec![PLAIN.to_owned(); 2], fixture.id())
    );
}
