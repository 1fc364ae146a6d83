use super::*;
use crate::platform::Platform;

fn manifest(layer_type: &str, config_type: &str, extra: &str) -> String {
    let hex = "a".repeat(64);
    format!(
        r#"{{"schemaVersion":2,"mediaType":"{OCI_MANIFEST}",{extra}
        "config":{{"mediaType":"{config_type}","digest":"sha256:{hex}","size":2}},
        "layers":[{{"mediaType":"{layer_type}","digest":"sha256:{hex}","size":3}}]}}"#
    )
}

#[test]
fn docker_and_oci_types_are_both_images() {
    let oci = manifest(OCI_LAYER_ZSTD, OCI_CONFIG, "");
    assert!(matches!(
        parse_manifest(oci.as_bytes(), Some(OCI_MANIFEST)),
        Ok(Document::Manifest(_))
    ));
    let docker = manifest(
        "application/vnd.docker.image.rootfs.diff.tar.gzip",
        DOCKER_CONFIG,
        "",
    )
    .replace(OCI_MANIFEST, DOCKER_MANIFEST);
    assert!(matches!(
        parse_manifest(docker.as_bytes(), None),
        Ok(Document::Manifest(_))
    ));
}

#[test]
fn what_is_no_image_is_named() {
    let parse = |text: String, t: Option<&str>| parse_manifest(text.as_bytes(), t).unwrap_err();
    let good = || manifest(OCI_LAYER, OCI_CONFIG, "");
    assert!(matches!(
        parse(manifest("text/x", OCI_CONFIG, ""), None),
        ManifestError::LayerMediaType { media_type, .. } if media_type == "text/x"
    ));
    assert!(
        matches!(parse(manifest(OCI_LAYER, "a/chart", ""), None), ManifestError::ConfigMediaType(t) if t == "a/chart")
    );
    assert!(matches!(
        parse(good(), Some("application/pdf")),
        ManifestError::MediaType(_)
    ));
    assert!(matches!(
        parse("<html>".into(), Some("text/html")),
        ManifestError::MediaType(_)
    ));
    assert!(matches!(
        parse("<html>".into(), None),
        ManifestError::Parse { .. }
    ));
    assert!(matches!(
        parse(r#"{"schemaVersion":1,"fsLayers":[]}"#.into(), None),
        ManifestError::Schema1
    ));
    assert!(matches!(
        parse(r#"{"schemaVersion":2}"#.into(), Some(SCHEMA_1[1])),
        ManifestError::Schema1
    ));
    assert!(matches!(
        parse(r#"{"schemaVersion":3,"layers":[]}"#.into(), None),
        ManifestError::SchemaVersion(3)
    ));
    assert!(matches!(
        parse(manifest(OCI_LAYER, OCI_CONFIG, r#""manifests":[],"#), None),
        ManifestError::AmbiguousDocument
    ));
    let untyped = good().replace(&format!(r#""mediaType":"{OCI_MANIFEST}","#), "");
    assert!(matches!(
        parse(untyped, Some(OCI_INDEX)),
        ManifestError::AmbiguousDocument
    ));
    let sha512 = good().replace(
        &format!("sha256:{}", "a".repeat(64)),
        &format!("sha512:{}", "a".repeat(128)),
    );
    assert!(matches!(parse(sha512, None), ManifestError::Digest(_)));
    let long = format!("{}{}", good(), " ".repeat(5 << 20));
    assert!(matches!(parse(long, None), ManifestError::TooLarge { .. }));
}

#[test]
fn an_index_is_chosen_from_by_platform_and_says_what_it_has() {
    let entry = |arch: &str, c: &str| {
        format!(
            r#"{{"mediaType":"{OCI_MANIFEST}","digest":"sha256:{}","size":1,"platform":{{"os":"linux","architecture":"{arch}"}}}}"#,
            c.repeat(64)
        )
    };
    let text = format!(
        r#"{{"schemaVersion":2,"manifests":[{},{},{}]}}"#,
        entry("arm64", "a"),
        entry("amd64", "b"),
        entry("unknown", "c").replace("linux", "unknown")
    );
    let Document::Index(index) = parse_manifest(text.as_bytes(), Some(OCI_INDEX)).unwrap() else {
        panic!("not an index")
    };
    let choose = |text: &str| {
        let platform = text.parse::<Platform>().unwrap();
        Search::new(&index, &platform).next()
    };
    let chosen = choose("linux/amd64").unwrap();
    assert!(chosen.descriptor.digest().as_ref().ends_with('b'));
    let ManifestError::NoPlatform { available, .. } = choose("linux/s390x").unwrap_err() else {
        panic!("wrong error")
    };
    assert_eq!(available, ["linux/arm64", "linux/amd64"]);
}

#[test]
fn a_configuration_with_nulls_as_go_writes_them_is_read() {
    let text = format!(
        r#"{{"architecture":"amd64","os":"linux","config":{{"Env":null,"Volumes":null,"ExposedPorts":null,
        "OnBuild":null,"Labels":null,"Healthcheck":{{}}}},"rootfs":{{"type":"layers","diff_ids":["sha256:{}"]}},
        "history":null}}"#,
        "0".repeat(64)
    );
    assert_eq!(
        diff_ids(&parse_config(text.as_bytes()).unwrap())
            .unwrap()
            .len(),
        1
    );
    assert!(parse_config(text.replace("sha256", "sha1").as_bytes()).is_err());
}
