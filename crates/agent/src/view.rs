//! What a container sees beside its root file system: /proc, /sys, /dev, volumes, tmpfs.
//!
//! The list is made by the agent and carried out by the container's first process, once its root is
//! the only file system it can reach. A symbolic link in a hostile image then leads nowhere but into
//! the container itself, so no path needs checking.
//!
//! Paths of /proc and /sys are masked and read-only as in Docker, so that an image meets the same view in both. The
//! host, which sends the lists, needs neither: the kernel behind them is the container's own.

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::mount::{MsFlags, mount};
use nix::sys::stat::{Mode, SFlag, mknod, stat};
use nix::unistd::symlinkat;

use crate::devices::{GuestNode, Node};
use crate::syscalls;

/// One thing to do in the container's root.
#[derive(Debug)]
pub(crate) enum Step {
    /// Mounts a file system; a missing target is created.
    Mount {
        kind: &'static CStr,
        target: CString,
        flags: MsFlags,
        data: CString,
        /// Keeps the permissions of the directory underneath.
        keep_mode: bool,
    },
    /// Attaches a detached mount; a missing target is created.
    Attach {
        tree: OwnedFd,
        target: CString,
    },
    /// Attaches a detached mount of one file; a missing target is created.
    AttachFile {
        tree: OwnedFd,
        target: CString,
        /// Nothing happens where the target's directory is no directory.
        optional: bool,
    },
    /// Makes an attached mount read-only.
    ReadOnly {
        target: CString,
        flags: MsFlags,
    },
    /// Makes a path of /proc or /sys read-only; one that this kernel lacks is skipped.
    Protect {
        path: CString,
    },
    /// Hides what is at a path of /proc or /sys; one that this kernel lacks is skipped.
    Mask {
        path: CString,
    },
    /// Mounts one file over another.
    Bind {
        source: CString,
        target: CString,
    },
    Directory {
        path: &'static CStr,
    },
    /// Makes a device node, or a directory for such.
    Device(GuestNode),
    File {
        path: &'static CStr,
    },
    Link {
        to: &'static CStr,
        path: &'static CStr,
    },
    /// Writes a kernel parameter; one that this kernel lacks is skipped.
    Parameter {
        path: &'static CStr,
        value: &'static [u8],
    },
}

const QUIET: MsFlags = MsFlags::MS_NOSUID
    .union(MsFlags::MS_NODEV)
    .union(MsFlags::MS_NOEXEC);

/// What a container is to see. From it the steps of each start are made, so that a start that failed can be tried again.
#[derive(Debug)]
pub(crate) struct View {
    /// The container's devpts, as the agent mounted it.
    pub(crate) pts: PathBuf,
    /// /dev/shm in bytes.
    pub(crate) shm_size: u64,
    pub(crate) cgroups: bool,
    /// /sys and the cgroups are writable, and nodes in /dev are devices.
    pub(crate) privileged: bool,
    pub(crate) nodes: Vec<Node>,
    /// All of the guest's devices, for a privileged container.
    pub(crate) guest_nodes: Vec<GuestNode>,
    /// Volumes and tmpfs, a mount before those below it.
    pub(crate) mounts: Vec<Mount>,
    /// Files of the agent's that are mounted over the container's, with their paths there.
    pub(crate) files: Vec<(PathBuf, CString)>,
    pub(crate) masked: Vec<CString>,
    pub(crate) readonly: Vec<CString>,
}

/// A mount that image or flags ask for.
#[derive(Debug)]
pub(crate) struct Mount {
    pub(crate) target: CString,
    pub(crate) kind: MountKind,
}

#[derive(Debug)]
pub(crate) enum MountKind {
    Volume {
        /// Where the agent has mounted its disk.
        disk: PathBuf,
        /// The directory of the disk that the container sees.
        path: PathBuf,
        read_only: bool,
    },
    Tmpfs {
        flags: MsFlags,
        data: CString,
        /// Keeps the permissions of the directory underneath.
        keep_mode: bool,
    },
}

/// A step could not be prepared because a mount of the agent's is not to be had.
#[derive(Debug, thiserror::Error)]
#[error("cannot open {path}")]
pub(crate) struct ViewError {
    path: PathBuf,
    #[source]
    source: io::Error,
}

impl Mount {
    /// Directories between the root and the target.
    pub(crate) fn depth(&self) -> usize {
        let parts = self.target.to_bytes().split(|byte| *byte == b'/');
        parts.filter(|part| !part.is_empty()).count()
    }

