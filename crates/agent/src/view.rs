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
use nix::unistd::{Gid, chown, symlinkat};

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
                let path = node.path.as_c_str();
                ignore_existing(if kind == SFlag::S_IFDIR {
                    nix::unistd::mkdir(path, mode)
                } else {
                    let made = mknod(path, kind, mode, node.number);
                    let group = (node.group != 0).then(|| Gid::from_raw(node.group));
                    made.and_then(|()| group.map_or(Ok(()), |group| chown(path, None, Some(group))))
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
    let attach = || {
        syscalls::move_mount(tree.as_fd(), target)
            .map_err(|error| Errno::from_raw(error.raw_os_error().unwrap_or(0)))
    };
    match mknod(target, SFlag::S_IFREG, Mode::from_bits_truncate(0o644), 0) {
        // An existing file of a read-only file system will do.
        Ok(()) | Err(Errno::EEXIST | Errno::EROFS) => match attach() {
            Err(Errno::ENOENT) => {}
            other => return other,
        },
        Err(Errno::ENOENT) => {}
        other => return other,
    }
    make_way(target, Last::File)?;
    attach()
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
    Ok(make_way(path, Last::Directory)?)
}

/// What a path is to end in.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Last {
    Directory,
    File,
}

/// The most symbolic links that one path may lead through, as in the kernel (`MAXSYMLINKS`); more are ELOOP.
const MAX_LINKS: usize = 40;

type PathBuffer = [u8; libc::PATH_MAX as usize];

/// Makes what is missing of a path. Where it leads over a link to nothing, what the link names is made, as in Docker:
/// the process's root is the container's, so it is inside. Nothing allocates.
fn make_way(path: &CStr, last: Last) -> nix::Result<()> {
    let [mut way, mut link]: [PathBuffer; 2] = [[0; libc::PATH_MAX as usize]; 2];
    let mut length = path.to_bytes().len();
    way.get_mut(..length)
        // One byte for the null.
        .filter(|_| length < libc::PATH_MAX as usize)
        .ok_or(Errno::ENAMETOOLONG)?
        .copy_from_slice(path.to_bytes());
    let mut links = 0;
    let mut end = 0;
    while end < length {
        end += 1;
        if end < length && way[end] != b'/' {
            continue;
        }
        let next = std::mem::replace(&mut way[end], 0);
        let dangling = make_part(&way, end == length && last == Last::File, &mut link);
        way[end] = next;
        if let Some(link_length) = dangling? {
            links += 1;
            if links > MAX_LINKS {
                return Err(Errno::ELOOP);
            }
            length = follow(&mut way, length, end, &link[..link_length])?;
            end = 0;
        }
    }
    Ok(())
}

/// Makes the directory, or the file, that a buffer names. A link to nothing that is there already is read into `link`, and
/// the length of what it names returned.
fn make_part(way: &PathBuffer, file: bool, link: &mut PathBuffer) -> nix::Result<Option<usize>> {
    let path = CStr::from_bytes_until_nul(way).map_err(|_| Errno::ENAMETOOLONG)?;
    let made = if file {
        mknod(path, SFlag::S_IFREG, Mode::from_bits_truncate(0o644), 0)
    } else {
        nix::unistd::mkdir(path, Mode::from_bits_truncate(0o755))
    };
    match made {
        Ok(()) => return Ok(None),
        // EROFS also for what exists on a read-only file system.
        Err(Errno::EEXIST | Errno::EROFS) => {}
        Err(errno) => return Err(errno),
    }
    match stat(path) {
        Err(Errno::ENOENT) => {}
        Err(errno) => return Err(errno),
        Ok(_) => return Ok(None),
    }
    match syscalls::read_link(path, link) {
        Ok(length) => Ok(Some(length)),
        // Missing on a read-only file system: whoever needs it says so.
        Err(Errno::ENOENT | Errno::EINVAL) => Ok(None),
        Err(errno) => Err(errno),
    }
}

/// Puts what a link names in the place of the link, which ends at `end`; returns the new length.
fn follow(way: &mut PathBuffer, length: usize, end: usize, link: &[u8]) -> nix::Result<usize> {
    let start = if link.first() == Some(&b'/') {
        0
    } else {
        let name = way[..end].iter().rposition(|byte| *byte == b'/');
        name.map_or(0, |slash| slash + 1)
    };
    let new_end = start + link.len();
    let new_length = new_end + (length - end);
    if new_length >= way.len() {
        return Err(Errno::ENAMETOOLONG);
    }
    way.copy_within(end..length, new_end);
    way[start..new_end].copy_from_slice(link);
    way[new_length] = 0;
    Ok(new_length)
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

    #[test]
    fn what_a_link_to_nothing_names_is_made() {
        use std::os::unix::fs::symlink;
        let root = tempfile::tempdir().unwrap();
        let at = |path: &str| root.path().join(path);
        let name = |path: &str| CString::new(at(path).to_str().unwrap()).unwrap();
        symlink(at("nowhere/deep"), at("etc")).unwrap();
        make_way(&name("etc/hosts"), Last::File).unwrap();
        assert!(at("nowhere/deep/hosts").is_file());
        // Relative, a chain of them, and the last part of the path.
        std::fs::create_dir(at("sub")).unwrap();
        symlink("../one", at("sub/link")).unwrap();
        symlink("two/three", at("one")).unwrap();
        create_directories(&name("sub/link")).unwrap();
        assert!(at("two/three").is_dir());
        symlink("new/file", at("last")).unwrap();
        make_way(&name("last"), Last::File).unwrap();
        assert!(at("new/file").is_file());
        symlink("round", at("round")).unwrap();
        let error = create_directories(&name("round/x")).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::ELOOP));
    }
}
