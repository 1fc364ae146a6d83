//! The directory that becomes the root of a user-mode kernel process.
//!
//! It is a tmpfs of bounded size: it holds the device sockets, the file behind guest memory, and the few
//! files that the kernel reads at start. A hostile guest kernel can fill it and nothing else.

use std::ffi::CString;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, chown};
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use nix::fcntl::{Flock, FlockArg};
use nix::unistd::geteuid;

use crate::error::JailError;
use crate::ids::HostIds;
use crate::sys;

/// Where the kernel's root lies inside a sandbox's own empty root.
pub(crate) const INSIDE: &str = "/vm";

/// Where roots are made that have no mount namespace.
const SHARED_MEMORY: &str = "/dev/shm";

/// How their names begin.
const PREFIX: &str = "bulkhead-";

/// Younger ones may not have their lock yet.
const YOUNG: Duration = Duration::from_secs(60);

/// What a file in the kernel's root holds.
#[derive(Debug, Clone)]
pub enum Content {
    /// The content of an open file. Inside a jail it is a read-only bind mount, which costs no memory.
    File(Arc<OwnedFd>),
    /// These bytes.
    Bytes(Vec<u8>),
}

/// A file in the kernel's root.
#[derive(Debug, Clone)]
pub struct RootFile {
    /// Relative path.
    pub name: String,
    /// What it holds.
    pub content: Content,
    /// Whether it may be executed (a dynamic loader or library).
    pub executable: bool,
}

/// What a kernel's root shall be.
#[derive(Debug, Clone)]
pub struct VmRootSpec {
    /// Size limit of the file system, in bytes: guest memory and some room.
    pub bytes: u64,
    /// Back large files with huge pages where the host can: the file behind guest memory. Halves the time to the
    /// guest's init, and rounds the memory that an idle guest has touched up to 2 MiB steps.
    pub huge_pages: bool,
    /// Its files.
    pub files: Vec<RootFile>,
}

/// A kernel's root, ready. Dropping it removes a directory that has no namespace to vanish with.
#[derive(Debug)]
pub struct VmRoot {
    path: PathBuf,
    enclosed: bool,
    host_ids: Option<HostIds>,
    /// Held for life outside a jail: a directory whose lock is free was left behind by a killed owner.
    lock: Option<Flock<File>>,
}

/// The spec's files, opened again by path in a new mount namespace: a bind mount takes only a source of its own
/// namespace. `None` where a path does not lead to the same file any more, or is out of reach; those are copied.
pub(crate) struct Reopened(Vec<Option<OwnedFd>>);

impl Reopened {
    /// To be called before the process gives up the ids with which the paths can be reached.
    pub(crate) fn open(spec: &VmRootSpec) -> Self {
        Self(spec.files.iter().map(reopen).collect())
    }
}

fn reopen(file: &RootFile) -> Option<OwnedFd> {
    let Content::File(original) = &file.content else {
        return None;
    };
    let path = fs::read_link(format!("/proc/self/fd/{}", original.as_raw_fd())).ok()?;
    let again = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_PATH | libc::O_CLOEXEC)
        .open(path)
        .ok()?;
    let identity = |file: &File| file.metadata().map(|m| (m.dev(), m.ino())).ok();
    let original = File::from(original.try_clone().ok()?);
    (identity(&original)? == identity(&again)?).then(|| again.into())
}

impl VmRoot {
    /// Makes a root outside any jail: a private directory in shared memory. The kernel process still gets
    /// the walls that it can raise by itself. Where the caller is root the kernel process, and the
    /// directory, get `host_ids`.
    pub fn unjailed(spec: &VmRootSpec, host_ids: Option<HostIds>) -> Result<Self, JailError> {
        let step = "make a private directory in shared memory";
        remove_abandoned(Path::new(SHARED_MEMORY));
        let path = private_directory().map_err(JailError::step(step))?;
        let directory = File::open(&path).map_err(JailError::step(step))?;
        let lock = Flock::lock(directory, FlockArg::LockExclusiveNonblock)
            .map_err(|(_, error)| JailError::step(step)(error.into()))?;
        let host_ids = host_ids.filter(|_| geteuid().is_root());
        let root = Self {
            path,
            enclosed: false,
            host_ids,
            lock: Some(lock),
        };
        if let Some(ids) = host_ids {
            chown(&root.path, Some(ids.uid), Some(ids.gid)).map_err(JailError::step(step))?;
        }
        for file in &spec.files {
            let target = root.target(&file.name)?;
            copy(file, &target).map_err(|source| JailError::Place {
                name: file.name.clone(),
                source,
            })?;
        }
        Ok(root)
    }

