//! What a registry does wrong, and what becomes of it: a clear error, or none after trying again;
//! never a damaged image, and never garbage that stays.

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bulkhead_image::{
    Credentials, ErrorKind, Image, PullOptions, Quiet, RegistryError, RegistryOptions, RetryPolicy,
    Store, StoreError, pull,
};
use support::Scratch;
use support::faulty::{Faulty, Reply, Request, honest};
use support::fixture::{Fixture, OCI_INDEX, OCI_MANIFEST, digest, gzip, noise, tar};

fn options() -> PullOptions {
    let retry = RetryPolicy {
        attempts: 3,
        pause: Duration::from_millis(5),
        longest: Duration::from_millis(20),
    };
    PullOptions {
        platform: None,
        registry: RegistryOptions {
            retry,
            ..RegistryOptions::default()
        },
    }
}

fn pull_from(store: &Store, registry: &Faulty) -> Result<Image, RegistryError> {
    pull(
        store,
        &registry.name("some/image:tag").parse().unwrap(),
        &options(),
        &Quiet,
    )
}

/// Pulls an image that one fault spoils, and checks that nothing of it is left.
fn fails(
    fault: impl Fn(&Request, usize) -> Option<Reply> + Send + Sync + 'static,
) -> (RegistryError, Faulty, Scratch) {
    let scratch = Scratch::new();
    let registry = Faulty::serve(Fixture::sample(1), fault);
    let error = pull_from(&scratch.store, &registry).expect_err("the pull must fail");
    assert!(
        scratch.store.images().unwrap().is_empty(),
        "no image is recorded"
    );
    assert_eq!(scratch.count("tmp"), 0, "nothing temporary is left");
    (error, registry, scratch)
}

#[test]
fn an_honest_registry_is_pulled_from() {
    let scratch = Scratch::new();
    let image = Fixture::sample(1);
    let registry = Faulty::serve(image.clone(), |_, _| None);
    let pulled = pull_from(&scratch.store, &registry).unwrap();
    assert_eq!(pulled.id, image.id());
    assert_eq!(pulled.manifest_digest, digest(&image.manifest));
    assert_eq!(
        scratch.store.raw_manifest(&pulled).unwrap(),
        image.manifest,
        "bytes are kept as they were"
    );
    assert_eq!(pulled.names.len(), 1);
    assert_eq!(
        pulled.repo_digests[0].digest(),
        Some(&digest(&image.manifest))
    );
    assert_eq!(scratch.count("layers"), 3);
    let again = registry.requests().len();
    pull_from(&scratch.store, &registry).unwrap();
    assert_eq!(
        registry.requests().len(),
        again + 1,
        "only the manifest is asked for again"
    );
}

#[test]
fn a_peer_that_hangs_up_on_tls_is_not_spoken_to_in_the_clear() {
    use std::io::Read;
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let host = listener.local_addr().unwrap().to_string();
    let (sender, firsts) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            let mut first = [0];
            let _ = stream.read(&mut first);
            let _ = sender.send(first[0]);
        }
    });
    let scratch = Scratch::new();
    let name = format!("{host}/some/image:tag").parse().unwrap();
    pull(&scratch.store, &name, &options(), &Quiet).unwrap_err();
    let firsts: Vec<u8> = firsts.try_iter().collect();
    // The record type of a handshake (RFC 8446, 5.1).
    assert!(
        !firsts.is_empty() && firsts.iter().all(|first| *first == 22),
        "{firsts:?}"
    );
}

#[test]
fn status_401_asks_for_credentials() {
    let (error, ..) =
        fails(|_, _| Some(Reply::new(401, "").header("www-authenticate", "Basic realm=\"x\"")));
    assert!(
        matches!(error, RegistryError::NoCredentials { .. }),
        "{error:?}"
    );
    assert_eq!(error.kind(), ErrorKind::Unauthorized);
    assert!(error.hint().unwrap().contains("docker login"));
}

#[test]
fn status_403_is_a_denial() {
    let body = r#"{"errors":[{"code":"DENIED","message":"not for you"}]}"#;
    let (error, ..) = fails(move |_, _| Some(Reply::new(403, body)));
    assert_eq!(error.kind(), ErrorKind::Denied);
    assert!(error.to_string().contains("not for you"), "{error}");
}

