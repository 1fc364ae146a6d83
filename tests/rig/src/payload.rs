//! What the emulated machine is given: a directory that becomes its second disk.
//!
//! ```text
//! suite.sh                the runner
//! bin/                    bulkhead, its agent, and the sandbox that breaks its policy
//! tests/                  test binaries
//! tree/                   the source tree, for tests that read it
//! cache/bulkhead/…        our kernel and the image of Debian, where bulkhead and the tests look for them
//! boot/, modules/         Debian's cloud kernels, for the machines inside the machine
//! ```

use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use crate::binaries::TestBinary;
use crate::share::Share;

/// Where the machine mounts the payload.
pub const MOUNTED: &str = "/payload";

/// What goes into a payload besides the test binaries.
#[derive(Debug)]
pub struct Sources<'a> {
    /// The workspace.
    pub workspace: &'a Path,
    /// The built command line; its agent lies beside it.
    pub bulkhead: &'a Path,
    /// Our kernel for machines; without it the machine has Debian's alone.
    pub kernel: Option<&'a Path>,
    /// `$XDG_CACHE_HOME`: images.
    pub cache: &'a Path,
    /// Where Debian's kernels are, in `boot` and `lib/modules`: the rig's own, and what is installed below `/`.
    pub systems: &'a [PathBuf],
}

/// A payload could not be put together.
#[derive(Debug, thiserror::Error)]
#[error("cannot put {} into the payload", path.display())]
pub struct PayloadError {
    path: PathBuf,
    source: io::Error,
}

/// Puts the payload together in the directory `into`, which is made.
///
/// # Errors
/// [`PayloadError`] names what is missing.
pub fn make(
    into: &Path,
    binaries: &[TestBinary],
    sources: &Sources<'_>,
) -> Result<(), PayloadError> {
    directory(into)?;
    let bulkhead = sources.bulkhead;
    for file in [bulkhead, &bulkhead.with_file_name("bulkhead-agent")] {
        place(
            file,
            &into.join("bin").join(file.file_name().unwrap_or_default()),
        )?;
    }
    // The sandbox that the test of the walls catches: that test says so itself where it is not built.
    let caught = bulkhead.with_file_name("../debug/bulkhead-trespass");
    if caught.exists() {
        place(&caught, &into.join("bin/bulkhead-trespass"))?;
    }
    for binary in binaries {
        place(&binary.path, &into.join(file_of(binary)))?;
    }
    write(&into.join("suite.sh"), include_str!("../suite.sh"))?;
    write(
        &into.join("workspace"),
        &sources.workspace.to_string_lossy(),
    )?;
    for part in ["crates", "tests", "docs"] {
        tree(&sources.workspace.join(part), &into.join("tree").join(part))?;
    }
    for file in ["README.md", "Cargo.toml", "Cargo.lock"] {
        place(&sources.workspace.join(file), &into.join("tree").join(file))?;
    }
    if let Some(kernel) = sources.kernel {
        place(kernel, &into.join("cache/bulkhead/kernels/ours/vmlinux"))?;
    }
    let images = sources.cache.join("bulkhead/images/debian-bookworm.tar");
    if images.exists() {
        place(
            &images,
            &into.join("cache/bulkhead/images/debian-bookworm.tar"),
        )?;
    }
    for system in sources.systems {
        debian_kernel(system, into)?;
    }
    Ok(())
}

/// Where a test binary lies in the payload.
fn file_of(binary: &TestBinary) -> String {
    format!("tests/{}", binary.name.replace("::", "-"))
}

/// The word of `suite.sh` by which a machine runs a share's tests of one binary.
pub fn suite_line(share: &Share) -> String {
    let Share { binary, tests } = share;
    let directory = binary.directory.display();
    format!(
        "{} {MOUNTED}/{} {directory} {}",
        binary.name,
        file_of(binary),
        tests.join(" ")
    )
}

/// Our kernel for machines that was built last, in the directory where they are kept.
pub fn newest_kernel(kernels: &Path) -> Option<PathBuf> {
    std::fs::read_dir(kernels)
        .ok()?
        .flatten()
        .map(|entry| entry.path().join("vmlinux"))
        .filter_map(|path| Some((path.metadata().ok()?.modified().ok()?, path)))
        .max()
        .map(|(_, path)| path)
}

