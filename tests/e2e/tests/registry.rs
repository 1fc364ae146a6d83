//! Pull and push against a real docker-registry, and against one that fails.

use bulkhead_e2e::{
    Bulkhead, DockerRegistry, Entry, Fault, FaultyRegistry, Finished, TLS_NAME, User, each_user,
    layer, run_tool, tool_exists,
};

each_user! {
    an_image_goes_to_a_registry_and_comes_back(b) {
        let Some(registry) = DockerRegistry::start() else { return };
        let image = registry.image("team/box:v1");
        b.run(&["tag", "busybox", &image]).ok();
        let pushed = b.run(&["push", &image]).ok().text();
        assert!(pushed.contains("digest: sha256:"), "{pushed}");
        if tool_exists("skopeo") {
            run_tool("skopeo", &["inspect", "--tls-verify=false", &format!("docker://{image}")]).ok();
        }
        b.run(&["rmi", "-f", &image, "busybox"]).ok();
        assert_eq!(b.run(&["run", "--rm", &image, "echo", "pulled"]).ok().text(), "pulled");
        let again = b.run(&["pull", &image]).ok().text();
        assert!(again.contains("up to date"), "{again}");
        b.run(&["pull", &registry.image("team/box:none")]).expect_code(1).says("does not exist");
        b.run(&["pull", &registry.image("nobody/none")]).expect_code(1);
    }

    credentials_come_from_dockers_configuration(b) {
        let Some(registry) = DockerRegistry::start_with_password() else { return };
        let image = registry.image("private:1");
        b.run(&["tag", "busybox", &image]).ok();
        let refused = b.run(&["push", &image]).expect_code(1).says("docker login").says("there are none");
        assert!(!refused.stderr.contains("other credentials"), "{}", refused.stderr);
        std::fs::create_dir_all(b.home().join(".docker")).unwrap();
        // base64 of "alice:correct horse"
        let config = format!("{{\"auths\":{{\"localhost:{}\":{{\"auth\":\"YWxpY2U6Y29ycmVjdCBob3JzZQ==\"}}}}}}", registry.port);
        std::fs::write(b.home().join(".docker/config.json"), config).unwrap();
        b.run(&["push", &image]).ok();
        b.run(&["rmi", &image]).ok();
        b.run(&["pull", &image]).ok();
        // Where podman and skopeo write it.
        let theirs = b.home().join(".config/containers");
        std::fs::create_dir_all(&theirs).unwrap();
        std::fs::rename(b.home().join(".docker/config.json"), theirs.join("auth.json")).unwrap();
        b.run(&["push", &image]).ok();
    }

    /// Only the first of several requests at once found out that the registry speaks TLS; the others failed with 400.
    a_push_to_a_registry_with_tls_on_loopback_speaks_tls(b) {
        let Some(registry) = DockerRegistry::start_with_tls() else { return };
        let image = registry.image("private:1");
        b.run(&["tag", "busybox", &image]).ok();
        b.run(&["push", &image]).expect_code(1).says("docker login").says("there are none");
        b.run(&["pull", &image]).expect_code(1).says("docker login").says("there are none");
        let host = format!("localhost:{}", registry.port);
        log_in(b, &host, "alice:wrong");
        b.run(&["push", &image]).expect_code(1).says("wants other credentials");
        b.run(&["pull", &image]).expect_code(1).says("wants other credentials");
        log_in(b, &host, "alice:correct horse");
        b.run(&["push", &image]).ok();
        b.run(&["rmi", "-f", &image, "busybox"]).ok();
        b.run(&["pull", &image]).ok();
    }

    pull_and_push_speak_as_dockers_do(b) {
        let Some(registry) = DockerRegistry::start() else { return };
        let (image, latest) = (registry.image("team/box:v1"), registry.image("team/box"));
        b.run(&["push", &latest]).expect_code(1)
            .says(&format!("An image does not exist locally with the tag: {latest}"));
        b.run(&["tag", "busybox", &image]).ok();
        b.run(&["push", &latest]).expect_code(1).says(&format!("tag does not exist: {latest}:latest"));
        b.run(&["tag", "busybox", &latest]).ok();
        let pushed = b.run(&["push", &latest]).ok();
        assert!(pushed.text().starts_with("Using default tag: latest\nThe push refers to repository ["), "{}", pushed.text());
        let ends: Vec<&str> = pushed.stderr.lines().filter(|line| line.ends_with(": Pushed")).collect();
        assert_eq!(ends.len(), 1, "the configuration is no layer: {}", pushed.stderr);
        let again = b.run(&["push", &image]).ok().says("Layer already exists");
        assert!(!again.text().contains("Using default tag"), "{}", again.text());
        b.run(&["rmi", "-f", &image, &latest, "busybox"]).ok();
        let pulled = b.run(&["pull", &latest]).ok();
        assert!(pulled.text().starts_with("Using default tag: latest\nDigest: sha256:"), "{}", pulled.text());
        assert!(pulled.stderr.starts_with("latest: Pulling from team/box\n"), "{}", pulled.stderr);
        let ends: Vec<&str> = pulled.stderr.lines().filter(|line| line.ends_with(": Pull complete")).collect();
        assert_eq!(ends.len(), 1, "{}", pulled.stderr);
        let items: std::collections::BTreeSet<&str> = pulled.stderr.lines().skip(1).filter_map(|line| line.split(':').next()).collect();
        assert_eq!(items.len(), 1, "the configuration is no layer: {}", pulled.stderr);
        let other = b.run(&["pull", &registry.image("team/box:none")]).expect_code(1);
        assert!(!other.stderr.contains("Pulling from"), "{}", other.stderr);
    }

    a_local_image_for_another_platform_is_not_taken_for_the_wanted_one(b) {
        b.run(&["run", "--rm", "--pull", "never", "--platform", "linux/arm64", "busybox", "true"])
            .expect_code(125)
            .says("was found but its platform (linux/amd64) does not match the specified platform (linux/arm64)");
        b.run(&["create", "--pull", "never", "--platform", "linux/arm64", "busybox", "true"]).expect_code(1).says("does not match");
        // Plain images are what the first level means.
        b.run(&["create", "--platform", "linux/amd64/v1", "busybox", "true"]).ok();

        let Some(registry) = DockerRegistry::start() else { return };
        let image = registry.image("both:1");
        let tar = bulkhead_e2e::busybox_tar();
        b.command(&["import", "--platform", "linux/arm64", "-", &image]).with_input(tar).finish().ok();
        let arm = b.run(&["images", "-q", "--no-trunc", &image]).ok().text();
        b.run(&["push", &image]).ok();
        b.run(&["tag", "busybox", &image]).ok();
        b.run(&["create", "--platform", "linux/arm64", &image, "true"]).ok().says("Unable to find image");
        assert_eq!(b.run(&["images", "-q", "--no-trunc", &image]).ok().text(), arm);
        let again = b.run(&["create", "--platform", "linux/arm64", &image, "true"]).ok();
        assert!(!again.stderr.contains("Unable to find image"), "{}", again.stderr);
        assert!(!again.stderr.contains("WARNING"), "{}", again.stderr);
        b.run(&["create", &image, "true"]).ok().says("does not match the detected host platform");
        b.run(&["run", "--rm", "--platform", "linux/s390x", &image, "true"]).expect_code(125)
            .says("no image for platform linux/s390x");
    }

    two_pulls_of_one_image_share_the_work(b) {
        let Some(registry) = DockerRegistry::start() else { return };
        let image = published(b, &registry, "twice:1");
        let pulls: Vec<_> = (0..4).map(|_| b.command(&["pull", "-q", &image]).start()).collect();
        for pull in pulls {
            pull.finish().ok();
        }
        b.run(&["run", "--rm", &image, "true"]).ok();
    }

    faults_are_named_retried_and_leave_nothing(b) {
        let Some(registry) = DockerRegistry::start() else { return };
        published(b, &registry, "faulty:1");
        let pull = |pattern: &'static str, fault: Fault, times: u32| {
            let proxy = FaultyRegistry::before(&registry, pattern, fault, times);
            let out = b.run(&["pull", &proxy.image("faulty:1")]);
            assert!(proxy.remaining() < times, "the fault was not injected");
            out
        };
        pull("/manifests/", Fault::Status(401), 1000).expect_code(1).says("credentials");
        pull("/manifests/", Fault::Status(404), 1000).expect_code(1).says("does not exist");
        pull("/blobs/", Fault::Status(500), 1000).expect_code(1).says("500");
        pull("/blobs/", Fault::Status(429), 1000).expect_code(1).says("limits the rate");
        pull("/blobs/", Fault::Corrupt, 1000).expect_code(1).says("digest");
        assert_eq!(b.run(&["images", "-q", "--filter", "reference=localhost:*/faulty"]).ok().text(), "");
        // What passes is retried: the pull succeeds in spite of it.
        pull("/blobs/", Fault::CutAfter(100_000), 1).ok();
        remove_all(b);
        pull("/blobs/", Fault::Status(500), 1).ok();
        remove_all(b);
        pull("/blobs/", Fault::Status(429), 1).ok();
        let images = b.run(&["images", "-q"]).ok().text();
        b.run(&["run", "--rm", images.lines().next().unwrap(), "true"]).ok();
    }

    a_killed_pull_is_resumed(b) {
        let Some(registry) = DockerRegistry::start() else { return };
        published(b, &registry, "slow:1");
        let proxy = FaultyRegistry::before(&registry, "/blobs/", Fault::Slow, 1000);
        let image = proxy.image("slow:1");
        let pull = b.command(&["pull", &image]).start();
        std::thread::sleep(std::time::Duration::from_millis(900));
        pull.signal(libc::SIGKILL);
        pull.finish().expect_code(137);
        assert_eq!(b.run(&["images", "-q"]).ok().text(), "");
        b.run(&["pull", &registry.image("slow:1")]).ok();
        b.run(&["run", "--rm", &registry.image("slow:1"), "true"]).ok();
    }
}

