//! The seam: what the sandbox knows of a virtual machine, whatever runs it.

use std::fmt;
use std::fs::File;
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};

use bulkhead_devices::{Device, TransportError};
use bulkhead_jail::{JailError, JailReport, ThreadLock, VmRoot};
use bulkhead_types::Isolation;

use crate::boot::Boot;
use crate::kvm::{Kvm, KvmError};
use crate::user_mode::UserMode;

/// A way to run a guest kernel.
pub trait Platform: fmt::Debug {
    /// Which one.
    fn isolation(&self) -> Isolation;

    /// The most virtual CPUs that a machine of this platform can have.
    fn max_vcpus(&self) -> u32;

    /// The most devices that a machine of this platform can have.
    fn most_devices(&self) -> usize;

    /// Whether memory of this process can be made memory of the guest, so that a device's
    /// [`bulkhead_devices::Device`] may show pages of a file to it.
    fn shares_memory(&self) -> bool;

    /// Starts a machine. To be called from the only thread of a process that is not yet locked: it starts the
    /// kernel first and its devices' threads afterwards, and each of those locks itself.
    fn start(&self, config: VmConfig) -> Result<Box<dyn Machine>, PlatformError>;
}

/// A machine that was started. Dropping it stops it.
pub trait Machine: fmt::Debug + Send {
    /// A descriptor that becomes readable when the machine has ended.
    fn exit_fd(&self) -> BorrowedFd<'_>;

    /// Waits for the end (not at all once [`Machine::exit_fd`] is readable) and tells how it came.
    fn wait(&mut self) -> Result<MachineExit, PlatformError>;

    /// Ends the machine now, without asking its guest. It has ended when [`Machine::exit_fd`] is readable.
    fn stop(&mut self) -> Result<(), PlatformError>;

    /// Stops the virtual CPUs. On the user-mode platform a guest process that computes without a system call, page
    /// fault or exception goes on until its next one.
    fn pause(&mut self) -> Result<(), PlatformError>;

    /// Undoes [`Machine::pause`].
    fn resume(&mut self) -> Result<(), PlatformError>;

    /// The host processes beside this one that carry the machine, in the caller's numbering: a user-mode kernel's;
    /// guest processes are its children. None where the machine runs in this process.
    fn pids(&self) -> Vec<i32>;

    /// Which walls stand around the kernel's process. `None` where there is none: then hardware holds the guest, and
    /// the walls are those around this process.
    fn jail(&self) -> Option<&JailReport>;

    /// Waits until every device has delivered what the guest gave it, after the end of the machine.
    fn finish_devices(&mut self) -> Vec<DeviceEnd>;
}

/// How a device's thread ended.
#[derive(Debug)]
pub struct DeviceEnd {
    /// The device's name.
    pub name: String,
    /// Why it ended early, if it did.
    pub outcome: Result<(), TransportError>,
}

/// How a machine ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MachineExit {
    /// The guest powered off. On the user-mode platform also: it halted or restarted (a compartment does not restart:
    /// it ends), which its kernel's exit code does not tell apart.
    PoweredOff,
    /// The guest asked for a restart; it ended instead.
    Restarted,
    /// A virtual CPU shut down: an exception while it handled a double fault (Intel SDM, volume 3, section 6.15,
    /// "interrupt 8"). A guest kernel that is beyond panicking.
    TripleFault,
    /// The host's hypervisor could not go on: suberror of `KVM_EXIT_INTERNAL_ERROR` (Linux, Documentation/virt/kvm/api.rst).
    Internal(u32),
    /// The processor refused to enter the guest: hardware's reason, of `KVM_EXIT_FAIL_ENTRY`.
    EntryFailed(u64),
    /// A virtual CPU could not be run: error number of the host.
    CpuFailed(i32),
    /// A virtual CPU left its guest for a reason that this program does not know: `exit_reason` of `kvm_run`.
    UnknownExit(u32),
    /// [`Machine::stop`] ended it, where no process was killed for that.
    Stopped,
    /// The guest's kernel panicked; its last words are on the console.
    Panicked,
    /// The kernel process called what its policy forbids, and was killed for it: a hostile guest or a gap in the
    /// policy.
    Forbidden,
    /// The kernel process was killed by this signal.
    Killed(i32),
    /// The kernel process exited with this code: it could not start, or the guest chose the code.
    Exited(i32),
}

impl fmt::Display for MachineExit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::PoweredOff => f.write_str("powered off"),
            Self::Restarted => f.write_str("restarted"),
            Self::Panicked => f.write_str("guest kernel panic"),
            Self::TripleFault => f.write_str("triple fault of the guest kernel"),
            Self::Internal(suberror) => {
                write!(
                    f,
                    "KVM could not run the guest (internal error {suberror}{})",
                    internal(*suberror)
                )
            }
            Self::EntryFailed(reason) => {
                write!(
                    f,
                    "the processor refused to enter the guest (hardware reason {reason:#x})"
                )
            }
            Self::CpuFailed(errno) => {
                write!(
                    f,
                    "a virtual CPU could not be run: {}",
                    io::Error::from_raw_os_error(*errno)
                )
            }
            Self::UnknownExit(reason) => {
                write!(
                    f,
                    "a virtual CPU left its guest for an unknown reason ({reason})"
                )
            }
            Self::Stopped => f.write_str("stopped"),
            Self::Forbidden => f.write_str("the guest kernel made a forbidden system call"),
            Self::Killed(signal) => write!(f, "the guest kernel was killed by signal {signal}"),
            Self::Exited(code) => write!(f, "the guest kernel exited with code {code}"),
        }
    }
}

