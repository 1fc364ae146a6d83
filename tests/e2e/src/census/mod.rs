//! Counts the system calls of a sandbox's threads and of its kernel, by tracing them from their start: what a policy
//! allows and nobody does is a gift to whoever breaks in.
//!
//! Not strace: it would trace a user-mode kernel's guest processes too, which the kernel itself wants to trace.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::thread::JoinHandle;

/// A number and six arguments.
pub type Call = (u64, [u64; 6]);

/// The calls of one kind of thread that ran under a filter.
pub type Calls = BTreeSet<Call>;

/// The calls by kind of thread: `control`, `device`, `stream`, `vcpu`, `ahead`, `kernel`.
pub type Census = BTreeMap<String, Calls>;

/// How many calls of one number with different arguments are kept.
const KEPT: usize = 4096;

/// A command that is being counted.
pub struct Counting(JoinHandle<Census>);

impl Counting {
    /// Starts `command`; everything below it is counted until all of it has ended.
    pub fn start(mut command: Command) -> Self {
        Self(std::thread::spawn(move || {
            command
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::null());
            // SAFETY: ptrace(2) may be called between fork and exec.
            unsafe {
                command.pre_exec(|| {
                    let traced = libc::ptrace(libc::PTRACE_TRACEME, 0, 0, 0);
                    (traced == 0)
                        .then_some(())
                        .ok_or_else(io::Error::last_os_error)
                });
            }
            // The tracer waits for it, as for every process that it starts.
            #[allow(clippy::zombie_processes)]
            let child = command.spawn().expect("the command starts");
            Tracer::new(&child).follow()
        }))
    }

    /// Waits for the end of everything.
    pub fn finish(self) -> Census {
        self.0.join().expect("the tracing thread")
    }
}

#[derive(Debug, Clone, Default)]
struct Task {
    /// Filters that it installed or inherited.
    filters: u32,
    /// Whether it is the kernel, whose children are its own to trace.
    kernel: bool,
    /// Set at the first call under a filter.
    kind: Option<String>,
    /// Inside a call.
    entered: bool,
}

struct Tracer {
    program: PathBuf,
    first: i32,
    tasks: BTreeMap<i32, Task>,
    census: Census,
}

const SYSCALL_STOP: i32 = libc::SIGTRAP | 0x80;
const ALWAYS: i32 =
    libc::PTRACE_O_TRACESYSGOOD | libc::PTRACE_O_EXITKILL | libc::PTRACE_O_TRACEEXEC;
const CHILDREN: i32 =
    libc::PTRACE_O_TRACECLONE | libc::PTRACE_O_TRACEFORK | libc::PTRACE_O_TRACEVFORK;

impl Tracer {
    fn new(child: &Child) -> Self {
        Self {
            program: PathBuf::new(),
            first: i32::try_from(child.id()).expect("a process id"),
            tasks: BTreeMap::new(),
            census: Census::new(),
        }
    }

    fn follow(mut self) -> Census {
        loop {
            let mut status = 0;
            // SAFETY: `status` is live. Only what this thread traces is waited for.
            let pid =
                unsafe { libc::waitpid(-1, &raw mut status, libc::__WALL | libc::__WNOTHREAD) };
            if pid < 0 {
                return self.census;
            }
            if !libc::WIFSTOPPED(status) {
                self.tasks.remove(&pid);
                continue;
            }
            let signal = self.stopped(pid, libc::WSTOPSIG(status), status >> 16);
            // SAFETY: lets a stopped tracee go on; it may have been killed meanwhile.
            unsafe { libc::ptrace(libc::PTRACE_SYSCALL, pid, 0, signal) };
        }
    }