#[test]
fn status_404_names_the_image() {
    let (error, registry, _scratch) =
        fails(|request, _| request.is_manifest().then(|| Reply::new(404, "")));
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert!(
        error.to_string().contains(&registry.name("some/image:tag")),
        "{error}"
    );
    assert_eq!(registry.requests().len(), 1, "it is not asked for again");
}

#[test]
fn a_blob_that_the_manifest_names_may_be_missing() {
    let layer = Fixture::sample(1).layers[1].clone();
    let (error, ..) = fails(move |request, _| request.is_blob(&layer).then(|| Reply::new(404, "")));
    assert!(
        matches!(error, RegistryError::BlobNotFound { .. }),
        "{error:?}"
    );
}

#[test]
fn status_429_and_500_are_tried_again_and_then_reported() {
    for (status, kind) in [
        (429, ErrorKind::RateLimited),
        (500, ErrorKind::Unavailable),
        (503, ErrorKind::Unavailable),
    ] {
        let (error, registry, _scratch) = fails(move |request, _| {
            request
                .is_manifest()
                .then(|| Reply::new(status, "").header("retry-after", "3600"))
        });
        assert_eq!(error.kind(), kind, "{error:?}");
        assert_eq!(registry.requests().len(), 3, "as often as the policy says");
    }
}

#[test]
fn a_registry_that_recovers_is_forgiven() {
    let scratch = Scratch::new();
    let registry = Faulty::serve(Fixture::sample(2), |request, before| match before {
        0 if request.is_manifest() => Some(Reply::new(429, "")),
        0 => Some(Reply::new(502, "")),
        _ => None,
    });
    pull_from(&scratch.store, &registry).unwrap();
}

#[test]
fn a_download_that_is_cut_continues_where_it_stopped() {
    let scratch = Scratch::new();
    let image = Fixture::sample(3);
    let (copy, layer) = (image.clone(), image.layers[1].clone());
    let registry = Faulty::serve(image.clone(), move |request, before| {
        // Four cuts are more than the three attempts, but each brought something.
        (request.is_blob(&layer) && before < 4).then(|| honest(request, &copy).cut_after(100_000))
    });
    pull_from(&scratch.store, &registry).unwrap();
    let ranges: Vec<Option<String>> = registry
        .blob_requests(&image.layers[1])
        .iter()
        .map(|request| request.header("range").map(str::to_owned))
        .collect();
    assert_eq!(ranges.len(), 5);
    assert_eq!(ranges[0], None);
    assert_eq!(ranges[1].as_deref(), Some("bytes=100000-"));
    assert_eq!(ranges[4].as_deref(), Some("bytes=400000-"));
    assert_eq!(scratch.count("partial"), 0);
}

#[test]
fn a_pull_that_gave_up_is_continued_by_the_next() {
    let scratch = Scratch::new();
    let image = Fixture::sample(4);
    {
        let (copy, layer) = (image.clone(), image.layers[1].clone());
        let registry = Faulty::serve(image.clone(), move |request, before| {
            request
                .is_blob(&layer)
                .then(|| honest(request, &copy).cut_after(if before == 0 { 250_000 } else { 0 }))
        });
        let error = pull_from(&scratch.store, &registry).unwrap_err();
        assert!(
            matches!(
                error,
                RegistryError::Cut {
                    received: 250_000,
                    ..
                }
            ),
            "{error:?}"
        );
        assert!(error.hint().unwrap().contains("continues"));
        assert!(scratch.store.images().unwrap().is_empty());
    }
    let registry = Faulty::serve(image.clone(), |_, _| None);
    pull_from(&scratch.store, &registry).unwrap();
    let request = &registry.blob_requests(&image.layers[1])[0];
    assert_eq!(request.header("range"), Some("bytes=250000-"));
}

#[test]
fn a_server_without_ranges_is_downloaded_from_the_start() {
    let scratch = Scratch::new();
    let image = Fixture::sample(5);
    let layer = image.layers[1].clone();
    let registry = Faulty::serve(image.clone(), move |request, before| {
        let whole = Reply::new(200, layer.clone());
        request.is_blob(&layer).then(|| {
            if before == 0 {
                whole.cut_after(300_000)
            } else {
                whole
            }
        })
    });
    assert_eq!(pull_from(&scratch.store, &registry).unwrap().id, image.id());
}

