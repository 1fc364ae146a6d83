//! What the 64-bit boot protocol wants to find in memory (Documentation/arch/x86/boot.rst, "64-bit Boot Protocol", and
//! zero-page.rst): the zero page with the memory map, a descriptor table, page tables, a stack.

use linux_loader::cmdline::Cmdline;
use linux_loader::configurator::linux::LinuxBootConfigurator;
use linux_loader::configurator::{BootConfigurator, BootParams};
use linux_loader::loader::bootparam::{boot_e820_entry, boot_params};
use linux_loader::loader::load_cmdline;
use vm_memory::{Bytes, GuestAddress};

use super::error::{KvmError, write};
use super::layout::{
    ACPI, ACPI_END, COMMAND_LINE, COMMAND_LINE_BYTES, CONVENTIONAL_END, DESCRIPTORS, EXTENDED,
    HIGH_RAM, LARGE_PAGE, PAGE, PAGE_TABLES, SETUP_DATA, ZERO_PAGE,
};
use super::loader::{Initramfs, Kernel};
use super::memory::Memory;
use super::registers::SEGMENTS;

/// Types of the memory map (ACPI 6.5, table 15.3).
const RAM: u32 = 1;
const RESERVED: u32 = 2;

/// A boot loader without a number of its own (boot.rst, field `type_of_loader`).
const UNDEFINED_LOADER: u8 = 0xff;

/// SETUP_RNG_SEED (arch/x86/include/uapi/asm/setup_data.h).
const RNG_SEED: u32 = 9;
const SEED_BYTES: usize = 32;

/// Present and writable; in the lowest level that is used also: a large page (Intel SDM, volume 3, 4.5).
const ENTRY: u64 = 0b11;
const LARGE: u64 = 1 << 7;

/// Writes all of it.
pub(super) fn write_all(
    memory: &Memory,
    kernel: &Kernel,
    initramfs: Initramfs,
    command_line: &Cmdline,
) -> Result<(), KvmError> {
    load_cmdline(&memory.guest, GuestAddress(COMMAND_LINE), command_line)
        .map_err(KvmError::Load)?;
    seed(memory)?;
    zero_page(memory, kernel, initramfs)?;
    descriptors(memory)?;
    page_tables(memory)
}

/// Random bytes, so that the guest's generator need not wait for entropy. The kernel overwrites them.
fn seed(memory: &Memory) -> Result<(), KvmError> {
    let mut bytes = [0_u8; SEED_BYTES];
    // SAFETY: the buffer is live for its length.
    let count = unsafe { libc::getrandom(bytes.as_mut_ptr().cast(), bytes.len(), 0) };
    if usize::try_from(count) != Ok(SEED_BYTES) {
        return Err(KvmError::Random(std::io::Error::last_os_error()));
    }
    let mut node = Vec::with_capacity(16 + SEED_BYTES);
    node.extend_from_slice(&0_u64.to_le_bytes());
    node.extend_from_slice(&RNG_SEED.to_le_bytes());
    node.extend_from_slice(&(SEED_BYTES as u32).to_le_bytes());
    node.extend_from_slice(&bytes);
    let guest = &memory.guest;
    guest
        .write_slice(&node, GuestAddress(SETUP_DATA))
        .map_err(write("random bytes"))
}

fn zero_page(memory: &Memory, kernel: &Kernel, initramfs: Initramfs) -> Result<(), KvmError> {
    let mut params = boot_params {
        hdr: kernel.header,
        acpi_rsdp_addr: ACPI,
        ..boot_params::default()
    };
    params.hdr.type_of_loader = UNDEFINED_LOADER;
    // All three lie below 4 GiB, as the layout has it.
    params.hdr.cmd_line_ptr = COMMAND_LINE as u32;
    params.hdr.cmdline_size = COMMAND_LINE_BYTES as u32;
    params.hdr.ramdisk_image = initramfs.address as u32;
    params.hdr.ramdisk_size = initramfs.bytes as u32;
    params.hdr.setup_data = SETUP_DATA;
    let map = memory_map(memory.low(), memory.end());
    for (place, entry) in params.e820_table.iter_mut().zip(&map) {
        *place = *entry;
    }
    params.e820_entries = map.len() as u8;
    let params = BootParams::new(&params, GuestAddress(ZERO_PAGE));
    LinuxBootConfigurator::write_bootparams(&params, &memory.guest)
        .map_err(|error| KvmError::Layout(error.to_string()))
}

/// The kernel's memory map: `low` bytes below the hole, the rest from 4 GiB to `end`.
fn memory_map(low: u64, end: u64) -> Vec<boot_e820_entry> {
    let entry = |start: u64, end: u64, kind| boot_e820_entry {
        addr: start,
        size: end - start,
        r#type: kind,
    };
    let mut map = vec![
        entry(0, CONVENTIONAL_END, RAM),
        entry(ACPI, ACPI_END, RESERVED),
        entry(EXTENDED, low, RAM),
    ];
    if end > HIGH_RAM {
        map.push(entry(HIGH_RAM, end, RAM));
    }
    map
}

fn descriptors(memory: &Memory) -> Result<(), KvmError> {
    for (index, segment) in SEGMENTS.iter().enumerate() {
        let address = GuestAddress(DESCRIPTORS + index as u64 * 8);
        memory
            .guest
            .write_obj(segment.descriptor(), address)
            .map_err(write("the descriptor table"))?;
    }
    Ok(())
}

/// Maps the first GiB to itself, with large pages: kernel, zero page and command line lie in it.
fn page_tables(memory: &Memory) -> Result<(), KvmError> {
    let [top, middle, bottom] = [0, 1, 2].map(|level| PAGE_TABLES + level * PAGE);
    let mut tables = vec![0_u64; (PAGE / 8) as usize];
    let mut put = |table: u64, entries: &[u64]| {
        tables.fill(0);
        for (place, entry) in tables.iter_mut().zip(entries) {
            *place = *entry;
        }
        let bytes: Vec<u8> = tables
            .iter()
            .flat_map(|entry| entry.to_le_bytes())
            .collect();
        let guest = &memory.guest;
        guest
            .write_slice(&bytes, GuestAddress(table))
            .map_err(write("page tables"))
    };
    put(top, &[middle | ENTRY])?;
    put(middle, &[bottom | ENTRY])?;
    let identity: Vec<u64> = (0..PAGE / 8)
        .map(|index| (index * LARGE_PAGE) | ENTRY | LARGE)
        .collect();
    put(bottom, &identity)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_memory_map_has_all_of_the_memory_and_neither_hole_nor_firmware() {
        let ranges = |low, end| -> Vec<(u64, u64, u32)> {
            let map = memory_map(low, end);
            map.iter().map(|e| (e.addr, e.size, e.r#type)).collect()
        };
        assert_eq!(
            ranges(64 << 20, HIGH_RAM),
            [
                (0, 0xA_0000, RAM),
                (0xE_0000, 0x2_0000, RESERVED),
                (1 << 20, 63 << 20, RAM)
            ]
        );
        let large = ranges(3 << 30, HIGH_RAM + (1 << 30));
        assert_eq!(large.last(), Some(&(HIGH_RAM, 1 << 30, RAM)));
        assert_eq!(large.len(), 4);
    }
}
