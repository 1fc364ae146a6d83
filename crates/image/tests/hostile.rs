//! Archives made to deceive or to exhaust: refused with a message that names what is wrong, nothing kept.

mod support;

use std::fs;

use bulkhead_image::{
    ArchiveError, ErrorKind, Image, ImportOptions, LoadFrom, LoadOptions, Platform, PullOptions,
    Quiet, StoreError, import, load, parse_config, pull,
};
use bulkhead_types::{GuestText, chain};
use serde_json::json;
use support::Scratch;
use support::faulty::Faulty;
use support::fixture::{Fixture, OCI_INDEX, OCI_MANIFEST, digest, gzip, tar};

fn load_bytes(scratch: &Scratch, bytes: &[u8]) -> Result<Vec<Image>, ArchiveError> {
    load(
        &scratch.store,
        LoadFrom::Reader(&mut &bytes[..]),
        &LoadOptions::default(),
        &Quiet,
    )
}

fn nothing_is_left(scratch: &Scratch, what: &str) {
    for dir in ["tmp", "layers", "disks", "image/blobs/sha256"] {
        assert_eq!(scratch.count(dir), 0, "{what} leaves something in {dir}");
    }
    assert!(scratch.store.images().unwrap().is_empty(), "{what}");
}

/// A docker-archive with these names.
fn docker_archive(image: &Fixture, tags: &[&str]) -> Vec<u8> {
    let config = format!("{}.json", image.id().hex());
    let names: Vec<String> = (0..image.layers.len())
        .map(|n| format!("{n}.tar"))
        .collect();
    let manifest = json!([{"Config": config, "RepoTags": tags, "Layers": names}]).to_string();
    let mut files: Vec<(&str, &[u8])> = names
        .iter()
        .map(String::as_str)
        .zip(image.layers.iter().map(Vec::as_slice))
        .collect();
    files.push((&config, &image.config));
    files.push(("manifest.json", manifest.as_bytes()));
    tar(&files)
}

