//! The stricter jail of a user-mode kernel process.
//!
//! What a hostile guest kernel (arbitrary code in this process) can still do:
//!
//! * use the processor: one CPU, the one it is pinned to, at the sandbox's priority;
//! * use memory: its root's tmpfs up to the root's size (guest memory and a little room), and in each of at most
//!   [`KernelLimits::processes`] processes private memory up to [`KernelLimits::private_bytes`], a stack, and what the
//!   host needs to describe its addresses. With its sandbox it is a preferred victim of the host's out-of-memory killer;
//! * talk to its virtio devices, which expect hostile input, and write to the console descriptor, whose reader
//!   bounds what it keeps;
//! * read the few files in its root (initramfs, loader and libraries of a kernel that is not static, processor flags):
//!   all public, read-only;
//! * call the system calls in `policy/kernel.json`, which a test holds against what kernels do. Among them `ptrace` and
//!   `kill` reach only its own children, because its process namespace holds nobody else; `socket` makes streams of
//!   unix sockets only, and a network namespace with no peer and a root with no other socket leave only its devices to
//!   connect to; `openat` reads what is there and makes what is not; `execveat` finds nothing to execute but what it
//!   wrote itself, under the same filter;
//! * observe timing: side channels between processes on one machine are not closed by any of this.
//!
//! It cannot open a file of the host, see or signal a process, create a namespace, load BPF, use io_uring, perf or
//! keyrings, or gain a privilege: its uid owns nothing, it has no capability and can get none.
//!
//! The process is the first of its process namespace: when it ends, by whatever cause, the host's kernel kills every
//! guest process with it; and when the sandbox ends, it is killed as its child.

use std::ffi::CString;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::unistd::geteuid;

use crate::error::JailError;
use crate::ids::HostIds;
use crate::landlock;
use crate::report::{JailReport, Wall};
use crate::sandbox::{namespace_flag, pipe, write_id_maps};
use crate::seccomp;
use crate::sys;
use crate::vm_root::{VmRoot, c_string};

/// What a kernel process may use. `docs/threat-model.md` adds up what follows from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KernelLimits {
    /// Host processes, one for each address space in the guest and a few helpers. Beyond, the guest's fork fails.
    pub processes: u64,
    /// Private (not guest) memory of each of them, in bytes.
    pub private_bytes: u64,
    /// Stack of each of them, in bytes; not counted in `private_bytes`.
    pub stack_bytes: u64,
    /// Addresses of each of them, in bytes. They cost page tables whatever is behind them: one byte for each 512.
    pub address_bytes: u64,
    /// Open descriptors.
    pub descriptors: u64,
}

/// A small guest process takes some 150 KiB of guest memory (its kernel stack, page tables and first pages), so no guest
/// has memory for many more processes than follow from this.
const BYTES_PER_PROCESS: u64 = 256 << 10;

/// So many processes the smallest guest gets, and the largest. The host has ids for 32,768 unless it was told otherwise.
const PROCESSES: (u64, u64) = (512, 4096);

impl KernelLimits {
    /// The limits of a kernel whose guest has `memory` bytes.
    pub fn of(memory: u64) -> Self {
        let (least, most) = PROCESSES;
        Self {
            processes: (memory / BYTES_PER_PROCESS).clamp(least, most),
            // Our kernel has 3.3 MiB, and each of its guest processes less than a page.
            private_bytes: 8 << 20,
            stack_bytes: 1 << 20,
            // The kernel maps guest memory once, a guest process each page that it touched; both have some more.
            address_bytes: memory.saturating_mul(2).saturating_add(512 << 20),
            // A kernel with five devices has 25.
            descriptors: 256,
        }
    }
}

