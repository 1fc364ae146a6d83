//! The initramfs: the agent as `/init`, a console, and a distribution's modules with the order to load them in.
//!
//! It is made once for each pair of agent and kernel and kept in a cache under a name that says which files it was
//! made from, so that a start costs a look at three files. `/modules/order` lists absolute paths, one a line,
//! dependencies first; it is absent where the kernel has everything built in.

mod cpio;
mod module_file;
mod modules;
mod signature;

use std::fs::{self, File, Metadata, Permissions};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use bulkhead_types::Isolation;
use cpio::Cpio;

use crate::kernel::{KernelImage, KernelKind};

/// Mount points and places that the agent expects.
const DIRECTORIES: [&str; 5] = ["dev", "proc", "sys", "run", "tmp"];

/// What the archive looks like: part of the cache key, to be raised with every change of the layout.
const LAYOUT: u32 = 3;

/// Archives that no start has made or refreshed for this long are removed when a new one is made.
const KEEP: Duration = Duration::from_secs(30 * 24 * 3600);

/// No initramfs could be made.
#[derive(Debug, thiserror::Error)]
pub enum InitramfsError {
    /// The agent is not there.
    #[error("cannot read the agent {path}")]
    Agent {
        /// Its path.
        path: PathBuf,
        /// The host's answer.
        #[source]
        source: io::Error,
    },
    /// A file is not there.
    #[error("cannot read {path}")]
    Read {
        /// Its path.
        path: PathBuf,
        /// The host's answer.
        #[source]
        source: io::Error,
    },
    /// A module that compartments need is missing.
    #[error("the kernel has no module {module} in {modules}, nor is it built in")]
    Module {
        /// Its name.
        module: String,
        /// Where it was looked for.
        modules: PathBuf,
    },
    /// A module is compressed in a way that is not one of kmod's.
    #[error(
        "cannot unpack module {0}: its name ends neither in .ko nor in .ko.xz, .ko.zst or .ko.gz"
    )]
    Compression(PathBuf),
    /// The archive could not be written.
    #[error("cannot write the initramfs in {directory}")]
    Write {
        /// The cache.
        directory: PathBuf,
        /// The host's answer.
        #[source]
        source: io::Error,
    },
}

/// The initramfs for `agent` and `kernel` in `cache`; made if it is not there yet. Concurrent calls are safe: each
/// writes its own file, and the last one to finish is kept.
pub fn build_initramfs(
    agent: &Path,
    kernel: &KernelImage,
    cache: &Path,
) -> Result<PathBuf, InitramfsError> {
    let agent_metadata = fs::metadata(agent).map_err(|source| InitramfsError::Agent {
        path: agent.to_owned(),
        source,
    })?;
    // What the modules are is decided by their list; a package update replaces both.
    let list = match (kernel.kind, &kernel.modules) {
        (KernelKind::Distribution, Some(modules)) => Some(modules.join("modules.dep")),
        _ => None,
    };
    let list_metadata = list
        .map(|path| fs::metadata(&path).map_err(|source| InitramfsError::Read { path, source }))
        .transpose()?;
    let path = cache.join(file_name(&agent_metadata, list_metadata.as_ref()));
    if path.exists() {
        return Ok(path);
    }
    write(agent, kernel, cache, &path)?;
    Ok(path)
}

fn file_name(agent: &Metadata, modules: Option<&Metadata>) -> String {
    let mut name = format!("initramfs-{LAYOUT}");
    for metadata in [Some(agent), modules].into_iter().flatten() {
        // The inode changes with every replaced file, the change time with every edit in place.
        name.push_str(&format!(
            "-{:x}.{:x}.{:x}.{:x}",
            metadata.dev(),
            metadata.ino(),
            metadata.size(),
            i128::from(metadata.ctime()) * 1_000_000_000 + i128::from(metadata.ctime_nsec()),
        ));
    }
    name + ".cpio"
}

