//! The jail of a sandbox process: the last wall between a guest and the host.
//!
//! ```text
//! caller (one thread) ── clone3: user, mount, pid, net, ipc, uts, cgroup namespaces ──▶ jailed process, PID 1
//!    │ writes the id maps                                  │ waits for them, takes its ids
//!    │                                                     │ empty tmpfs becomes the root, old root is let go
//!    ▼                                                     ▼
//! Jailed { pidfd }  ◀── report: which walls stand ──  body(Enclosure): opens what it needs, starts the kernel,
//!                                                          starts threads, then Enclosure::lock
//! ```
//!
//! Until it is locked the process holds every capability *of its own namespaces*: enough to give the kernel process
//! its walls, nothing outside. The code path is the same for root and for an ordinary user.

use std::ffi::CString;
use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, waitpid};
use nix::unistd::{Pid, getegid, geteuid};
use serde::{Deserialize, Serialize};

use crate::error::JailError;
use crate::ids::HostIds;
use crate::landlock;
use crate::report::{JailReport, Wall};
use crate::seccomp::{self, Thread};
use crate::sys;
use crate::vm_root::{self, Reopened, VmRoot, VmRootSpec};

/// The host's name as a jailed process, and with it a user-mode kernel, sees it.
const HOST_NAME: &str = "bulkhead";

/// How long a jail may take to be completed. It takes less than a millisecond; a host that needs longer than this for it has
/// no time for a guest either.
const READY_WITHIN: Duration = Duration::from_secs(60);
/// Longest report of a jailed process, in bytes: a line of the host's for each of ten walls, and a path (4096). The process
/// has our own code only, so that more is a fault of ours, or somebody else's code already.
const MOST_REPORT: usize = 64 << 10;

/// How a sandbox process is jailed.
#[derive(Debug, Clone, Default)]
pub struct SandboxJail {
    /// Host ids to run under when the caller is root; ignored for an ordinary user, who stays who they are.
    pub host_ids: Option<HostIds>,
    /// Descriptors that stay open (besides 0, 1 and 2); all others are closed.
    pub keep: Vec<RawFd>,
    /// A root to prepare for a user-mode kernel process.
    pub vm_root: Option<VmRootSpec>,
    /// Start even where the host refuses walls that separate compartments; they are named in the report.
    pub weakened: bool,
    /// Open the list of the jailed process's own pages, which it cannot reach later: [`Enclosure::take_page_map`].
    pub page_map: bool,
}

/// The jailed process, seen from its parent.
#[derive(Debug)]
pub struct Jailed {
    /// Its process id in the caller's namespace.
    pub pid: i32,
    /// Becomes readable when it ends.
    pub pidfd: OwnedFd,
    reports: OwnedFd,
    /// A directory of the host that the jailed process cannot remove itself; known once it is ready.
    left_behind: OnceLock<PathBuf>,
    /// Closed with this process: the child's last check, while it sets up, that its parent lives.
    _alive: OwnedFd,
}

/// The inside of a jail, before it is locked.
#[derive(Debug)]
pub struct Enclosure {
    report: JailReport,
    vm_root: Option<VmRoot>,
    page_map: Option<fs::File>,
    lock: ThreadLock,
}

/// Locks threads of a jailed process; each thread locks itself.
#[derive(Debug, Clone)]
pub struct ThreadLock {
    ruleset: Option<Arc<OwnedFd>>,
}

#[derive(Serialize, Deserialize)]
enum Message {
    Ready {
        report: JailReport,
        /// A directory that [`Jailed::sweep`] is to remove.
        directory: Option<PathBuf>,
    },
    /// The walls that the host forbids are more than were given up.
    Weak(JailReport),
    Failed {
        step: String,
        errno: i32,
    },
}