#[test]
fn a_stale_beginning_is_thrown_away_once() {
    let scratch = Scratch::new();
    let image = Fixture::sample(6);
    std::fs::write(scratch.partial(&image.layers[1]), noise(1000, 99)).unwrap();
    let registry = Faulty::serve(image.clone(), |_, _| None);
    assert_eq!(pull_from(&scratch.store, &registry).unwrap().id, image.id());
    assert_eq!(registry.blob_requests(&image.layers[1]).len(), 2);
}

#[test]
fn content_with_another_digest_is_refused_and_forgotten() {
    let layer = Fixture::sample(1).layers[1].clone();
    let mut wrong = layer.clone();
    wrong[1000] ^= 1;
    let (error, _registry, scratch) = fails(move |request, _| {
        request
            .is_blob(&layer)
            .then(|| Reply::new(200, wrong.clone()))
    });
    assert!(
        matches!(error, RegistryError::DigestMismatch { .. }),
        "{error:?}"
    );
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    assert!(
        !scratch.partial(&Fixture::sample(1).layers[1]).exists(),
        "the wrong bytes are gone, whatever is kept of other layers"
    );
    assert_eq!(
        scratch.count("image/blobs/sha256"),
        0,
        "and so are the blobs that nothing leads to"
    );
}

#[test]
fn a_download_that_had_not_begun_when_another_failed_leaves_no_empty_file() {
    let layers = Fixture::sample(1).layers;
    let (slow, missing) = (layers[0].clone(), layers[1].clone());
    let wanted = slow.clone();
    let over = Arc::new(AtomicBool::new(false));
    let waiting = Arc::clone(&over);
    let (error, _registry, scratch) = fails(move |request, _| {
        while request.is_blob(&slow) && !waiting.load(Ordering::Relaxed) {
            std::thread::sleep(Duration::from_millis(5));
        }
        request.is_blob(&missing).then(|| Reply::new(404, ""))
    });
    over.store(true, Ordering::Relaxed);
    assert!(
        matches!(error, RegistryError::BlobNotFound { .. }),
        "{error:?}"
    );
    assert!(!scratch.partial(&wanted).exists());
}

#[test]
fn content_of_another_length_is_refused() {
    let layer = Fixture::sample(1).layers[1].clone();
    let short = layer[..layer.len() - 1].to_vec();
    let wanted = layer.clone();
    let (error, ..) = fails(move |request, _| {
        request
            .is_blob(&wanted)
            .then(|| Reply::new(200, short.clone()))
    });
    assert!(
        matches!(error, RegistryError::SizeMismatch { .. }),
        "{error:?}"
    );
    let long = [layer.clone(), vec![0]].concat();
    let (error, ..) = fails(move |request, _| {
        request
            .is_blob(&layer)
            .then(|| Reply::new(200, long.clone()))
    });
    assert!(
        matches!(error, RegistryError::SizeMismatch { .. }),
        "{error:?}"
    );
}

#[test]
fn a_manifest_with_another_digest_is_refused() {
    let zero = format!("sha256:{}", "0".repeat(64));
    let (error, ..) = fails(move |request, _| {
        request
            .is_manifest()
            .then(|| honest(request, &Fixture::sample(1)))
            .map(|mut reply| {
                reply
                    .headers
                    .retain(|(name, _)| name != "docker-content-digest");
                reply.header("docker-content-digest", &zero)
            })
    });
    assert!(
        matches!(error, RegistryError::DigestMismatch { .. }),
        "{error:?}"
    );
}

#[test]
fn an_endless_manifest_is_not_swallowed() {
    let (error, ..) = fails(|request, _| {
        request
            .is_manifest()
            .then(|| Reply::new(200, vec![b' '; 5 << 20]).header("content-type", OCI_MANIFEST))
    });
    assert!(
        matches!(error, RegistryError::SizeMismatch { .. }),
        "{error:?}"
    );
}

