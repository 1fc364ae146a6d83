//! Archives: what others write we load, what we write others load, and the store itself is one.

mod support;

use std::fs;
use std::io::Write;

use bulkhead_image::{
    ArchiveError, Change, ErrorKind, ImportOptions, LoadFrom, LoadOptions, Quiet, SaveFormat,
    SaveTo, StoreError, import, load, save,
};
use support::fixture::{Fixture, digest, gzip, noise, tar, zstd};
use support::{Scratch, skopeo, text, tool_ok};

/// A layout that skopeo copies from.
fn layout(image: &Fixture) -> (tempfile::TempDir, String) {
    let dir = tempfile::tempdir().unwrap();
    image.write_layout(dir.path(), "x");
    let name = format!("oci:{}:x", text(dir.path()));
    (dir, name)
}

fn load_path(
    scratch: &Scratch,
    path: &std::path::Path,
) -> Result<Vec<bulkhead_image::Image>, ArchiveError> {
    load(
        &scratch.store,
        LoadFrom::Path(path),
        &LoadOptions::default(),
        &Quiet,
    )
}

/// Loads the sample image under the name `sample:1`.
fn with_sample(seed: u64) -> (Scratch, Fixture) {
    let scratch = Scratch::new();
    let image = Fixture::sample(seed);
    let dir = scratch.path("layout");
    image.write_layout(&dir, "sample:1");
    assert_eq!(load_path(&scratch, &dir).unwrap()[0].id, image.id());
    (scratch, image)
}

#[test]
fn a_docker_archive_of_skopeo_is_loaded_also_compressed_and_from_a_pipe() {
    let image = Fixture::gzipped(1);
    let (_dir, from) = layout(&image);
    let scratch = Scratch::new();
    let file = scratch.path("a.tar");
    skopeo(&[
        "copy",
        &from,
        &format!("docker-archive:{}:some/app:1", text(&file)),
    ]);
    let loaded = load_path(&scratch, &file).unwrap();
    assert_eq!(loaded.len(), 1);
    let names: Vec<String> = loaded[0].names.iter().map(|name| name.familiar()).collect();
    assert_eq!(names, ["some/app:1"]);
    assert_eq!(loaded[0].diff_ids.len(), 2);
    for compressed in [
        gzip(&fs::read(&file).unwrap()),
        zstd(&fs::read(&file).unwrap()),
    ] {
        let other = Scratch::new();
        let again = load(
            &other.store,
            LoadFrom::Reader(&mut &compressed[..]),
            &LoadOptions::default(),
            &Quiet,
        )
        .unwrap();
        assert_eq!(again[0].id, loaded[0].id);
        assert_eq!(
            other.count("image/blobs/sha256"),
            4,
            "only what the image needs is kept"
        );
    }
}

#[test]
fn an_oci_archive_and_a_layout_keep_their_digests() {
    let image = Fixture::sample(2);
    let (dir, from) = layout(&image);
    let scratch = Scratch::new();
    let file = scratch.path("a.tar");
    skopeo(&[
        "copy",
        "--preserve-digests",
        &from,
        &format!("oci-archive:{}:debian:bookworm", text(&file)),
    ]);
    let loaded = load_path(&scratch, &file).unwrap();
    assert_eq!(loaded[0].manifest_digest, digest(&image.manifest));
    assert_eq!(
        scratch.store.resolve("debian:bookworm").unwrap().id,
        image.id()
    );
    let other = Scratch::new();
    assert_eq!(
        load_path(&other, dir.path()).unwrap()[0].manifest_digest,
        digest(&image.manifest)
    );
}

#[test]
fn skopeo_and_umoci_read_the_store() {
    let scratch = Scratch::new();
    let image = Fixture::new(&[tar(&[("hello", b"hi\n")])]);
    let dir = scratch.path("layout");
    image.write_layout(&dir, "debian:bookworm");
    load_path(&scratch, &dir).unwrap();
    let seen = skopeo(&["inspect", &scratch.oci("debian:bookworm")]);
    assert!(
        seen.contains(&digest(&image.layers[0]).to_string()),
        "{seen}"
    );
    let bundle = scratch.path("bundle");
    let store = format!("{}:debian:bookworm", scratch.store.layout_dir().display());
    tool_ok(
        "umoci",
        &["unpack", "--rootless", "--image", &store, text(&bundle)],
    );
    assert_eq!(fs::read(bundle.join("rootfs/hello")).unwrap(), b"hi\n");
    skopeo(&[
        "copy",
        &scratch.oci("debian:bookworm"),
        &format!("dir:{}", text(&scratch.path("dir"))),
    ]);
}