/// A user-mode kernel to start.
///
/// It runs without address space randomisation: its own image is at a fixed address anyway, and a random start of
/// its heap makes it reserve (and describe, page by page) up to 32 MiB of guest memory that nobody uses.
#[derive(Debug)]
pub struct KernelCommand<'a> {
    /// The executable, open.
    pub program: BorrowedFd<'a>,
    /// Loader and libraries of the executable, which it opens by their host paths where it has no root of its own.
    pub libraries: Vec<BorrowedFd<'a>>,
    /// Arguments, beginning with the program's name.
    pub arguments: Vec<String>,
    /// `NAME=value`.
    pub environment: Vec<String>,
    /// Its standard descriptors, all three.
    pub console: BorrowedFd<'a>,
    /// The directory that becomes its root.
    pub root: &'a VmRoot,
    /// The only CPU it runs on.
    pub cpu: Option<usize>,
    /// Its limits.
    pub limits: KernelLimits,
}

/// A kernel process that was started.
#[derive(Debug)]
pub struct KernelProcess {
    /// Its process id in the caller's namespace.
    pub pid: i32,
    /// Becomes readable when it ends.
    pub pidfd: OwnedFd,
    /// Which of its own walls stand.
    pub report: JailReport,
    handshake: OwnedFd,
    /// Where no namespace surrounds it: its connections wait here for [`KernelProcess::admit`].
    connections: Option<OwnedFd>,
}

/// Everything the child needs, made before it exists: between clone and exec it must not allocate.
struct Plan {
    _arguments: Vec<CString>,
    argument_pointers: Vec<*const libc::c_char>,
    _environment: Vec<CString>,
    environment_pointers: Vec<*const libc::c_char>,
    root: CString,
    program: RawFd,
    console: RawFd,
    go: RawFd,
    handshake: RawFd,
    ruleset: Option<RawFd>,
    cpu: Option<usize>,
    limits: KernelLimits,
    ids: Option<(HostIds, bool)>,
    new_root: bool,
    mount_root: bool,
    exposed: bool,
}

/// What the child was doing when the host refused.
#[derive(Debug, Clone, Copy)]
#[repr(u8)]
enum Step {
    Ids = 1,
    Root,
    Limits,
    Descriptors,
    Capabilities,
    Landlock,
    Seccomp,
    Pin,
    Exec,
}

impl Step {
    fn describe(code: u8) -> &'static str {
        match code {
            1 => "take the kernel's ids",
            2 => "enter the kernel's root",
            3 => "limit the kernel's resources",
            4 => "arrange the kernel's descriptors",
            5 => "drop the kernel's privileges",
            6 => "apply the kernel's Landlock rules",
            7 => "install the kernel's seccomp filter",
            8 => "pin the kernel to its CPU",
            _ => "execute the kernel",
        }
    }
}