/// An oci-archive whose image has this name under this annotation; `index` puts an index before the manifest.
fn oci_archive(image: &Fixture, key: &str, name: &str, index: bool) -> Vec<u8> {
    let mut blobs: Vec<&[u8]> = image.layers.iter().map(Vec::as_slice).collect();
    blobs.extend([&image.config[..], &image.manifest]);
    let nested = json!({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [{
        "mediaType": OCI_MANIFEST,
        "digest": digest(&image.manifest).to_string(),
        "size": image.manifest.len(),
        "platform": {"os": "linux", "architecture": "amd64"},
    }]})
    .to_string();
    let (kind, top) = if index {
        blobs.push(nested.as_bytes());
        (OCI_INDEX, nested.as_bytes())
    } else {
        (OCI_MANIFEST, &image.manifest[..])
    };
    let names: Vec<String> = blobs
        .iter()
        .map(|blob| format!("blobs/sha256/{}", digest(blob).hex()))
        .collect();
    let document = json!({"schemaVersion": 2, "manifests": [{
        "mediaType": kind,
        "digest": digest(top).to_string(),
        "size": top.len(),
        "annotations": {key: name},
    }]})
    .to_string();
    let mut files: Vec<(&str, &[u8])> = names.iter().map(String::as_str).zip(blobs).collect();
    files.push(("index.json", document.as_bytes()));
    files.push(("oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#));
    tar(&files)
}

const NAME: &str = "io.containerd.image.name";
const REF: &str = "org.opencontainers.image.ref.name";

/// The digest in a name is what a user trusts without looking: an archive must not be able to give an image the name
/// of another one's digest, because `run debian@sha256:…` would then find it and ask no registry.
#[test]
fn a_docker_archive_cannot_take_a_name_with_a_digest() {
    let image = Fixture::sample(20);
    let wanted = digest(b"the manifest of the real debian");
    for tag in [
        format!("debian@{wanted}"),
        format!("docker.io/library/debian:12@{wanted}"),
        // Not even its own, as with Docker: such names come from registries.
        format!("debian@{}", digest(&image.manifest)),
    ] {
        let scratch = Scratch::new();
        let error = load_bytes(&scratch, &docker_archive(&image, &["fine:1", &tag])).unwrap_err();
        assert!(
            chain(&error).contains("refusing to create a tag with a digest reference"),
            "{}",
            chain(&error)
        );
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
        let found = scratch.store.resolve(&format!("debian@{wanted}"));
        assert!(matches!(found, Err(StoreError::NotFound(_))), "{found:?}");
        nothing_is_left(&scratch, &tag);
    }
}

#[test]
fn an_oci_archive_cannot_take_a_name_with_another_digest() {
    let image = Fixture::sample(21);
    let wanted = digest(b"the manifest of the real debian");
    for key in [NAME, REF] {
        for index in [false, true] {
            let scratch = Scratch::new();
            let name = format!("docker.io/library/debian@{wanted}");
            let error = load_bytes(&scratch, &oci_archive(&image, key, &name, index)).unwrap_err();
            assert!(
                matches!(error, ArchiveError::Store(StoreError::FalseDigest { .. })),
                "{error:?}"
            );
            assert!(error.to_string().contains(&wanted.hex()), "{error}");
            let found = scratch.store.resolve(&name);
            assert!(matches!(found, Err(StoreError::NotFound(_))), "{found:?}");
            nothing_is_left(&scratch, key);
        }
    }
}

/// What `ctr image export` writes for an image that was pulled by digest.
#[test]
fn an_oci_archive_keeps_a_name_with_its_own_digest() {
    let image = Fixture::sample(22);
    let scratch = Scratch::new();
    let name = format!("docker.io/library/debian@{}", digest(&image.manifest));
    load_bytes(&scratch, &oci_archive(&image, NAME, &name, false)).unwrap();
    assert_eq!(scratch.store.resolve(&name).unwrap().id, image.id());
}

#[test]
fn an_import_cannot_take_a_name_with_a_digest() {
    let scratch = Scratch::new();
    let name = format!("debian@{}", digest(b"real"));
    let options = ImportOptions {
        reference: Some(name.parse().unwrap()),
        ..ImportOptions::default()
    };
    let rootfs = tar(&[("etc/passwd", b"root")]);
    let error = import(&scratch.store, &mut &rootfs[..], &options, &Quiet).unwrap_err();
    assert!(
        matches!(error, ArchiveError::Store(StoreError::FalseDigest { .. })),
        "{error:?}"
    );
    nothing_is_left(&scratch, "the import");
}

/// `run --pull never sha256:ID` is a pin like a digest: no archive may have another image found in its place.
#[test]
fn no_archive_takes_the_place_of_an_identifier() {
    let (mine, other) = (Fixture::sample(24), Fixture::sample(25));
    let pin = mine.id().to_string();
    let short = format!("sha256:{}", &mine.id().hex()[..12]);
    let pinned = |scratch: &Scratch, what: &str| {
        for text in [&pin, &short] {
            let found = scratch.store.resolve(text).unwrap();
            assert_eq!(found.id, mine.id(), "{what}: {text}");
        }
        assert_eq!(scratch.store.images().unwrap().len(), 1, "{what}");
    };
    let scratch = Scratch::new();
    load_bytes(&scratch, &docker_archive(&mine, &["mine:1"])).unwrap();
    let mut archives = Vec::new();
    for name in [&pin, &short] {
        archives.push(docker_archive(&other, &[name]));
        archives.push(docker_archive(
            &other,
            &[&format!("docker.io/library/{name}")],
        ));
        archives.push(oci_archive(&other, NAME, name, false));
        archives.push(oci_archive(&other, REF, name, true));
    }
    for archive in archives {
        let error = load_bytes(&scratch, &archive).unwrap_err();
        let text = chain(&error);
        assert!(text.contains("digest algorithm as name"), "{text}");
        pinned(&scratch, &text);
    }
    // What an older version took in is nameless now.
    let forged = Scratch::new();
    for image in [&mine, &other] {
        load_bytes(&forged, &docker_archive(image, &["x:1"])).unwrap();
    }
    let index = forged.store.layout_dir().join("index.json");
    let text = fs::read_to_string(&index).unwrap();
    let full = text.replace("docker.io/library/x:1", &format!("docker.io/library/{pin}"));
    assert_ne!(text, full);
    fs::write(&index, full).unwrap();
    assert_eq!(forged.store.resolve(&pin).unwrap().id, mine.id());
}

/// Docker fails too, where the name was once left out without a word.
#[test]
fn a_name_that_is_none_fails_the_load() {
    let image = Fixture::sample(23);
    for (tag, says) in [
        ("debian", "invalid tag \"debian\""),
        ("host:5000/debian", "invalid tag \"host:5000/debian\""),
        ("Debian:12", "must be lowercase"),
        ("debian:12:13", "invalid reference format"),
        ("", "invalid reference format"),
        ("a b:1\u{1b}[2J", "invalid reference format"),
    ] {
        let scratch = Scratch::new();
        let error = load_bytes(&scratch, &docker_archive(&image, &[tag])).unwrap_err();
        let text = chain(&error);
        assert!(text.contains(says), "{tag}: {text}");
        nothing_is_left(&scratch, tag);
    }
}

/// A GNU tar header of a sparse file that claims `real_size` bytes.
fn sparse_header(name: &str, real_size: u64, extended: bool) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(tar::EntryType::GNUSparse);
    header.set_path(name).unwrap();
    header.set_mode(0o644);
    header.set_size(0);
    let gnu = header.as_gnu_mut().unwrap();
    gnu.set_real_size(real_size);
    gnu.set_is_extended(extended);
    header.set_cksum();
    header
}

/// Two kilobytes once filled the file system with the zeros of a hole.
#[test]
fn a_sparse_document_in_an_archive_is_refused_before_its_map_is_read() {
    let pax = |records: &str| {
        let mut header = tar::Header::new_ustar();
        header.set_entry_type(tar::EntryType::XHeader);
        header.set_path("pax").unwrap();
        header.set_size(records.len() as u64);
        header.set_cksum();
        let mut bytes = header.as_bytes().to_vec();
        bytes.extend_from_slice(records.as_bytes());
        bytes.resize(1024, 0);
        bytes.extend(tar(&[("manifest.json", b"")]));
        bytes
    };
    let gnu = sparse_header("manifest.json", 1 << 60, false);
    for (what, bytes) in [
        ("gnu", gnu.as_bytes().to_vec()),
        ("pax", pax("43 GNU.sparse.realsize=1152921504606846976\n")),
    ] {
        let scratch = Scratch::new();
        let error = load_bytes(&scratch, &bytes).unwrap_err();
        let text = chain(&error);
        assert!(
            text.contains("\"manifest.json\" is a sparse file"),
            "{what}: {text}"
        );
        nothing_is_left(&scratch, what);
    }
}

/// Names and targets stay in memory until the archive's end.
#[test]
fn names_without_end_do_not_fill_the_memory() {
    let long = "n".repeat(200);
    let mut bytes = Vec::new();
    let mut number = 0u32;
    // Hard links: two names for each 1,024 bytes of archive.
    while number < 50_000 {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(tar::EntryType::Link);
        let (a, b) = long.split_at(90);
        header.set_path(format!("{number:07}{a}")).unwrap();
        header
            .set_link_name(format!("{number:07}{}", &b[..90]))
            .unwrap();
        header.set_size(0);
        header.set_cksum();
        bytes.extend_from_slice(header.as_bytes());
        number += 1;
    }
    let scratch = Scratch::new();
    let error = load_bytes(&scratch, &gzip(&bytes)).unwrap_err();
    assert!(
        matches!(error, ArchiveError::TooMuchMemory { .. }),
        "{error:?}"
    );
    nothing_is_left(&scratch, "the names");

    let name = "n".repeat(5000);
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(tar::EntryType::GNULongName);
    header.set_path("././@LongLink").unwrap();
    header.set_size(name.len() as u64);
    header.set_cksum();
    let mut bytes = header.as_bytes().to_vec();
    bytes.extend_from_slice(name.as_bytes());
    bytes.resize(bytes.len().next_multiple_of(512), 0);
    bytes.extend(tar(&[("x", b"")]));
    let error = load_bytes(&scratch, &bytes).unwrap_err();
    assert!(matches!(error, ArchiveError::LongName(_)), "{error:?}");
}

/// A directory is read by the names in its documents: those stay inside it.
#[test]
fn a_layout_directory_cannot_lead_outside() {
    let scratch = Scratch::new();
    let dir = scratch.path("layout");
    Fixture::sample(24).write_layout(&dir, "x:1");
    let index = json!({"schemaVersion": 2, "manifests": [{
        "mediaType": OCI_MANIFEST, "digest": "sha256:../../../../etc/passwd", "size": 1,
    }]});
    fs::write(dir.join("index.json"), index.to_string()).unwrap();
    let loaded = load(
        &scratch.store,
        LoadFrom::Path(&dir),
        &LoadOptions::default(),
        &Quiet,
    );
    assert!(loaded.is_err());
    nothing_is_left(&scratch, "the layout");
}

/// The sample's image with another configuration, and what makes it one: a list of very many small values.
fn bloated(values: usize, section: &str) -> Fixture {
    let mut image = Fixture::sample(26);
    let mut config: serde_json::Value = serde_json::from_slice(&image.config).unwrap();
    match section {
        "history" => config["history"] = vec![json!({}); values].into(),
        "Labels" => {
            let labels = (0..values).map(|n| (n.to_string(), json!("")));
            config["config"]["Labels"] = labels.collect::<serde_json::Map<_, _>>().into();
        }
        other => config["config"][other] = vec![json!("A"); values].into(),
    }
    image.config = serde_json::to_vec(&config).unwrap();
    let mut manifest: serde_json::Value = serde_json::from_slice(&image.manifest).unwrap();
    manifest["config"]["digest"] = json!(digest(&image.config).to_string());
    manifest["config"]["size"] = json!(image.config.len());
    image.manifest = serde_json::to_vec(&manifest).unwrap();
    image
}

/// Eight kilobytes of archive took 853 MB while they were loaded, and half as much at each `images`.
#[test]
fn a_configuration_of_very_many_values_is_refused_by_name() {
    for (section, values, says) in [
        (
            "history",
            4097,
            "the history of the configuration lists 4097 entries",
        ),
        (
            "Env",
            4097,
            "the Env of the configuration lists 4097 entries",
        ),
        (
            "Labels",
            4097,
            "the Labels of the configuration lists 4097 entries",
        ),
        (
            "history",
            100_000,
            "the configuration has more than 65536 values",
        ),
        (
            "Env",
            100_000,
            "the configuration has more than 65536 values",
        ),
        ("Cmd", 1_100_000, "bytes long, at most 4194304 are accepted"),
    ] {
        let image = bloated(values, section);
        for archive in [
            docker_archive(&image, &["x:1"]),
            oci_archive(&image, REF, "x:1", false),
        ] {
            let scratch = Scratch::new();
            let error = load_bytes(&scratch, &gzip(&archive)).unwrap_err();
            let text = chain(&error);
            assert!(text.contains(says), "{section}: {text}");
            nothing_is_left(&scratch, section);
        }
        let scratch = Scratch::new();
        let registry = Faulty::serve(image, |_, _| None);
        let reference = registry.name("x:1").parse().unwrap();
        let error = pull(&scratch.store, &reference, &PullOptions::default(), &Quiet).unwrap_err();
        let text = chain(&error);
        assert!(text.contains(says), "pull {section}: {text}");
        nothing_is_left(&scratch, section);
    }
}

/// What an older version took in must not make each listing as dear as it was to take in.
#[test]
fn a_store_with_such_an_image_lists_the_others() {
    let scratch = Scratch::new();
    load_bytes(&scratch, &docker_archive(&Fixture::sample(27), &["good:1"])).unwrap();
    let image = bloated(100_000, "history");
    let layout = scratch.store.layout_dir();
    for bytes in [&image.config, &image.manifest] {
        fs::write(layout.join("blobs/sha256").join(digest(bytes).hex()), bytes).unwrap();
    }
    let path = layout.join("index.json");
    let mut index: serde_json::Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    index["manifests"].as_array_mut().unwrap().push(json!({
        "mediaType": OCI_MANIFEST, "digest": digest(&image.manifest).to_string(), "size": image.manifest.len(),
        "annotations": {REF: "old:1"},
    }));
    fs::write(&path, index.to_string()).unwrap();
    let listed = scratch.store.images().unwrap();
    assert_eq!(listed.len(), 1);
    let error = scratch.store.resolve("old:1").unwrap_err();
    assert!(
        chain(&error).contains("more than 65536 values"),
        "{}",
        chain(&error)
    );
}

/// Layer and configuration names, tags, media types and platforms: each was once printed as it came.
#[test]
fn what_an_archive_says_reaches_an_error_clean() {
    let evil = "x\u{1b}]0;title\u{7}\u{9b}2J\u{202e}\nbulkhead: forged";
    let image = Fixture::sample(28);
    let plain = |document: serde_json::Value| {
        let manifest = document.to_string();
        tar(&[
            ("c.json", &image.config),
            ("manifest.json", manifest.as_bytes()),
        ])
    };
    let layers = vec!["a"; 2];
    let with_type = |kind: &str| {
        let json = String::from_utf8(image.manifest.clone()).unwrap();
        let escaped = serde_json::to_string(evil).unwrap();
        let mut other = image.clone();
        other.manifest = json.replace(&format!("\"{kind}\""), &escaped).into_bytes();
        oci_archive(&other, REF, "x:1", false)
    };
    for archive in [
        plain(json!([{"Config": "c.json", "Layers": [evil, "b", "c"]}])),
        plain(json!([{"Config": evil, "Layers": layers}])),
        plain(json!([{"Config": "c.json", "RepoTags": [evil], "Layers": layers}])),
        with_type("application/vnd.oci.image.layer.v1.tar+gzip"),
        with_type("application/vnd.oci.image.config.v1+json"),
        with_type(OCI_MANIFEST),
    ] {
        let error = load_bytes(&Scratch::new(), &archive).unwrap_err();
        let text = chain(&error);
        assert!(text.contains("title"), "{text:?}");
        assert_eq!(GuestText::line(&text), *text, "{text:?}");
    }
    let mut config: serde_json::Value = serde_json::from_slice(&image.config).unwrap();
    config["os"] = json!(evil);
    let config = parse_config(&serde_json::to_vec(&config).unwrap()).unwrap();
    let platform = Platform::of_image(&config).to_string();
    assert_eq!(GuestText::line(&platform), *platform, "{platform:?}");
}