impl SandboxJail {
    /// Starts `body` in a jailed copy of this process; its result is the exit code. The caller must have one
    /// thread only. Memory is copied, destructors of the caller's values do not run in the copy.
    ///
    /// Walls that the host forbids are left out and named in the report, see [`Jailed::ready`]. Where one of them
    /// separates compartments, the jail is refused with [`JailError::Weak`] unless it may be `weakened`.
    pub fn spawn(&self, body: impl FnOnce(Enclosure) -> i32) -> Result<Jailed, JailError> {
        let threads = fs::read_dir("/proc/self/task")
            .map_err(JailError::CountThreads)?
            .count();
        if threads != 1 {
            return Err(JailError::Threads(threads));
        }
        let (go_read, go_write) = pipe()?;
        let (report_read, report_write) = pipe()?;
        // Where no process namespace is to be had, orphans of the jailed process come to us, see `Jailed::sweep`.
        sys::adopt_orphans().map_err(JailError::step("adopt orphans of the jail"))?;
        let ladder = ladder();
        let mut refused = None;
        for (index, walls) in ladder.iter().enumerate() {
            if walls.is_empty() && !self.weakened {
                let mut report = climbed(walls, &ladder, refused.as_deref());
                report.up(Wall::Seccomp);
                return Err(JailError::Weak(report));
            }
            let flags = walls
                .iter()
                .fold(0, |flags, wall| flags | namespace_flag(*wall));
            match sys::clone(flags) {
                Ok(Some(child)) => {
                    drop((go_read, report_write));
                    let mapped = if walls.contains(&Wall::UserNamespace) {
                        write_id_maps(child.pid, self.host_ids)
                    } else {
                        Ok(())
                    };
                    if let Err(error) = mapped {
                        // The child sees its pipe closed and ends.
                        return Err(JailError::IdMap(error));
                    }
                    sys::write_full(go_write.as_fd(), b"1").map_err(JailError::Pipe)?;
                    return Ok(Jailed {
                        pid: child.pid,
                        pidfd: child.pidfd,
                        reports: report_read,
                        left_behind: OnceLock::new(),
                        _alive: go_write,
                    });
                }
                Ok(None) => {
                    drop((go_write, report_read));
                    let report = climbed(walls, &ladder, refused.as_deref());
                    sys::exit(self.inside(report, &go_read, report_write, body));
                }
                Err(error) if index + 1 == ladder.len() => return Err(JailError::Clone(error)),
                Err(error) => refused = Some(format!("the host refuses it: {error}")),
            }
        }
        Err(JailError::Clone(io::ErrorKind::Unsupported.into()))
    }

    fn inside(
        &self,
        report: JailReport,
        go: &OwnedFd,
        reports: OwnedFd,
        body: impl FnOnce(Enclosure) -> i32,
    ) -> i32 {
        match self.enclose(report, go, &reports) {
            Ok(enclosure) => {
                let root = enclosure.vm_root.as_ref();
                let directory = root
                    .filter(|root| !root.is_enclosed())
                    .map(|root| root.path().to_owned());
                let report = enclosure.report.clone();
                send(&reports, &Message::Ready { report, directory });
                drop(reports);
                body(enclosure)
            }
            Err(JailError::Weak(report)) => {
                send(&reports, &Message::Weak(report));
                1
            }
            Err(error) => {
                send(&reports, &failure(&error));
                1
            }
        }
    }

    /// The kernel's root where no mount namespace is to be had.
    fn unjailed_root(&self, report: &JailReport) -> Result<Option<VmRoot>, JailError> {
        // In a user namespace this process has them already, and there are no others.
        let ids = self
            .host_ids
            .filter(|_| !report.stands(Wall::UserNamespace));
        let root = self.vm_root.as_ref();
        root.map(|spec| VmRoot::unjailed(spec, ids)).transpose()
    }

