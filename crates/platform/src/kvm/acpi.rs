//! ACPI tables: which CPUs, interrupt controllers and devices there are, and how to power off.
//!
//! Hardware-reduced (ACPI 6.5, 4.1), so that the guest looks for none of a PC's old timers, controllers and fixed
//! registers.

use acpi_tables::aml::{
    Device, EISAName, IO, Interrupt, Memory32Fixed, Name, Package, Path, ResourceTemplate, Scope,
};
use acpi_tables::fadt::{FADTBuilder, Flags};
use acpi_tables::gas::{AccessSize, AddressSpace, GAS};
use acpi_tables::madt::{
    EnabledStatus, IoApic, LocalInterruptController, MADT, ProcessorLocalApic,
};
use acpi_tables::rsdp::Rsdp;
use acpi_tables::sdt::Sdt;
use acpi_tables::xsdt::XSDT;
use acpi_tables::{Aml, aml};
use bulkhead_devices::mmio::WINDOW_BYTES;

use super::error::KvmError;
use super::layout::{
    ACPI, ACPI_END, IO_APIC, LOCAL_APIC, PANIC, RESET, SERIAL, SERIAL_INTERRUPT, SERIAL_PORTS,
    SLEEP_CONTROL, SLEEP_STATUS, interrupt, window,
};

const OEM: [u8; 6] = *b"BLKHD ";
const TABLE: [u8; 8] = *b"BULKHEAD";
const REVISION: u32 = 1;

/// The sleep type that means "off" in this machine: what `_S5` says and the sleep control register gets.
pub(super) const OFF: u8 = 5;
/// What the reset register gets.
pub(super) const RESET_VALUE: u8 = 1;

/// Boot architecture flags (ACPI 6.5, table 5.11): no VGA, no real-time clock. That the bits for old devices and for
/// the keyboard controller are clear says that there are none either.
const NO_VGA: u16 = 1 << 2;
const NO_CLOCK: u16 = 1 << 5;

/// Header of a table.
const HEADER: u32 = 36;

/// The tables for a machine with this many CPUs and virtio devices, as they lie at [`ACPI`].
pub(super) fn tables(vcpus: u8, devices: usize) -> Result<Vec<u8>, KvmError> {
    let mut area = Area {
        // The root pointer comes first and is known last.
        bytes: vec![0; Rsdp::len()],
    };
    let definitions = area.add(&definition_block(devices));
    let fixed = area.add(&fixed_description(definitions));
    let controllers = area.add(&interrupt_controllers(vcpus));
    let mut root = XSDT::new(OEM, TABLE, REVISION);
    root.add_entry(fixed);
    root.add_entry(controllers);
    let root = area.add(&root);
    let mut pointer = Vec::new();
    Rsdp::new(OEM, root).to_aml_bytes(&mut pointer);
    for (place, byte) in area.bytes.iter_mut().zip(pointer) {
        *place = byte;
    }
    if area.bytes.len() as u64 > ACPI_END - ACPI {
        return Err(KvmError::Tables(area.bytes.len()));
    }
    Ok(area.bytes)
}

struct Area {
    bytes: Vec<u8>,
}

impl Area {
    /// Adds a table and returns its address.
    fn add(&mut self, table: &dyn Aml) -> u64 {
        self.bytes.resize(self.bytes.len().next_multiple_of(16), 0);
        let address = ACPI + self.bytes.len() as u64;
        table.to_aml_bytes(&mut self.bytes);
        address
    }
}

fn register(port: u16) -> GAS {
    GAS::new(
        AddressSpace::SystemIo,
        8,
        0,
        AccessSize::ByteAccess,
        port.into(),
    )
}

/// FADT (ACPI 6.5, 5.2.9).
fn fixed_description(definitions: u64) -> acpi_tables::fadt::FADT {
    let mut table = FADTBuilder::new(OEM, TABLE, REVISION)
        .dsdt_64(definitions)
        .flag(Flags::HwReducedAcpi)
        .flag(Flags::ResetRegSup)
        .flag(Flags::Wbinvd)
        .flag(Flags::Headless);
    table.iapc_boot_arch = (NO_VGA | NO_CLOCK).into();
    table.reset_reg = register(RESET);
    table.reset_value = RESET_VALUE;
    table.sleep_control_reg = register(SLEEP_CONTROL);
    table.sleep_status_reg = register(SLEEP_STATUS);
    table.finalize()
}

/// MADT (ACPI 6.5, 5.2.12).
fn interrupt_controllers(vcpus: u8) -> MADT {
    let mut table = MADT::new(
        OEM,
        TABLE,
        REVISION,
        LocalInterruptController::Address(LOCAL_APIC),
    );
    for index in 0..vcpus {
        table.add_structure(ProcessorLocalApic::new(
            index,
            index,
            EnabledStatus::Enabled,
        ));
    }
    table.add_structure(IoApic::new(0, IO_APIC, 0));
    table
}

/// An interrupt of one device alone, edge-triggered, as `irqfd` gives it.
fn edge(number: u32) -> Interrupt {
    Interrupt::new(true, true, false, false, number)
}