#[test]
fn documents_that_are_no_image_are_named() {
    for (body, content_type, words) in [
        ("<html></html>".to_owned(), "text/html", "text/html"),
        (
            r#"{"schemaVersion":1,"fsLayers":[]}"#.to_owned(),
            "application/json",
            "schema 1",
        ),
        ("{".to_owned(), OCI_MANIFEST, "cannot parse"),
        (
            String::from_utf8(Fixture::sample(1).manifest)
                .unwrap()
                .replace("image.config.v1", "helm.config.v1"),
            OCI_MANIFEST,
            "not a container image",
        ),
        (
            String::from_utf8(Fixture::sample(1).manifest)
                .unwrap()
                .replace("layer.v1.tar+gzip", "layer.v9"),
            OCI_MANIFEST,
            "layer.v9",
        ),
    ] {
        let (error, ..) = fails(move |request, _| {
            request
                .is_manifest()
                .then(|| Reply::new(200, body.clone()).header("content-type", content_type))
        });
        let chain = format!("{error}: {}", std::error::Error::source(&error).unwrap());
        assert!(chain.contains(words), "{chain}");
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
    }
}

#[test]
fn an_index_without_the_platform_lists_what_it_has() {
    let index = serde_json::json!({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [{
        "mediaType": OCI_MANIFEST, "digest": digest(b"x").to_string(), "size": 1,
        "platform": {"os": "linux", "architecture": "s390x"},
    }]})
    .to_string();
    let (error, ..) = fails(move |request, _| {
        request
            .is_manifest()
            .then(|| Reply::new(200, index.clone()).header("content-type", OCI_INDEX))
    });
    let source = std::error::Error::source(&error).unwrap().to_string();
    assert!(source.contains("linux/s390x"), "{source}");
    assert_eq!(error.kind(), ErrorKind::NotFound);
}

#[test]
fn an_index_leads_to_the_wanted_platform() {
    let scratch = Scratch::new();
    let arm = Fixture::with_platform(&[tar(&[("arm", b"1")])], "arm64");
    let amd = Fixture::sample(7);
    let entry = |image: &Fixture, architecture: &str| {
        serde_json::json!({"mediaType": OCI_MANIFEST, "digest": digest(&image.manifest).to_string(),
            "size": image.manifest.len(), "platform": {"os": "linux", "architecture": architecture}})
    };
    let index = serde_json::json!({"schemaVersion": 2, "mediaType": OCI_INDEX,
        "manifests": [entry(&amd, "amd64"), entry(&arm, "arm64")]})
    .to_string();
    let (other, document) = (arm.clone(), index.clone());
    let registry = Faulty::serve(amd.clone(), move |request, _| {
        let last = request.path.rsplit('/').next().unwrap();
        if last == "tag" {
            return Some(Reply::new(200, document.clone()).header("content-type", OCI_INDEX));
        }
        other.blob(last).map(|_| honest(request, &other))
    });
    let mut options = options();
    options.platform = Some("linux/arm64".parse().unwrap());
    let reference = registry.name("some/image:tag").parse().unwrap();
    let image = pull(&scratch.store, &reference, &options, &Quiet).unwrap();
    assert_eq!(image.id, arm.id());
    assert_eq!(
        image.repo_digests[0].digest(),
        Some(&digest(index.as_bytes())),
        "the index's digest, as Docker has it"
    );
    let by_digest = image.repo_digests[0].familiar();
    assert_eq!(scratch.store.resolve(&by_digest).unwrap().id, arm.id());
    options.platform = Some("linux/amd64".parse().unwrap());
    assert_eq!(
        pull(&scratch.store, &reference, &options, &Quiet)
            .unwrap()
            .id,
        amd.id()
    );
    let dangling = scratch
        .store
        .images()
        .unwrap()
        .into_iter()
        .find(|image| image.id == arm.id())
        .unwrap();
    assert!(dangling.names.is_empty(), "the tag moved on");
}