    fn steps(&self, steps: &mut Vec<Step>) -> Result<(), ViewError> {
        match &self.kind {
            MountKind::Volume {
                path, read_only, ..
            } => {
                steps.push(Step::Attach {
                    tree: detach(path)?,
                    target: self.target.clone(),
                });
                if *read_only {
                    steps.push(Step::ReadOnly {
                        target: self.target.clone(),
                        flags: MsFlags::MS_NODEV,
                    });
                }
            }
            MountKind::Tmpfs {
                flags,
                data,
                keep_mode,
            } => steps.push(Step::Mount {
                kind: c"tmpfs",
                target: self.target.clone(),
                flags: *flags,
                data: data.clone(),
                keep_mode: *keep_mode,
            }),
        }
        Ok(())
    }
}

impl View {
    /// What the first process does in its root; `console` is the path of its terminal in the container.
    pub(crate) fn steps(&self, console: Option<&CStr>) -> Result<Vec<Step>, ViewError> {
        let mut steps = self.base()?;
        steps.extend(unprivileged_network());
        let protect = |path: &CString| Step::Protect { path: path.clone() };
        steps.extend(self.readonly.iter().map(protect));
        let mask = |path: &CString| Step::Mask { path: path.clone() };
        steps.extend(self.masked.iter().map(mask));
        for mount in &self.mounts {
            mount.steps(&mut steps)?;
        }
        for (path, target) in &self.files {
            steps.push(Step::AttachFile {
                tree: detach(path)?,
                target: target.clone(),
                optional: true,
            });
        }
        steps.extend(console.into_iter().flat_map(self::console));
        Ok(steps)
    }

    /// /proc, /sys, /dev and the cgroup file system.
    fn base(&self) -> Result<Vec<Step>, ViewError> {
        let simple = |kind, target: &CStr, flags, data: CString| Step::Mount {
            kind,
            target: target.to_owned(),
            flags,
            data,
            keep_mode: false,
        };
        let none = CString::default;
        let link = |to, path| Step::Link { to, path };
        let shm = format!("mode=1777,size={}", self.shm_size);
        let (nodev, read_only) = if self.privileged {
            (MsFlags::empty(), MsFlags::empty())
        } else {
            (MsFlags::MS_NODEV, MsFlags::MS_RDONLY)
        };
        let mut steps = vec![
            simple(c"proc", c"/proc", QUIET, none()),
            simple(
                c"tmpfs",
                c"/dev",
                MsFlags::MS_NOSUID | MsFlags::MS_STRICTATIME | nodev,
                c"mode=755,size=65536k".to_owned(),
            ),
        ];
        for node in &self.nodes {
            steps.push(Step::AttachFile {
                tree: detach(&node.path)?,
                target: node.target.clone(),
                optional: false,
            });
        }
        steps.extend(self.guest_nodes.iter().cloned().map(Step::Device));
        steps.extend([
            link(c"/proc/self/fd", c"/dev/fd"),
            link(c"/proc/self/fd/0", c"/dev/stdin"),
            link(c"/proc/self/fd/1", c"/dev/stdout"),
            link(c"/proc/self/fd/2", c"/dev/stderr"),
            link(c"/proc/kcore", c"/dev/core"),
            link(c"pts/ptmx", c"/dev/ptmx"),
            Step::Directory { path: c"/dev/pts" },
            Step::Attach {
                tree: detach(&self.pts)?,
                target: c"/dev/pts".to_owned(),
            },
            Step::Directory { path: c"/dev/shm" },
            // The number holds no null byte.
            simple(
                c"tmpfs",
                c"/dev/shm",
                QUIET,
                CString::new(shm).unwrap_or_default(),
            ),
            Step::Directory {
                path: c"/dev/mqueue",
            },
            simple(c"mqueue", c"/dev/mqueue", QUIET, none()),
            simple(c"sysfs", c"/sys", QUIET | read_only, none()),
        ]);
        if self.cgroups {
            steps.push(simple(
                c"cgroup2",
                c"/sys/fs/cgroup",
                QUIET | read_only,
                none(),
            ));
        }
        Ok(steps)
    }
}

/// A detached copy of what the agent has mounted at `path`.
fn detach(path: &Path) -> Result<OwnedFd, ViewError> {
    let failed = |source| ViewError {
        path: path.to_owned(),
        source,
    };
    let target = CString::new(path.as_os_str().as_bytes()).map_err(|error| failed(error.into()))?;
    syscalls::open_tree(&target).map_err(failed)
}

