//! Ends a process of a container that has no memory left and does not come to its end.
//!
//! A guest has no swap space. When its processes have filled its memory, what the kernel can still take is the programs'
//! own text, which they read again at once: the kernel makes progress, kills nobody, and nobody gets any further. Seen:
//! 66 s until it gave up, the same megabyte of text read again 280 times a second. So the agent looks whether what is left of
//! files goes round in circles, and then does what the kernel's killer does. It is woken by the kernel's count of the time in which
//! processes wait for memory (Documentation/accounting/psi.rst), which is no measure by itself: in the case that was
//! seen it was a fifth of the time, since reading a page again takes the processor, not a wait. Where the device is slower than the
//! processor it is the other way round: most of the time is waiting, and less is read. Either is bad.

use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Weak;
use std::time::Duration;

use nix::errno::Errno;
use nix::mount::MsFlags;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::io::Interest;

use crate::cgroup::Cgroup;
use crate::container::Container;
use crate::{rootfs, syscalls};

/// Wakes the agent when any process waits for memory for 50 ms out of one second. In microseconds; the kernel takes
/// windows of 0.5 to 10 s. It only makes the agent look: less than half of what was seen at the quietest.
const TRIGGER: &str = "some 50000 1000000";
/// What is compared is apart by this much.
const SECOND: Duration = Duration::from_secs(1);
/// So many seconds in turn must be bad: one may be a program that starts in a container that is nearly full.
const BAD_SECONDS: u32 = 2;
/// A second is bad when all that is left of files was read again this often in it. Seen where nobody got any further:
/// 100 to 300 times.
const TURNS: u64 = 4;
/// Or when all processes waited for memory for so long in it, in microseconds. With less than half there is progress.
const STALLED: u64 = 500_000;
/// And when files are less than this part of the container's memory: 1/8. A container that works on more files than fit
/// reads them again too, but it gets on, and killing it would give nobody any.
const FILES: u64 = 8;
/// What counts as left of files at least, in bytes: with next to nothing left a single program's start goes round often.
const LEAST: u64 = 1 << 20;
/// In bytes, of the kernel's count of what was read again. x86-64 has no other.
const PAGE: u64 = 4096;

/// Watches over a container for as long as it exists. Without the kernel's count (no `CONFIG_PSI`) there is nothing to
/// watch, and the kernel's killer is alone, as before.
pub(crate) async fn watch(container: Weak<Container>) {
    let Some(path) = path(&container) else { return };
    let Ok(pressure) = trigger(&path.join("memory.pressure")) else {
        return;
    };
    let Ok(pressure) = syscalls::watch(pressure, Interest::PRIORITY) else {
        return;
    };
    while let Ok(mut event) = pressure.ready(Interest::PRIORITY).await {
        event.clear_ready();
        if !goes_round(&path).await {
            continue;
        }
        let Some(container) = container.upgrade() else {
            return;
        };
        if let Some(cgroup) = &container.cgroup {
            // Where it fails the next event comes soon.
            let _ = kill_largest(cgroup);
        }
    }
}

/// Looks on for as long as each second is a bad one, and says whether it were enough.
async fn goes_round(cgroup: &Path) -> bool {
    let read = || {
        let stat = std::fs::read_to_string(cgroup.join("memory.stat"))?;
        let pressure = std::fs::read_to_string(cgroup.join("memory.pressure"))?;
        io::Result::Ok(Stat::of(&stat, &pressure))
    };
    let Ok(mut before) = read() else { return false };
    for _ in 0..BAD_SECONDS {
        tokio::time::sleep(SECOND).await;
        let Ok(after) = read() else { return false };
        if !after.is_bad(&before) {
            return false;
        }
        before = after;
    }
    true
}

fn path(container: &Weak<Container>) -> Option<PathBuf> {
    let container = container.upgrade()?;
    container
        .cgroup
        .as_ref()
        .map(|cgroup| cgroup.path().to_owned())
}

/// A file that reports pressure; the trigger lasts until it is closed.
fn trigger(path: &Path) -> io::Result<OwnedFd> {
    let mut file = std::fs::File::options().read(true).write(true).open(path)?;
    file.write_all(TRIGGER.as_bytes())?;
    Ok(file.into())
}

/// What matters of memory.stat, in bytes, and of memory.pressure (Documentation/admin-guide/cgroup-v2.rst).
#[derive(Debug, Clone, Copy)]
struct Stat {
    /// What nothing but a kill gives back.
    kept: u64,
    /// What can be read again.
    files: u64,
    /// What was read again since it was dropped, in all.
    again: u64,
    /// How long all processes waited for memory, in all, in microseconds.
    stalled: u64,
}

impl Stat {
    fn of(stat: &str, pressure: &str) -> Self {
        let field = |name: &str| {
            stat.lines()
                .filter_map(|line| line.split_once(' '))
                .find(|(key, _)| *key == name)
                .and_then(|(_, value)| value.parse::<u64>().ok())
                .unwrap_or(0)
        };
        Self {
            kept: field("anon").saturating_add(field("shmem")),
            files: field("active_file").saturating_add(field("inactive_file")),
            again: field("workingset_refault_file").saturating_mul(PAGE),
            stalled: pressure
                .lines()
                .find_map(|line| line.strip_prefix("full ")?.split_once("total="))
                .and_then(|(_, total)| total.trim().parse().ok())
                .unwrap_or(0),
        }
    }

