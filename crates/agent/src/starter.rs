//! Prepares everything that a process needs, starts it, and words what went wrong.

use std::ffi::{CString, NulError};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;

use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::sched::{CloneFlags, setns};
use nix::sys::stat::Mode;

use bulkhead_protocol::api::{self, StartFailure, start_failure::Kind};
use bulkhead_types::Resource;

use crate::child::{Failure, Outcome, Place, Plan, Stage as ChildStage};
use crate::clone;
use crate::container::{Container, Layout, Stage};
use crate::process::Process;
use crate::program::{self, NoProgram, describe};
use crate::pump::Method;
use crate::streams::{self, HostEnds, Ports, ProcessEnds};
use crate::syscalls::{self, CStrings};
use crate::transport::Dial;
use crate::user::{self, Identity};
use crate::view;

/// What a start needs beside the container and the process.
pub(crate) struct Context<'a> {
    pub(crate) layout: &'a Layout,
    pub(crate) dialer: &'a dyn Dial,
    pub(crate) method: Method,
}

/// Everything about a process that can be worked out before it exists.
struct Prepared {
    identity: Identity,
    directory: CString,
    files: Vec<CString>,
    args: Vec<CString>,
    env: Vec<CString>,
}

/// A start that failed, as the host is told.
fn failure(kind: Kind, message: impl Into<String>) -> StartFailure {
    let mut failure = StartFailure::new();
    failure.kind = kind.into();
    failure.message = message.into();
    failure
}

fn setup(what: &str, error: &dyn std::error::Error) -> StartFailure {
    let message = format!("{what}: {}", bulkhead_types::chain(error));
    failure(Kind::SETUP, message)
}

/// Starts a container's main process (`main`) or a further one. Returns the process and its number as
/// the container sees it.
pub(crate) async fn start(
    context: &Context<'_>,
    container: &Arc<Container>,
    process: &api::Process,
    ports: Ports,
    main: bool,
) -> Result<(Arc<Process>, u32), StartFailure> {
    let prepared = prepare(container, process)?;
    let null = context.layout.dev.join("null");
    let null = null.to_string_lossy();
    let opened = if process.terminal {
        let ptmx = container.ptmx();
        streams::open_terminal(context.dialer, ports, &ptmx, process.rows, process.columns).await
    } else {
        streams::open_pipes(context.dialer, ports, &null, context.method).await
    };
    let (ends, host) = opened.map_err(|error| setup("cannot connect streams", &error))?;
    ends.give_to(prepared.identity.uid, prepared.identity.gid)
        .map_err(|error| setup("cannot give the streams to the user", &error))?;
    if main {
        start_main(context, container, process, &prepared, ends, host)
    } else {
        start_further(container, process, prepared, ends, host).await
    }
}

fn prepare(container: &Container, process: &api::Process) -> Result<Prepared, StartFailure> {
    let unreadable = |path: &str, error: &std::io::Error| {
        setup(&format!("cannot read {path} of the container"), error)
    };
    let inside = container
        .inside()
        .map_err(|error| unreadable("/", &error))?;
    let read = |path| {
        inside
            .read(path, user::MAX_FILE)
            .map_err(|error| unreadable(path, &error))
    };
    let (passwd, group) = (read("/etc/passwd")?, read("/etc/group")?);
    let identity = user::resolve(&process.user, &passwd, &group)
        .map_err(|error| failure(Kind::UNKNOWN_USER, error.to_string()))?;
    let command = process.args.first().map_or("", String::as_str);
    if command.is_empty() {
        return Err(failure(Kind::NOT_FOUND, "no command specified"));
    }

    let mut env = process.env.clone();
    let has = |env: &[String], prefix: &str| env.iter().any(|entry| entry.starts_with(prefix));
    if process.terminal && !has(&env, "TERM=") {
        env.push("TERM=xterm".to_owned());
    }
    if !env
        .iter()
        .any(|entry| entry.starts_with("HOME=") && entry.len() > "HOME=".len())
    {
        env.retain(|entry| entry != "HOME=");
        env.push(format!("HOME={}", identity.home));
    }
    let directory = if process.cwd.is_empty() {
        "/"
    } else {
        &process.cwd
    };
    let null_byte = |error: NulError| setup("null byte in the process's description", &error);
    let strings = |list: &[String]| {
        list.iter()
            .map(|text| CString::new(text.as_bytes()))
            .collect::<Result<Vec<_>, _>>()
    };
    Ok(Prepared {
        directory: CString::new(directory).map_err(null_byte)?,
        files: program::candidates(command, &env).map_err(null_byte)?,
        args: strings(&process.args).map_err(null_byte)?,
        env: strings(&env).map_err(null_byte)?,
        identity,
    })
}