    fn enclose(
        &self,
        mut report: JailReport,
        go: &OwnedFd,
        reports: &OwnedFd,
    ) -> Result<Enclosure, JailError> {
        let mut byte = [0_u8; 1];
        let got = sys::read_full(go.as_fd(), &mut byte).map_err(JailError::Pipe)?;
        if got == 0 {
            return Err(JailError::Died);
        }
        let root = geteuid().is_root();
        let sources = self.vm_root.as_ref().map(Reopened::open);
        // Whoever opens it with the host's CAP_SYS_ADMIN sees physical addresses in it, which nobody here may.
        let page_map = (self.page_map && (!root || report.stands(Wall::UserNamespace)))
            .then(|| fs::File::open("/proc/self/pagemap").ok())
            .flatten();
        // When the host runs out of memory a compartment goes before the host's own services. Where it was to go
        // even earlier, that stays: lowering is refused.
        let _ = sys::write_file(c"/proc/self/oom_score_adj", b"300");
        if report.stands(Wall::UserNamespace) {
            // With a map that root wrote setgroups is allowed; with a user's own map it must be denied.
            let mapped_by_root =
                fs::read_to_string("/proc/self/setgroups").is_ok_and(|s| s.trim() == "allow");
            sys::become_ids(0, 0, mapped_by_root)
                .map_err(JailError::step("take the jail's ids"))?;
            match (mapped_by_root, self.host_ids) {
                (true, Some(_)) => report.up(Wall::DedicatedUid),
                (true, None) => report.down(Wall::DedicatedUid, "none was configured"),
                (false, _) => report.down(
                    Wall::DedicatedUid,
                    "needs root; the jail has the caller's uid",
                ),
            }
        }
        sys::die_with_parent().map_err(JailError::step("tie its life to its parent's"))?;
        if sys::hung_up(go.as_fd()) {
            return Err(JailError::Died);
        }
        sys::no_new_privileges().map_err(JailError::step("renounce new privileges"))?;
        let vm_root = if report.stands(Wall::EmptyRoot) {
            match empty_root(self.vm_root.as_ref().zip(sources.as_ref())) {
                Ok(root) => root,
                Err(EmptyRootError::Refused(error)) => {
                    report.standing.retain(|wall| *wall != Wall::EmptyRoot);
                    report.down(
                        Wall::EmptyRoot,
                        format!("the host refuses mounts in a new namespace: {error}"),
                    );
                    if !self.weakened {
                        report.up(Wall::Seccomp);
                        return Err(JailError::Weak(report));
                    }
                    self.unjailed_root(&report)?
                }
                Err(EmptyRootError::Failed(error)) => return Err(error),
            }
        } else {
            self.unjailed_root(&report)?
        };
        if report.stands(Wall::UtsNamespace) {
            // A user-mode kernel tells its guest the name of its host, which is nobody's business.
            sys::set_host_name(HOST_NAME).map_err(JailError::step("take a host name"))?;
        }
        if root && !report.stands(Wall::UserNamespace) {
            let ids = self.host_ids.unwrap_or_default();
            sys::become_ids(ids.uid, ids.gid, true)
                .map_err(JailError::step("take an unprivileged uid"))?;
            sys::die_with_parent().map_err(JailError::step("tie its life to its parent's"))?;
            report.up(Wall::DedicatedUid);
        }
        // A change of ids made the process invisible to its owner's tools.
        sys::dumpable().map_err(JailError::step("stay visible to its owner"))?;
        sys::one_heap();
        sys::limit(libc::RLIMIT_CORE, 0).map_err(JailError::step("forbid core dumps"))?;

        let ruleset = match &vm_root {
            Some(root) if !root.is_enclosed() => {
                let directory = fs::File::open(root.path())
                    .map_err(JailError::step("open the kernel's root"))?;
                landlock::ruleset(&[directory.as_fd()], &[], false)
            }
            _ => landlock::ruleset(&[], &[], false),
        };
        let ruleset = landlock::reported(ruleset, &mut report);
        report.up(Wall::Seccomp);
        // Signals to, and files and sockets of, its user's other processes: something must keep it from them.
        let separated = report.stands(Wall::EmptyRoot) || report.stands(Wall::DedicatedUid);
        let scoped = report.stands(Wall::Landlock) && landlock::has_scopes();
        if !separated && !scoped {
            return Err(JailError::Nothing);
        }

        // Owned by values of this function: to be closed by them, not beneath them.
        drop(sources);
        let mut keep = self.keep.clone();
        keep.push(reports.as_raw_fd());
        keep.extend(vm_root.as_ref().and_then(VmRoot::lock));
        keep.extend(ruleset.as_ref().map(AsRawFd::as_raw_fd));
        keep.extend(page_map.as_ref().map(AsRawFd::as_raw_fd));
        sys::close_all_but(&mut keep).map_err(JailError::step("close inherited descriptors"))?;
        Ok(Enclosure {
            report,
            vm_root,
            page_map,
            lock: ThreadLock {
                ruleset: ruleset.map(Arc::new),
            },
        })
    }
}

