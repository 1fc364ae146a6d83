//! The state in which a virtual CPU meets its first instruction.
//!
//! The first CPU starts in 64-bit mode, as Documentation/arch/x86/boot.rst, "64-bit Boot Protocol", has it: paging on
//! with the loaded kernel mapped to itself, code selector 0x10, data selector 0x18, interrupts off, the zero page's
//! address in RSI. The others stay as a reset leaves them and wait for the first to send INIT and SIPI (Intel SDM,
//! volume 3, 9.4.3), which KVM's local APICs handle by themselves.

use kvm_bindings::{Msrs, kvm_dtable, kvm_msr_entry, kvm_regs, kvm_segment};
use kvm_ioctls::VcpuFd;

use super::error::{KvmError, request};
use super::layout::{DESCRIPTORS, PAGE_TABLES, STACK, ZERO_PAGE};

/// CR0 (SDM 3, 2.5): protection, x87 present, native x87 errors, write protection, paging.
const CR0: u64 = 1 | 1 << 4 | 1 << 5 | 1 << 16 | 1 << 31;
/// CR4: physical address extension, without which there is no 64-bit mode.
const CR4: u64 = 1 << 5;
/// EFER (SDM 3, 2.2.1): 64-bit mode enabled and active.
const EFER: u64 = 1 << 8 | 1 << 10;
/// RFLAGS: bit 1 is always set; interrupts are off.
const RFLAGS: u64 = 1 << 1;

/// IA32_MISC_ENABLE; bit 0, fast string operations. Linux gives up REP MOVS where it is clear, and KVM clears it at
/// reset (SDM 4, 2.1).
const MISC_ENABLE: (u32, u64) = (0x1a0, 1);
/// IA32_MTRR_DEF_TYPE; bit 11 enables, type 6 is write-back: memory is cached everywhere. What KVM does itself without
/// looking there; but Linux looks, and takes memory for uncached (SDM 3, 12.11.2.1).
const MEMORY_TYPE: (u32, u64) = (0x2ff, 1 << 11 | 6);

/// The local APIC's register for its pin LINT0 (SDM 3, 11.5.1), and the bit that masks it.
const LINT0: usize = 0x350;
const MASKED: u8 = 1;

/// A segment of the boot protocol (SDM 3, 3.4.5).
#[derive(Debug, Clone, Copy)]
pub(super) struct Segment {
    selector: u16,
    kind: u8,
    system: bool,
    long: bool,
    limit: u32,
}

const NONE: Segment = Segment {
    selector: 0,
    kind: 0,
    system: true,
    long: false,
    limit: 0,
};

/// The descriptor table: code at 0x10 and data at 0x18, as the protocol says, and a task, which Intel's processors want
/// in order to enter a guest (SDM 3, 27.3.1.2).
pub(super) const SEGMENTS: [Segment; 5] = [NONE, NONE, CODE, DATA, TASK];

/// Execute and read, accessed.
const CODE: Segment = Segment {
    selector: 0x10,
    kind: 0xb,
    system: false,
    long: true,
    limit: 0xf_ffff,
};
/// Read and write, accessed.
const DATA: Segment = Segment {
    selector: 0x18,
    kind: 3,
    system: false,
    long: false,
    limit: 0xf_ffff,
};
/// A busy 64-bit task.
const TASK: Segment = Segment {
    selector: 0x20,
    kind: 0xb,
    system: true,
    long: false,
    limit: 0,
};

impl Segment {
    /// The entry of the descriptor table: base zero.
    pub(super) fn descriptor(self) -> u64 {
        if self.kind == 0 {
            return 0;
        }
        let present = 1_u64 << 47;
        let user = u64::from(!self.system) << 44;
        let long = u64::from(self.long) << 53;
        // Default operand size: 32 bits, which must be clear for 64-bit code. Limits are in pages.
        let default = u64::from(!self.system && !self.long) << 54;
        let pages = u64::from(!self.system) << 55;
        let limit = u64::from(self.limit & 0xffff) | u64::from(self.limit >> 16) << 48;
        limit | u64::from(self.kind) << 40 | user | present | long | default | pages
    }