/// Writes what `docker login` would for `user:password`.
fn log_in(b: &Bulkhead, host: &str, login: &str) {
    // base64 (RFC 4648, 4).
    let mut text = Vec::new();
    for bytes in login.as_bytes().chunks(3) {
        const DIGITS: &[u8; 64] =
            b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
        let at = |n: usize| u32::from(bytes.get(n).copied().unwrap_or(0));
        let group = at(0) << 16 | at(1) << 8 | at(2);
        for digit in 0..4 {
            let index = (group >> (18 - 6 * digit)) as usize & 63;
            text.push(if digit <= bytes.len() {
                DIGITS[index]
            } else {
                b'='
            });
        }
    }
    let auth = String::from_utf8(text).unwrap();
    std::fs::create_dir_all(b.home().join(".docker")).unwrap();
    let config = format!("{{\"auths\":{{\"{host}\":{{\"auth\":\"{auth}\"}}}}}}");
    std::fs::write(b.home().join(".docker/config.json"), config).unwrap();
}

/// Pushes an image with a layer worth downloading and removes every local trace of it.
fn published(b: &Bulkhead, registry: &DockerRegistry, name: &str) -> String {
    let image = registry.image(name);
    let mut noise = vec![0u8; 2 << 20];
    std::io::Read::read_exact(
        &mut std::fs::File::open("/dev/urandom").unwrap(),
        &mut noise,
    )
    .unwrap();
    let mut tar = bulkhead_e2e::busybox_tar();
    tar.truncate(tar.len() - 1024);
    tar.extend(layer(&[("noise", Entry::File(0o644, noise))]));
    b.command(&["import", "-", &image])
        .with_input(tar)
        .finish()
        .ok();
    b.run(&["push", &image]).ok();
    remove_all(b);
    image
}