impl KernelCommand<'_> {
    /// Starts the kernel in its jail. In a sandbox's jail this is to be called before [`crate::Enclosure::lock`].
    ///
    /// The process may not have executed the kernel yet: [`KernelProcess::confirm`] waits for that.
    pub fn spawn(&self) -> Result<KernelProcess, JailError> {
        use Wall::{EmptyRoot, IpcNamespace, NetNamespace, PidNamespace, UserNamespace};
        if self.root.is_enclosed() {
            // The sandbox's namespaces hold no network and no other user already.
            return self.start(&[EmptyRoot, PidNamespace, IpcNamespace]);
        }
        let walls = [
            UserNamespace,
            EmptyRoot,
            PidNamespace,
            NetNamespace,
            IpcNamespace,
        ];
        let refused = match self.start(&walls).and_then(|mut process| {
            process.confirm()?;
            Ok(process)
        }) {
            Ok(process) => return Ok(process),
            Err(error @ (JailError::Clone(_) | JailError::IdMap(_) | JailError::Step { .. })) => {
                error
            }
            Err(error) => return Err(error),
        };
        let mut process = self.start(&[])?;
        process.confirm()?;
        let reason = std::error::Error::source(&refused)
            .map_or_else(|| refused.to_string(), ToString::to_string);
        for wall in walls {
            process
                .report
                .down(wall, format!("the host refuses it: {reason}"));
        }
        Ok(process)
    }

    fn start(&self, walls: &[Wall]) -> Result<KernelProcess, JailError> {
        let mut report = JailReport::default();
        for wall in walls {
            report.up(*wall);
        }
        let directory =
            File::open(self.root.path()).map_err(JailError::step("open the kernel's root"))?;
        let mut programs = vec![self.program];
        if !walls.contains(&Wall::EmptyRoot) {
            programs.extend(&self.libraries);
        }
        let ruleset = landlock::reported(
            landlock::ruleset(&[directory.as_fd()], &programs, true),
            &mut report,
        );
        report.up(Wall::Seccomp);
        let (go_read, go_write) = pipe()?;
        let (handshake, handshake_write) = sys::message_pair().map_err(JailError::Pipe)?;
        let new_user = walls.contains(&Wall::UserNamespace);
        let as_root = geteuid().is_root() && !self.root.is_enclosed();
        let plan = self.plan(walls, &go_read, &handshake_write, ruleset.as_ref(), as_root)?;
        let flags = walls
            .iter()
            .fold(0, |flags, wall| flags | namespace_flag(*wall));
        match sys::clone(flags).map_err(JailError::Clone)? {
            None => plan.run(go_write.as_raw_fd(), handshake.as_raw_fd()),
            Some(child) => {
                if new_user {
                    write_id_maps(child.pid, self.root.host_ids()).map_err(JailError::IdMap)?;
                }
                sys::write_full(go_write.as_fd(), b"1").map_err(JailError::Pipe)?;
                Ok(KernelProcess {
                    pid: child.pid,
                    pidfd: child.pidfd,
                    report,
                    handshake,
                    connections: None,
                })
            }
        }
    }

    fn plan(
        &self,
        walls: &[Wall],
        go: &OwnedFd,
        handshake: &OwnedFd,
        ruleset: Option<&OwnedFd>,
        as_root: bool,
    ) -> Result<Plan, JailError> {
        let list = |items: &[String]| -> Result<Vec<CString>, JailError> {
            items.iter().map(|item| c_string(item.as_str())).collect()
        };
        let pointers = |items: &[CString]| -> Vec<*const libc::c_char> {
            items
                .iter()
                .map(|item| item.as_ptr())
                .chain([std::ptr::null()])
                .collect()
        };
        let arguments = list(&self.arguments)?;
        let environment = list(&self.environment)?;
        let new_user = walls.contains(&Wall::UserNamespace);
        Ok(Plan {
            argument_pointers: pointers(&arguments),
            environment_pointers: pointers(&environment),
            _arguments: arguments,
            _environment: environment,
            root: c_string(self.root.path().as_os_str().as_encoded_bytes())?,
            program: self.program.as_raw_fd(),
            console: self.console.as_raw_fd(),
            go: go.as_raw_fd(),
            handshake: handshake.as_raw_fd(),
            ruleset: ruleset.map(AsRawFd::as_raw_fd),
            cpu: self.cpu,
            limits: self.limits,
            ids: match (new_user, as_root) {
                (true, root) => Some((HostIds { uid: 0, gid: 0 }, root)),
                (false, true) => Some((self.root.host_ids().unwrap_or_default(), true)),
                (false, false) => None,
            },
            new_root: walls.contains(&Wall::EmptyRoot),
            mount_root: !self.root.is_enclosed(),
            exposed: !walls.contains(&Wall::PidNamespace),
        })
    }
}

impl Plan {
    /// The child's side. Allocates nothing, locks nothing, returns never.
    fn run(&self, go_write: RawFd, handshake_read: RawFd) -> ! {
        let error = match self.prepare(go_write, handshake_read) {
            Ok((program, handshake)) => {
                let error = sys::exec(program, &self.argument_pointers, &self.environment_pointers);
                (handshake, Step::Exec, error)
            }
            Err((step, error)) => (self.handshake, step, error),
        };
        let (handshake, step, error) = error;
        let mut message = [0_u8; 5];
        message[0] = step as u8;
        message[1..].copy_from_slice(&error.raw_os_error().unwrap_or(libc::EIO).to_ne_bytes());
        // SAFETY: the number stays open until this process ends, an instant from now.
        let _ = sys::write_full(unsafe { BorrowedFd::borrow_raw(handshake) }, &message);
        sys::exit(126)
    }

