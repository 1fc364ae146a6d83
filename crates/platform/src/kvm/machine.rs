//! A machine that runs in this process.

use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::thread::JoinHandle;

use bulkhead_devices::SharedMemory;
use bulkhead_jail::{JailReport, ThreadLock};
use kvm_ioctls::{VcpuFd, VmFd};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::ahead::{self, Ahead};
use super::attach::Attached;
use super::bus::Bus;
use super::error::KvmError;
use super::memory::Memory;
use super::state::{End, State};
use super::vcpu;
use crate::device_thread::{self, DeviceThread};
use crate::machine::{DeviceEnd, Machine, MachineExit, PlatformError};

/// Stack of a CPU's thread: enough for the deepest path with room to spare; only what is touched costs memory.
const STACK_BYTES: usize = 128 << 10;

/// A machine that is complete but has not entered its guest yet.
#[derive(Debug)]
pub struct Prepared {
    pub(super) vm: VmFd,
    pub(super) vcpus: Vec<VcpuFd>,
    pub(super) memory: Memory,
    pub(super) attached: Attached,
    pub(super) ahead: Option<Ahead>,
    pub(super) serial: super::console::Serial,
    pub(super) state: Arc<State>,
    pub(super) lock: Option<ThreadLock>,
}

impl Prepared {
    /// Starts the CPUs, each in a thread of its own.
    ///
    /// # Errors
    /// A thread could not be started; the others are ended.
    pub fn run(self) -> Result<Box<dyn Machine>, PlatformError> {
        let Self {
            vm,
            vcpus,
            memory,
            attached,
            ahead,
            serial,
            state,
            lock,
        } = self;
        let Attached {
            windows,
            running,
            shown,
        } = attached;
        let bus = Arc::new(Bus::new(serial, windows));
        let mut machine = Running {
            state,
            threads: Vec::with_capacity(vcpus.len()),
            devices: running,
            exit: None,
            memory: Some(memory),
            _shown: shown,
            _vm: vm,
        };
        for (index, vcpu) in vcpus.into_iter().enumerate() {
            let (state, bus, lock) = (Arc::clone(&machine.state), Arc::clone(&bus), lock.clone());
            let thread = std::thread::Builder::new()
                .name(format!("vcpu{index}"))
                .stack_size(STACK_BYTES)
                .spawn(move || vcpu::run(vcpu, index, &state, bus, lock));
            match thread {
                Ok(thread) => machine.threads.push(thread),
                Err(source) => {
                    let missing = machine.state.vcpus() - index;
                    machine.state.never_began(missing);
                    return Err(KvmError::Thread { index, source }.into());
                }
            }
        }
        // Last, so that the CPUs need not wait for it. Without it everything works too.
        if let Some(ahead) = ahead {
            let state = Arc::clone(&machine.state);
            let thread = std::thread::Builder::new()
                .name("ahead".to_owned())
                .stack_size(ahead::STACK_BYTES)
                .spawn(move || ahead.run(&state, lock));
            machine.threads.extend(thread);
        }
        Ok(Box::new(machine))
    }
}

/// The machine.
#[derive(Debug)]
struct Running {
    state: Arc<State>,
    threads: Vec<JoinHandle<()>>,
    devices: Vec<DeviceThread>,
    exit: Option<MachineExit>,
    /// Gone once nobody uses it any more.
    memory: Option<Memory>,
    _shown: Vec<(u64, SharedMemory)>,
    _vm: VmFd,
}

impl Running {
    fn join(&mut self) {
        for thread in self.threads.drain(..) {
            // A CPU's thread that panicked has ended too.
            let _ = thread.join();
        }
    }
}

impl Machine for Running {
    fn exit_fd(&self) -> BorrowedFd<'_> {
        self.state.ended()
    }

    fn wait(&mut self) -> Result<MachineExit, PlatformError> {
        if let Some(exit) = self.exit {
            return Ok(exit);
        }
        let mut fds = [PollFd::new(self.state.ended(), PollFlags::POLLIN)];
        while let Err(error) = poll(&mut fds, PollTimeout::NONE) {
            if error != nix::errno::Errno::EINTR {
                return Err(PlatformError::Wait(error.into()));
            }
        }
        self.join();
        match self.state.take_end() {
            Some(End::Exit(exit)) => {
                self.exit = Some(exit);
                Ok(exit)
            }
            Some(End::Unlocked(error)) => Err(PlatformError::Lock(error)),
            // Only a panic of a CPU's thread leaves no reason.
            None => Err(PlatformError::Wait(std::io::ErrorKind::InvalidData.into())),
        }
    }

    fn stop(&mut self) -> Result<(), PlatformError> {
        self.state.end(End::Exit(MachineExit::Stopped));
        Ok(())
    }

    fn pause(&mut self) -> Result<(), PlatformError> {
        self.state.pause();
        Ok(())
    }

    fn resume(&mut self) -> Result<(), PlatformError> {
        self.state.resume();
        Ok(())
    }

    fn pids(&self) -> Vec<i32> {
        Vec::new()
    }

    fn jail(&self) -> Option<&JailReport> {
        None
    }

    fn finish_devices(&mut self) -> Vec<DeviceEnd> {
        device_thread::finish(&mut self.devices)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.state.end(End::Exit(MachineExit::Stopped));
        self.join();
        for device in &self.devices {
            device.handle.stop();
        }
        self.finish_devices();
        if let Some(memory) = self.memory.take() {
            // SAFETY: the threads of all CPUs and devices have ended, and they had all clones; KVM keeps the machine's
            // slots until its descriptor is closed, but enters no guest any more.
            unsafe { memory.release() };
        }
    }
}
