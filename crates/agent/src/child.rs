//! The work of a new process between clone and exec.
//!
//! It shares the agent's memory while the starting thread is stopped (`CLONE_VM | CLONE_VFORK`), so nothing here
//! may allocate, lock or panic: everything was prepared before, and what goes wrong is left in the
//! plan's [`Outcome`] for the agent to read.

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsFd, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl, open};
use nix::mount::{MntFlags, MsFlags, umount2};
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::stat::{Mode, SFlag, fstat, stat, umask};
use nix::unistd::{chdir, getpid, pivot_root, setsid};

use bulkhead_protocol::api::Rlimit;

use crate::program::NoProgram;
use crate::streams::ProcessEnds;
use crate::syscalls::{self, CStrings};
use crate::view::{self, Step};

/// Where the process lives.
#[derive(Debug)]
pub(crate) enum Place {
    /// In namespaces of its own, made at the clone.
    New {
        root: CString,
        steps: Vec<Step>,
        read_only: bool,
        /// What the root is mounted with beside read-only.
        flags: MsFlags,
        cgroups: bool,
    },
    /// In those of a running process.
    Join { init: OwnedFd },
}

/// All that a process is to be.
pub(crate) struct Plan<'a> {
    pub(crate) place: &'a Place,
    pub(crate) ends: &'a ProcessEnds,
    pub(crate) limits: &'a [Rlimit],
    /// Bit n is capability n.
    pub(crate) capabilities: u64,
    pub(crate) directory: &'a CStr,
    pub(crate) groups: &'a [u32],
    pub(crate) gid: u32,
    pub(crate) uid: u32,
    pub(crate) no_new_privileges: bool,
    pub(crate) files: &'a [CString],
    /// The files come from `PATH`; otherwise there is one, and what is wrong with it is told.
    pub(crate) searched: bool,
    pub(crate) args: CStrings<'a>,
    pub(crate) env: CStrings<'a>,
    /// The agent's own program, to be executed as the container's init, and its arguments; the one at
    /// index 1 is replaced by the file that was found.
    pub(crate) init: Option<(&'a OwnedFd, CStrings<'a>)>,
    pub(crate) outcome: Outcome,
}

/// What the process left for the agent to read.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Outcome {
    /// Its number in its own PID namespace.
    pub(crate) pid: i32,
    pub(crate) failure: Option<Failure>,
}

/// What failed.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Failure {
    At(Stage, Errno),
    /// A step of the container's view, by its index.
    Step(usize, Errno),
    /// A resource limit, by its index.
    Limit(usize, Errno),
    /// No file could be executed; the index is of the file that mattered.
    Program(usize, NoProgram),
}

/// Stages of the work, in their order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stage {
    Join,
    Session,
    CgroupNamespace,
    Root,
    ReadOnlyRoot,
    Streams,
    ControllingTerminal,
    Capabilities,
    Directory,
    Groups,
    User,
    NoNewPrivileges,
    Signals,
}

fn at<T, E: Into<io::Error>>(stage: Stage, result: Result<T, E>) -> Result<T, Failure> {
    result.map_err(|error| Failure::At(stage, errno(&error.into())))
}

fn errno(error: &io::Error) -> Errno {
    Errno::from_raw(error.raw_os_error().unwrap_or(0))
}

/// Becomes the process; returns only when that failed, with the cause in the plan.
pub(crate) fn become_process(plan: &mut Plan<'_>) {
    plan.outcome.pid = getpid().as_raw();
    plan.outcome.failure = prepare(plan).err();
    if plan.outcome.failure.is_none() {
        plan.outcome.failure = Some(execute(plan));
    }
}

fn prepare(plan: &Plan<'_>) -> Result<(), Failure> {
    at(Stage::Session, setsid())?;
    match plan.place {
        Place::New {
            root,
            steps,
            read_only,
            flags,
            cgroups,
        } => {
            if *cgroups {
                at(Stage::CgroupNamespace, unshare(CloneFlags::CLONE_NEWCGROUP))?;
            }
            at(Stage::Root, enter(root))?;
            for (index, step) in steps.iter().enumerate() {
                step.carry_out()
                    .map_err(|error| Failure::Step(index, errno(&error)))?;
            }
            at(Stage::Directory, make_directory(plan.directory))?;
            if *read_only {
                at(Stage::ReadOnlyRoot, view::remount_read_only(c"/", *flags))?;
            }
        }
        Place::Join { init } => {
            let flags = CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWCGROUP;
            at(Stage::Join, setns(init, flags))?;
        }
    }

    let terminal = match plan.ends {
        ProcessEnds::Terminal { slave, path } => terminal_inside(slave, path),
        ProcessEnds::Files(_) => None,
    };
    for number in 0..3u8 {
        let end = match &terminal {
            Some(terminal) => terminal.as_fd(),
            None => plan.ends.standard(number.into()),
        };
        at(
            Stage::Streams,
            syscalls::become_standard(end, number.into()),
        )?;
    }
    if matches!(plan.ends, ProcessEnds::Terminal { .. }) {
        at(
            Stage::ControllingTerminal,
            syscalls::set_controlling_terminal(plan.ends.as_fd()),
        )?;
    }
    for (index, limit) in plan.limits.iter().enumerate() {
        syscalls::set_limit(limit.resource, limit.soft, limit.hard)
            .map_err(|error| Failure::Limit(index, errno(&error)))?;
    }
    at(Stage::Capabilities, keep_capabilities(plan.capabilities))?;
    at(Stage::Directory, chdir(plan.directory))?;
    at(Stage::Groups, syscalls::set_groups(plan.groups))?;
    if plan.gid != 0 {
        at(Stage::Groups, syscalls::set_group(plan.gid))?;
    }
    if plan.uid != 0 {
        at(Stage::User, syscalls::set_user(plan.uid))?;
    }
    if plan.no_new_privileges {
        at(Stage::NoNewPrivileges, syscalls::set_no_new_privileges())?;
    }
    umask(Mode::from_bits_truncate(0o022));
    // The init takes signals from its first moment on: one that came before it had set itself up would be lost, since
    // the kernel drops what the first process of a PID namespace neither blocks nor handles.
    at(Stage::Signals, syscalls::reset_signals(plan.init.is_some()))
}