/// DSDT (ACPI 6.5, 5.2.11.1).
fn definition_block(devices: usize) -> Sdt {
    let serial_ports = IO::new(SERIAL, SERIAL, 1, SERIAL_PORTS as u8);
    let serial_interrupt = edge(SERIAL_INTERRUPT);
    let serial_resources = ResourceTemplate::new(vec![&serial_ports, &serial_interrupt]);
    let panic_port = IO::new(PANIC, PANIC, 1, 1);
    let panic_resources = ResourceTemplate::new(vec![&panic_port]);
    let name = |path: &str, value: &dyn Aml| Name::new(Path::new(path), value);
    let mut children = Vec::new();
    Device::new(
        Path::new("COM1"),
        vec![
            &name("_HID", &EISAName::new("PNP0501")),
            &name("_UID", &aml::ZERO),
            &name("_CRS", &serial_resources),
        ],
    )
    .to_aml_bytes(&mut children);
    Device::new(
        Path::new("PEVT"),
        vec![&name("_HID", &"QEMU0001"), &name("_CRS", &panic_resources)],
    )
    .to_aml_bytes(&mut children);
    for index in 0..devices {
        // In the hole, so 32 bits hold it.
        let registers = Memory32Fixed::new(true, window(index) as u32, WINDOW_BYTES as u32);
        let interrupt = edge(interrupt(index));
        let resources = ResourceTemplate::new(vec![&registers, &interrupt]);
        Device::new(
            Path::new(&format!("V{index:03}")),
            vec![
                &name("_HID", &"LNRO0005"),
                &name("_UID", &index),
                &name("_CCA", &aml::ONE),
                &name("_CRS", &resources),
            ],
        )
        .to_aml_bytes(&mut children);
    }
    let mut code = Scope::raw(Path::new("\\_SB_"), children);
    let off = Package::new(vec![&OFF]);
    name("\\_S5_", &off).to_aml_bytes(&mut code);
    let mut table = Sdt::new(*b"DSDT", HEADER, 2, OEM, TABLE, REVISION);
    table.append_slice(&code);
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    fn word(bytes: &[u8], at: usize) -> u64 {
        u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
    }

    /// The table at an address, checked.
    fn table(area: &[u8], address: u64) -> &[u8] {
        let start = usize::try_from(address - ACPI).expect("in the area");
        let length = u32::from_le_bytes(area[start + 4..start + 8].try_into().expect("four"));
        let table = &area[start..start + length as usize];
        let sum = table.iter().fold(0_u8, |sum, byte| sum.wrapping_add(*byte));
        assert_eq!(sum, 0, "{:?}", String::from_utf8_lossy(&table[..4]));
        table
    }

    #[test]
    fn the_root_leads_to_every_table_and_all_sums_are_right() {
        let area = tables(2, 5).expect("tables");
        assert_eq!(&area[..8], b"RSD PTR ");
        let sum = area[..36]
            .iter()
            .fold(0_u8, |sum, byte| sum.wrapping_add(*byte));
        assert_eq!(sum, 0);
        let root = table(&area, word(&area, 24));
        assert_eq!(&root[..4], b"XSDT");
        let [fixed, controllers] = [36, 44].map(|at| table(&area, word(root, at)));
        assert_eq!(
            (&fixed[..4], &controllers[..4]),
            (&b"FACP"[..], &b"APIC"[..])
        );
        let definitions = table(&area, word(fixed, 140));
        assert_eq!(&definitions[..4], b"DSDT");
        // Two CPUs with eight bytes each, one I/O APIC with twelve.
        assert_eq!(controllers.len(), 44 + 2 * 8 + 12);
        let count = |what: &[u8]| {
            definitions
                .windows(what.len())
                .filter(|w| *w == what)
                .count()
        };
        assert_eq!(count(b"LNRO0005"), 5);
        assert_eq!(count(b"QEMU0001"), 1);
        assert_eq!(count(b"_S5_"), 1);
    }

    #[test]
    fn the_largest_machine_fits() {
        let area = tables(254, crate::kvm::layout::MOST_DEVICES).expect("tables");
        assert!(area.len() < 0x2000);
    }

    /// `iasl` of Debian's package acpica-tools reads what an independent hand wrote.
    #[test]
    fn an_independent_compiler_can_read_the_definition_block() {
        let area = tables(2, 3).expect("tables");
        let root = table(&area, word(&area, 24));
        let fixed = table(&area, word(root, 36));
        let definitions = table(&area, word(fixed, 140));
        let place = tempfile::tempdir().expect("a directory");
        let path = place.path().join("dsdt.aml");
        std::fs::write(&path, definitions).expect("written");
        let run = std::process::Command::new("iasl")
            .arg("-d")
            .arg(&path)
            .output();
        let Ok(run) = run else {
            bulkhead_harness::cannot_run!("there is no iasl (package acpica-tools)");
            return;
        };
        assert!(run.status.success(), "{run:?}");
        let text = std::fs::read_to_string(place.path().join("dsdt.dsl")).expect("a listing");
        assert!(text.contains("LNRO0005"), "{text}");
        assert!(text.contains("0xD0002000"), "{text}");
        assert!(text.contains(r"Name (\_S5"), "{text}");
    }
}