/// Lets every user open any port and send pings, as Docker does: the network is the container's own.
fn unprivileged_network() -> [Step; 2] {
    [
        Step::Parameter {
            path: c"/proc/sys/net/ipv4/ip_unprivileged_port_start",
            value: b"0",
        },
        Step::Parameter {
            path: c"/proc/sys/net/ipv4/ping_group_range",
            value: b"0 2147483647",
        },
    ]
}

/// The terminal of the main process as /dev/console.
fn console(terminal: &CStr) -> [Step; 2] {
    [
        Step::File {
            path: c"/dev/console",
        },
        Step::Bind {
            source: terminal.to_owned(),
            target: c"/dev/console".to_owned(),
        },
    ]
}

impl Step {
    /// Carries the step out in the calling process. Runs between clone and exec: nothing allocates.
    pub(crate) fn carry_out(&self) -> io::Result<()> {
        match self {
            Self::Mount {
                kind,
                target,
                flags,
                data,
                keep_mode,
            } => {
                let mode = if *keep_mode {
                    stat(target.as_c_str()).ok()
                } else {
                    None
                };
                let attempt = || {
                    mount(
                        Some(*kind),
                        target.as_c_str(),
                        Some(*kind),
                        *flags,
                        Some(data.as_c_str()),
                    )
                };
                retry_with_directory(target, || attempt().map_err(io::Error::from))?;
                if let Some(status) = mode {
                    let mode = Mode::from_bits_truncate(status.st_mode);
                    let here = nix::sys::stat::FchmodatFlags::FollowSymlink;
                    nix::sys::stat::fchmodat(nix::fcntl::AT_FDCWD, target.as_c_str(), mode, here)?;
                }
                Ok(())
            }
            Self::Attach { tree, target } => {
                retry_with_directory(target, || syscalls::move_mount(tree.as_fd(), target))
            }
            Self::AttachFile {
                tree,
                target,
                optional,
            } => match attach_file(tree, target) {
                Err(Errno::ENOENT | Errno::ENOTDIR | Errno::ELOOP) if *optional => Ok(()),
                other => Ok(other?),
            },
            Self::ReadOnly { target, flags } => Ok(remount_read_only(target, *flags)?),
            Self::Protect { path } => match bind(path, path) {
                Err(Errno::ENOENT | Errno::ENOTDIR) => Ok(()),
                Err(errno) => Err(errno.into()),
                Ok(()) => Ok(remount_read_only(path, QUIET)?),
            },
            Self::Mask { path } => match bind(c"/dev/null", path) {
                Ok(()) | Err(Errno::ENOENT) => Ok(()),
                // A directory, then.
                Err(Errno::ENOTDIR) => Ok(mount(
                    Some(c"tmpfs"),
                    path.as_c_str(),
                    Some(c"tmpfs"),
                    QUIET | MsFlags::MS_RDONLY,
                    Some(c"size=0k"),
                )?),
                Err(errno) => Err(errno.into()),
            },
            Self::Bind { source, target } => Ok(bind(source, target)?),
            Self::Directory { path } => {
                ignore_existing(nix::unistd::mkdir(*path, Mode::from_bits_truncate(0o755)))
            }
            Self::Device(node) => {
                let kind = SFlag::from_bits_truncate(node.mode) & SFlag::S_IFMT;
                let mode = Mode::from_bits_truncate(node.mode);
                ignore_existing(if kind == SFlag::S_IFDIR {
                    nix::unistd::mkdir(node.path.as_c_str(), mode)
                } else {
                    mknod(node.path.as_c_str(), kind, mode, node.number)
                })
            }
            Self::File { path } => ignore_existing(mknod(
                *path,
                SFlag::S_IFREG,
                Mode::from_bits_truncate(0o620),
                0,
            )),
            Self::Link { to, path } => ignore_existing(symlinkat(*to, nix::fcntl::AT_FDCWD, *path)),
            Self::Parameter { path, value } => write_parameter(path, value),
        }
    }

    /// Says what failed, for a message.
    pub(crate) fn describe(&self) -> String {
        let name = |path: &CStr| path.to_string_lossy().into_owned();
        match self {
            Self::Mount { kind, target, .. } => {
                format!("mounting {} at {}", name(kind), name(target))
            }
            Self::Attach { target, .. } => format!("mounting a disk at {}", name(target)),
            Self::AttachFile { target, .. } => format!("mounting a file at {}", name(target)),
            Self::ReadOnly { target: path, .. } | Self::Protect { path } => {
                format!("making {} read-only", name(path))
            }
            Self::Mask { path } => format!("masking {}", name(path)),
            Self::Bind { source, target } => {
                format!("mounting {} at {}", name(source), name(target))
            }
            Self::Directory { path } | Self::File { path } => format!("creating {}", name(path)),
            Self::Device(node) => format!("creating {}", name(&node.path)),
            Self::Link { path, .. } => format!("linking {}", name(path)),
            Self::Parameter { path, .. } => format!("setting {}", name(path)),
        }
    }
}

