//! What the tests of this crate share: images made in memory, a real registry, tools.

#![allow(dead_code, reason = "each test binary uses its part")]

pub mod faulty;
pub mod fixture;
pub mod registry;

use std::io;
use std::path::Path;
use std::process::{Command, Output};

use bulkhead_image::Store;

/// A store in a directory that goes with the test.
pub struct Scratch {
    pub dir: tempfile::TempDir,
    pub store: Store,
}

impl Scratch {
    pub fn new() -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let store = Store::open(&dir.path().join("root")).expect("a new store");
        Self { dir, store }
    }

    pub fn path(&self, name: &str) -> std::path::PathBuf {
        self.dir.path().join(name)
    }

    /// `oci:PATH:NAME`, as skopeo takes it.
    pub fn oci(&self, name: &str) -> String {
        format!("oci:{}:{name}", self.store.layout_dir().display())
    }

    /// Where the beginning of a blob is kept for the next attempt.
    pub fn partial(&self, blob: &[u8]) -> std::path::PathBuf {
        let name = fixture::digest(blob).hex();
        self.store.root().join("partial").join(name)
    }

    pub fn count(&self, dir: &str) -> usize {
        std::fs::read_dir(self.store.root().join(dir))
            .expect("a directory of the store")
            .count()
    }
}

/// Runs a tool; its absence fails the test, because a skipped test proves nothing.
pub fn tool(program: &str, args: &[&str]) -> Output {
    match Command::new(program).args(args).output() {
        Ok(output) => output,
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            panic!("{program} IS MISSING: this test needs it (apt-get install {program})")
        }
        Err(e) => panic!("cannot run {program}: {e}"),
    }
}

/// Runs a tool that must succeed; returns its standard output.
pub fn tool_ok(program: &str, args: &[&str]) -> String {
    let output = tool(program, args);
    assert!(
        output.status.success(),
        "{program} {args:?} failed: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).expect("text")
}

/// `skopeo --insecure-policy …`, which must succeed.
pub fn skopeo(args: &[&str]) -> String {
    tool_ok("skopeo", &[&["--insecure-policy"], args].concat())
}

pub fn text(path: &Path) -> &str {
    path.to_str().expect("a path in UTF-8")
}