    fn prepare(
        &self,
        go_write: RawFd,
        handshake_read: RawFd,
    ) -> Result<(RawFd, RawFd), (Step, io::Error)> {
        let at = |step: Step| move |error: io::Error| (step, error);
        // The parent's ends must not be open here, or their closing would go unseen.
        for fd in [go_write, handshake_read] {
            let number = fd.unsigned_abs();
            sys::close_range(number, number).map_err(at(Step::Descriptors))?;
        }
        // SAFETY: the pipe's end is open in this copy of the process.
        let go = unsafe { BorrowedFd::borrow_raw(self.go) };
        if sys::read_full(go, &mut [0_u8; 1]).map_err(at(Step::Ids))? == 0 {
            return Err((Step::Ids, io::ErrorKind::BrokenPipe.into()));
        }
        if let Some((ids, groups)) = self.ids.filter(|_| self.new_root) {
            sys::become_ids(ids.uid, ids.gid, groups).map_err(at(Step::Ids))?;
        }
        if self.new_root {
            self.enter_root().map_err(at(Step::Root))?;
        } else {
            sys::chdir(&self.root).map_err(at(Step::Root))?;
        }
        if let Some((ids, groups)) = self.ids.filter(|_| !self.new_root) {
            sys::become_ids(ids.uid, ids.gid, groups).map_err(at(Step::Ids))?;
        }
        // After the last change of ids, which would undo it.
        sys::die_with_parent().map_err(at(Step::Ids))?;
        self.limit().map_err(at(Step::Limits))?;
        let moved = self.descriptors().map_err(at(Step::Descriptors))?;
        sys::reset_signals();
        if let Some(cpu) = self.cpu {
            sys::pin(cpu).map_err(at(Step::Pin))?;
        }
        sys::no_address_randomisation().map_err(at(Step::Limits))?;
        sys::drop_capabilities().map_err(at(Step::Capabilities))?;
        sys::no_new_privileges().map_err(at(Step::Capabilities))?;
        if let Some(ruleset) = moved.ruleset {
            sys::landlock_restrict(ruleset).map_err(at(Step::Landlock))?;
        }
        if self.exposed {
            let listener = seccomp::install_exposed().map_err(at(Step::Seccomp))?;
            // SAFETY: the number stays open until this process executes the kernel.
            let handshake = unsafe { BorrowedFd::borrow_raw(moved.handshake) };
            sys::send_with(handshake, b"c", listener.as_fd()).map_err(at(Step::Seccomp))?;
        }
        seccomp::install_kernel().map_err(at(Step::Seccomp))?;
        Ok((moved.program, moved.handshake))
    }

    fn enter_root(&self) -> io::Result<()> {
        if self.mount_root {
            sys::mount(c"", c"/", c"", libc::MS_REC | libc::MS_PRIVATE, None)?;
            // Only a mount point can become a root.
            sys::mount(
                &self.root,
                &self.root,
                c"",
                libc::MS_BIND | libc::MS_REC,
                None,
            )?;
        }
        sys::chdir(&self.root)?;
        sys::pivot_here()
    }

    fn limit(&self) -> io::Result<()> {
        sys::limit(libc::RLIMIT_CORE, 0)?;
        sys::limit(libc::RLIMIT_NPROC, self.limits.processes)?;
        sys::limit(libc::RLIMIT_DATA, self.limits.private_bytes)?;
        sys::limit(libc::RLIMIT_STACK, self.limits.stack_bytes)?;
        sys::limit(libc::RLIMIT_AS, self.limits.address_bytes)?;
        sys::limit(libc::RLIMIT_MEMLOCK, 0)?;
        sys::limit(libc::RLIMIT_MSGQUEUE, 0)?;
        sys::limit(libc::RLIMIT_NOFILE, self.limits.descriptors)
    }

