//! Device nodes of a container.
//!
//! Every mount of a container is `nodev`, also its root and its /dev: a node that an image brings, or that a process
//! makes with mknod(2), opens nothing. The devices that a container is meant to have are made by the agent, in a file
//! system of their own that the container does not see, and each is mounted by itself over a file in the container.
//! See `docs/decisions/0018-device-nodes.md`.

use std::ffi::{CString, NulError};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::mount::MsFlags;
use nix::sys::stat::{Mode, SFlag, makedev, mknod};
use nix::unistd::{Gid, chown};

use bulkhead_protocol::api::Device;

use crate::rootfs::{self, RootError};
use crate::syscalls;

/// What every container has (Docker's list), with the kernel's numbers (devices.txt).
const STANDARD: [(&str, u64, u64); 6] = [
    ("null", 1, 3),
    ("zero", 1, 5),
    ("full", 1, 7),
    ("random", 1, 8),
    ("urandom", 1, 9),
    ("tty", 5, 0),
];

/// The group `disk`, by its number in Debian, Alpine, Fedora and every image made from them.
const DISK: u32 = 6;

/// Permissions and group of a node, which the rules of udev (50-udev-default.rules) give it on a host. A guest has no udev,
/// and its kernel makes almost every node for root alone.
fn customary(name: &str, mode: u32) -> (u32, u32) {
    match name {
        "fuse" | "net/tun" | "kvm" => (0o666, 0),
        _ if name.starts_with("loop") => (0o660, DISK),
        _ => (mode & 0o777, 0),
    }
}

/// Entries of the guest's /dev that a privileged container gets from elsewhere.
const OTHERS: [&str; 4] = ["console", "ptmx", "pts", "shm"];

/// Directories of /dev are looked at to this depth; the deepest device is /dev/bus/usb/001/001.
const MAX_DEPTH: usize = 4;

/// Why a container does not get its devices.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DeviceError {
    #[error("the guest's kernel has no device /dev/{0}")]
    Absent(String),
    #[error("cannot make the device node {path}")]
    Make {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("cannot list the guest's devices in {path}")]
    List {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("{0} is not a path without null bytes")]
    Target(String),
    #[error(transparent)]
    Root(#[from] RootError),
}

/// A node that is mounted into the container.
#[derive(Debug)]
pub(crate) struct Node {
    /// Where the agent made it.
    pub(crate) path: PathBuf,
    /// Where the container sees it.
    pub(crate) target: CString,
}

/// A node or directory of the guest's /dev, for a privileged container.
#[derive(Debug, Clone)]
pub(crate) struct GuestNode {
    /// In the container.
    pub(crate) path: CString,
    /// Type and permissions, as stat(2) has them.
    pub(crate) mode: u32,
    /// Its owner is root.
    pub(crate) group: u32,
    pub(crate) number: u64,
}

/// Makes the standard nodes and the `wanted` ones in a file system at `place`; `dev` is the guest's /dev.
pub(crate) fn make(place: &Path, dev: &Path, wanted: &[Device]) -> Result<Vec<Node>, DeviceError> {
    rootfs::create(place)?;
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC;
    rootfs::attach(
        Path::new("tmpfs"),
        place,
        "tmpfs",
        flags,
        "mode=755,size=64k",
    )?;
    let mut nodes = Vec::with_capacity(STANDARD.len() + wanted.len());
    for (name, major, minor) in STANDARD {
        let path = place.join(name);
        make_node(&path, SFlag::S_IFCHR, (0o666, 0), makedev(major, minor))?;
        nodes.push(node(path, &format!("/dev/{name}"))?);
    }
    for (index, device) in wanted.iter().enumerate() {
        let like = find(dev, &device.node)?;
        let path = place.join(format!("device{index}"));
        let kind = SFlag::from_bits_truncate(like.mode()) & SFlag::S_IFMT;
        let access = customary(&device.node, like.mode());
        make_node(&path, kind, access, like.rdev())?;
        nodes.push(node(path, &device.target)?);
    }
    Ok(nodes)
}

fn node(path: PathBuf, target: &str) -> Result<Node, DeviceError> {
    let target = CString::new(target).map_err(|_| DeviceError::Target(target.to_owned()))?;
    Ok(Node { path, target })
}