/// The terminal opened by its path in the container. Programs find a terminal's name by where its descriptor leads,
/// and the agent's own leads to the agent's devpts, which the container does not see. `None` where the container has
/// something else at that path.
fn terminal_inside(slave: &OwnedFd, path: &CStr) -> Option<OwnedFd> {
    // What a hostile container has put there must not hold us.
    let flags = OFlag::O_RDWR | OFlag::O_NOCTTY | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
    let inside = open(path, flags, Mode::empty()).ok()?;
    let (ours, theirs) = (fstat(slave).ok()?, fstat(&inside).ok()?);
    if (ours.st_dev, ours.st_ino) != (theirs.st_dev, theirs.st_ino) {
        return None;
    }
    fcntl(&inside, FcntlArg::F_SETFL(OFlag::O_RDWR)).ok()?;
    Some(inside)
}

/// Makes `root` the root of the mount namespace and lets go of everything else.
fn enter(root: &CStr) -> nix::Result<()> {
    chdir(root)?;
    // The old root ends up on top of the new one, where detaching it needs no directory for it
    // (pivot_root(2), "pivot_root(".", ".")").
    pivot_root(c".", c".")?;
    umount2(c".", MntFlags::MNT_DETACH)?;
    chdir(c"/")
}

/// Leaves a process the capabilities whose bits are set, of those that its kernel has.
///
/// The bounding set is all there is to set. A process that execs as root gets what the bounding set allows (its
/// inheritable set is empty), one that execs as another user gets nothing: exactly Docker's result, in fewer system
/// calls than setting five sets.
fn keep_capabilities(kept: u64) -> io::Result<()> {
    for number in (0..64u8).filter(|number| kept & (1 << number) == 0) {
        match syscalls::drop_bounding(number) {
            // The kernel's last capability was the one before.
            Err(error) if errno(&error) == Errno::EINVAL => break,
            result => result?,
        }
    }
    Ok(())
}

/// A missing working directory is created with the container, as Docker does; what is in its way is told when the
/// process enters it.
fn make_directory(path: &CStr) -> io::Result<()> {
    match stat(path) {
        Err(Errno::ENOENT) => match view::create_directories(path) {
            Err(error) if errno(&error) == Errno::ENOTDIR => Ok(()),
            other => other,
        },
        _ => Ok(()),
    }
}

/// Tries the files in order; returns only when none could be executed.
fn execute(plan: &mut Plan<'_>) -> Failure {
    for (index, file) in plan.files.iter().enumerate() {
        // A failing execve makes an address space first, at least in older kernels, and in a user-mode
        // one that is a process of the host. As in Docker, what may not be executed does not count.
        if plan.searched && allowed(file).is_err() {
            continue;
        }
        let error = match &mut plan.init {
            None => errno(&syscalls::execute(file, &plan.args, &plan.env)),
            Some((program, args)) => match executable(file) {
                Err(error) => error,
                Ok(()) => {
                    args.replace(1, file);
                    errno(&syscalls::execute_file(program.as_fd(), args, &plan.env))
                }
            },
        };
        let problem = match error {
            // A directory, or a file system mounted noexec.
            Errno::EACCES if plan.searched => continue,
            Errno::EACCES if is_directory(file) => NoProgram::Refused(Errno::EISDIR),
            Errno::EACCES => NoProgram::Refused(error),
            Errno::ENOENT | Errno::ENOTDIR => missing_or_broken(file, error),
            _ => NoProgram::Failed(error),
        };
        return Failure::Program(index, problem);
    }
    Failure::Program(0, NoProgram::Missing)
}

/// execve says ENOENT for a missing file and for a missing interpreter.
fn missing_or_broken(file: &CStr, error: Errno) -> NoProgram {
    match stat(file) {
        Ok(_) => NoProgram::Failed(error),
        Err(Errno::ENOENT) => NoProgram::Missing,
        Err(other) => NoProgram::Refused(other),
    }
}

fn is_directory(file: &CStr) -> bool {
    stat(file).is_ok_and(|status| {
        SFlag::from_bits_truncate(status.st_mode) & SFlag::S_IFMT == SFlag::S_IFDIR
    })
}

fn executable(file: &CStr) -> nix::Result<()> {
    if is_directory(file) {
        return Err(Errno::EACCES);
    }
    allowed(file)
}

/// Real and effective user are the same by now.
fn allowed(file: &CStr) -> nix::Result<()> {
    use nix::unistd::AccessFlags;
    nix::unistd::access(file, AccessFlags::X_OK)
}