fn start_main(
    context: &Context<'_>,
    container: &Arc<Container>,
    process: &api::Process,
    prepared: &Prepared,
    ends: ProcessEnds,
    host: HostEnds,
) -> Result<(Arc<Process>, u32), StartFailure> {
    {
        let mut stage = container.stage();
        if !matches!(*stage, Stage::Created) {
            let message = "the container was started already";
            return Err(failure(Kind::NOT_RUNNING, message));
        }
        *stage = Stage::Starting;
    }
    let started = clone_main(context, container, process, prepared, ends, host);
    *container.stage() = match &started {
        Ok((process, _)) => Stage::Running(Arc::clone(process)),
        // The namespaces went with the process that could not start: the next try makes them anew.
        Err(_) => Stage::Created,
    };
    started
}

fn clone_main(
    context: &Context<'_>,
    container: &Arc<Container>,
    process: &api::Process,
    prepared: &Prepared,
    ends: ProcessEnds,
    host: HostEnds,
) -> Result<(Arc<Process>, u32), StartFailure> {
    let console = match &ends {
        ProcessEnds::Terminal { path, .. } => Some(path.as_c_str()),
        ProcessEnds::Files(_) => None,
    };
    let steps = container
        .view
        .steps(console)
        .map_err(|error| setup("cannot prepare what the container sees", &error))?;
    let root = CString::new(container.root().to_string_lossy().as_bytes())
        .map_err(|error| setup("cannot enter the root file system", &error))?;
    let place = Place::New {
        root,
        steps,
        read_only: container.read_only,
        flags: container.root_flags,
        cgroups: container.cgroup.is_some(),
    };
    let program = match container.init {
        true => Some(open_program(&context.layout.program)?),
        false => None,
    };
    let flags = CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWPID;
    let flags = u64::from(flags.bits().unsigned_abs());
    let started = run(
        container,
        process,
        prepared,
        &place,
        &ends,
        program.as_ref(),
        flags,
    );
    drop(ends);
    let (pidfd, pid) = started?;
    let process = Process::watch(pidfd, true, host.flow(), Arc::clone(container))
        .map_err(|error| setup("cannot watch the process", &error))?;
    Ok((process, pid))
}

fn open_program(path: &Path) -> Result<OwnedFd, StartFailure> {
    open(path, OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty())
        .map_err(|error| setup("cannot open the agent for the container's init", &error))
}

async fn start_further(
    container: &Arc<Container>,
    process: &api::Process,
    prepared: Prepared,
    ends: ProcessEnds,
    host: HostEnds,
) -> Result<(Arc<Process>, u32), StartFailure> {
    let init = match &*container.stage() {
        Stage::Running(main) if !main.has_ended() => main.pidfd().try_clone(),
        _ => return Err(not_running()),
    };
    let init = init.map_err(|error| setup("cannot reach the container", &error))?;
    // A thread stands still until the new process has executed its program, and the container may hold that up as long
    // as it likes: the program or the working directory may lie in a file system that the container itself serves.
    let (inside, wanted) = (Arc::clone(container), process.clone());
    let join = move || join(&inside, &wanted, &prepared, &ends, init);
    let (pidfd, pid) = tokio::task::spawn_blocking(join)
        .await
        .map_err(|error| setup("cannot start a process", &error))??;
    let process = Process::watch(pidfd, false, host.flow(), Arc::clone(container))
        .map_err(|error| setup("cannot watch the process", &error))?;
    Ok((process, pid))
}

fn not_running() -> StartFailure {
    failure(Kind::NOT_RUNNING, "the container is not running")
}

/// Starts a process beside the container's first one, `init`.
fn join(
    container: &Container,
    process: &api::Process,
    prepared: &Prepared,
    ends: &ProcessEnds,
    init: OwnedFd,
) -> Result<(OwnedFd, u32), StartFailure> {
    let own = syscalls::pidfd_open(nix::unistd::getpid().as_raw())
        .map_err(|error| setup("cannot find the way back from the container", &error))?;
    // Takes effect for children of this thread only, so it is in force just for the clone.
    setns(&init, CloneFlags::CLONE_NEWPID).map_err(|_| not_running())?;
    let place = Place::Join { init };
    let started = run(container, process, prepared, &place, ends, None, 0);
    let back = setns(&own, CloneFlags::CLONE_NEWPID);
    let started = started?;
    back.map_err(|error| setup("cannot return from the container", &error))?;
    Ok(started)
}

fn c_strings(list: &[CString]) -> CStrings<'_> {
    CStrings::new(list.iter().map(CString::as_c_str))
}