#[test]
fn what_skopeo_copies_into_the_store_is_an_image() {
    let (_dir, from) = layout(&Fixture::sample(3));
    let scratch = Scratch::new();
    skopeo(&["copy", &from, &scratch.oci("fresh:1")]);
    let image = scratch.store.resolve("fresh:1").unwrap();
    assert_eq!(image.id, Fixture::sample(3).id());
    let disk = scratch.store.disk(&image).unwrap();
    assert_eq!(disk.parts.len(), 4, "metadata and three layers");
}

#[test]
fn what_we_save_skopeo_reads_and_we_load() {
    let (scratch, image) = with_sample(4);
    let targets = ["sample:1".to_owned()];
    for (format, transport) in [
        (SaveFormat::DockerArchive, "docker-archive"),
        (SaveFormat::OciArchive, "oci-archive"),
    ] {
        let file = scratch.path(transport);
        save(
            &scratch.store,
            &targets,
            format,
            SaveTo::Path(&file),
            &Quiet,
        )
        .unwrap();
        let config = skopeo(&[
            "inspect",
            "--config",
            &format!("{transport}:{}", text(&file)),
        ]);
        assert!(
            config.contains(&digest(&image.config).to_string()) || config.contains("\"/hello\""),
            "{config}"
        );
        let other = Scratch::new();
        let loaded = load_path(&other, &file).unwrap();
        assert_eq!(loaded[0].id, image.id());
        assert_eq!(other.store.resolve("sample:1").unwrap().id, image.id());
    }
    let dir = scratch.path("saved");
    save(
        &scratch.store,
        &targets,
        SaveFormat::OciDirectory,
        SaveTo::Path(&dir),
        &Quiet,
    )
    .unwrap();
    skopeo(&["inspect", &format!("oci:{}:sample:1", text(&dir))]);
    assert_eq!(
        load_path(&Scratch::new(), &dir).unwrap()[0].manifest_digest,
        digest(&image.manifest)
    );
}

#[test]
fn several_images_share_an_archive() {
    let (scratch, first) = with_sample(5);
    let second = Fixture::new(&[tar(&[("other", b"1")])]);
    let dir = scratch.path("second");
    second.write_layout(&dir, "second:2");
    load_path(&scratch, &dir).unwrap();
    let mut bytes = Vec::new();
    let targets = [
        "sample:1".to_owned(),
        "second:2".to_owned(),
        first.id().short(),
    ];
    save(
        &scratch.store,
        &targets,
        SaveFormat::DockerArchive,
        SaveTo::Writer(&mut bytes),
        &Quiet,
    )
    .unwrap();
    let other = Scratch::new();
    let loaded = load(
        &other.store,
        LoadFrom::Reader(&mut &bytes[..]),
        &LoadOptions::default(),
        &Quiet,
    )
    .unwrap();
    assert_eq!(loaded.len(), 2);
    assert_eq!(other.store.resolve("second:2").unwrap().id, second.id());
}

#[test]
fn a_file_is_saved_whole_or_not_at_all() {
    let (scratch, image) = with_sample(6);
    fs::remove_file(scratch.store.blob_path(&digest(&image.layers[1]))).unwrap();
    let out = scratch.path("out");
    fs::create_dir(&out).unwrap();
    let targets = ["sample:1".to_owned()];
    let error = save(
        &scratch.store,
        &targets,
        SaveFormat::OciArchive,
        SaveTo::Path(&out.join("a.tar")),
        &Quiet,
    )
    .unwrap_err();
    assert!(
        matches!(error, ArchiveError::Store(StoreError::MissingBlob { .. })),
        "{error:?}"
    );
    assert_eq!(fs::read_dir(&out).unwrap().count(), 0);
}

