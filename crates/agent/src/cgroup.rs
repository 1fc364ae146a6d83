//! The container's cgroup: its memory limit, and whether the kernel killed something in it for want
//! of memory.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use nix::fcntl::{OFlag, open};
use nix::sys::stat::Mode;

/// Where the agent mounts the cgroup file system.
pub(crate) const ROOT: &str = "/sys/fs/cgroup";

/// What could not be done with a cgroup.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CgroupError {
    #[error("cannot create cgroup {path}")]
    Create {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("cannot limit the container's memory: writing {path}")]
    Limit {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
}

/// A container's cgroup.
#[derive(Debug)]
pub(crate) struct Cgroup {
    path: PathBuf,
    directory: OwnedFd,
}

impl Cgroup {
    /// Creates the cgroup `name` below `root`, with a memory limit in bytes unless that is 0.
    pub(crate) fn create(root: &Path, name: &str, memory_limit: u64) -> Result<Self, CgroupError> {
        let control = root.join("cgroup.subtree_control");
        // Together where the kernel has both; a kernel without one refuses the pair.
        if std::fs::write(&control, "+memory +pids").is_err() {
            std::fs::write(&control, "+memory").ok();
            std::fs::write(&control, "+pids").ok();
        }
        let path = root.join(name);
        let failed = |source| CgroupError::Create {
            path: path.clone(),
            source,
        };
        match std::fs::create_dir(&path) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                return Err(failed(error));
            }
            _ => {}
        }
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let directory = open(&path, flags, Mode::empty()).map_err(|errno| failed(errno.into()))?;
        if memory_limit > 0 {
            let limit = path.join("memory.max");
            std::fs::write(&limit, memory_limit.to_string()).map_err(|source| {
                CgroupError::Limit {
                    path: limit,
                    source,
                }
            })?;
            // The file is absent where the kernel has no swap, which is as good.
            std::fs::write(path.join("memory.swap.max"), "0").ok();
        }
        Ok(Self { path, directory })
    }

    /// Whether any process of the cgroup was killed for want of memory so far.
    pub(crate) fn oom_killed(&self) -> bool {
        std::fs::read_to_string(self.path.join("memory.events"))
            .is_ok_and(|events| oom_kills(&events) > 0)
    }
}

impl AsFd for Cgroup {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.directory.as_fd()
    }
}

/// The counter `oom_kill` of a memory.events file.
fn oom_kills(events: &str) -> u64 {
    events
        .lines()
        .find_map(|line| line.strip_prefix("oom_kill "))
        .and_then(|count| count.trim().parse().ok())
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_kills_count_as_killed() {
        assert_eq!(
            oom_kills("low 0\nhigh 0\nmax 12\noom 3\noom_kill 2\noom_group_kill 9\n"),
            2
        );
        assert_eq!(oom_kills("max 5\noom 5\noom_kill 0\n"), 0);
        assert_eq!(oom_kills(""), 0);
        assert_eq!(oom_kills("oom_kill x\n"), 0);
    }

    #[test]
    fn a_limit_that_cannot_be_set_is_an_error() {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir(root.path().join("c")).unwrap();
        std::fs::create_dir(root.path().join("c/memory.max")).unwrap();
        let result = Cgroup::create(root.path(), "c", 1 << 20);
        assert!(
            matches!(result, Err(CgroupError::Limit { .. })),
            "{result:?}"
        );
        let unlimited = Cgroup::create(root.path(), "c", 0).unwrap();
        std::fs::write(root.path().join("c/memory.events"), "oom_kill 1\n").unwrap();
        assert!(unlimited.oom_killed());
    }
}