    /// Mounts and fills the root at `directory`, a path under the mount that is about to become the sandbox's root.
    pub(crate) fn enclosed(
        spec: &VmRootSpec,
        sources: &Reopened,
        directory: &Path,
    ) -> Result<Self, JailError> {
        let target = c_string(directory.as_os_str().as_encoded_bytes())?;
        sys::mkdir(&target, 0o755).map_err(JailError::step("make the kernel's root"))?;
        let options = format!("mode=0755,size={},nr_inodes=512", spec.bytes);
        let mount = |options: String| -> Result<io::Result<()>, JailError> {
            // Not noexec: guest programs are mapped executable from the memory file.
            let flags = libc::MS_NOSUID | libc::MS_NODEV;
            Ok(sys::mount(
                c"vm",
                &target,
                c"tmpfs",
                flags,
                Some(&c_string(options)?),
            ))
        };
        // Within the size of a file, so that small ones do not take 2 MiB each. A host without huge pages rejects the
        // option.
        let huge = spec.huge_pages && mount(format!("{options},huge=within_size"))?.is_ok();
        if !huge {
            mount(options)?.map_err(JailError::step("mount the kernel's root"))?;
        }
        let building = Self {
            path: directory.to_owned(),
            enclosed: true,
            host_ids: None,
            lock: None,
        };
        for (file, source) in spec.files.iter().zip(&sources.0) {
            let target = building.target(&file.name)?;
            bind_or_copy(file, source.as_ref(), &target).map_err(|source| JailError::Place {
                name: file.name.clone(),
                source,
            })?;
        }
        Ok(Self {
            path: PathBuf::from(INSIDE),
            enclosed: true,
            host_ids: None,
            lock: None,
        })
    }

    /// The directory, in the caller's view.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether it lies in a sandbox's jail, where the caller may mount.
    pub fn is_enclosed(&self) -> bool {
        self.enclosed
    }

    /// A descriptor that must stay open as long as the root is used.
    pub(crate) fn lock(&self) -> Option<RawFd> {
        self.lock.as_ref().map(|lock| lock.as_raw_fd())
    }

    /// Host ids for the kernel process, where the caller has no jail and is root.
    pub(crate) fn host_ids(&self) -> Option<HostIds> {
        self.host_ids
    }

    /// Where `name` lies in the caller's view; its directories are made.
    fn target(&self, name: &str) -> Result<PathBuf, JailError> {
        let relative = Path::new(name);
        let plain = relative
            .components()
            .all(|part| matches!(part, Component::Normal(_)));
        if name.is_empty() || !plain {
            return Err(JailError::Name(name.to_owned()));
        }
        let target = self.path.join(relative);
        if let Some(parent) = target.parent() {
            DirBuilder::new()
                .recursive(true)
                .mode(0o755)
                .create(parent)
                .map_err(|source| JailError::Place {
                    name: name.to_owned(),
                    source,
                })?;
        }
        Ok(target)
    }
}

impl Drop for VmRoot {
    fn drop(&mut self) {
        if !self.enclosed {
            // Nothing to tell anybody: the directory holds sockets and copies.
            let _ = fs::remove_dir_all(&self.path);
        }
    }
}

/// Removes directories of owners that were killed. Young ones are left alone: theirs may be about to take its lock.
fn remove_abandoned(shared_memory: &Path) {
    let entries = fs::read_dir(shared_memory).into_iter().flatten().flatten();
    for path in entries.map(|entry| entry.path()) {
        let ours = path
            .file_name()
            .is_some_and(|name| name.to_string_lossy().starts_with(PREFIX));
        let old = path
            .metadata()
            .and_then(|metadata| metadata.modified())
            .is_ok_and(|made| made.elapsed().is_ok_and(|age| age > YOUNG));
        if !ours || !old {
            continue;
        }
        let Ok(directory) = File::open(&path) else {
            continue;
        };
        if Flock::lock(directory, FlockArg::LockExclusiveNonblock).is_ok() {
            let _ = fs::remove_dir_all(&path);
        }
    }
}