#[test]
fn archives_that_are_none_are_refused_and_leave_nothing() {
    let scratch = Scratch::new();
    let hex = "0".repeat(64);
    let manifest = |config: &str, layer: &str| {
        format!(r#"[{{"Config":"{config}","RepoTags":null,"Layers":["{layer}"]}}]"#)
    };
    let config = Fixture::sample(1).config;
    let cases: Vec<(Vec<u8>, ErrorKind)> = vec![
        (Vec::new(), ErrorKind::InvalidInput),
        (noise(5000, 1), ErrorKind::InvalidInput),
        (gzip(b"short")[..12].to_vec(), ErrorKind::InvalidInput),
        (tar(&[("etc/passwd", b"root")]), ErrorKind::InvalidInput),
        (tar(&[("manifest.json", b"{}")]), ErrorKind::InvalidInput),
        (tar(&[("manifest.json", b"[]")]), ErrorKind::InvalidInput),
        (
            tar(&[(
                "manifest.json",
                manifest("../../etc/passwd", "l").as_bytes(),
            )]),
            ErrorKind::InvalidInput,
        ),
        (
            tar(&[
                ("manifest.json", manifest("c.json", "l").as_bytes()),
                ("c.json", &config),
            ]),
            ErrorKind::InvalidInput,
        ),
        (
            tar(&[
                (
                    "manifest.json",
                    manifest(&format!("blobs/sha256/{hex}"), "l").as_bytes(),
                ),
                (&format!("blobs/sha256/{hex}"), &config),
            ]),
            ErrorKind::Corrupt,
        ),
        (
            tar(&[("index.json", br#"{"schemaVersion":2,"manifests":[]}"#)]),
            ErrorKind::InvalidInput,
        ),
        (
            tar(&[("big", &noise(3 << 20, 1))])[..2 << 20].to_vec(),
            ErrorKind::InvalidInput,
        ),
    ];
    for (number, (bytes, kind)) in cases.into_iter().enumerate() {
        let error = load(
            &scratch.store,
            LoadFrom::Reader(&mut &bytes[..]),
            &LoadOptions::default(),
            &Quiet,
        )
        .unwrap_err();
        assert_eq!(error.kind(), kind, "case {number}: {error:?}");
        for dir in ["tmp", "layers", "image/blobs/sha256"] {
            assert_eq!(
                scratch.count(dir),
                0,
                "case {number} leaves something in {dir}"
            );
        }
    }
}

#[test]
fn a_layer_whose_content_is_not_its_name_is_refused() {
    let scratch = Scratch::new();
    let image = Fixture::sample(7);
    let dir = scratch.path("layout");
    image.write_layout(&dir, "x:1");
    fs::write(
        dir.join("blobs/sha256")
            .join(digest(&image.layers[0]).hex()),
        b"something else",
    )
    .unwrap();
    let error = load_path(&scratch, &dir).unwrap_err();
    assert!(
        matches!(error, ArchiveError::DigestMismatch { .. }),
        "{error:?}"
    );
    assert_eq!(scratch.count("image/blobs/sha256"), 0);
}

#[test]
fn headers_without_end_do_not_fill_the_memory() {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(tar::EntryType::GNULongName);
    header.set_path("././@LongLink").unwrap();
    header.set_size(1 << 40);
    header.set_cksum();
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(header.as_bytes()).unwrap();
    for _ in 0..64 {
        encoder.write_all(&vec![b'a'; 1 << 20]).unwrap();
    }
    let bytes = encoder.finish().unwrap();
    let scratch = Scratch::new();
    let error = load(
        &scratch.store,
        LoadFrom::Reader(&mut &bytes[..]),
        &LoadOptions::default(),
        &Quiet,
    )
    .unwrap_err();
    let source = std::error::Error::source(&error).unwrap().to_string();
    assert!(source.contains("bytes of extended header"), "{source}");
}

#[test]
fn a_root_file_system_is_imported_with_its_changes() {
    let scratch = Scratch::new();
    let rootfs = tar(&[
        ("bin/busybox", &noise(100_000, 1)),
        ("etc/passwd", b"root:x:0:0::/:/bin/sh\n"),
    ]);
    for (name, bytes) in [
        ("plain:1", rootfs.clone()),
        ("gzip:1", gzip(&rootfs)),
        ("zstd:1", zstd(&rootfs)),
    ] {
        let changes = [
            r#"CMD ["sh"]"#,
            "ENV A=b",
            "WORKDIR /w",
            "USER 1:2",
            "EXPOSE 80",
            "LABEL l=m",
            "VOLUME /v",
            "ENTRYPOINT /bin/busybox",
        ];
        let options = ImportOptions {
            reference: Some(name.parse().unwrap()),
            changes: changes
                .iter()
                .map(|text| text.parse::<Change>().unwrap())
                .collect(),
            message: Some("made by a test".into()),
            platform: None,
        };
        let image = import(&scratch.store, &mut &bytes[..], &options, &Quiet).unwrap();
        assert_eq!(image.diff_ids, [digest(&rootfs)]);
        let config = image.config.config().clone().unwrap();
        assert_eq!(config.cmd().clone().unwrap(), ["sh"]);
        assert_eq!(config.env().clone().unwrap(), ["A=b"]);
        assert_eq!(config.user().as_deref(), Some("1:2"));
        assert_eq!(config.working_dir().as_deref(), Some("/w"));
        assert_eq!(config.exposed_ports().clone().unwrap(), ["80/tcp"]);
        assert_eq!(config.volumes().clone().unwrap(), ["/v"]);
        assert_eq!(scratch.store.history(&image)[0].comment, "made by a test");
        skopeo(&["inspect", &scratch.oci(name)]);
        assert_eq!(scratch.store.disk(&image).unwrap().parts.len(), 2);
    }
    assert_eq!(scratch.count("layers"), 1, "one content, one layer");
}

#[test]
fn an_import_that_fails_leaves_nothing() {
    let scratch = Scratch::new();
    for bytes in [
        Vec::new(),
        noise(3000, 2),
        gzip(&tar(&[("a", &noise(9000, 1))]))[..5000].to_vec(),
    ] {
        let error = import(
            &scratch.store,
            &mut &bytes[..],
            &ImportOptions::default(),
            &Quiet,
        )
        .unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error:?}");
        for dir in ["tmp", "layers", "image/blobs/sha256"] {
            assert_eq!(scratch.count(dir), 0);
        }
    }
}

/// A rename in place of `/dev/null` once broke it for the whole host.
#[test]
fn what_is_no_file_is_not_replaced_by_an_archive() {
    use std::os::unix::fs::{FileTypeExt, MetadataExt, symlink};
    use std::os::unix::net::UnixListener;
    let (scratch, _) = with_sample(8);
    let targets = ["sample:1".to_owned()];
    let out = scratch.path("out");
    fs::create_dir(&out).unwrap();
    let at = |name: &str| out.join(name);
    tool_ok("mkfifo", &[text(&at("fifo"))]);
    symlink("/dev/null", at("to-device")).unwrap();
    fs::write(at("file"), "old").unwrap();
    symlink(at("file"), at("to-file")).unwrap();
    symlink(at("absent"), at("dangling")).unwrap();
    let _socket = UnixListener::bind(at("socket")).unwrap();
    fs::create_dir(at("dir")).unwrap();
    let mut cases = vec![
        (at("fifo"), "cannot write to a named pipe (FIFO)"),
        (at("to-device"), "cannot write to a symbolic link directly"),
        (at("to-file"), "cannot write to a symbolic link directly"),
        (at("dangling"), "cannot write to a symbolic link directly"),
        (at("socket"), "cannot write to a socket"),
        (at("dir"), "cannot write to a directory"),
        (at("none/x"), "invalid output path: "),
    ];
    // For root a node of its own: without the check this test would break the host's. Others cannot.
    let device = if nix::unistd::geteuid().is_root() {
        use nix::sys::stat::{Mode, SFlag, makedev, mknod};
        mknod(&at("device"), SFlag::S_IFCHR, Mode::S_IRUSR, makedev(1, 3)).unwrap();
        at("device")
    } else {
        "/dev/null".into()
    };
    cases.push((device.clone(), "cannot write to a character device file"));
    for format in [SaveFormat::DockerArchive, SaveFormat::OciArchive] {
        for (path, says) in &cases {
            let before = fs::symlink_metadata(path).map(|meta| meta.ino()).ok();
            let to = SaveTo::Path(path);
            let error = save(&scratch.store, &targets, format, to, &Quiet).unwrap_err();
            assert!(
                error
                    .to_string()
                    .starts_with(&format!("failed to save image: {says}")),
                "{}: {error}",
                path.display()
            );
            let after = fs::symlink_metadata(path).map(|meta| meta.ino()).ok();
            assert_eq!(after, before, "{} was replaced", path.display());
        }
        let to = SaveTo::Path(&at("file"));
        save(&scratch.store, &targets, format, to, &Quiet).unwrap();
        let meta = fs::metadata(at("file")).unwrap();
        assert!(meta.len() > 10_000 && meta.mode() & 0o777 == 0o600);
    }
    let meta = fs::symlink_metadata(&device).unwrap();
    assert!(meta.file_type().is_char_device());
}