    /// Puts the console in place and closes everything that is not the kernel's.
    fn descriptors(&self) -> io::Result<Moved> {
        // Out of the way of 0, 1 and 2 first: a source may be one of them.
        let floor = 3;
        let console = sys::dup_above(self.console, floor)?;
        let program = sys::dup_above(self.program, floor)?;
        let handshake = sys::dup_above(self.handshake, floor)?;
        let ruleset = match self.ruleset {
            Some(fd) => Some(sys::dup_above(fd, floor)?),
            None => None,
        };
        for standard in 0..floor {
            sys::dup_onto(console, standard)?;
        }
        let mut keep = [program, handshake, ruleset.unwrap_or(program)];
        sys::close_all_but(&mut keep)?;
        Ok(Moved {
            program,
            handshake,
            ruleset,
        })
    }
}

/// The descriptors that the child keeps until it executes the kernel; all close-on-exec.
struct Moved {
    program: RawFd,
    handshake: RawFd,
    ruleset: Option<RawFd>,
}

impl KernelProcess {
    /// Waits until the kernel is executed, or tells what stopped it.
    pub fn confirm(&mut self) -> Result<(), JailError> {
        loop {
            let mut message = [0_u8; 5];
            let (length, listener) =
                sys::receive_with(self.handshake.as_fd(), &mut message).map_err(JailError::Pipe)?;
            match (length, listener) {
                (0, _) => return Ok(()),
                (1, Some(listener)) => self.connections = Some(listener),
                (5, _) => {
                    let [code, errno @ ..] = message;
                    // Reaped here, because the caller gets no handle.
                    let _ = nix::sys::wait::waitpid(nix::unistd::Pid::from_raw(self.pid), None);
                    return Err(JailError::Step {
                        step: Step::describe(code),
                        source: io::Error::from_raw_os_error(i32::from_ne_bytes(errno)),
                    });
                }
                _ => return Err(JailError::Died),
            }
        }
    }

    /// Lets the kernel connect to its `devices`, once each, and to nothing ever after. It does so while it boots, before
    /// it executes a byte of its guest's, so that this waits for a part of the boot; at most `within`. Returns at once
    /// where a namespace surrounds the process, in which there is nothing else to connect to.
    ///
    /// Without namespaces every socket of its user would be within its reach, among them the control sockets of other
    /// compartments: Landlock has no rule for sockets with a path.
    pub fn admit(&mut self, devices: usize, within: Duration) -> Result<(), JailError> {
        // Closed at the end: whatever connects then is refused.
        let Some(connections) = self.connections.take() else {
            return Ok(());
        };
        let until = Instant::now() + within;
        let mut waiting = devices;
        while waiting > 0 {
            let left = until.saturating_duration_since(Instant::now());
            let mut fds = [
                PollFd::new(connections.as_fd(), PollFlags::POLLIN),
                PollFd::new(self.pidfd.as_fd(), PollFlags::POLLIN),
            ];
            let ready = match poll(
                &mut fds,
                PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX),
            ) {
                Err(Errno::EINTR) => continue,
                other => other.map_err(|error| JailError::Pipe(error.into()))?,
            };
            let [connects, _ended] = fds.map(|fd| fd.any().unwrap_or(false));
            if ready == 0 || !connects {
                // Its boot will tell what became of it.
                return Ok(());
            }
            match sys::seccomp_let_go(connections.as_fd()) {
                Ok(()) => waiting -= 1,
                // It was killed while it waited.
                Err(error) if error.raw_os_error() == Some(libc::ENOENT) => return Ok(()),
                Err(error) => return Err(JailError::Pipe(error)),
            }
        }
        Ok(())
    }
}