fn write(
    agent: &Path,
    kernel: &KernelImage,
    cache: &Path,
    path: &Path,
) -> Result<(), InitramfsError> {
    let cannot_write = |source| InitramfsError::Write {
        directory: cache.to_owned(),
        source,
    };
    let agent_content = fs::read(agent).map_err(|source| InitramfsError::Agent {
        path: agent.to_owned(),
        source,
    })?;
    let mut loaded = Vec::new();
    if let (KernelKind::Distribution, Some(modules)) = (kernel.kind, &kernel.modules) {
        for module in modules::load_order(kernel.isolation, modules)? {
            let (name, content) = module_file::read(&module)?;
            let plain = match kernel.isolation {
                Isolation::Kvm => signature::without(&content).to_vec(),
                Isolation::UserMode => content,
            };
            loaded.push((name, plain));
        }
    }
    fs::create_dir_all(cache).map_err(cannot_write)?;
    let temporary = tempfile::Builder::new()
        .prefix(".initramfs-")
        // Whoever the kernel process runs as must be able to read it; it holds nothing secret.
        .permissions(Permissions::from_mode(0o644))
        .tempfile_in(cache)
        .map_err(cannot_write)?;
    archive(temporary.as_file(), &agent_content, &loaded)
        .and_then(|()| {
            temporary
                .as_file()
                .set_permissions(Permissions::from_mode(0o644))
        })
        .and_then(|()| temporary.as_file().sync_all())
        .and_then(|()| {
            temporary
                .persist(path)
                .map(drop)
                .map_err(|error| error.error)
        })
        .map_err(cannot_write)?;
    remove_old(cache, path);
    Ok(())
}

fn archive(out: &File, agent: &[u8], modules: &[(String, Vec<u8>)]) -> io::Result<()> {
    let mut cpio = Cpio::new(BufWriter::new(out));
    for directory in DIRECTORIES {
        cpio.directory(directory)?;
    }
    cpio.character_device("dev/console", 5, 1)?;
    cpio.character_device("dev/null", 1, 3)?;
    cpio.file("init", 0o755, agent)?;
    if !modules.is_empty() {
        cpio.directory("modules")?;
        let mut order = String::new();
        for (name, content) in modules {
            cpio.file(&format!("modules/{name}"), 0o644, content)?;
            order.push_str(&format!("/modules/{name}\n"));
        }
        cpio.file("modules/order", 0o644, order.as_bytes())?;
    }
    cpio.finish()?.flush()
}

/// Removes archives of agents and kernels that are long gone. Failing to is no failure of a start.
fn remove_old(cache: &Path, current: &Path) {
    let Ok(entries) = fs::read_dir(cache) else {
        return;
    };
    for path in entries.filter_map(Result::ok).map(|entry| entry.path()) {
        let ours = path.file_name().is_some_and(|name| {
            let name = name.to_string_lossy();
            name.starts_with("initramfs-") || name.starts_with(".initramfs-")
        });
        let old = path
            .metadata()
            .and_then(|m| m.modified())
            .is_ok_and(|made| made.elapsed().is_ok_and(|age| age > KEEP));
        if ours && old && path != current {
            let _ = fs::remove_file(&path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tuned() -> KernelImage {
        KernelImage {
            isolation: Isolation::UserMode,
            path: PathBuf::from("/nonexistent"),
            kind: KernelKind::Tuned,
            modules: None,
            libraries: Vec::new(),
            dax: false,
        }
    }

    #[test]
    fn an_archive_is_made_once_and_again_for_another_agent() {
        let dir = tempfile::tempdir().expect("a directory");
        let agent = dir.path().join("agent");
        let cache = dir.path().join("cache");
        fs::write(&agent, "one").expect("a file");
        let first = build_initramfs(&agent, &tuned(), &cache).expect("an archive");
        let made = fs::metadata(&first).expect("the archive").ino();
        assert_eq!(
            build_initramfs(&agent, &tuned(), &cache).expect("an archive"),
            first
        );
        assert_eq!(fs::metadata(&first).expect("the archive").ino(), made);
        fs::write(&agent, "other").expect("a file");
        let second = build_initramfs(&agent, &tuned(), &cache).expect("an archive");
        assert_ne!(first, second);
        let leftovers = fs::read_dir(&cache).expect("the cache").count();
        assert_eq!(leftovers, 2, "no temporary file stays");
        assert_eq!(
            fs::metadata(&second).expect("the archive").mode() & 0o777,
            0o644
        );
    }

    #[test]
    fn a_missing_agent_is_named() {
        let dir = tempfile::tempdir().expect("a directory");
        let error =
            build_initramfs(&dir.path().join("agent"), &tuned(), dir.path()).expect_err("no agent");
        assert!(error.to_string().ends_with("agent"), "{error}");
    }
}