#[test]
fn a_layer_that_is_not_what_the_configuration_says_is_refused() {
    let right = tar(&[("a", b"1")]);
    let kind = vec!["application/vnd.oci.image.layer.v1.tar+gzip".to_owned()];
    let lie = Fixture::assemble(
        vec![gzip(&tar(&[("a", b"2")]))],
        &[digest(&right).to_string()],
        &kind,
        "amd64",
    );
    let scratch = Scratch::new();
    let error = pull_from(&scratch.store, &Faulty::serve(lie, |_, _| None)).unwrap_err();
    assert!(
        matches!(
            error,
            RegistryError::Store(StoreError::DigestMismatch { .. })
        ),
        "{error:?}"
    );
    for (name, layer) in [
        ("garbage", gzip(&noise(5000, 1))),
        ("truncated", gzip(&right)[..60].to_vec()),
        ("no compression known", b"BZh91AY&SY".to_vec()),
    ] {
        let bad = Fixture::assemble(vec![layer], &[digest(&right).to_string()], &kind, "amd64");
        let error = pull_from(&scratch.store, &Faulty::serve(bad, |_, _| None)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{name}: {error:?}");
    }
    assert!(scratch.store.images().unwrap().is_empty());
    for dir in ["layers", "tmp", "partial", "image/blobs/sha256"] {
        assert_eq!(scratch.count(dir), 0, "{dir} is empty again");
    }
}

#[test]
fn a_token_is_fetched_with_the_password_and_used() {
    let scratch = Scratch::new();
    let image = Fixture::sample(8);
    let registry = Faulty::serve(image.clone(), |request, _| {
        let host = request.header("host").unwrap().to_owned();
        if request.path.starts_with("/token") {
            assert!(
                request.path.contains("service=test")
                    && request
                        .path
                        .contains("scope=repository%3Asome%2Fimage%3Apull"),
                "{}",
                request.path
            );
            // user:sesame
            return Some(match request.header("authorization") {
                Some("Basic dXNlcjpzZXNhbWU=") => Reply::new(200, r#"{"token":"good"}"#),
                _ => Reply::new(401, ""),
            });
        }
        (request.header("authorization") != Some("Bearer good")).then(|| {
            let challenge = format!("Bearer realm=\"http://{host}/token\",service=\"test\"");
            Reply::new(401, "").header("www-authenticate", &challenge)
        })
    });
    let mut options = options();
    let reference = registry.name("some/image:tag").parse().unwrap();
    let error = pull(&scratch.store, &reference, &options, &Quiet).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unauthorized);
    options.registry.credentials = Some(Credentials::Password {
        user: "user".into(),
        password: "sesame".into(),
    });
    assert_eq!(
        pull(&scratch.store, &reference, &options, &Quiet)
            .unwrap()
            .id,
        image.id()
    );
}

#[test]
fn credentials_do_not_follow_a_redirect_to_another_host() {
    let scratch = Scratch::new();
    let image = Fixture::sample(9);
    let elsewhere = Faulty::serve(image.clone(), |request, _| {
        assert_eq!(request.header("authorization"), None, "no credentials here");
        None
    });
    let target = elsewhere.host.replace("127.0.0.1", "localhost");
    let registry = Faulty::serve(image.clone(), move |request, _| {
        if request.header("authorization").is_none() {
            return Some(Reply::new(401, "").header("www-authenticate", "Basic realm=\"x\""));
        }
        let to = format!("http://{target}{}", request.path);
        request
            .path
            .contains("/blobs/")
            .then(|| Reply::new(307, "").header("location", &to))
    });
    let mut options = options();
    options.registry.credentials = Some(Credentials::Password {
        user: "u".into(),
        password: "p".into(),
    });
    let reference = registry.name("some/image:tag").parse().unwrap();
    assert_eq!(
        pull(&scratch.store, &reference, &options, &Quiet)
            .unwrap()
            .id,
        image.id()
    );
    assert!(elsewhere.requests().len() >= 4);
}

#[test]
fn nobody_listening_is_reported_soon() {
    let scratch = Scratch::new();
    let host = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let reference = format!("{host}/x").parse().unwrap();
    let error = pull(&scratch.store, &reference, &options(), &Quiet).unwrap_err();
    assert!(
        matches!(error, RegistryError::Transport { .. }),
        "{error:?}"
    );
    assert!(
        error.hint().unwrap().contains("nothing listens there"),
        "{error:?}"
    );
}

#[test]
fn a_host_without_an_address_is_not_answered_with_advice_about_http() {
    let scratch = Scratch::new();
    let reference = "no-such-host.invalid/x".parse().unwrap();
    let error = pull(&scratch.store, &reference, &options(), &Quiet).unwrap_err();
    assert!(
        error.hint().unwrap().contains("check the registry's name"),
        "{error:?}"
    );
}
