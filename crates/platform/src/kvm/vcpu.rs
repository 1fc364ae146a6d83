//! A virtual CPU: enter the guest, answer what it leaves for, again.

use std::sync::Arc;

use bulkhead_jail::{Thread, ThreadLock};
use kvm_bindings::KVM_EXIT_INTERNAL_ERROR;
use kvm_ioctls::{VcpuExit, VcpuFd};

use super::bus::Bus;
use super::kick::Kickable;
use super::state::{End, State};
use crate::machine::MachineExit;

/// Runs `vcpu` until the machine ends, in the calling thread, which it locks first.
pub(super) fn run(
    mut vcpu: VcpuFd,
    index: usize,
    state: &State,
    bus: Arc<Bus>,
    lock: Option<ThreadLock>,
) {
    let present = state.enter(index);
    match lock.map_or(Ok(()), |lock| lock.lock(Thread::Vcpu)) {
        Ok(()) => {
            let mut vcpu = Kickable::new(&mut vcpu);
            if let Some(exit) = serve(&mut vcpu, state, &bus) {
                state.end(End::Exit(bus.judge(exit)));
            }
        }
        Err(error) => state.end(End::Unlocked(error)),
    }
    // With the last CPU the devices' registers go, by which their threads learn that no more is to come; only then is
    // it said that the machine has ended.
    drop(bus);
    drop(present);
}

/// Serves the guest until it ends the machine, or the machine is to end, which is `None`.
fn serve(vcpu: &mut Kickable<'_>, state: &State, bus: &Bus) -> Option<MachineExit> {
    while state.proceed() {
        match vcpu.vcpu.run() {
            Ok(VcpuExit::MmioWrite(address, data)) => bus.memory_write(address, data),
            Ok(VcpuExit::MmioRead(address, data)) => bus.memory_read(address, data),
            Ok(VcpuExit::IoOut(port, data)) => {
                if let Some(exit) = bus.port_write(port, data) {
                    return Some(exit);
                }
            }
            Ok(VcpuExit::IoIn(port, data)) => bus.port_read(port, data),
            Ok(VcpuExit::Shutdown) => return Some(MachineExit::TripleFault),
            Ok(VcpuExit::FailEntry(reason, _)) => return Some(MachineExit::EntryFailed(reason)),
            Ok(VcpuExit::InternalError) => return Some(MachineExit::Internal(suberror(vcpu.vcpu))),
            Ok(VcpuExit::Intr) => vcpu.rearm(),
            // Memory that the host cannot give: a file that a device shows was shortened, or there is none left.
            Ok(VcpuExit::MemoryFault { .. }) => return Some(MachineExit::CpuFailed(libc::EFAULT)),
            // No other reason can occur with what was set up: local APICs in the host's kernel, no hypercalls or
            // registers that come to us.
            Ok(_) => return Some(MachineExit::UnknownExit(reason(vcpu.vcpu))),
            Err(error) => match error.errno() {
                libc::EINTR | libc::EAGAIN => vcpu.rearm(),
                errno => return Some(MachineExit::CpuFailed(errno)),
            },
        }
    }
    None
}

fn reason(vcpu: &mut VcpuFd) -> u32 {
    vcpu.get_kvm_run().exit_reason
}

fn suberror(vcpu: &mut VcpuFd) -> u32 {
    let run = vcpu.get_kvm_run();
    if run.exit_reason != KVM_EXIT_INTERNAL_ERROR {
        return 0;
    }
    // SAFETY: the exit reason says that this is the member of the union which KVM filled in.
    unsafe { run.__bindgen_anon_1.internal.suberror }
}
