//! Programs of a newer Debian release, which `scripts/newer.sh` unpacks beside the system.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::cannot_run;

/// A package, unpacked with everything that it needs.
#[derive(Debug)]
pub struct Newer(PathBuf);

impl Newer {
    /// Unpacks `package` where that was not done yet. `None`, said loudly with the reason, where it cannot be had.
    pub fn of(package: &str) -> Option<Self> {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../scripts/newer.sh");
        let out = Command::new(script).arg(package).output();
        let out = out.expect("the script starts");
        if !out.status.success() {
            let said = String::from_utf8_lossy(&out.stderr);
            cannot_run!("{}", said.lines().last().unwrap_or_default());
            return None;
        }
        let path = String::from_utf8(out.stdout).expect("a plain path");
        Some(Self(path.trim_end().into()))
    }

    /// The command that runs its program `name`.
    pub fn program(&self, name: &str) -> String {
        let path = self.0.join("bin").join(name);
        path.to_str().expect("a plain path").to_owned()
    }

    /// Its file at `path`, from the root directory on.
    pub fn file(&self, path: &str) -> PathBuf {
        self.0.join("root").join(path)
    }
}