impl Jailed {
    /// Waits until the jail is complete (well under a millisecond) and tells which walls stand. A process that does not
    /// complete it is killed.
    pub fn ready(&self) -> Result<JailReport, JailError> {
        let text = read_report(&self.reports, READY_WITHIN).inspect_err(|_| {
            // One that is gone is what is wanted.
            let _ = kill(Pid::from_raw(self.pid), Signal::SIGKILL);
        })?;
        match serde_json::from_slice(&text) {
            Ok(Message::Ready { report, directory }) => {
                if let Some(directory) = directory {
                    self.left_behind.get_or_init(|| directory);
                }
                Ok(report)
            }
            Ok(Message::Weak(report)) => Err(JailError::Weak(report)),
            Ok(Message::Failed { step, errno }) => Err(JailError::Inside {
                step,
                source: io::Error::from_raw_os_error(errno),
            }),
            Err(_) => Err(JailError::Died),
        }
    }
}

/// All that a jailed process reports, which is complete when it has closed its end.
fn read_report(pipe: &OwnedFd, within: Duration) -> Result<Vec<u8>, JailError> {
    let until = Instant::now() + within;
    let mut text = Vec::new();
    let mut chunk = [0; 4096];
    loop {
        let left = until.saturating_duration_since(Instant::now());
        // Rounded up, lest the last millisecond be a busy one.
        let timeout = PollTimeout::try_from(left + Duration::from_millis(1));
        let mut fds = [PollFd::new(pipe.as_fd(), PollFlags::POLLIN)];
        match poll(&mut fds, timeout.unwrap_or(PollTimeout::MAX)) {
            _ if left.is_zero() => return Err(JailError::Silent(within)),
            Ok(0) | Err(Errno::EINTR) => continue,
            Ok(_) => {}
            Err(e) => return Err(JailError::Pipe(e.into())),
        }
        match nix::unistd::read(pipe, &mut chunk) {
            Ok(0) => return Ok(text),
            Ok(got) => text.extend_from_slice(chunk.get(..got).unwrap_or_default()),
            Err(Errno::EINTR) => {}
            Err(e) => return Err(JailError::Pipe(e.into())),
        }
        if text.len() > MOST_REPORT {
            return Err(JailError::Flood(MOST_REPORT));
        }
    }
}

impl Jailed {
    /// Removes what the jailed process left behind, after its end. Nothing is left where it was the first of a process
    /// namespace, in a mount namespace; elsewhere its orphans have become children of this process, see
    /// [`SandboxJail::spawn`], and are killed and reaped, and the directory that was its kernel's root is still there.
    /// To be called only by a process that has no other children.
    pub fn sweep(&self) {
        self.kill_orphans();
        if let Some(directory) = self.left_behind.get() {
            // What cannot be removed now is removed by a later start, see `vm_root`.
            let _ = fs::remove_dir_all(directory);
        }
    }

    fn kill_orphans(&self) {
        loop {
            let children = fs::read_to_string("/proc/thread-self/children").unwrap_or_default();
            let mut pids = children
                .split_whitespace()
                .filter_map(|pid| pid.parse().ok());
            // Killing one may orphan its own children to us, so look again until there is none.
            let Some(pid) = pids.next().map(Pid::from_raw) else {
                return;
            };
            // It may end by itself meanwhile; waiting for it is what counts.
            let _ = kill(pid, Signal::SIGKILL);
            let _ = waitpid(pid, Some(WaitPidFlag::__WALL));
        }
    }
}

impl Enclosure {
    /// Which walls stand.
    pub fn report(&self) -> &JailReport {
        &self.report
    }

    /// The kernel's root, if one was asked for; once.
    pub fn take_vm_root(&mut self) -> Option<VmRoot> {
        self.vm_root.take()
    }

