//! `bootstrap` with the real mmdebstrap and Debian's archive.

mod support;

use std::sync::Mutex;

use bulkhead_image::{
    BootstrapError, BootstrapOptions, ErrorKind, Outcome, Phase, Progress, Quiet, bootstrap,
};
use support::{Scratch, skopeo, tool};

#[derive(Default)]
struct Messages(Mutex<Vec<String>>);

impl Progress for Messages {
    fn start(&self, _: &str, _: Phase, _: Option<u64>) {}
    fn advance(&self, _: &str, _: u64) {}
    fn finish(&self, _: &str, _: Outcome) {}
    fn message(&self, text: &str) {
        self.0.lock().unwrap().push(text.to_owned());
    }
}

#[test]
fn a_debian_suite_becomes_an_image() {
    tool("mmdebstrap", &["--version"]);
    let scratch = Scratch::new();
    let messages = Messages::default();
    let image = bootstrap(
        &scratch.store,
        &BootstrapOptions::new("bookworm"),
        &messages,
    )
    .unwrap();
    assert_eq!(
        scratch.store.resolve("debian:bookworm").unwrap().id,
        image.id
    );
    let config = image.config.config().clone().unwrap();
    assert_eq!(config.cmd().clone().unwrap(), ["bash"]);
    assert!(config.env().clone().unwrap()[0].starts_with("PATH=/usr/local/sbin:"));
    assert!(
        messages.0.lock().unwrap().len() > 3,
        "it says what it does: {messages:?}",
        messages = messages.0
    );
    assert!(image.size > 50 << 20, "{}", image.size);
    let disk = scratch.store.disk(&image).unwrap();
    assert_eq!(disk.parts.len(), 2);
    skopeo(&["inspect", &scratch.oci("debian:bookworm")]);
    assert_eq!(scratch.count("tmp"), 0);
}

#[test]
fn what_mmdebstrap_says_is_in_the_error_and_nothing_is_left() {
    let scratch = Scratch::new();
    let mut options = BootstrapOptions::new("bookworm");
    options.mirrors = vec!["http://127.0.0.1:1/debian".into()];
    let error = bootstrap(&scratch.store, &options, &Quiet).unwrap_err();
    assert!(
        matches!(&error, BootstrapError::Failed { output, .. } if output.contains("127.0.0.1")),
        "{error}"
    );
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(scratch.store.images().unwrap().is_empty());
    assert_eq!(
        scratch.count("tmp") + scratch.count("image/blobs/sha256"),
        0
    );
}

#[test]
fn arguments_do_not_become_options() {
    let scratch = Scratch::new();
    let mut hook = BootstrapOptions::new("bookworm");
    hook.mirrors = vec!["--setup-hook=touch /tmp/oops".into()];
    for options in [
        hook,
        BootstrapOptions::new("--help"),
        BootstrapOptions::new(""),
    ] {
        let error = bootstrap(&scratch.store, &options, &Quiet).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");
    }
}
