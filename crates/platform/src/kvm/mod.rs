//! The KVM platform: virtual machines in this process, on hardware virtualization.
//!
//! A machine is private memory with a kernel in it, virtual CPUs that each have a thread, and virtio devices that each
//! have a thread too and meet the guest at windows of memory-mapped registers. There is no PCI, no firmware, and none
//! of a PC's old devices but a serial line: the kernel finds in ACPI tables what is there.
//!
//! ```text
//! sandbox:  memory ─▶ VM ─▶ tables ─▶ devices' threads ─▶ CPUs ─▶ registers ─▶ their threads ─▶ Machine
//!             └─▶ thread: kernel, initramfs ──────────────────────┘
//!
//!   vCPU thread: KVM_RUN ──exit──▶ bus ─▶ serial line, power and panic registers, virtio registers
//!   ahead: looks what the guest uses of its image, and maps what follows
//!   host kernel: queue kick ─▶ ioeventfd ─▶ device's thread ─▶ irqfd ─▶ guest's interrupt
//! ```

mod acpi;
mod ahead;
mod attach;
mod boot_params;
mod bus;
mod command_line;
mod console;
mod cpuid;
mod error;
mod kick;
mod layout;
mod loader;
mod machine;
mod memory;
mod registers;
mod state;
mod vcpu;

use std::os::fd::{FromRawFd, IntoRawFd};
use std::sync::Arc;

use bulkhead_types::Isolation;
use kvm_ioctls::{Cap, VmFd};
use vm_memory::{Bytes, GuestAddress};

use crate::machine::{Machine, Platform, PlatformError, VmConfig, check_host_memory};
use ahead::Ahead;
use console::{Console, Line, Serial};
use cpuid::Answers;
use error::{request, write};
use loader::Loading;
use memory::Memory;
use state::State;

pub use error::KvmError;
pub use machine::Prepared;

/// The numbers of local APICs in the tables are bytes, and 255 means all of them.
const MOST_VCPUS: u8 = 254;

/// The KVM platform.
#[derive(Debug, Clone, Copy)]
pub struct Kvm;

impl Platform for Kvm {
    fn isolation(&self) -> Isolation {
        Isolation::Kvm
    }

    fn max_vcpus(&self) -> u32 {
        MOST_VCPUS.into()
    }

    fn most_devices(&self) -> usize {
        layout::MOST_DEVICES
    }

    fn shares_memory(&self) -> bool {
        true
    }

    fn start(&self, config: VmConfig) -> Result<Box<dyn Machine>, PlatformError> {
        self.prepare(config)?.run()
    }
}

impl Kvm {
    /// Everything of a start up to the first entry into the guest: [`Platform::start`] without its end, to be measured.
    ///
    /// # Errors
    /// As [`Platform::start`].
    pub fn prepare(&self, config: VmConfig) -> Result<Prepared, PlatformError> {
        check_host_memory(config.memory_bytes)?;
        let device = config
            .boot
            .kvm()
            .ok_or(PlatformError::Unprepared(Isolation::Kvm))?;
        let device = device
            .try_clone_to_owned()
            .map_err(|source| KvmError::Request {
                operation: "be used a second time",
                source,
            })?;
        // SAFETY: the descriptor is an open /dev/kvm, and nobody else's.
        let kvm = unsafe { kvm_ioctls::Kvm::from_raw_fd(device.into_raw_fd()) };
        let vcpus = count(&kvm, config.vcpus)?;
        let command_line = command_line::build(config.boot.arguments(), &config.arguments)?;

        let memory = Memory::allocate(config.memory_bytes)?;
        let loading = Loading::begin(memory.guest.clone(), config.boot).map_err(|source| {
            PlatformError::Thread {
                name: "load".to_owned(),
                source,
            }
        })?;
        let vm = create(&kvm)?;
        let slots = memory.register(&vm)?;
        let tables = acpi::tables(vcpus, config.devices.len())?;
        memory
            .guest
            .write_slice(&tables, GuestAddress(layout::ACPI))
            .map_err(write("ACPI tables"))?;

        let line = Line(attach::interrupt_event(&vm, layout::SERIAL_INTERRUPT)?);
        let console = Console::new(config.console).map_err(|source| KvmError::Read {
            what: "console's flags",
            source,
        })?;
        let lock = config.thread_lock;
        let attached = attach::attach(&vm, &memory, slots, config.devices, lock.as_ref())?;

        let mut answers = Answers::new(&kvm, vcpus.into())?;
        let cpus = (0..u32::from(vcpus))
            .map(|index| {
                let vcpu = vm
                    .create_vcpu(index.into())
                    .map_err(request("make a virtual CPU"))?;
                answers.give(&vcpu, index)?;
                registers::model_specific(&vcpu)?;
                Ok(vcpu)
            })
            .collect::<Result<Vec<_>, KvmError>>()?;
        let shown = &attached.shown;
        let ahead = Ahead::prepare(&vm, vcpus, &mut answers, shown, config.page_map);
        let (kernel, initramfs) = loading.finish()?;
        boot_params::write_all(&memory, &kernel, initramfs, &command_line)?;
        if let Some(first) = cpus.first() {
            registers::first(first, kernel.entry)?;
        }
        kick::prepare().map_err(KvmError::Signal)?;
        let state = State::new(cpus.len()).map_err(KvmError::Event)?;
        Ok(Prepared {
            vm,
            vcpus: cpus,
            memory,
            attached,
            ahead,
            serial: Serial::new(line, console),
            state: Arc::new(state),
            lock,
        })
    }
}

/// How many CPUs, if that many are possible.
fn count(kvm: &kvm_ioctls::Kvm, asked: u32) -> Result<u8, PlatformError> {
    let host = u32::try_from(kvm.get_max_vcpus()).unwrap_or(u32::MAX);
    let most = host.min(MOST_VCPUS.into());
    match u8::try_from(asked) {
        Ok(count) if count > 0 && asked <= most => Ok(count),
        _ => Err(PlatformError::Vcpus {
            isolation: Isolation::Kvm,
            most,
            asked,
        }),
    }
}

/// A machine with interrupt controllers in the host's kernel.
fn create(kvm: &kvm_ioctls::Kvm) -> Result<VmFd, KvmError> {
    let vm = loop {
        match kvm.create_vm() {
            // The host's kernel gives up where a signal is pending.
            Err(error) if error.errno() == libc::EINTR => {}
            other => break other.map_err(request("make a virtual machine"))?,
        }
    };
    if vm.check_extension(Cap::SetTssAddr) {
        vm.set_tss_address(layout::TASK_STATE)
            .map_err(request("place its own pages"))?;
    }
    vm.create_irq_chip()
        .map_err(request("make interrupt controllers"))?;
    Ok(vm)
}