    /// `/proc/self/pagemap` of this process, without physical addresses; once. `None` where it was not asked for, the
    /// host does not have it, or would show such addresses in it.
    pub fn take_page_map(&mut self) -> Option<fs::File> {
        self.page_map.take()
    }

    /// What device and stream threads lock themselves with as their first act.
    pub fn thread_lock(&self) -> ThreadLock {
        self.lock.clone()
    }

    /// Locks the calling thread as the control thread. After this nothing can be mounted, executed or opened.
    pub fn lock(self) -> Result<JailReport, JailError> {
        self.lock.lock(Thread::Control)?;
        Ok(self.report)
    }
}

impl ThreadLock {
    /// Adds the policy of `thread` on the calling thread, which inherited the control thread's: what both allow is left.
    pub fn narrow(&self, thread: Thread) -> Result<(), JailError> {
        seccomp::narrow(thread).map_err(|source| JailError::Wall {
            wall: Wall::Seccomp,
            source,
        })?;
        #[cfg(feature = "trespass")]
        crate::trespass::attempt(thread);
        Ok(())
    }

    /// Gives up capabilities, applies Landlock and installs the thread's system call allowlist. For good.
    pub fn lock(&self, thread: Thread) -> Result<(), JailError> {
        sys::drop_capabilities().map_err(JailError::step("drop capabilities"))?;
        if let Some(ruleset) = &self.ruleset {
            sys::landlock_restrict(ruleset.as_raw_fd()).map_err(|source| JailError::Wall {
                wall: Wall::Landlock,
                source,
            })?;
        }
        seccomp::install(thread).map_err(|source| JailError::Wall {
            wall: Wall::Seccomp,
            source,
        })?;
        #[cfg(feature = "trespass")]
        crate::trespass::attempt(thread);
        Ok(())
    }
}

enum EmptyRootError {
    /// The host forbids mounting at all: go on without this wall.
    Refused(io::Error),
    Failed(JailError),
}

/// Mounts an empty tmpfs somewhere harmless, prepares the kernel's root in it, and makes it the root.
fn empty_root(vm_root: Option<(&VmRootSpec, &Reopened)>) -> Result<Option<VmRoot>, EmptyRootError> {
    sys::mount(c"", c"/", c"", libc::MS_REC | libc::MS_PRIVATE, None)
        .map_err(EmptyRootError::Refused)?;
    let options = c"mode=0755,size=64k,nr_inodes=64";
    let flags = libc::MS_NOSUID | libc::MS_NODEV | libc::MS_NOEXEC;
    let mut refused = io::Error::from(io::ErrorKind::NotFound);
    // Any directory serves for the instant until the pivot; not /proc, through which files are bound.
    let base = [c"/tmp", c"/run", c"/var", c"/usr"]
        .into_iter()
        .find(
            |base| match sys::mount(c"jail", base, c"tmpfs", flags, Some(options)) {
                Ok(()) => true,
                Err(error) => {
                    refused = error;
                    false
                }
            },
        );
    let Some(base) = base else {
        return Err(EmptyRootError::Refused(refused));
    };
    let root = vm_root
        .map(|(spec, sources)| {
            let directory = Path::new(base.to_str().unwrap_or("/tmp"))
                .join(vm_root::INSIDE.trim_start_matches('/'));
            VmRoot::enclosed(spec, sources, &directory)
        })
        .transpose()
        .map_err(EmptyRootError::Failed)?;
    sys::chdir(base)
        .and_then(|()| sys::pivot_here())
        .map_err(|error| EmptyRootError::Failed(JailError::step("take the empty root")(error)))?;
    Ok(root)
}

/// What is known of the walls once `walls`, one of the `ladder`'s sets, were given.
fn climbed(walls: &[Wall], ladder: &[Vec<Wall>], refused: Option<&str>) -> JailReport {
    let mut report = JailReport::default();
    for wall in walls {
        report.up(*wall);
    }
    for wall in ladder.first().into_iter().flatten() {
        report.down(*wall, refused.unwrap_or_default());
    }
    report
}