    fn is_bad(&self, before: &Self) -> bool {
        let all = self.kept.saturating_add(self.files);
        let again = self.again.saturating_sub(before.again);
        let stalled = self.stalled.saturating_sub(before.stalled);
        self.files < all / FILES
            && (again >= self.files.max(LEAST).saturating_mul(TURNS) || stalled >= STALLED)
    }
}

/// Kills the process that the kernel would choose.
fn kill_largest(cgroup: &Cgroup) -> io::Result<()> {
    // Mounted by now or never: only one who kills, or fills volumes, needs it.
    let proc = Path::new("/proc");
    if !proc.join("self").exists() {
        let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
        rootfs::attach(proc, proc, "proc", flags, "").map_err(io::Error::other)?;
    }
    let mut largest = None;
    processes(cgroup.path(), &mut |pid| {
        let score = std::fs::read_to_string(format!("/proc/{pid}/oom_score"))
            .ok()
            .and_then(|score| score.trim().parse::<u64>().ok())
            .unwrap_or(0);
        if score > 0 {
            largest = largest.max(Some((score, pid)));
        }
    });
    let (_, pid) = largest.ok_or(io::ErrorKind::NotFound)?;
    // Before the kill: the end of the main process is reported with it.
    cgroup.note_kill();
    // No other process can have the number by now: numbers are given out in a circle of 32,768.
    match kill(Pid::from_raw(pid), Signal::SIGKILL) {
        Ok(()) | Err(Errno::ESRCH) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}

/// All processes of a control group and of those below it, which a container may make for itself.
fn processes(cgroup: &Path, found: &mut impl FnMut(i32)) {
    if let Ok(list) = std::fs::read_to_string(cgroup.join("cgroup.procs")) {
        list.lines()
            .filter_map(|line| line.parse().ok())
            .filter(|pid| *pid > 1)
            .for_each(&mut *found);
    }
    for entry in std::fs::read_dir(cgroup).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            processes(&entry.path(), found);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stat(anon: u64, shmem: u64, files: u64, again: u64) -> Stat {
        let stat = format!(
            "anon {}\nfile 1\nshmem {}\ninactive_anon 7\nactive_file 8192\ninactive_file {}\nworkingset_refault_file {}\n",
            anon << 20,
            shmem << 20,
            files << 20,
            again << 8,
        );
        Stat::of(&stat, PRESSURE)
    }

    const PRESSURE: &str = "some avg10=0.00 avg60=0.00 avg300=0.00 total=900000\n\
        full avg10=0.00 avg60=0.00 avg300=0.00 total=400000\n";

    #[test]
    fn memory_is_full_where_all_processes_wait_for_it() {
        let before = stat(500, 0, 4, 100);
        let mut after = Stat {
            stalled: 900_000,
            ..before
        };
        assert_eq!(before.stalled, 400_000);
        assert!(after.is_bad(&before));
        after.files = 100 << 20;
        assert!(!after.is_bad(&before), "files are left");
    }

    #[test]
    fn memory_is_full_where_the_rest_of_the_files_goes_round() {
        assert!(stat(500, 0, 4, 140).is_bad(&stat(500, 0, 4, 100)));
        assert!(
            stat(0, 500, 4, 140).is_bad(&stat(0, 500, 4, 100)),
            "a full /dev/shm"
        );
        assert!(
            stat(62, 0, 1, 1280).is_bad(&stat(62, 0, 1, 1000)),
            "as was seen"
        );
    }

    #[test]
    fn a_container_that_works_on_more_files_than_fit_is_left_alone() {
        assert!(!stat(100, 0, 400, 9000).is_bad(&stat(100, 0, 400, 100)));
        assert!(!stat(400, 0, 60, 900).is_bad(&stat(400, 0, 60, 100)));
    }

    #[test]
    fn a_full_container_that_gets_on_is_left_alone() {
        assert!(!stat(500, 0, 4, 110).is_bad(&stat(500, 0, 4, 100)));
        assert!(!stat(500, 0, 0, 103).is_bad(&stat(500, 0, 0, 100)));
        let none = Stat::of("", "");
        assert!(!none.is_bad(&none), "no figures are no reason to kill");
    }

    #[test]
    fn processes_of_groups_below_are_found_and_never_the_init() {
        let root = tempfile::tempdir().unwrap();
        let below = root.path().join("a/b");
        std::fs::create_dir_all(&below).unwrap();
        std::fs::write(root.path().join("cgroup.procs"), "1\n7\n").unwrap();
        std::fs::write(below.join("cgroup.procs"), "9\n").unwrap();
        let mut found = Vec::new();
        processes(root.path(), &mut |pid| found.push(pid));
        assert_eq!(found, [7, 9]);
    }
}
