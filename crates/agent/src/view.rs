//! What a container sees beside its root file system: /proc, /sys, /dev, volumes, tmpfs.
//!
//! The list is made by the agent and carried out by the container's first process, once its root is
//! the only file system it can reach. A symbolic link in a hostile image then leads nowhere but into
//! the container itself, so no path needs checking.
//!
//! Nothing in /proc or /sys is masked, unlike Docker's default: the kernel behind them is the
//! container's own. /sys and the cgroups are read-only, as software expects in a container.

use std::ffi::{CStr, CString, NulError};
use std::io;
use std::os::fd::{AsFd, OwnedFd};

use nix::errno::Errno;
use nix::mount::{MsFlags, mount};
use nix::sys::stat::{Mode, SFlag, makedev, mknod, stat};
use nix::unistd::symlinkat;

use crate::syscalls;
use crate::tmpfs::TmpfsOptions;

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
    /// Mounts a read-only view over an attached mount.
    ReadOnly {
        target: CString,
        flags: MsFlags,
    },
    /// Mounts one file over another.
    Bind {
        source: CString,
        target: CString,
    },
    Directory {
        path: &'static CStr,
    },
    Device {
        path: &'static CStr,
        mode: u32,
        major: u64,
        minor: u64,
    },
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

/// /proc, /sys, /dev and the cgroup file system.
pub(crate) fn base(pts: OwnedFd, shm_size: u64, cgroups: bool) -> Result<Vec<Step>, NulError> {
    let simple = |kind, target: &CStr, flags, data: &CStr| Step::Mount {
        kind,
        target: target.to_owned(),
        flags,
        data: data.to_owned(),
        keep_mode: false,
    };
    let device = |path, major, minor| Step::Device {
        path,
        mode: 0o666,
        major,
        minor,
    };
    let shm = CString::new(format!("mode=1777,size={shm_size}"))?;
    let mut steps = vec![
        simple(c"proc", c"/proc", QUIET, c""),
        simple(
            c"tmpfs",
            c"/dev",
            MsFlags::MS_NOSUID | MsFlags::MS_STRICTATIME,
            c"mode=755,size=65536k",
        ),
        device(c"/dev/null", 1, 3),
        device(c"/dev/zero", 1, 5),
        device(c"/dev/full", 1, 7),
        device(c"/dev/random", 1, 8),
        device(c"/dev/urandom", 1, 9),
        device(c"/dev/tty", 5, 0),
        Step::Link {
            to: c"/proc/self/fd",
            path: c"/dev/fd",
        },
        Step::Link {
            to: c"/proc/self/fd/0",
            path: c"/dev/stdin",
        },
        Step::Link {
            to: c"/proc/self/fd/1",
            path: c"/dev/stdout",
        },
        Step::Link {
            to: c"/proc/self/fd/2",
            path: c"/dev/stderr",
        },
        Step::Link {
            to: c"/proc/kcore",
            path: c"/dev/core",
        },
        Step::Link {
            to: c"pts/ptmx",
            path: c"/dev/ptmx",
        },
        Step::Directory { path: c"/dev/pts" },
        Step::Attach {
            tree: pts,
            target: c"/dev/pts".to_owned(),
        },
        Step::Directory { path: c"/dev/shm" },
        simple(c"tmpfs", c"/dev/shm", QUIET, &shm),
        Step::Directory {
            path: c"/dev/mqueue",
        },
        simple(c"mqueue", c"/dev/mqueue", QUIET, c""),
        simple(c"sysfs", c"/sys", QUIET | MsFlags::MS_RDONLY, c""),
    ];
    if cgroups {
        steps.push(simple(
            c"cgroup2",
            c"/sys/fs/cgroup",
            QUIET | MsFlags::MS_RDONLY,
            c"",
        ));
    }
    Ok(steps)
}

/// Lets users other than root open any port and send pings, as Docker does: the network is the
/// container's own.
pub(crate) fn unprivileged_network() -> [Step; 2] {
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
pub(crate) fn console(terminal: &CStr) -> [Step; 2] {
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

/// A volume's mount at its target.
pub(crate) fn volume(tree: OwnedFd, target: &str, read_only: bool) -> Result<Vec<Step>, NulError> {
    let target = CString::new(target)?;
    let mut steps = vec![Step::Attach {
        tree,
        target: target.clone(),
    }];
    if read_only {
        steps.push(Step::ReadOnly {
            target,
            flags: MsFlags::empty(),
        });
    }
    Ok(steps)
}

/// A tmpfs of the user's.
pub(crate) fn tmpfs(target: &str, options: TmpfsOptions) -> Result<Step, NulError> {
    Ok(Step::Mount {
        kind: c"tmpfs",
        target: CString::new(target)?,
        flags: options.flags,
        data: options.data,
        keep_mode: !options.mode_given,
    })
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
            Self::ReadOnly { target, flags } => {
                let flags = *flags | MsFlags::MS_BIND | MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY;
                Ok(mount(
                    None::<&CStr>,
                    target.as_c_str(),
                    None::<&CStr>,
                    flags,
                    None::<&CStr>,
                )?)
            }
            Self::Bind { source, target } => Ok(mount(
                Some(source.as_c_str()),
                target.as_c_str(),
                None::<&CStr>,
                MsFlags::MS_BIND,
                None::<&CStr>,
            )?),
            Self::Directory { path } => {
                ignore_existing(nix::unistd::mkdir(*path, Mode::from_bits_truncate(0o755)))
            }
            Self::Device {
                path,
                mode,
                major,
                minor,
            } => ignore_existing(mknod(
                *path,
                SFlag::S_IFCHR,
                Mode::from_bits_truncate(*mode),
                makedev(*major, *minor),
            )),
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
            Self::ReadOnly { target, .. } => format!("making {} read-only", name(target)),
            Self::Bind { source, target } => {
                format!("mounting {} at {}", name(source), name(target))
            }
            Self::Directory { path } | Self::Device { path, .. } | Self::File { path } => {
                format!("creating {}", name(path))
            }
            Self::Link { path, .. } => format!("linking {}", name(path)),
            Self::Parameter { path, .. } => format!("setting {}", name(path)),
        }
    }
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
    let bytes = path.to_bytes();
    let mut prefix = [0u8; libc::PATH_MAX as usize];
    if bytes.len() >= prefix.len() {
        return Err(Errno::ENAMETOOLONG.into());
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
            Err(errno) => return Err(errno.into()),
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
