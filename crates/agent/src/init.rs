//! The init that `docker run --init` puts before a container's process: PID 1 that forwards signals
//! and reaps what nobody else waits for.
//!
//! It is the agent's own program under another name, so the guest holds one binary.

use std::ffi::{CStr, CString, OsString};
use std::os::unix::ffi::OsStringExt;

use nix::errno::Errno;
use nix::sys::signal::{SigSet, SigmaskHow, Signal, sigprocmask};
use nix::unistd::{ForkResult, Pid, execv, fork, getpgrp, setpgid, tcsetpgrp};

use crate::syscalls;

/// What the agent calls itself in this part. The file to execute follows, then its arguments.
pub(crate) const NAME: &CStr = c"bulkhead-init";

/// Whether the program was started as the init.
pub fn is_wanted(name: &str) -> bool {
    NAME.to_str() == Ok(name)
}

/// Signals that tell of a fault of the init itself, or of its terminal.
const OWN: [Signal; 9] = [
    Signal::SIGFPE,
    Signal::SIGILL,
    Signal::SIGSEGV,
    Signal::SIGBUS,
    Signal::SIGABRT,
    Signal::SIGTRAP,
    Signal::SIGSYS,
    Signal::SIGTTIN,
    Signal::SIGTTOU,
];

/// Runs the command that the arguments name until it ends; returns its exit code.
pub fn run(arguments: Vec<OsString>) -> u8 {
    let mut strings = arguments
        .into_iter()
        .filter_map(|text| CString::new(text.into_vec()).ok());
    let Some(file) = strings.next() else {
        return 127;
    };
    let args: Vec<CString> = strings.collect();

    let mut caught = SigSet::all();
    for signal in OWN {
        caught.remove(signal);
    }
    // The agent has left all of them blocked: none that came since the start is lost.
    if sigprocmask(SigmaskHow::SIG_SETMASK, Some(&caught), None).is_err() {
        return 125;
    }
    // SAFETY: this process has one thread.
    match unsafe { fork() } {
        Ok(ForkResult::Child) => become_command(&file, &args),
        Ok(ForkResult::Parent { child }) => serve(child, &caught),
        Err(_) => 125,
    }
}

fn become_command(file: &CStr, args: &[CString]) -> u8 {
    // A group of its own, in the foreground where there is a terminal, as the command would have been.
    setpgid(Pid::from_raw(0), Pid::from_raw(0)).ok();
    tcsetpgrp(std::io::stdin(), getpgrp()).ok();
    sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::empty()), None).ok();
    let Err(errno) = execv(file, args);
    eprintln!(
        "exec {}: {}",
        file.to_string_lossy(),
        crate::program::describe(errno)
    );
    if errno == Errno::ENOENT { 127 } else { 126 }
}

fn serve(child: Pid, caught: &SigSet) -> u8 {
    loop {
        match syscalls::take_signal(caught) {
            Ok(libc::SIGCHLD) => {
                if let Some(code) = reap(child) {
                    return code;
                }
            }
            Ok(number) => {
                syscalls::signal_child(child.as_raw(), number).ok();
            }
            Err(_) => {}
        }
    }
}

/// Reaps all that have ended; the code of `child` if it is among them.
fn reap(child: Pid) -> Option<u8> {
    let mut code = None;
    while let Ok(Some((pid, its))) = syscalls::reap_any() {
        if pid == child.as_raw() {
            code = Some(its);
        }
    }
    code
}
