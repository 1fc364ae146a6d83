//! Devices to the machine: each with a window of registers, an interrupt, a descriptor for every queue's kick, and
//! what memory it shows the guest.

use std::mem::ManuallyDrop;
use std::os::fd::{AsRawFd, FromRawFd, IntoRawFd, OwnedFd};

use bulkhead_devices::mmio::{self, QUEUE_NOTIFY, Registers};
use bulkhead_devices::{GuestMemory, SharedMemory};
use bulkhead_jail::ThreadLock;
use kvm_bindings::{KVM_MEM_READONLY, kvm_userspace_memory_region};
use kvm_ioctls::{IoEventAddress, VmFd};
use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

use super::error::{KvmError, request};
use super::layout::{MOST_DEVICES, SECTION, interrupt, window};
use super::memory::Memory;
use crate::device_thread::{DeviceThread, lock_first};
use crate::machine::{PlatformError, VmDevice};

/// The machine's devices.
#[derive(Debug, Default)]
pub(super) struct Attached {
    /// Their registers, in the order of their windows.
    pub(super) windows: Vec<Registers>,
    /// Their threads.
    pub(super) running: Vec<DeviceThread>,
    /// What they show the guest, and where it sees it; to be kept as long as the machine runs.
    pub(super) shown: Vec<(u64, SharedMemory)>,
}

/// Attaches `devices`. Slots of memory from `slot` on are free.
pub(super) fn attach(
    vm: &VmFd,
    memory: &Memory,
    slot: u32,
    mut devices: Vec<VmDevice>,
    lock: Option<&ThreadLock>,
) -> Result<Attached, PlatformError> {
    if devices.len() > MOST_DEVICES {
        return Err(KvmError::Devices {
            most: MOST_DEVICES,
            asked: devices.len(),
        }
        .into());
    }
    let mut attached = Attached::default();
    let seen = show(vm, memory, slot, &mut devices, &mut attached.shown)?;
    for (index, device) in devices.into_iter().enumerate() {
        let line = interrupt_line(vm, interrupt(index))?;
        let thread = |source| PlatformError::Thread {
            name: device.name.clone(),
            source,
        };
        let (registers, handle) = mmio::spawn(
            device.device,
            seen.clone(),
            line,
            &device.name,
            lock_first(lock.cloned()),
        )
        .map_err(thread)?;
        kicks(vm, &registers, window(index))?;
        attached.windows.push(registers);
        attached.running.push(DeviceThread {
            name: device.name,
            handle,
        });
    }
    Ok(attached)
}

/// Puts what devices show behind the guest's RAM, for reading. Returns the memory as devices see it: RAM, and what the
/// others show, because a guest may hand a page of the one to the other.
fn show(
    vm: &VmFd,
    memory: &Memory,
    mut slot: u32,
    devices: &mut [VmDevice],
    shown: &mut Vec<(u64, SharedMemory)>,
) -> Result<GuestMemory, KvmError> {
    let mut seen = memory.guest.clone();
    let mut address = memory.end();
    for VmDevice { device, .. } in devices {
        let Some(part) = device.shared_memory() else {
            continue;
        };
        address = address.next_multiple_of(SECTION);
        let region = kvm_userspace_memory_region {
            slot,
            flags: KVM_MEM_READONLY,
            guest_phys_addr: address,
            memory_size: part.bytes(),
            userspace_addr: part.host_address(),
        };
        // SAFETY: the mapping lives as long as a clone of `part`, and one is kept with the machine.
        unsafe { vm.set_user_memory_region(region) }
            .map_err(request("show a file to the guest"))?;
        device.place(address);
        seen = part
            .join(&seen, address)
            .map_err(|error| KvmError::Layout(error.to_string()))?;
        let end = address.saturating_add(part.bytes());
        slot += 1;
        shown.push((address, part));
        address = end;
    }
    Ok(seen)
}

/// An event descriptor that interrupts the guest.
pub(super) fn interrupt_event(vm: &VmFd, number: u32) -> Result<EventFd, KvmError> {
    let event = EventFd::new(EFD_NONBLOCK | EFD_CLOEXEC).map_err(KvmError::Event)?;
    vm.register_irqfd(&event, number)
        .map_err(request("connect an interrupt"))?;
    Ok(event)
}

fn interrupt_line(vm: &VmFd, number: u32) -> Result<OwnedFd, KvmError> {
    let event = interrupt_event(vm, number)?;
    // SAFETY: the descriptor was the event's, which let go of it.
    Ok(unsafe { OwnedFd::from_raw_fd(event.into_raw_fd()) })
}

/// Has the host's kernel signal a queue's descriptor when the guest writes the queue's index to the notify register.
fn kicks(vm: &VmFd, registers: &Registers, window: u64) -> Result<(), KvmError> {
    let address = IoEventAddress::Mmio(window + QUEUE_NOTIFY);
    for (queue, kick) in (0_u32..).zip(registers.kicks()) {
        // SAFETY: the descriptor lives in the registers, which outlive the borrowed event; it is never closed by it.
        let event = ManuallyDrop::new(unsafe { EventFd::from_raw_fd(kick.as_raw_fd()) });
        vm.register_ioevent(&event, &address, queue)
            .map_err(request("connect a queue's notification"))?;
    }
    Ok(())
}