    fn loaded(self) -> kvm_segment {
        let user = u8::from(!self.system);
        kvm_segment {
            selector: self.selector,
            type_: self.kind,
            present: 1,
            s: user,
            l: u8::from(self.long),
            db: u8::from(!self.system && !self.long),
            g: user,
            // KVM wants it in bytes, whatever the unit.
            limit: if self.system {
                self.limit
            } else {
                self.limit << 12 | 0xfff
            },
            ..kvm_segment::default()
        }
    }
}

/// What every CPU gets.
pub(super) fn model_specific(vcpu: &VcpuFd) -> Result<(), KvmError> {
    let entries = [MISC_ENABLE, MEMORY_TYPE].map(|(index, data)| kvm_msr_entry {
        index,
        data,
        ..kvm_msr_entry::default()
    });
    let registers =
        Msrs::from_entries(&entries).map_err(|error| KvmError::Layout(format!("{error:?}")))?;
    let set = vcpu
        .set_msrs(&registers)
        .map_err(request("set model specific registers"))?;
    match entries.get(set) {
        Some(refused) => Err(KvmError::Register(refused.index)),
        None => Ok(()),
    }
}

/// Makes the first CPU start with the instruction at `entry`.
pub(super) fn first(vcpu: &VcpuFd, entry: u64) -> Result<(), KvmError> {
    let mut special = vcpu.get_sregs().map_err(request("read registers"))?;
    special.cs = CODE.loaded();
    let data = DATA.loaded();
    special.ds = data;
    special.es = data;
    special.fs = data;
    special.gs = data;
    special.ss = data;
    special.tr = TASK.loaded();
    special.gdt = kvm_dtable {
        base: DESCRIPTORS,
        limit: (SEGMENTS.len() * 8 - 1) as u16,
        ..kvm_dtable::default()
    };
    special.idt = kvm_dtable::default();
    special.cr0 = CR0;
    special.cr3 = PAGE_TABLES;
    special.cr4 = CR4;
    special.efer = EFER;
    vcpu.set_sregs(&special)
        .map_err(request("set the registers of 64-bit mode"))?;
    let general = kvm_regs {
        rip: entry,
        rsi: ZERO_PAGE,
        rsp: STACK,
        rbp: STACK,
        rflags: RFLAGS,
        ..kvm_regs::default()
    };
    vcpu.set_regs(&general).map_err(request("set registers"))?;
    mask_old_interrupts(vcpu)
}

/// KVM resets the first local APIC with its pin LINT0 open for interrupts of the PC's old controller, which KVM has too
/// (KVM_X86_QUIRK_LINT0_REENABLED in Documentation/virt/kvm/api.rst). Nobody programs that controller in a guest with
/// hardware-reduced ACPI, so what it would send are exceptions.
fn mask_old_interrupts(vcpu: &VcpuFd) -> Result<(), KvmError> {
    let mut apic = vcpu.get_lapic().map_err(request("read a local APIC"))?;
    // Bit 16 of the register: the lowest of its third byte.
    if let Some(byte) = apic.regs.get_mut(LINT0 + 2) {
        *byte |= MASKED as libc::c_char;
    }
    vcpu.set_lapic(&apic).map_err(request("set a local APIC"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn descriptors_are_those_of_the_boot_protocol() {
        let table = SEGMENTS.map(Segment::descriptor);
        assert_eq!(
            table,
            [
                0,
                0,
                0x00af_9b00_0000_ffff,
                0x00cf_9300_0000_ffff,
                0x0000_8b00_0000_0000
            ]
        );
    }

    #[test]
    fn each_segment_lies_where_its_selector_says() {
        for (index, segment) in SEGMENTS.iter().enumerate().skip(2) {
            assert_eq!(usize::from(segment.selector), index * 8);
        }
        assert_eq!(CODE.loaded().limit, u32::MAX);
    }
}
