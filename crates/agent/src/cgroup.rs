//! The container's cgroup: its limits, and whether the kernel killed something in it for want
//! of memory.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

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
    #[error("cannot limit the container: writing {path}")]
    Limit {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
}

/// What a cgroup may use; 0 is no limit.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Limits {
    /// Bytes.
    pub(crate) memory: u64,
    /// Billionths of a CPU's time.
    pub(crate) cpu_nanos: u64,
}

/// Microseconds in which a quota is counted, as Docker does for `--cpus`.
const CPU_PERIOD: u64 = 100_000;

/// The content of `cpu.max`: quota and period (Documentation/admin-guide/cgroup-v2.rst, "CPU Interface Files"). The
/// kernel takes no quota below a millisecond.
fn cpu_max(nanos: u64) -> String {
    let quota = (nanos / (1_000_000_000 / CPU_PERIOD)).max(1000);
    format!("{quota} {CPU_PERIOD}")
}

/// A container's cgroup.
#[derive(Debug)]
pub(crate) struct Cgroup {
    path: PathBuf,
    directory: OwnedFd,
    /// The agent has killed something in it for want of memory.
    killed: AtomicBool,
}

impl Cgroup {
    /// Creates the cgroup `name` below `root`, with these limits.
    pub(crate) fn create(root: &Path, name: &str, limits: Limits) -> Result<Self, CgroupError> {
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
        let set = |path: PathBuf, value: &str| {
            std::fs::write(&path, value).map_err(|source| CgroupError::Limit { path, source })
        };
        if limits.cpu_nanos > 0 {
            // Only for who asks: the scheduler counts for every cgroup that has the controller.
            set(control, "+cpu")?;
            set(path.join("cpu.max"), &cpu_max(limits.cpu_nanos))?;
        }
        if limits.memory > 0 {
            set(path.join("memory.max"), &limits.memory.to_string())?;
            // The file is absent where the kernel has no swap, which is as good.
            std::fs::write(path.join("memory.swap.max"), "0").ok();
        }
        Ok(Self {
            path,
            directory,
            killed: AtomicBool::new(false),
        })
    }

    /// Where it is in the agent's view.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// To be called when the agent has killed one of its processes for want of memory.
    pub(crate) fn note_kill(&self) {
        self.killed.store(true, Ordering::Relaxed);
    }

    /// Whether any process of the cgroup was killed for want of memory so far.
    pub(crate) fn oom_killed(&self) -> bool {
        self.killed.load(Ordering::Relaxed)
            || std::fs::read_to_string(self.path.join("memory.events"))
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
    fn a_part_of_a_cpu_is_a_quota_in_each_period() {
        assert_eq!(cpu_max(500_000_000), "50000 100000");
        assert_eq!(cpu_max(1_500_000_000), "150000 100000");
        assert_eq!(cpu_max(1), "1000 100000", "the least that the kernel takes");
        let root = tempfile::tempdir().unwrap();
        let cpu = Limits {
            cpu_nanos: 250_000_000,
            ..Limits::default()
        };
        Cgroup::create(root.path(), "c", cpu).unwrap();
        let written = std::fs::read_to_string(root.path().join("c/cpu.max")).unwrap();
        assert_eq!(written, "25000 100000");
    }

    #[test]
    fn a_limit_that_cannot_be_set_is_an_error() {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir(root.path().join("c")).unwrap();
        std::fs::create_dir(root.path().join("c/memory.max")).unwrap();
        let memory = Limits {
            memory: 1 << 20,
            ..Limits::default()
        };
        let result = Cgroup::create(root.path(), "c", memory);
        assert!(
            matches!(result, Err(CgroupError::Limit { .. })),
            "{result:?}"
        );
        let unlimited = Cgroup::create(root.path(), "c", Limits::default()).unwrap();
        std::fs::write(root.path().join("c/memory.events"), "oom_kill 1\n").unwrap();
        assert!(unlimited.oom_killed());
    }
}