fn remove_all(b: &Bulkhead) {
    let ids = b.run(&["images", "-aq", "--no-trunc"]).ok().text();
    let mut args = vec!["rmi", "-f"];
    args.extend(ids.lines());
    if args.len() > 2 {
        b.run(&args).ok();
    }
}

/// A registry that is not loopback and not configured is never spoken to in the clear.
#[test]
fn plain_http_needs_loopback_or_permission() {
    let Some(b) = Bulkhead::new(User::Root) else {
        return;
    };
    let out = b.run(&["pull", "192.0.2.1:5000/x:1"]);
    assert_eq!(out.code, 1);
    assert!(!out.stderr.contains("http://"), "{}", out.stderr);
}

/// A registry with a self-signed certificate, under names that are not loopback's, and a user who is logged in.
struct Elsewhere {
    b: Bulkhead,
    registry: DockerRegistry,
    etc: tempfile::TempDir,
    image: String,
}

impl Elsewhere {
    fn called(name: &str) -> Option<Self> {
        let b = Bulkhead::with_busybox(User::Root)?;
        let registry = DockerRegistry::start_with_tls()?;
        let etc = tempfile::tempdir().unwrap();
        std::fs::write(etc.path().join("hosts"), format!("127.0.0.1 {name}\n")).unwrap();
        let host = format!("{name}:{}", registry.port);
        log_in(&b, &host, "alice:correct horse");
        let image = format!("{host}/box:1");
        b.run(&["tag", "busybox", &image]).ok();
        Some(Self {
            b,
            registry,
            etc,
            image,
        })
    }