fn private_directory() -> io::Result<PathBuf> {
    let mut random = [0_u8; 8];
    File::open("/dev/urandom")?.read_exact(&mut random)?;
    let name = format!("{PREFIX}{:016x}", u64::from_ne_bytes(random));
    let path = Path::new(SHARED_MEMORY).join(name);
    DirBuilder::new().mode(0o700).create(&path)?;
    Ok(path)
}

fn create(target: &Path, executable: bool) -> io::Result<File> {
    OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(if executable { 0o755 } else { 0o644 })
        .open(target)
}

fn copy(file: &RootFile, target: &Path) -> io::Result<()> {
    let mut out = create(target, file.executable)?;
    match &file.content {
        Content::Bytes(bytes) => out.write_all(bytes),
        Content::File(source) => {
            let mut buffer = vec![0; 256 << 10];
            let mut offset = 0;
            loop {
                // At an offset of our own: the descriptor's position is shared with others.
                let count = nix::sys::uio::pread(source.as_fd(), &mut buffer, offset)?;
                if count == 0 {
                    return Ok(());
                }
                out.write_all(buffer.get(..count).unwrap_or_default())?;
                offset += i64::try_from(count).unwrap_or_default();
            }
        }
    }
}

fn bind_or_copy(file: &RootFile, source: Option<&OwnedFd>, target: &Path) -> io::Result<()> {
    let Some(source) = source else {
        return copy(file, target);
    };
    let from = CString::new(format!("/proc/self/fd/{}", source.as_raw_fd()))?;
    let to = CString::new(target.as_os_str().as_encoded_bytes())?;
    create(target, file.executable)?;
    sys::mount(&from, &to, c"", libc::MS_BIND, None)?;
    // Writable, it would let a hostile kernel change a file that other compartments start from.
    sys::mount_read_only(&to)
}

pub(crate) fn c_string(text: impl Into<Vec<u8>>) -> Result<CString, JailError> {
    CString::new(text).map_err(|_| JailError::Argument)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(name: &str) -> VmRootSpec {
        VmRootSpec {
            bytes: 1 << 20,
            huge_pages: false,
            files: vec![RootFile {
                name: name.to_owned(),
                content: Content::Bytes(b"flags".to_vec()),
                executable: false,
            }],
        }
    }

    #[test]
    fn an_unjailed_root_is_private_filled_and_removed_with_its_owner() {
        let root =
            VmRoot::unjailed(&spec("proc/cpuinfo"), None).expect("shared memory is writable");
        let path = root.path().to_owned();
        let about = fs::metadata(&path).expect("the root is there");
        assert_eq!(about.mode() & 0o7777, 0o700, "nobody else may look into it");
        assert_eq!(about.uid(), geteuid().as_raw());
        assert_eq!(
            fs::read(path.join("proc/cpuinfo")).expect("the file was placed"),
            b"flags"
        );
        drop(root);
        assert!(!path.exists());
    }

    #[test]
    fn a_directory_of_a_killed_owner_is_removed_and_that_of_a_living_one_is_not() {
        let shared_memory = tempfile::tempdir().expect("a directory");
        let [abandoned, young, living, other] = ["bulkhead-1", "bulkhead-2", "bulkhead-3", "x"]
            .map(|name| shared_memory.path().join(name));
        for path in [&abandoned, &young, &living, &other] {
            fs::create_dir(path).expect("a directory");
            fs::write(path.join("0"), "").expect("a file");
            if path != &young {
                let directory = File::open(path).expect("a directory");
                directory
                    .set_modified(std::time::UNIX_EPOCH)
                    .expect("its owner may");
            }
        }
        let lock = Flock::lock(
            File::open(&living).expect("a directory"),
            FlockArg::LockExclusive,
        );
        remove_abandoned(shared_memory.path());
        assert!(!abandoned.exists());
        assert!(young.exists() && living.exists() && other.exists());
        drop(lock);
    }

    #[test]
    fn names_that_leave_the_root_are_refused() {
        for name in ["", "/etc/passwd", "../x", "a/../../x"] {
            let error = VmRoot::unjailed(&spec(name), None).expect_err("the name leaves the root");
            assert!(matches!(error, JailError::Name(_)), "{name}: {error:?}");
        }
    }
}