/// Clones, and tells a process that runs from one that never came to be.
fn run(
    container: &Container,
    process: &api::Process,
    prepared: &Prepared,
    place: &Place,
    ends: &ProcessEnds,
    init: Option<&OwnedFd>,
    flags: u64,
) -> Result<(OwnedFd, u32), StartFailure> {
    let init = init.map(|program| {
        let arguments = [crate::init::NAME, c""]
            .into_iter()
            .chain(prepared.args.iter().map(CString::as_c_str));
        (program, CStrings::new(arguments))
    });
    let mut plan = Plan {
        place,
        ends,
        limits: &process.rlimits,
        capabilities: process.capabilities,
        directory: &prepared.directory,
        groups: &prepared.identity.groups,
        gid: prepared.identity.gid,
        uid: prepared.identity.uid,
        no_new_privileges: process.no_new_privileges,
        files: &prepared.files,
        searched: process
            .args
            .first()
            .is_some_and(|command| !command.contains('/')),
        args: c_strings(&prepared.args),
        env: c_strings(&prepared.env),
        init,
        outcome: Outcome {
            pid: 0,
            failure: None,
        },
    };
    let cgroup = container.cgroup.as_ref().map(AsFd::as_fd);
    let pidfd = clone::start(&mut plan, flags, cgroup).map_err(|error| {
        if matches!(place, Place::Join { .. }) && error.raw_os_error() == Some(libc::ENOMEM) {
            // The PID namespace has lost its PID 1.
            not_running()
        } else {
            setup("cannot start a process", &error)
        }
    })?;
    let Some(cause) = plan.outcome.failure else {
        return Ok((pidfd, u32::try_from(plan.outcome.pid).unwrap_or(0)));
    };
    // It has ended already, so this does not block.
    syscalls::reap(&pidfd).ok();
    Err(explain(cause, process, prepared, place))
}

fn explain(
    cause: Failure,
    process: &api::Process,
    prepared: &Prepared,
    place: &Place,
) -> StartFailure {
    let setup = |what: &str, errno| failure(Kind::SETUP, format!("{what}: {}", describe(errno)));
    match cause {
        Failure::Program(index, problem) => {
            let command = process.args.first().map_or("", String::as_str);
            let file = prepared.files.get(index).map(|file| file.to_string_lossy());
            let message = program::explain(command, file.as_deref().unwrap_or(command), problem);
            failure(kind_of(problem), message)
        }
        Failure::Step(index, errno) => {
            let what = match place {
                Place::New { steps, .. } => steps.get(index).map(view::Step::describe),
                Place::Join { .. } => None,
            };
            setup(&what.unwrap_or_default(), errno)
        }
        Failure::Limit(index, errno) => {
            let number = process.rlimits.get(index).map_or(0, |limit| limit.resource);
            let name = Resource::from_number(number).map_or("", Resource::name);
            setup(&format!("setting resource limit {name}"), errno)
        }
        Failure::At(ChildStage::Directory, errno) => {
            let kind = match (place, errno) {
                (Place::New { .. }, _) => Kind::SETUP,
                (Place::Join { .. }, Errno::ENOENT) => Kind::NOT_FOUND,
                (Place::Join { .. }, _) => Kind::NOT_EXECUTABLE,
            };
            let why = describe(errno);
            failure(
                kind,
                format!("chdir to cwd (\"{}\") failed: {why}", process.cwd),
            )
        }
        Failure::At(stage, errno) => setup(name_of(stage), errno),
    }
}

fn kind_of(problem: NoProgram) -> Kind {
    match problem {
        NoProgram::Missing
        | NoProgram::Failed(Errno::ENOENT)
        | NoProgram::Refused(Errno::ENOTDIR) => Kind::NOT_FOUND,
        NoProgram::Refused(_) | NoProgram::Failed(_) => Kind::NOT_EXECUTABLE,
    }
}

fn name_of(stage: ChildStage) -> &'static str {
    match stage {
        ChildStage::Join => "joining the container's namespaces",
        ChildStage::Session => "starting a session",
        ChildStage::CgroupNamespace => "making a cgroup namespace",
        ChildStage::Root => "entering the root file system",
        ChildStage::ReadOnlyRoot => "making the root file system read-only",
        ChildStage::Streams => "setting standard streams",
        ChildStage::ControllingTerminal => "setting the controlling terminal",
        ChildStage::Capabilities => "dropping capabilities",
        ChildStage::Directory => "changing the working directory",
        ChildStage::Groups => "setting groups",
        ChildStage::User => "setting the user",
        ChildStage::NoNewPrivileges => "setting no_new_privs",
        ChildStage::Signals => "resetting signals",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_cause_has_the_exit_code_a_shell_would_give() {
        assert_eq!(kind_of(NoProgram::Missing), Kind::NOT_FOUND);
        assert_eq!(kind_of(NoProgram::Failed(Errno::ENOENT)), Kind::NOT_FOUND);
        assert_eq!(
            kind_of(NoProgram::Refused(Errno::EACCES)),
            Kind::NOT_EXECUTABLE
        );
        assert_eq!(
            kind_of(NoProgram::Failed(Errno::ENOEXEC)),
            Kind::NOT_EXECUTABLE
        );
    }

    #[test]
    fn a_setup_failure_tells_its_whole_chain_once() {
        let io = std::io::Error::from_raw_os_error(libc::ECONNRESET);
        let error = streams::StreamError::Connect {
            name: "stdout",
            port: 7,
            source: io,
        };
        let told = setup("cannot connect streams", &error);
        assert!(
            told.message.contains("stdout stream to port 7"),
            "{}",
            told.message
        );
        assert_eq!(
            told.message.matches("Connection reset").count(),
            1,
            "{}",
            told.message
        );
    }
}