/// The suberrors of `KVM_EXIT_INTERNAL_ERROR` (include/uapi/linux/kvm.h) in words.
fn internal(suberror: u32) -> &'static str {
    match suberror {
        1 => ", an instruction could not be emulated",
        2 => ", an exception while another was delivered",
        3 => ", an exit while an event was delivered",
        4 => ", an unexpected exit reason",
        _ => "",
    }
}

/// A device of a machine.
pub struct VmDevice {
    /// Short name, for its thread and for messages.
    pub name: String,
    /// The device.
    pub device: Box<dyn Device>,
}

impl fmt::Debug for VmDevice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "VmDevice({})", self.name)
    }
}

/// A machine to start.
#[derive(Debug)]
pub struct VmConfig {
    /// Guest memory in bytes.
    pub memory_bytes: u64,
    /// Virtual CPUs, at most [`Platform::max_vcpus`].
    pub vcpus: u32,
    /// Kernel and initramfs, opened.
    pub boot: Boot,
    /// The kernel process's private directory, made from [`Boot::root`] where that asks for one.
    pub root: Option<VmRoot>,
    /// Where the kernel's console goes. Best a pipe whose reader keeps a bounded tail: a guest writes as much as it
    /// wants.
    pub console: OwnedFd,
    /// Devices, in the order in which the guest shall find them.
    pub devices: Vec<VmDevice>,
    /// Further words of the kernel's command line.
    pub arguments: Vec<String>,
    /// What device threads lock themselves with; `None` outside a jail.
    pub thread_lock: Option<ThreadLock>,
    /// `/proc/self/pagemap` of this process. On kvm it shows which pages of the image the guest used, so that what
    /// follows can be mapped before it is touched; without it nothing is.
    pub page_map: Option<File>,
}

/// A machine could not be started or steered.
#[derive(Debug, thiserror::Error)]
pub enum PlatformError {
    /// More virtual CPUs than the platform can give.
    #[error("a {isolation} machine has 1 to {most} CPUs, {asked} were asked for")]
    Vcpus {
        /// The platform.
        isolation: Isolation,
        /// The most it can give.
        most: u32,
        /// What was asked for.
        asked: u32,
    },
    /// Less memory than a kernel can start with.
    #[error("{asked} bytes of memory are too few for a guest kernel, it needs {least}")]
    TooLittleMemory {
        /// What was asked for.
        asked: u64,
        /// The least that works.
        least: u64,
    },
    /// More memory than the host has.
    #[error(
        "{asked} bytes of guest memory are more than the host's {most} bytes of memory and swap"
    )]
    TooMuchMemory {
        /// What was asked for.
        asked: u64,
        /// What the host has.
        most: u64,
    },
    /// A word of the command line would be read as several, or as an option of the kernel process.
    #[error("'{0}' cannot be a word of the kernel's command line")]
    Argument(String),
    /// The command line is longer than the kernel accepts.
    #[error("the kernel's command line is too long: {0} bytes")]
    CommandLine(usize),
    /// The host's memory size could not be read.
    #[error("cannot read the size of the host's memory")]
    HostMemory(#[source] io::Error),
    /// A device's socket could not be made.
    #[error("cannot make the socket of device '{name}'")]
    Socket {
        /// The device.
        name: String,
        /// The host's answer.
        #[source]
        source: io::Error,
    },
    /// A device's thread could not be started.
    #[error("cannot start the thread of device '{name}'")]
    Thread {
        /// The device.
        name: String,
        /// The host's answer.
        #[source]
        source: io::Error,
    },
    /// The files were opened for another platform, or the jail holds no root for the kernel's process.
    #[error("the start was not prepared for a {0} machine")]
    Unprepared(Isolation),
    /// The kernel process could not be started in its jail.
    #[error("cannot start the guest kernel")]
    Kernel(#[source] JailError),
    /// The kernel process could not be signalled.
    #[error("cannot {operation} the guest kernel")]
    Signal {
        /// What was to be done.
        operation: &'static str,
        /// The host's answer.
        #[source]
        source: io::Error,
    },
    /// The end of the kernel process could not be learnt.
    #[error("cannot wait for the guest kernel")]
    Wait(#[source] io::Error),
    /// The thread of a virtual CPU could not be locked in, so it ran nothing.
    #[error("cannot lock the thread of a virtual CPU")]
    Lock(#[source] JailError),
    /// A KVM machine could not be made.
    #[error(transparent)]
    Kvm(#[from] KvmError),
}

/// Memory and swap space of the host, in bytes: no guest can have more.
///
/// # Errors
/// The host does not tell.
pub fn host_memory() -> io::Result<u64> {
    let host = nix::sys::sysinfo::sysinfo()?;
    Ok(host.ram_total().saturating_add(host.swap_total()))
}

/// Whether the host has `bytes` bytes of memory at all, with what it can swap.
pub(crate) fn check_host_memory(bytes: u64) -> Result<(), PlatformError> {
    let most = host_memory().map_err(PlatformError::HostMemory)?;
    if bytes > most {
        return Err(PlatformError::TooMuchMemory { asked: bytes, most });
    }
    Ok(())
}

/// The platform for `isolation`.
pub fn platform(isolation: Isolation) -> Result<Box<dyn Platform>, PlatformError> {
    match isolation {
        Isolation::UserMode => Ok(Box::new(UserMode)),
        Isolation::Kvm => Ok(Box::new(Kvm)),
    }
}
