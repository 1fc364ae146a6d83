//! A program that takes the place of a compartment's user-mode kernel and attacks from there.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::command::{Running, tool_exists};

/// Links a program for gcc to where user-mode kernels begin: what begins elsewhere is not taken for one.
pub const LINKED_AS_A_KERNEL: &str = "-Wl,-Ttext-segment=0x60000000";

/// `hostile/kernel.c`, compiled to make one attempt.
#[derive(Debug)]
pub struct HostileKernel {
    directory: tempfile::TempDir,
}

impl HostileKernel {
    /// The program that makes `attempt`, at `target` if the attempt has one. `None`, said loudly, without a compiler.
    pub fn new(attempt: &str, target: &str) -> Option<Self> {
        if !tool_exists("gcc") {
            return None;
        }
        let directory = tempfile::Builder::new()
            .prefix("bulkhead-hostile-")
            .permissions(PermissionsExt::from_mode(0o755))
            .tempdir()
            .expect("temporary directory");
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("hostile/kernel.c");
        let kernel = Self { directory };
        let mut compiler = Command::new("gcc");
        compiler
            .args(["-O1", "-static", LINKED_AS_A_KERNEL, "-w", "-o"])
            .arg(kernel.path())
            .arg(format!("-DATTEMPT=\"{attempt}\""))
            .arg(format!("-DTARGET=\"{target}\""))
            .arg(source);
        Running::start(&mut compiler, None).finish().ok();
        Some(kernel)
    }

    /// For `BULKHEAD_KERNEL`.
    pub fn path(&self) -> PathBuf {
        self.directory.path().join("linux")
    }
}