    /// Returns the signal to deliver, if any.
    fn stopped(&mut self, pid: i32, signal: i32, event: i32) -> i32 {
        let known = self.tasks.contains_key(&pid);
        match event {
            0 if signal == SYSCALL_STOP => {
                self.call(pid);
                0
            }
            0 if !known => {
                // The first process stops at its execution, others at their start.
                self.tasks.entry(pid).or_default();
                if pid == self.first {
                    self.options(pid, ALWAYS | CHILDREN);
                    self.program = executable(pid);
                }
                0
            }
            // A new task's first stop, after its parent's event.
            0 if signal == libc::SIGSTOP
                && !self.tasks[&pid].entered
                && self.tasks[&pid].kind.is_none() =>
            {
                0
            }
            0 => signal,
            libc::PTRACE_EVENT_EXEC => {
                let task = self.tasks.entry(pid).or_default();
                let now = executable(pid);
                if now != self.program && task.filters > 0 {
                    task.kernel = true;
                    task.kind = None;
                    self.options(pid, ALWAYS);
                } else {
                    self.program = now;
                }
                0
            }
            libc::PTRACE_EVENT_CLONE | libc::PTRACE_EVENT_FORK | libc::PTRACE_EVENT_VFORK => {
                let mut child: libc::c_ulong = 0;
                // SAFETY: the event's message is one word.
                unsafe { libc::ptrace(libc::PTRACE_GETEVENTMSG, pid, 0, &raw mut child) };
                let filters = self.tasks.get(&pid).map_or(0, |task| task.filters);
                let child = i32::try_from(child).unwrap_or(0);
                self.tasks.entry(child).or_default().filters = filters;
                0
            }
            _ => 0,
        }
    }

    fn options(&self, pid: i32, options: i32) {
        // SAFETY: a number.
        unsafe { libc::ptrace(libc::PTRACE_SETOPTIONS, pid, 0, options) };
    }

    fn call(&mut self, pid: i32) {
        // SAFETY: plain data, for which zero is valid.
        let mut info: libc::ptrace_syscall_info = unsafe { std::mem::zeroed() };
        let size = size_of_val(&info);
        // SAFETY: the kernel fills at most `size` bytes of `info`.
        let got = unsafe { libc::ptrace(libc::PTRACE_GET_SYSCALL_INFO, pid, size, &raw mut info) };
        if got <= 0 {
            return;
        }
        let task = self.tasks.entry(pid).or_default();
        if info.op != libc::PTRACE_SYSCALL_INFO_ENTRY {
            task.entered = false;
            return;
        }
        task.entered = true;
        // SAFETY: at an entry this is the part of the union that is filled.
        let (number, arguments) = unsafe { (info.u.entry.nr, info.u.entry.args) };
        let executes = number == libc::SYS_execveat.unsigned_abs();
        if task.filters > 0 && (task.kernel || !is_setting_up(number)) {
            let kind = match &task.kind {
                // The first call under the kernel's policy is its own execution.
                _ if executes => "kernel".to_owned(),
                Some(kind) => kind.clone(),
                None => {
                    let kind = kind(pid, task.kernel);
                    task.kind = Some(kind.clone());
                    kind
                }
            };
            let calls = self.census.entry(kind).or_default();
            if calls.range((number, [0; 6])..(number + 1, [0; 6])).count() < KEPT {
                calls.insert((number, arguments));
            }
        }
        if number == libc::SYS_seccomp.unsigned_abs() {
            task.filters += 1;
            // What it is may show only now, by the name that it has taken.
            task.kind = None;
        }
    }
}

/// Calls between the first filter and the last belong to no policy.
fn is_setting_up(number: u64) -> bool {
    number == libc::SYS_seccomp.unsigned_abs()
}

fn executable(pid: i32) -> PathBuf {
    std::fs::read_link(format!("/proc/{pid}/exe")).unwrap_or_default()
}

/// The kind of a thread, by its name.
fn kind(pid: i32, kernel: bool) -> String {
    if kernel {
        return "kernel".to_owned();
    }
    let name = std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    let name = name.trim();
    match name {
        "stdin" | "stdout" | "stderr" => "stream",
        "ahead" => "ahead",
        name if name.starts_with("vcpu") => "vcpu",
        name if ["vsock", "rng", "image", "scratch", "balloon"].contains(&name)
            || name.starts_with("vol") =>
        {
            "device"
        }
        _ => "control",
    }
    .to_owned()
}