fn bind(source: &CStr, target: &CStr) -> nix::Result<()> {
    let none = None::<&CStr>;
    let flags = MsFlags::MS_BIND | MsFlags::MS_REC;
    mount(Some(source), target, none, flags, none)
}

/// Makes the mount at `target` read-only; of its other flags it has `flags` afterwards.
pub(crate) fn remount_read_only(target: &CStr, flags: MsFlags) -> nix::Result<()> {
    let none = None::<&CStr>;
    let flags = flags | MsFlags::MS_BIND | MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY;
    mount(none, target, none, flags, none)
}

/// Attaches the mount of a file, over an empty file that is made where there is none.
fn attach_file(tree: &OwnedFd, target: &CStr) -> nix::Result<()> {
    let create = || {
        let mode = Mode::from_bits_truncate(0o644);
        match mknod(target, SFlag::S_IFREG, mode, 0) {
            Ok(()) | Err(Errno::EEXIST) => Ok(()),
            Err(errno) => Err(errno),
        }
    };
    match create() {
        Err(Errno::ENOENT) => {
            let parent = target.to_bytes().iter().rposition(|byte| *byte == b'/');
            create_directories_to(target, parent.unwrap_or(0))?;
            create()?;
        }
        // An existing file of a read-only file system will do.
        Err(Errno::EROFS) => {}
        other => other?,
    }
    syscalls::move_mount(tree.as_fd(), target)
        .map_err(|error| Errno::from_raw(error.raw_os_error().unwrap_or(0)))
}

fn write_parameter(path: &CStr, value: &[u8]) -> io::Result<()> {
    use nix::fcntl::{OFlag, open};
    match open(path, OFlag::O_WRONLY | OFlag::O_CLOEXEC, Mode::empty()) {
        Ok(file) => nix::unistd::write(&file, value)
            .map(drop)
            .map_err(io::Error::from),
        Err(Errno::ENOENT) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}

fn ignore_existing(result: nix::Result<()>) -> io::Result<()> {
    match result {
        Ok(()) | Err(Errno::EEXIST) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}

/// Tries again after creating the target when there was none.
fn retry_with_directory(target: &CStr, attempt: impl Fn() -> io::Result<()>) -> io::Result<()> {
    match attempt() {
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => {
            create_directories(target)?;
            attempt()
        }
        other => other,
    }
}

/// Creates a directory and its parents, owned by the caller, mode 0755. Nothing allocates.
pub(crate) fn create_directories(path: &CStr) -> io::Result<()> {
    Ok(create_directories_to(path, path.to_bytes().len())?)
}

/// The same for the first `length` bytes of the path.
fn create_directories_to(path: &CStr, length: usize) -> nix::Result<()> {
    let bytes = path.to_bytes().get(..length).unwrap_or_default();
    let mut prefix = [0u8; libc::PATH_MAX as usize];
    if bytes.len() >= prefix.len() {
        return Err(Errno::ENAMETOOLONG);
    }
    for end in 1..=bytes.len() {
        if end < bytes.len() && bytes[end] != b'/' {
            continue;
        }
        prefix[..end].copy_from_slice(&bytes[..end]);
        prefix[end] = 0;
        let Ok(prefix) = CStr::from_bytes_until_nul(&prefix) else {
            continue;
        };
        match nix::unistd::mkdir(prefix, Mode::from_bits_truncate(0o755)) {
            // EROFS for a directory that exists on a read-only file system.
            Ok(()) | Err(Errno::EEXIST | Errno::EROFS) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missing_parents_are_created_and_existing_ones_kept() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("a//b/c");
        let path = CString::new(path.to_str().unwrap()).unwrap();
        create_directories(&path).unwrap();
        create_directories(&path).unwrap();
        assert!(root.path().join("a/b/c").is_dir());
    }

    #[test]
    fn a_file_in_the_way_is_an_error() {
        let root = tempfile::tempdir().unwrap();
        std::fs::write(root.path().join("a"), "").unwrap();
        let path = CString::new(root.path().join("a/b").to_str().unwrap()).unwrap();
        assert_eq!(
            create_directories(&path).unwrap_err().raw_os_error(),
            Some(libc::ENOTDIR)
        );
    }
}