    /// Puts the registry's certificate where Docker has it.
    fn trust(&self) {
        let host = self.image.split('/').next().unwrap();
        let dir = self.etc.path().join("docker/certs.d").join(host);
        std::fs::create_dir_all(&dir).unwrap();
        std::fs::copy(self.registry.certificate(), dir.join("ca.crt")).unwrap();
    }

    fn push(&self) -> Finished {
        self.b
            .with_etc(self.etc.path(), &["push", &self.image])
            .finish()
    }

    fn pull(&self) -> Finished {
        self.b
            .with_etc(self.etc.path(), &["pull", &self.image])
            .finish()
    }
}

/// What Docker's tutorial makes is an authority's certificate, which was refused as a server's wherever it was put.
#[test]
fn a_self_signed_certificate_is_trusted_where_docker_trusts_it() {
    let Some(e) = Elsewhere::called(TLS_NAME) else {
        return;
    };
    for refused in [e.push(), e.pull()] {
        let refused = refused.expect_code(1)
            .says("the certificate of registry.test is that of an authority, and not among those that are trusted here")
            .says("/etc/docker/certs.d");
        assert!(
            !refused.stderr.contains("CaUsedAsEndEntity"),
            "{}",
            refused.stderr
        );
    }
    let file = e.registry.certificate();
    e.b.with_etc(e.etc.path(), &["push", &e.image])
        .with_env("SSL_CERT_FILE", file.to_str().unwrap())
        .finish()
        .ok();
    e.trust();
    e.push().ok();
    e.b.run(&["rmi", "-f", &e.image, "busybox"]).ok();
    e.pull().ok();
}

#[test]
fn a_trusted_certificate_for_another_name_is_refused_in_words() {
    let Some(e) = Elsewhere::called("other.test") else {
        return;
    };
    e.trust();
    e.push()
        .expect_code(1)
        .says("the certificate of other.test is for localhost, registry.test, not for other.test");
}

#[test]
fn an_insecure_registry_may_show_any_certificate() {
    let Some(e) = Elsewhere::called("other.test") else {
        return;
    };
    let dir = e.b.home().join(".config/bulkhead");
    std::fs::create_dir_all(&dir).unwrap();
    let host = e.image.split('/').next().unwrap();
    std::fs::write(
        dir.join("config.toml"),
        format!("insecure-registries = [\"{host}\"]\n"),
    )
    .unwrap();
    e.push().ok();
    e.b.run(&["rmi", "-f", &e.image, "busybox"]).ok();
    e.pull().ok();
}

#[test]
fn a_damaged_certificate_is_named() {
    let Some(e) = Elsewhere::called(TLS_NAME) else {
        return;
    };
    e.trust();
    let host = e.image.split('/').next().unwrap();
    let file = e
        .etc
        .path()
        .join("docker/certs.d")
        .join(host)
        .join("ca.crt");
    std::fs::write(&file, "not a certificate").unwrap();
    e.push()
        .expect_code(1)
        .says(&format!("/etc/docker/certs.d/{host}/ca.crt"))
        .says("PEM");
}
