//! Counts the system calls of a sandbox's threads, by tracing them from their start, and of its user-mode kernel, of which
//! the host tells (`kernel.rs`): what a policy allows and nobody does is a gift to whoever breaks in.
//!
//! Not strace: it would trace a user-mode kernel's guest processes too, which the kernel itself wants to trace.

mod kernel;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::thread::JoinHandle;

use kernel::Told;

/// A number and six arguments.
pub type Call = (u64, [u64; 6]);

/// The calls of one kind of thread that ran under a filter.
pub type Calls = BTreeSet<Call>;

/// The calls by kind of thread: `control`, `device`, `stream`, `vcpu`, `ahead`, `kernel`.
pub type Census = BTreeMap<String, Calls>;

/// Which arguments of which calls matter; the others are counted as zero.
#[derive(Debug, Clone, Default)]
pub struct Watched(BTreeMap<u64, [bool; 6]>);

impl Watched {
    /// Keeps the argument at `index` of the call `number`.
    pub fn watch(&mut self, number: u64, index: usize) {
        self.0.entry(number).or_default()[index] = true;
    }

    fn reduce(&self, call: Call) -> Call {
        let mut arguments = [0; 6];
        if let Some(kept) = self.0.get(&call.0) {
            for index in 0..arguments.len() {
                if kept[index] {
                    arguments[index] = call.1[index];
                }
            }
        }
        (call.0, arguments)
    }
}

/// A command that is being counted.
pub struct Counting(JoinHandle<Census>);

impl Counting {
    /// Starts `command`; everything below it is counted until all of it has ended.
    pub fn start(mut command: Command, watched: Watched) -> Self {
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
            Tracer::new(&child, watched).follow()
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
    /// Whether it is on its way to become the kernel.
    kernel: bool,
    /// Set at the first call under a filter.
    kind: Option<String>,
    /// Inside a call.
    entered: bool,
}

struct Tracer {
    first: i32,
    tasks: BTreeMap<i32, Task>,
    census: Census,
    watched: Watched,
    kernels: Vec<Told>,
}

const SYSCALL_STOP: i32 = libc::SIGTRAP | 0x80;
const OPTIONS: i32 = libc::PTRACE_O_TRACESYSGOOD
    | libc::PTRACE_O_EXITKILL
    | libc::PTRACE_O_TRACEEXEC
    | libc::PTRACE_O_TRACECLONE
    | libc::PTRACE_O_TRACEFORK
    | libc::PTRACE_O_TRACEVFORK;

impl Tracer {
    fn new(child: &Child, watched: Watched) -> Self {
        Self {
            first: i32::try_from(child.id()).expect("a process id"),
            tasks: BTreeMap::new(),
            census: Census::new(),
            watched,
            kernels: Vec::new(),
        }
    }

    fn follow(mut self) -> Census {
        loop {
            let mut status = 0;
            // SAFETY: `status` is live. Only what this thread traces is waited for.
            let pid =
                unsafe { libc::waitpid(-1, &raw mut status, libc::__WALL | libc::__WNOTHREAD) };
            if pid < 0 {
                for told in self.kernels {
                    let calls = self.census.entry("kernel".to_owned()).or_default();
                    calls.extend(told.finish());
                }
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
                    self.options(pid, OPTIONS);
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
            libc::PTRACE_EVENT_CLONE | libc::PTRACE_EVENT_FORK | libc::PTRACE_EVENT_VFORK => {
                let mut child: libc::c_ulong = 0;
                // SAFETY: the event's message is one word.
                unsafe { libc::ptrace(libc::PTRACE_GETEVENTMSG, pid, 0, &raw mut child) };
                let filters = self.tasks.get(&pid).map_or(0, |task| task.filters);
                let child = i32::try_from(child).unwrap_or(0);
                // Added, because it may have run before this was told, and have installed some of its own.
                self.tasks.entry(child).or_default().filters += filters;
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
        if number == libc::SYS_personality.unsigned_abs() {
            task.kernel = true;
        }
        let is_filter = number == libc::SYS_seccomp.unsigned_abs();
        if task.kernel && is_filter {
            let told = Told::begin(pid, self.watched.clone()).expect("the kernel's calls are told");
            self.kernels.push(told);
            self.tasks.remove(&pid);
            return;
        }
        // Calls between the first filter and the last belong to no policy.
        if task.filters > 0 && !is_filter {
            let kind = task.kind.get_or_insert_with(|| kind(pid)).clone();
            let calls = self.census.entry(kind).or_default();
            calls.insert(self.watched.reduce((number, arguments)));
        }
        if is_filter {
            task.filters += 1;
            // What it is may show only now, by the name that it has taken.
            task.kind = None;
        }
    }
}

/// The kind of a thread, by its name.
fn kind(pid: i32) -> String {
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
