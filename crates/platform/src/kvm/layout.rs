//! Where things lie in the guest's physical address space.
//!
//! ```text
//! 0 ............ 640 KiB   RAM: descriptor table, zero page, page tables, command line
//! 896 KiB ...... 1 MiB     ACPI tables
//! 1 MiB ........ 3 GiB     RAM: the kernel, and at the end the initramfs
//! 3 GiB ........ 4 GiB     the hole: windows of virtio devices, I/O APIC, local APIC, KVM's own pages
//! 4 GiB ........           the rest of RAM, then the pages that devices show (virtio-pmem)
//! ```

use bulkhead_devices::mmio::WINDOW_BYTES;

/// Bytes in a page.
pub(super) const PAGE: u64 = 4096;
/// Bytes in a large page: what both page tables, the guest's and the host's, map with one entry.
pub(super) const LARGE_PAGE: u64 = 2 << 20;

/// Bytes in a section of Linux's memory map, on whose boundary memory beside RAM is easiest to add (x86-64,
/// `SECTION_SIZE_BITS` in asm/sparsemem.h).
pub(super) const SECTION: u64 = 128 << 20;

/// RAM below the hole ends here at the latest.
pub(super) const HOLE: u64 = 0xC000_0000;
/// Where RAM goes on behind the hole.
pub(super) const HIGH_RAM: u64 = 1 << 32;

/// Where conventional memory ends; behind it a PC has video memory and firmware.
pub(super) const CONVENTIONAL_END: u64 = 0xA_0000;
/// Where the kernel may lie.
pub(super) const EXTENDED: u64 = 0x10_0000;

/// The descriptor table that the boot protocol asks for.
pub(super) const DESCRIPTORS: u64 = 0x500;
/// The zero page, `struct boot_params`.
pub(super) const ZERO_PAGE: u64 = 0x7000;
/// A `struct setup_data` with random bytes.
pub(super) const SETUP_DATA: u64 = 0x8000;
/// Top of a stack for the first instructions.
pub(super) const STACK: u64 = 0x8FF0;
/// Page tables: one page of each of three levels.
pub(super) const PAGE_TABLES: u64 = 0x9000;
/// The command line.
pub(super) const COMMAND_LINE: u64 = 0x2_0000;
/// Longest command line with its final zero: COMMAND_LINE_SIZE of Linux on x86 (asm/setup.h).
pub(super) const COMMAND_LINE_BYTES: usize = 2048;

/// ACPI tables; the root pointer comes first, and in this area a kernel also finds it by itself (ACPI 6.5, 5.2.5.1).
pub(super) const ACPI: u64 = 0xE_0000;
/// Where that area ends.
pub(super) const ACPI_END: u64 = EXTENDED;

/// The first virtio device's window; the others follow.
const WINDOWS: u64 = 0xD000_0000;
/// The first virtio device's interrupt; the others follow. Below are the timer's and the serial port's.
const FIRST_INTERRUPT: u32 = 5;
/// Pins of KVM's I/O APIC.
pub(super) const INTERRUPTS: u32 = 24;
/// Devices for which there is an interrupt.
pub(super) const MOST_DEVICES: usize = (INTERRUPTS - FIRST_INTERRUPT) as usize;

/// Address of the I/O APIC.
pub(super) const IO_APIC: u32 = 0xFEC0_0000;
/// Address of the local APICs.
pub(super) const LOCAL_APIC: u32 = 0xFEE0_0000;
/// Three pages that KVM needs on Intel processors for real mode (KVM_SET_TSS_ADDR in Documentation/virt/kvm/api.rst);
/// the page below it is used by KVM for an identity map by default.
pub(super) const TASK_STATE: usize = 0xFFFB_D000;

/// First port of the serial line, COM1.
pub(super) const SERIAL: u16 = 0x3F8;
/// Ports of the serial line.
pub(super) const SERIAL_PORTS: u16 = 8;
/// Interrupt of the serial line.
pub(super) const SERIAL_INTERRUPT: u32 = 4;
/// Port of the pvpanic device (Documentation: docs/specs/pvpanic.rst of QEMU).
pub(super) const PANIC: u16 = 0x505;
/// Sleep control register of hardware-reduced ACPI (ACPI 6.5, 4.8.3.7).
pub(super) const SLEEP_CONTROL: u16 = 0x600;
/// Sleep status register of hardware-reduced ACPI.
pub(super) const SLEEP_STATUS: u16 = 0x601;
/// Reset register (ACPI 6.5, 4.8.3.6).
pub(super) const RESET: u16 = 0x602;
/// Command port of the keyboard controller, by which PCs are reset when all else fails.
pub(super) const KEYBOARD: u16 = 0x64;

/// The window of the device with this index.
pub(super) fn window(index: usize) -> u64 {
    WINDOWS + index as u64 * WINDOW_BYTES
}

/// The index of the device whose window holds `address`, and the offset in it.
pub(super) fn in_window(address: u64) -> Option<(usize, u64)> {
    let offset = address.checked_sub(WINDOWS)?;
    let index = usize::try_from(offset / WINDOW_BYTES).ok()?;
    (index < MOST_DEVICES).then_some((index, offset % WINDOW_BYTES))
}

/// The interrupt of the device with this index.
pub(super) fn interrupt(index: usize) -> u32 {
    FIRST_INTERRUPT + u32::try_from(index).unwrap_or(u32::MAX - FIRST_INTERRUPT)
}

/// Bytes of RAM below and above the hole.
pub(super) fn split(memory: u64) -> (u64, u64) {
    let low = memory.min(HOLE);
    (low, memory - low)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_beyond_the_hole_goes_on_behind_it() {
        assert_eq!(split(1 << 30), (1 << 30, 0));
        assert_eq!(split(HOLE), (HOLE, 0));
        assert_eq!(split(5 << 30), (HOLE, 2 << 30));
    }

    #[test]
    fn every_window_leads_back_to_its_device_and_lies_in_the_hole() {
        for index in 0..MOST_DEVICES {
            let window = window(index);
            assert_eq!(in_window(window), Some((index, 0)));
            assert_eq!(in_window(window + 0xFFF), Some((index, 0xFFF)));
            assert!(window >= HOLE && window + WINDOW_BYTES <= u64::from(IO_APIC));
            assert!(interrupt(index) < INTERRUPTS);
        }
        assert_eq!(in_window(window(MOST_DEVICES)), None);
        assert_eq!(in_window(0), None);
        assert_eq!(in_window(u64::MAX), None);
    }
}
