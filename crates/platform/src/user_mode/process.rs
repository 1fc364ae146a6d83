//! A running kernel process and the threads of its devices.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use bulkhead_jail::{JailReport, KernelProcess, VmRoot, Wall};
use nix::errno::Errno;
use nix::sys::signal::{Signal, killpg};
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid};
use nix::unistd::Pid;

use crate::device_thread::{self, DeviceThread};
use crate::machine::{DeviceEnd, Machine, MachineExit, PlatformError};

/// Exit code of a kernel that panicked and was refused to kill itself (see the jail's policy for SIGABRT).
const PANIC_CODE: i32 = 127;

/// The machine.
#[derive(Debug)]
pub(super) struct Process {
    pub(super) kernel: KernelProcess,
    pub(super) devices: Vec<DeviceThread>,
    exit: Option<MachineExit>,
    /// Removed with the machine where it is a directory of the host.
    _root: VmRoot,
}

impl Process {
    pub(super) fn new(kernel: KernelProcess, root: VmRoot) -> Self {
        Self {
            kernel,
            devices: Vec::new(),
            exit: None,
            _root: root,
        }
    }

    fn wait_status(&self, flags: WaitPidFlag) -> Result<WaitStatus, PlatformError> {
        loop {
            match waitid(Id::PIDFd(self.kernel.pidfd.as_fd()), flags) {
                Err(Errno::EINTR) => {}
                other => return other.map_err(|error| PlatformError::Wait(error.into())),
            }
        }
    }

    /// Where the kernel has no process namespace to take its guest processes along, a kernel older than 6.12 leaves
    /// them behind, running. They are in its process group, which it makes with its first steps.
    fn kill_guest_processes(&self) {
        if !self.kernel.report.stands(Wall::PidNamespace) {
            let group = Pid::from_raw(self.kernel.pid);
            // No such group: it ended before it made one.
            let _ = killpg(group, Signal::SIGKILL);
        }
    }

    fn signal(&self, signal: libc::c_int, operation: &'static str) -> Result<(), PlatformError> {
        if self.exit.is_some() {
            return Ok(());
        }
        // By descriptor: the number may meanwhile belong to another process.
        // SAFETY: a live descriptor, a signal number, no further information, no flags.
        let result = unsafe {
            libc::syscall(
                libc::SYS_pidfd_send_signal,
                self.kernel.pidfd.as_raw_fd(),
                signal,
                std::ptr::null::<libc::siginfo_t>(),
                0,
            )
        };
        match Errno::result(result) {
            // It has ended already.
            Ok(_) | Err(Errno::ESRCH) => Ok(()),
            Err(error) => Err(PlatformError::Signal {
                operation,
                source: error.into(),
            }),
        }
    }
}

impl Machine for Process {
    fn exit_fd(&self) -> BorrowedFd<'_> {
        self.kernel.pidfd.as_fd()
    }

    fn wait(&mut self) -> Result<MachineExit, PlatformError> {
        if let Some(exit) = self.exit {
            return Ok(exit);
        }
        self.wait_status(WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT)?;
        // While its number cannot belong to anybody else.
        self.kill_guest_processes();
        let status = self.wait_status(WaitPidFlag::WEXITED)?;
        let exit =
            judge(status).ok_or_else(|| PlatformError::Wait(io::ErrorKind::InvalidData.into()))?;
        self.exit = Some(exit);
        Ok(exit)
    }

    fn stop(&mut self) -> Result<(), PlatformError> {
        self.signal(libc::SIGKILL, "stop")
    }

    fn pause(&mut self) -> Result<(), PlatformError> {
        self.signal(libc::SIGSTOP, "pause")
    }

    fn resume(&mut self) -> Result<(), PlatformError> {
        self.signal(libc::SIGCONT, "resume")
    }

    fn pids(&self) -> Vec<i32> {
        match self.exit {
            None => vec![self.kernel.pid],
            Some(_) => Vec::new(),
        }
    }

    fn jail(&self) -> Option<&JailReport> {
        Some(&self.kernel.report)
    }

    fn finish_devices(&mut self) -> Vec<DeviceEnd> {
        device_thread::finish(&mut self.devices)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // A machine whose end was seen needs nothing; another must not outlive its owner, nor stay a zombie.
        if self.exit.is_none() && self.stop().is_ok() {
            let _ = self.wait();
        }
    }
}

/// What a status says of the machine; `None` for one that is no end.
fn judge(status: WaitStatus) -> Option<MachineExit> {
    match status {
        WaitStatus::Exited(_, 0) => Some(MachineExit::PoweredOff),
        WaitStatus::Exited(_, PANIC_CODE) => Some(MachineExit::Panicked),
        WaitStatus::Exited(_, code) => Some(MachineExit::Exited(code)),
        WaitStatus::Signaled(_, signal, _) => Some(match signal as i32 {
            // Where it is not the first process of a namespace of its own.
            libc::SIGABRT => MachineExit::Panicked,
            libc::SIGSYS => MachineExit::Forbidden,
            signal => MachineExit::Killed(signal),
        }),
        _ => None,
    }
}