/// The sets of walls to attempt, best first. The last needs nothing from the host.
fn ladder() -> Vec<Vec<Wall>> {
    use Wall::{
        CgroupNamespace, EmptyRoot, IpcNamespace, NetNamespace, PidNamespace, UserNamespace,
        UtsNamespace,
    };
    let all = vec![
        UserNamespace,
        EmptyRoot,
        PidNamespace,
        NetNamespace,
        IpcNamespace,
        UtsNamespace,
        CgroupNamespace,
    ];
    let mut ladder = vec![all.clone()];
    if geteuid().is_root() {
        ladder.push(
            all.into_iter()
                .filter(|wall| *wall != UserNamespace)
                .collect(),
        );
    }
    ladder.push(Vec::new());
    ladder
}

pub(crate) fn namespace_flag(wall: Wall) -> u64 {
    let flag = match wall {
        Wall::UserNamespace => libc::CLONE_NEWUSER,
        Wall::EmptyRoot => libc::CLONE_NEWNS,
        Wall::PidNamespace => libc::CLONE_NEWPID,
        Wall::NetNamespace => libc::CLONE_NEWNET,
        Wall::IpcNamespace => libc::CLONE_NEWIPC,
        Wall::UtsNamespace => libc::CLONE_NEWUTS,
        Wall::CgroupNamespace => libc::CLONE_NEWCGROUP,
        Wall::DedicatedUid | Wall::Landlock | Wall::Seccomp => 0,
    };
    u64::from(flag.unsigned_abs())
}

/// Maps root inside to `ids` (by root) or to the caller.
pub(crate) fn write_id_maps(pid: i32, ids: Option<HostIds>) -> io::Result<()> {
    let privileged = geteuid().is_root();
    let ids = ids.filter(|_| privileged).unwrap_or(HostIds {
        uid: geteuid().as_raw(),
        gid: getegid().as_raw(),
    });
    let file = |name: &str| CString::new(format!("/proc/{pid}/{name}")).map_err(io::Error::from);
    if !privileged {
        sys::write_file(file("setgroups")?.as_c_str(), b"deny")?;
    }
    sys::write_file(
        file("gid_map")?.as_c_str(),
        format!("0 {} 1\n", ids.gid).as_bytes(),
    )?;
    sys::write_file(
        file("uid_map")?.as_c_str(),
        format!("0 {} 1\n", ids.uid).as_bytes(),
    )
}

pub(crate) fn pipe() -> Result<(OwnedFd, OwnedFd), JailError> {
    nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC).map_err(|error| JailError::Pipe(error.into()))
}

fn send(pipe: &OwnedFd, message: &Message) {
    if let Ok(text) = serde_json::to_vec(message) {
        // A parent that is gone needs no report.
        let _ = sys::write_full(pipe.as_fd(), &text);
    }
}

fn failure(error: &JailError) -> Message {
    let source = std::error::Error::source(error).and_then(|s| s.downcast_ref::<io::Error>());
    Message::Failed {
        step: match error {
            JailError::Step { step, .. } => (*step).to_owned(),
            JailError::Nothing => format!("start: {error}"),
            other => format!("finish its jail ({other})"),
        },
        errno: source
            .and_then(io::Error::raw_os_error)
            .unwrap_or(libc::EIO),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The monitor, which is outside of every jail, read without bound and waited without end.
    #[test]
    fn a_hostile_report_neither_fills_nor_holds_its_reader() {
        let soon = Duration::from_millis(50);
        let (read, write) = pipe().unwrap();
        sys::write_full(write.as_fd(), b"{\"Ready\":").unwrap();
        let half = read_report(&read, soon).unwrap_err();
        assert!(matches!(half, JailError::Silent(_)), "{half}");

        // Without end, and each piece in time.
        let flood =
            std::thread::spawn(
                move || {
                    while sys::write_full(write.as_fd(), &[b' '; 1000]).is_ok() {}
                },
            );
        let endless = read_report(&read, READY_WITHIN).unwrap_err();
        assert!(matches!(endless, JailError::Flood(_)), "{endless}");
        drop(read);
        flood.join().unwrap();

        let (read, write) = pipe().unwrap();
        sys::write_full(write.as_fd(), b"all").unwrap();
        drop(write);
        assert_eq!(read_report(&read, soon).unwrap(), b"all");
    }
}
