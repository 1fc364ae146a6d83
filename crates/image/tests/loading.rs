//! What `load` makes of archives with more than one good image in them, what `save` puts in, and every compression.

mod support;

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use bulkhead_image::{
    ArchiveError, ImportOptions, LoadEvent, LoadFrom, LoadOptions, Quiet, SaveFormat, SaveTo,
    import, load, load_reporting, save,
};
use serde_json::{Value, json};
use support::Scratch;
use support::fixture::{Fixture, OCI_INDEX, OCI_MANIFEST, digest, gzip, noise, tar};

/// An OCI layout with these entries and these blobs.
fn layout(dir: &Path, entries: &[Value], blobs: &[&[u8]]) {
    let place = dir.join("blobs/sha256");
    fs::create_dir_all(&place).unwrap();
    for blob in blobs {
        fs::write(place.join(digest(blob).hex()), blob).unwrap();
    }
    let index = json!({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": entries});
    fs::write(dir.join("index.json"), index.to_string()).unwrap();
    fs::write(dir.join("oci-layout"), br#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
}

fn entry(
    bytes: &[u8],
    media_type: &str,
    name: Option<&str>,
    platform: Option<(&str, Option<&str>)>,
) -> Value {
    let mut entry =
        json!({"mediaType": media_type, "digest": digest(bytes).to_string(), "size": bytes.len()});
    if let Some(name) = name {
        entry["annotations"] = json!({"org.opencontainers.image.ref.name": name});
    }
    if let Some((architecture, variant)) = platform {
        let os = if architecture == "unknown" {
            "unknown"
        } else {
            "linux"
        };
        entry["platform"] = json!({"os": os, "architecture": architecture});
        if let Some(variant) = variant {
            entry["platform"]["variant"] = json!(variant);
        }
    }
    entry
}

fn image(mark: &str) -> Fixture {
    Fixture::new(&[tar(&[("mark", mark.as_bytes())])])
}

fn blobs(image: &Fixture) -> Vec<&[u8]> {
    let all = image.layers.iter().chain([&image.config, &image.manifest]);
    all.map(Vec::as_slice).collect()
}

/// A manifest that is sound, but no image's.
fn artifact() -> Vec<u8> {
    json!({"schemaVersion": 2, "mediaType": OCI_MANIFEST, "artifactType": "application/x", "layers": [],
        "config": {"mediaType": "application/vnd.oci.empty.v1+json", "size": 2, "digest": digest(b"{}").to_string()}})
    .to_string()
    .into_bytes()
}

/// What `load` reports, a line for each event.
fn told(scratch: &Scratch, from: LoadFrom<'_>) -> (Vec<String>, Result<(), ArchiveError>) {
    told_for(scratch, from, Some("linux/amd64/v3"))
}

fn told_for(
    scratch: &Scratch,
    from: LoadFrom<'_>,
    platform: Option<&str>,
) -> (Vec<String>, Result<(), ArchiveError>) {
    let mut lines = Vec::new();
    let options = LoadOptions {
        platform: platform.map(|text| text.parse().unwrap()),
    };
    let result = load_reporting(&scratch.store, from, &options, &Quiet, &mut |event| {
        lines.push(match event {
            LoadEvent::Renamed { name, old } => format!("renamed {} {old}", name.familiar()),
            LoadEvent::Loaded { names, .. } => {
                let names: Vec<String> = names.iter().map(|name| name.familiar()).collect();
                format!("loaded {}", names.join(" "))
            }
            LoadEvent::Skipped { what, .. } => format!("skipped {what}"),
            LoadEvent::Failed { what, .. } => format!("failed {what}"),
        });
    });
    (lines, result)
}

#[test]
fn what_is_no_image_does_not_lose_the_images_beside_it() {
    let (first, last, other) = (image("first"), image("last"), artifact());
    let scratch = Scratch::new();
    let dir = scratch.path("layout");
    let entries = [
        entry(&first.manifest, OCI_MANIFEST, Some("first:1"), None),
        entry(&other, OCI_MANIFEST, Some("artifact:1"), None),
        entry(b"attested", OCI_MANIFEST, None, Some(("unknown", None))),
        entry(
            b"elsewhere",
            OCI_MANIFEST,
            Some("arm:1"),
            Some(("arm64", None)),
        ),
        entry(b"strange", "application/x+json", Some("strange:1"), None),
        entry(
            &last.manifest,
            OCI_MANIFEST,
            Some("last:1"),
            Some(("amd64", None)),
        ),
    ];
    let strange: &[u8] = b"strange";
    layout(
        &dir,
        &entries,
        &[blobs(&first), blobs(&last), vec![&other, strange]].concat(),
    );
    let (lines, result) = told(&scratch, LoadFrom::Path(&dir));
    let attested = format!("skipped {}", digest(b"attested"));
    let wanted = [
        "loaded first:1",
        "skipped artifact:1",
        &attested,
        "skipped arm:1",
        "skipped strange:1",
        "loaded last:1",
    ];
    assert_eq!(lines, wanted);
    result.unwrap();

    fs::remove_dir_all(&dir).unwrap();
    let sound = [&entries[..4], &entries[5..]].concat();
    layout(
        &dir,
        &sound,
        &[blobs(&first), blobs(&last), vec![&other]].concat(),
    );
    let scratch = Scratch::new();
    let (lines, result) = told(&scratch, LoadFrom::Path(&dir));
    result.unwrap();
    assert_eq!(lines.last().unwrap(), "loaded last:1");
    assert_eq!(scratch.store.resolve("last:1").unwrap().id, last.id());
    assert_eq!(scratch.store.images().unwrap().len(), 2);
}

#[test]
fn an_archive_without_any_image_says_what_is_in_it() {
    let scratch = Scratch::new();
    let dir = scratch.path("layout");
    let other = artifact();
    layout(
        &dir,
        &[entry(&other, OCI_MANIFEST, Some("a:1"), None)],
        &[&other],
    );
    let (lines, result) = told(&scratch, LoadFrom::Path(&dir));
    assert_eq!(lines, ["skipped a:1"]);
    let error = result.unwrap_err();
    let source = std::error::Error::source(&error).unwrap().to_string();
    assert!(
        source.contains("application/vnd.oci.empty.v1+json"),
        "{source}"
    );
    assert_eq!(scratch.count("image/blobs/sha256"), 0);
}

#[test]
fn of_several_levels_under_one_name_the_best_is_loaded() {
    let scratch = Scratch::new();
    let dir = scratch.path("layout");
    let images = [image("v3"), image("v1"), image("v2")];
    let variants = [Some("v3"), None, Some("v2")];
    let entries: Vec<Value> = images
        .iter()
        .zip(variants)
        .map(|(image, variant)| {
            entry(
                &image.manifest,
                OCI_MANIFEST,
                Some("x:1"),
                Some(("amd64", variant)),
            )
        })
        .collect();
    let all: Vec<&[u8]> = images.iter().flat_map(blobs).collect();
    layout(&dir, &entries, &all);
    let (lines, result) = told(&scratch, LoadFrom::Path(&dir));
    result.unwrap();
    assert_eq!(lines, ["loaded x:1", "skipped x:1", "skipped x:1"]);
    assert_eq!(scratch.store.resolve("x:1").unwrap().id, images[0].id());
}

#[test]
fn an_index_that_was_copied_in_part_leads_to_the_image_that_is_there() {
    let scratch = Scratch::new();
    let dir = scratch.path("layout");
    let present = image("present");
    let inner = json!({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [
        entry(b"absent", OCI_MANIFEST, None, None),
        entry(&artifact(), OCI_MANIFEST, None, None),
        entry(&present.manifest, OCI_MANIFEST, None, None)]})
    .to_string()
    .into_bytes();
    let outer = json!({"schemaVersion": 2, "mediaType": OCI_INDEX,
        "manifests": [entry(&inner, OCI_INDEX, None, None)]})
    .to_string()
    .into_bytes();
    let other = artifact();
    let blobs = [blobs(&present), vec![&inner, &outer, &other]].concat();
    layout(
        &dir,
        &[entry(&outer, OCI_INDEX, Some("nested:1"), None)],
        &blobs,
    );
    let (lines, result) = told(&scratch, LoadFrom::Path(&dir));
    result.unwrap();
    assert_eq!(lines, ["loaded nested:1"]);
    assert_eq!(scratch.store.resolve("nested:1").unwrap().id, present.id());
}

/// A docker-archive of one image whose configuration has this file name.
fn docker_archive(image: &Fixture, plain: &[u8], config: &str, tags: &[&str]) -> Vec<u8> {
    let manifest =
        json!([{"Config": config, "RepoTags": tags, "Layers": ["layer.tar"]}]).to_string();
    tar(&[
        (config, &image.config),
        ("layer.tar", plain),
        ("manifest.json", manifest.as_bytes()),
    ])
}

#[test]
fn a_name_that_moves_is_told_and_only_the_archives_names_are() {
    let scratch = Scratch::new();
    let plain = [tar(&[("mark", b"a")]), tar(&[("mark", b"b")])];
    let [a, b] = [Fixture::new(&plain[..1]), Fixture::new(&plain[1..])];
    let archive = |image: &Fixture, plain: &[u8], tags: &[&str]| {
        docker_archive(image, plain, "config.json", tags)
    };
    let first = archive(&a, &plain[0], &["x:1", "y:1"]);
    let (lines, result) = told(&scratch, LoadFrom::Reader(&mut &first[..]));
    result.unwrap();
    assert_eq!(lines, ["loaded x:1 y:1"]);
    let second = archive(&b, &plain[1], &["y:1"]);
    let (lines, result) = told(&scratch, LoadFrom::Reader(&mut &second[..]));
    result.unwrap();
    assert_eq!(
        lines,
        [format!("renamed y:1 {}", a.id()), "loaded y:1".to_owned()]
    );
    let again = archive(&a, &plain[0], &["x:1"]);
    let (lines, _) = told(&scratch, LoadFrom::Reader(&mut &again[..]));
    assert_eq!(
        lines,
        ["loaded x:1"],
        "nothing moves, and y:1 was not in the archive"
    );
}

#[test]
fn a_configuration_need_not_be_named_by_its_digest() {
    let plain = tar(&[("mark", b"a")]);
    let image = Fixture::new(std::slice::from_ref(&plain));
    let wrong = format!("{}.json", "0".repeat(64));
    for name in ["config.json", wrong.as_str()] {
        let archive = docker_archive(&image, &plain, name, &["x:1"]);
        let scratch = Scratch::new();
        told(&scratch, LoadFrom::Reader(&mut &archive[..]))
            .1
            .unwrap();
        assert_eq!(
            scratch.store.resolve("x:1").unwrap().id,
            image.id(),
            "{name}"
        );
    }
    // In a layout the name is the digest, for every reader.
    let name = format!("blobs/sha256/{}", "0".repeat(64));
    let archive = docker_archive(&image, &plain, &name, &["x:1"]);
    let result = told(&Scratch::new(), LoadFrom::Reader(&mut &archive[..])).1;
    assert!(
        matches!(result, Err(ArchiveError::DigestMismatch { .. })),
        "{result:?}"
    );
}

#[test]
fn a_repository_without_a_tag_is_saved_with_all_its_tags() {
    let scratch = Scratch::new();
    for (mark, name) in [
        ("a", "team/app:1"),
        ("b", "team/app:latest"),
        ("c", "team/apple:1"),
    ] {
        let dir = scratch.path(mark);
        image(mark).write_layout(&dir, name);
        load(
            &scratch.store,
            LoadFrom::Path(&dir),
            &LoadOptions::default(),
            &Quiet,
        )
        .unwrap();
    }
    let first = scratch.store.resolve("team/app:1").unwrap();
    scratch
        .store
        .tag(&first, &"team/app:one".parse().unwrap())
        .unwrap();
    let saved = |target: &str| {
        let mut bytes = Vec::new();
        let to = SaveTo::Writer(&mut bytes);
        save(
            &scratch.store,
            &[target.to_owned()],
            SaveFormat::DockerArchive,
            to,
            &Quiet,
        )
        .unwrap();
        let (mut lines, result) = told(&Scratch::new(), LoadFrom::Reader(&mut &bytes[..]));
        result.unwrap();
        lines.sort();
        lines
    };
    assert_eq!(
        saved("team/app"),
        ["loaded team/app:1 team/app:one", "loaded team/app:latest"]
    );
    assert_eq!(saved("team/app:latest"), ["loaded team/app:latest"]);
    assert_eq!(saved(&first.id.short()), ["loaded "]);
}

/// What the program of this name makes of `bytes`.
fn packed(program: &str, bytes: &[u8]) -> Vec<u8> {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("f");
    fs::write(&file, bytes).unwrap();
    let output = Command::new(program)
        .args(["-c", support::text(&file)])
        .stderr(Stdio::inherit())
        .output()
        .unwrap_or_else(|e| panic!("{program} IS MISSING: this test needs it ({e})"));
    assert!(output.status.success());
    output.stdout
}

#[test]
fn xz_and_bzip2_are_loaded_and_imported_and_leave_as_gzip() {
    let plain = tar(&[("mark", b"a"), ("noise", &noise(100_000, 1))]);
    let image = Fixture::new(std::slice::from_ref(&plain));
    for program in ["xz", "bzip2"] {
        let scratch = Scratch::new();
        let layer = packed(program, &plain);
        let archive = packed(
            program,
            &docker_archive(&image, &layer, "config.json", &["x:1"]),
        );
        told(&scratch, LoadFrom::Reader(&mut &archive[..]))
            .1
            .unwrap();
        let loaded = scratch.store.resolve("x:1").unwrap();
        assert_eq!(loaded.id, image.id());
        let imported = import(
            &scratch.store,
            &mut &layer[..],
            &ImportOptions::default(),
            &Quiet,
        )
        .unwrap();
        assert_eq!(imported.diff_ids, loaded.diff_ids);
        for one in [loaded, imported] {
            let layer = &one.manifest.layers()[0];
            assert!(
                layer.media_type().to_string().ends_with("tar+gzip"),
                "{program}"
            );
            let blob = scratch
                .store
                .blob_path(&layer.digest().to_string().parse().unwrap());
            assert!(
                fs::read(blob).unwrap().starts_with(&[0x1f, 0x8b]),
                "{program}"
            );
        }
    }
}

#[test]
fn garbage_is_answered_with_what_was_expected() {
    let short: &[u8] = b"hello";
    for garbage in [
        noise(5000, 1),
        short.to_vec(),
        gzip(b"no archive"),
        Vec::new(),
    ] {
        let (_, result) = told(&Scratch::new(), LoadFrom::Reader(&mut &garbage[..]));
        let error = result.unwrap_err();
        assert!(
            error
                .hint()
                .unwrap()
                .contains("docker-archive or an OCI layout"),
            "{error}"
        );
        if !garbage.is_empty() {
            assert!(error.to_string().contains("no tar archive"), "{error}");
        }
    }
}

/// The first bad entry lost every image behind it.
#[test]
fn a_damaged_entry_of_a_layout_does_not_lose_the_images_behind_it() {
    let (first, last) = (image("first"), image("last"));
    let garbage: &[u8] = b"no manifest";
    let mut lying = entry(b"promised", OCI_MANIFEST, Some("bad:1"), None);
    lying["size"] = json!(7);
    for (what, bad) in [
        (
            "missing",
            entry(b"absent", OCI_MANIFEST, Some("bad:1"), None),
        ),
        ("garbage", entry(garbage, OCI_MANIFEST, Some("bad:1"), None)),
        ("another digest", lying),
    ] {
        let scratch = Scratch::new();
        let dir = scratch.path("layout");
        let entries = [
            entry(&first.manifest, OCI_MANIFEST, Some("first:1"), None),
            bad.clone(),
            entry(&last.manifest, OCI_MANIFEST, Some("last:1"), None),
        ];
        let all = [blobs(&first), blobs(&last), vec![garbage]].concat();
        layout(&dir, &entries, &all);
        if what == "another digest" {
            let place = dir.join("blobs/sha256").join(digest(b"promised").hex());
            fs::write(place, b"delivered").unwrap();
        }
        let (lines, result) = told(&scratch, LoadFrom::Path(&dir));
        assert_eq!(
            lines,
            ["loaded first:1", "failed bad:1", "loaded last:1"],
            "{what}"
        );
        let error = result.unwrap_err();
        let says = "1 of the 3 images in the archive could not be loaded";
        assert_eq!(error.to_string(), says, "{what}");
        assert_eq!(scratch.store.resolve("last:1").unwrap().id, last.id());
        // Alone it is the error itself.
        layout(&dir, &[bad], &[]);
        let (lines, result) = told(&Scratch::new(), LoadFrom::Path(&dir));
        assert!(lines.is_empty(), "{lines:?}");
        let error = result.unwrap_err();
        assert!(
            !error.to_string().contains("could not be loaded"),
            "{error}"
        );
    }
}

/// Two images in one docker-archive, with `bad` between them in its list.
fn docker_pair(bad: &Value) -> (Vec<u8>, [Fixture; 2]) {
    let plain = [tar(&[("mark", b"a")]), tar(&[("mark", b"b")])];
    let [a, b] = [Fixture::new(&plain[..1]), Fixture::new(&plain[1..])];
    let list = json!([
        {"Config": "a.json", "RepoTags": ["first:1"], "Layers": ["a.tar"]}, bad,
        {"Config": "b.json", "RepoTags": ["last:1"], "Layers": ["b.tar"]}])
    .to_string();
    let archive = tar(&[
        ("a.json", &a.config),
        ("a.tar", &plain[0]),
        ("b.json", &b.config),
        ("b.tar", &plain[1]),
        ("garbage.json", b"garbage"),
        ("manifest.json", list.as_bytes()),
    ]);
    (archive, [a, b])
}

#[test]
fn a_damaged_entry_of_a_docker_archive_does_not_lose_the_images_behind_it() {
    for bad in [
        json!({"Config": "absent.json", "RepoTags": ["bad:1"], "Layers": []}),
        json!({"Config": "garbage.json", "RepoTags": ["bad:1"], "Layers": []}),
        json!({"Config": "a.json", "RepoTags": ["bad:1"], "Layers": ["absent.tar"]}),
        json!({"Config": "a.json", "RepoTags": ["bad:1:2"], "Layers": ["a.tar"]}),
    ] {
        let scratch = Scratch::new();
        let (archive, [_, last]) = docker_pair(&bad);
        let (lines, result) = told(&scratch, LoadFrom::Reader(&mut &archive[..]));
        assert_eq!(lines.len(), 3, "{bad}: {lines:?}");
        assert!(lines[1].starts_with("failed bad:1"), "{bad}: {lines:?}");
        assert!(
            matches!(
                result,
                Err(ArchiveError::Incomplete {
                    failed: 1,
                    entries: 3
                })
            ),
            "{bad}: {result:?}"
        );
        assert_eq!(scratch.store.resolve("last:1").unwrap().id, last.id());
        assert!(scratch.store.resolve("bad:1").is_err());
    }
}

/// `load --platform linux/arm64` took amd64 images where nothing but their configuration says what they are for.
#[test]
fn an_image_for_another_platform_than_asked_is_passed_over() {
    let plain = tar(&[("mark", b"a")]);
    let foreign = Fixture::new(std::slice::from_ref(&plain));
    let docker = docker_archive(&foreign, &plain, "c.json", &["x:1"]);
    let own = Fixture::with_platform(&[tar(&[("mark", b"arm")])], "arm64");
    let scratch = Scratch::new();
    let dir = scratch.path("layout");
    let named = |image: &Fixture, name| entry(&image.manifest, OCI_MANIFEST, Some(name), None);
    layout(&dir, &[named(&foreign, "x:1")], &blobs(&foreign));
    let arm = Some("linux/arm64");
    for from in [LoadFrom::Reader(&mut &docker[..]), LoadFrom::Path(&dir)] {
        let (lines, result) = told_for(&scratch, from, arm);
        assert_eq!(lines, ["skipped x:1"]);
        let error = result.unwrap_err();
        let text = bulkhead_types::chain(&error);
        assert!(
            text.contains("no image for platform linux/arm64; available: linux/amd64"),
            "{text}"
        );
        assert!(scratch.store.images().unwrap().is_empty());
    }
    let entries = [named(&foreign, "x:1"), named(&own, "y:1")];
    layout(&dir, &entries, &[blobs(&foreign), blobs(&own)].concat());
    let (lines, result) = told_for(&scratch, LoadFrom::Path(&dir), arm);
    result.unwrap();
    assert_eq!(lines, ["skipped x:1", "loaded y:1"]);
    // Nobody asked: taken as they are, as `pull` does.
    let (lines, result) = told_for(&scratch, LoadFrom::Reader(&mut &docker[..]), None);
    result.unwrap();
    assert_eq!(lines, ["loaded x:1"]);
}

/// Some builders write the kernel's name of an architecture.
#[test]
fn an_index_may_have_other_names_of_architectures() {
    for (stated, wanted) in [("x86_64", "linux/amd64"), ("aarch64", "linux/arm64")] {
        let scratch = Scratch::new();
        let dir = scratch.path("layout");
        let image = image(stated);
        let platform = Some((stated, None));
        let inner = json!({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [
            entry(&image.manifest, OCI_MANIFEST, None, platform)]})
        .to_string()
        .into_bytes();
        let entries = [
            entry(&image.manifest, OCI_MANIFEST, Some("x:1"), platform),
            entry(&inner, OCI_INDEX, Some("y:1"), None),
        ];
        layout(&dir, &entries, &[blobs(&image), vec![&inner]].concat());
        let (lines, result) = told_for(&scratch, LoadFrom::Path(&dir), Some(wanted));
        result.unwrap();
        assert_eq!(lines, ["loaded x:1", "loaded y:1"], "{stated}");
    }
}

/// Each name rewrote the index and looked at the image anew: 100,000 names were not done after a minute.
#[test]
fn the_names_of_an_archive_are_given_at_once_and_bounded() {
    let plain = tar(&[("mark", b"a")]);
    let image = Fixture::new(std::slice::from_ref(&plain));
    let archive = |count: usize| {
        let names: Vec<String> = (0..count).map(|n| format!("x:{n}")).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        docker_archive(&image, &plain, "c.json", &names)
    };
    let scratch = Scratch::new();
    let index = scratch.store.layout_dir().join("index.json");
    let other = Fixture::new(&[tar(&[("mark", b"b")])]);
    other.write_layout(&scratch.path("other"), "x:7");
    told(&scratch, LoadFrom::Path(&scratch.path("other")))
        .1
        .unwrap();
    let (lines, result) = told(&scratch, LoadFrom::Reader(&mut &archive(4096)[..]));
    result.unwrap();
    assert_eq!(lines.len(), 2);
    assert_eq!(lines[0], format!("renamed x:7 {}", other.id()));
    let images = scratch.store.images().unwrap();
    let names: Vec<usize> = images.iter().map(|image| image.names.len()).collect();
    assert_eq!(names.iter().sum::<usize>(), 4096, "{names:?}");
    assert_eq!(images.len(), 2, "the image that lost its name stays");
    let before = fs::read(&index).unwrap();
    let (_, result) = told(&scratch, LoadFrom::Reader(&mut &archive(4097)[..]));
    let text = bulkhead_types::chain(&result.unwrap_err());
    assert!(text.contains("manifest.json"), "{text}");
    assert!(text.contains("lists 4097 entries, at most 4096"), "{text}");
    assert_eq!(fs::read(&index).unwrap(), before);
}
