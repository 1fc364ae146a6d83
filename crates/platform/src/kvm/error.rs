//! What goes wrong while a KVM machine is made.

use std::io;

use linux_loader::cmdline;
use linux_loader::loader;
use vm_memory::GuestMemoryError;

use crate::kernel::FileError;

/// A KVM machine could not be made.
#[derive(Debug, thiserror::Error)]
pub enum KvmError {
    /// A request to KVM failed.
    #[error("KVM cannot {operation}")]
    Request {
        /// What was asked for.
        operation: &'static str,
        /// The host's answer.
        #[source]
        source: io::Error,
    },
    /// A model specific register was refused.
    #[error("KVM refuses the initial value of model specific register {0:#x}")]
    Register(u32),
    /// The host gives no memory for the guest.
    #[error("the host gives no {bytes} bytes of memory for the guest")]
    Memory {
        /// Bytes asked for.
        bytes: u64,
        /// The host's answer.
        #[source]
        source: io::Error,
    },
    /// Guest memory could not be put together.
    #[error("cannot lay out guest memory: {0}")]
    Layout(String),
    /// Guest memory could not be written.
    #[error("cannot write {what} into guest memory")]
    Write {
        /// What was to be written.
        what: &'static str,
        /// The reason.
        #[source]
        source: GuestMemoryError,
    },
    /// A file could not be read.
    #[error("cannot read the {what}")]
    Read {
        /// Which file.
        what: &'static str,
        /// The host's answer.
        #[source]
        source: io::Error,
    },
    /// The kernel's file is not one that a machine can start.
    #[error("cannot start the guest kernel")]
    Kernel(#[source] FileError),
    /// The kernel could not be loaded.
    #[error("cannot load the guest kernel")]
    Load(#[source] loader::Error),
    /// Kernel and initramfs do not fit into the guest's memory.
    #[error(
        "{asked} bytes of memory are too few for this guest kernel and its initramfs, they need {least}"
    )]
    TooLittleMemory {
        /// What was asked for.
        asked: u64,
        /// The least that works.
        least: u64,
    },
    /// The command line is too long, or holds what none can.
    #[error("cannot make the kernel's command line")]
    CommandLine(#[source] cmdline::Error),
    /// More devices than there are interrupts.
    #[error("a machine has at most {most} devices, {asked} were asked for")]
    Devices {
        /// The most.
        most: usize,
        /// What was asked for.
        asked: usize,
    },
    /// Tables for the firmware interface are larger than their place.
    #[error("the ACPI tables need {0} bytes, more than there is room for")]
    Tables(usize),
    /// An event descriptor could not be made.
    #[error("cannot make an event descriptor")]
    Event(#[source] io::Error),
    /// The signal that takes a virtual CPU out of the guest could not be prepared.
    #[error("cannot prepare the signal for virtual CPUs")]
    Signal(#[source] io::Error),
    /// The host gave no random bytes for the guest.
    #[error("cannot get random bytes for the guest")]
    Random(#[source] io::Error),
    /// A virtual CPU's thread could not be started.
    #[error("cannot start the thread of virtual CPU {index}")]
    Thread {
        /// Which.
        index: usize,
        /// The host's answer.
        #[source]
        source: io::Error,
    },
}

/// The error of a request to KVM.
pub(super) fn request(
    operation: &'static str,
) -> impl FnOnce(vmm_sys_util::errno::Error) -> KvmError {
    move |error| KvmError::Request {
        operation,
        source: error.into(),
    }
}

/// The error of a write to guest memory.
pub(super) fn write(what: &'static str) -> impl FnOnce(GuestMemoryError) -> KvmError {
    move |source| KvmError::Write { what, source }
}