/// Debian's newest cloud kernel with its modules.
fn debian_kernel(system: &Path, into: &Path) -> Result<(), PayloadError> {
    let boot = system.join("boot");
    let failed = |source| PayloadError {
        path: boot.clone(),
        source,
    };
    let newest = std::fs::read_dir(&boot)
        .map_err(failed)?
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| {
            let name = path
                .file_name()
                .unwrap_or_default()
                .to_string_lossy()
                .into_owned();
            name.starts_with("vmlinuz-") && name.ends_with("-cloud-amd64")
        })
        .filter_map(|path| Some((path.metadata().ok()?.modified().ok()?, path)))
        .max();
    let Some((_, kernel)) = newest else {
        return Err(failed(io::Error::new(
            io::ErrorKind::NotFound,
            "there is no vmlinuz-*-cloud-amd64 (linux-image-cloud-amd64)",
        )));
    };
    let name = kernel.file_name().unwrap_or_default();
    if into.join("boot").join(name).exists() {
        return Ok(());
    }
    place(&kernel, &into.join("boot").join(name))?;
    let release = name.to_string_lossy().replacen("vmlinuz-", "", 1);
    tree(
        &system.join("lib/modules").join(&release),
        &into.join("modules").join(&release),
    )
}

/// A directory that every user of the machine may search.
fn directory(path: &Path) -> Result<(), PayloadError> {
    std::fs::create_dir_all(path)
        .and_then(|()| std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)))
        .map_err(|source| PayloadError {
            path: path.to_owned(),
            source,
        })
}

fn write(path: &Path, text: &str) -> Result<(), PayloadError> {
    std::fs::write(path, text).map_err(|source| PayloadError {
        path: path.to_owned(),
        source,
    })
}

/// One file, as a link where that is possible: it is only read from here.
fn place(from: &Path, to: &Path) -> Result<(), PayloadError> {
    if let Some(parent) = to.parent() {
        directory(parent)?;
    }
    std::fs::hard_link(from, to)
        .or_else(|error| match error.kind() {
            // Writing there would change the file that the link before it names.
            io::ErrorKind::AlreadyExists => Err(error),
            _ => std::fs::copy(from, to).map(drop),
        })
        .map_err(|source| PayloadError {
            path: from.to_owned(),
            source,
        })
}

/// A directory with everything below it; links and build results stay behind.
fn tree(from: &Path, to: &Path) -> Result<(), PayloadError> {
    let failed = |source| PayloadError {
        path: from.to_owned(),
        source,
    };
    directory(to)?;
    for entry in std::fs::read_dir(from).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let kind = entry.file_type().map_err(failed)?;
        if kind.is_dir() {
            if entry.file_name() != "target" {
                tree(&entry.path(), &to.join(entry.file_name()))?;
            }
        } else if kind.is_file() {
            place(&entry.path(), &to.join(entry.file_name()))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_of_our_kernels_is_taken_and_others_are_not() {
        let kernels = tempfile::tempdir().unwrap();
        assert_eq!(newest_kernel(kernels.path()), None);
        let at = |key: &str, name: &str| {
            let path = kernels.path().join(key).join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(&path, key).unwrap();
            path
        };
        let old = at("a", "vmlinux");
        let yesterday = std::time::SystemTime::now() - std::time::Duration::from_secs(86_400);
        let file = std::fs::File::options().append(true).open(old).unwrap();
        file.set_modified(yesterday).unwrap();
        at("c", "linux");
        let new = at("b", "vmlinux");
        assert_eq!(newest_kernel(kernels.path()), Some(new));
    }

    #[test]
    fn a_payload_without_debians_kernel_is_refused_by_name() {
        let system = tempfile::tempdir().unwrap();
        std::fs::create_dir(system.path().join("boot")).unwrap();
        let error = debian_kernel(system.path(), &system.path().join("into")).unwrap_err();
        assert!(error.to_string().contains("boot"), "{error}");
    }
}