/// `access` is permissions and group.
fn make_node(path: &Path, kind: SFlag, access: (u32, u32), number: u64) -> Result<(), DeviceError> {
    let (mode, group) = access;
    let mut made = mknod(path, kind, Mode::from_bits_truncate(mode), number);
    if group != 0 {
        made = made.and_then(|()| chown(path, None, Some(Gid::from_raw(group))));
    }
    made.map_err(|errno| DeviceError::Make {
        path: path.to_owned(),
        source: errno.into(),
    })
}

/// Looks a device up in the guest's /dev. A loop device that the kernel has not made yet is made.
fn find(dev: &Path, name: &str) -> Result<std::fs::Metadata, DeviceError> {
    let look = || {
        std::fs::symlink_metadata(dev.join(name))
            .ok()
            .filter(is_device)
    };
    if let Some(found) = look() {
        return Ok(found);
    }
    if let Some(number) = name.strip_prefix("loop").and_then(|n| n.parse().ok()) {
        let flags = OFlag::O_RDWR | OFlag::O_CLOEXEC;
        if let Ok(control) = open(&dev.join("loop-control"), flags, Mode::empty()) {
            syscalls::add_loop_device(&control, number).ok();
        }
    }
    look().ok_or_else(|| DeviceError::Absent(name.to_owned()))
}

fn is_device(metadata: &std::fs::Metadata) -> bool {
    matches!(
        SFlag::from_bits_truncate(metadata.mode()) & SFlag::S_IFMT,
        SFlag::S_IFCHR | SFlag::S_IFBLK
    )
}

/// Every device of the guest, parents before what is in them.
pub(crate) fn all(dev: &Path) -> Result<Vec<GuestNode>, DeviceError> {
    let mut found = Vec::new();
    let mut pending = vec![(PathBuf::new(), 0)];
    while let Some((relative, depth)) = pending.pop() {
        let path = dev.join(&relative);
        let failed = |source| DeviceError::List {
            path: path.clone(),
            source,
        };
        for entry in std::fs::read_dir(&path).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let metadata = match entry.metadata() {
                Ok(metadata) => metadata,
                // A device that went away in between.
                Err(error) if error.raw_os_error() == Some(Errno::ENOENT as i32) => continue,
                Err(error) => return Err(failed(error)),
            };
            let relative = relative.join(entry.file_name());
            if OTHERS.iter().any(|other| relative == Path::new(other)) {
                continue;
            }
            if metadata.is_dir() && depth + 1 < MAX_DEPTH {
                pending.push((relative.clone(), depth + 1));
            } else if !is_device(&metadata) {
                continue;
            }
            let (mode, group) = if metadata.is_dir() {
                (metadata.mode(), 0)
            } else {
                let (access, group) = customary(&relative.to_string_lossy(), metadata.mode());
                ((metadata.mode() & !0o777) | access, group)
            };
            found.push(GuestNode {
                path: in_container(&relative)
                    .map_err(|_| DeviceError::Target(relative.display().to_string()))?,
                mode,
                group,
                number: metadata.rdev(),
            });
        }
    }
    Ok(found)
}

fn in_container(relative: &Path) -> Result<CString, NulError> {
    CString::new([b"/dev/", relative.as_os_str().as_bytes()].concat())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_that_the_guest_lacks_is_named_and_a_file_is_none() {
        let dev = tempfile::tempdir().unwrap();
        std::fs::write(dev.path().join("fuse"), "").unwrap();
        for absent in ["fuse", "net/tun", "loop7"] {
            let error = find(dev.path(), absent).unwrap_err();
            assert_eq!(
                error.to_string(),
                format!("the guest's kernel has no device /dev/{absent}")
            );
        }
        assert!(find(Path::new("/dev"), "null").is_ok());
    }

    #[test]
    fn nodes_have_the_modes_that_udev_would_give_them() {
        for everybodys in ["fuse", "net/tun", "kvm"] {
            assert_eq!(customary(everybodys, 0o600), (0o666, 0), "{everybodys}");
        }
        for disk in ["loop-control", "loop7"] {
            assert_eq!(customary(disk, 0o600), (0o660, DISK), "{disk}");
        }
        assert_eq!(customary("kmsg", 0o020_644), (0o644, 0), "the kernel's own");
    }

    #[test]
    fn a_privileged_container_gets_what_the_guest_has_but_for_terminals() {
        let nodes = all(Path::new("/dev")).unwrap();
        let names: Vec<_> = nodes
            .iter()
            .map(|node| node.path.to_string_lossy())
            .collect();
        assert!(names.iter().any(|name| name == "/dev/null"), "{names:?}");
        assert!(
            !names.iter().any(|name| name.starts_with("/dev/pts")),
            "{names:?}"
        );
    }
}
