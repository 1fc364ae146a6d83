//! Where a virtual CPU's accesses lead that leave the guest: ports, and the windows of virtio devices.
//!
//! What nobody answers reads as ones, as on a bus without a device, and writes to it are lost. What a device's ioeventfd
//! takes never comes here.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use bulkhead_devices::mmio::Registers;

use super::acpi::{OFF, RESET_VALUE};
use super::console::Serial;
use super::layout::{
    KEYBOARD, PANIC, RESET, SERIAL, SERIAL_PORTS, SLEEP_CONTROL, SLEEP_STATUS, in_window,
};
use crate::machine::MachineExit;

/// Sleep control register: SLP_EN, and SLP_TYP in bits 4..2 (ACPI 6.5, table 4.20).
const SLEEP_ENABLE: u8 = 1 << 5;
const SLEEP_TYPE_SHIFT: u8 = 2;
const SLEEP_TYPE: u8 = 7;

/// pvpanic: the guest panicked. The only event that is offered: a guest that loads a crash kernel ends all the same.
const PANICKED: u8 = 1;

/// Keyboard controller: pulse the processor's reset line.
const PULSE_RESET: u8 = 0xfe;

/// What is there beside CPUs and memory.
#[derive(Debug)]
pub(super) struct Bus {
    serial: Mutex<Serial>,
    windows: Vec<Registers>,
    /// The guest reported a panic. Its last words may still be on their way; a reset follows them.
    panicked: AtomicBool,
}

impl Bus {
    pub(super) fn new(serial: Serial, windows: Vec<Registers>) -> Self {
        Self {
            serial: Mutex::new(serial),
            windows,
            panicked: AtomicBool::new(false),
        }
    }

    fn serial(&self) -> std::sync::MutexGuard<'_, Serial> {
        self.serial.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A CPU reads from a port; several bytes of a string instruction come from the same port.
    pub(super) fn port_read(&self, port: u16, data: &mut [u8]) {
        match port.checked_sub(SERIAL) {
            Some(offset) if offset < SERIAL_PORTS => {
                let mut serial = self.serial();
                for byte in data {
                    *byte = serial.read(offset as u8);
                }
            }
            _ => data.fill(match port {
                PANIC => PANICKED,
                // Neither asleep nor woken, and a keyboard controller that is never busy: who wants to reset by it
                // looks first.
                SLEEP_CONTROL | SLEEP_STATUS | KEYBOARD => 0,
                _ => 0xff,
            }),
        }
    }

    /// A CPU writes to a port. Some writes end the machine.
    pub(super) fn port_write(&self, port: u16, data: &[u8]) -> Option<MachineExit> {
        if let Some(offset) = port.checked_sub(SERIAL).filter(|at| *at < SERIAL_PORTS) {
            let mut serial = self.serial();
            for byte in data {
                // The console never fails; an interrupt that is pending already needs no second one.
                let _ = serial.write(offset as u8, *byte);
            }
            return None;
        }
        let value = *data.first()?;
        match port {
            PANIC if value & PANICKED != 0 => {
                self.panicked.store(true, Ordering::SeqCst);
                None
            }
            SLEEP_CONTROL if value & SLEEP_ENABLE != 0 => {
                let kind = value >> SLEEP_TYPE_SHIFT & SLEEP_TYPE;
                (kind == OFF).then_some(MachineExit::PoweredOff)
            }
            RESET if value == RESET_VALUE => Some(MachineExit::Restarted),
            KEYBOARD if value == PULSE_RESET => Some(MachineExit::Restarted),
            _ => None,
        }
    }

    /// A CPU reads where there is no memory.
    pub(super) fn memory_read(&self, address: u64, data: &mut [u8]) {
        match self.window(address) {
            Some((registers, offset)) => registers.read(offset, data),
            None => data.fill(0xff),
        }
    }

    /// A CPU writes where there is no memory, or none that it may write.
    pub(super) fn memory_write(&self, address: u64, data: &[u8]) {
        if let Some((registers, offset)) = self.window(address) {
            registers.write(offset, data);
        }
    }

    fn window(&self, address: u64) -> Option<(&Registers, u64)> {
        let (index, offset) = in_window(address)?;
        Some((self.windows.get(index)?, offset))
    }

    /// The machine ended like this: writes the rest of the console, and tells a panic from what it ends with.
    pub(super) fn judge(&self, exit: MachineExit) -> MachineExit {
        let mut serial = self.serial();
        let console = serial.writer_mut();
        console.finish();
        let panicked = self.panicked.load(Ordering::SeqCst) || console.panicked();
        match exit {
            MachineExit::Restarted | MachineExit::TripleFault if panicked => MachineExit::Panicked,
            exit => exit,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kvm::console::{Console, Line};
    use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

    fn bus() -> (Bus, std::fs::File) {
        let (read, write) = nix::unistd::pipe().expect("a pipe");
        let line = Line(EventFd::new(EFD_NONBLOCK).expect("an event"));
        let console = Console::new(write).expect("a console");
        (
            Bus::new(Serial::new(line, console), Vec::new()),
            read.into(),
        )
    }

    #[test]
    fn sleep_reset_and_pulse_end_the_machine_and_nothing_else_does() {
        let (bus, _console) = bus();
        let off = SLEEP_ENABLE | OFF << SLEEP_TYPE_SHIFT;
        assert_eq!(
            bus.port_write(SLEEP_CONTROL, &[off]),
            Some(MachineExit::PoweredOff)
        );
        assert_eq!(bus.port_write(RESET, &[1]), Some(MachineExit::Restarted));
        assert_eq!(
            bus.port_write(KEYBOARD, &[0xfe]),
            Some(MachineExit::Restarted)
        );
        for port in 0..=u16::MAX {
            for value in [0, 1 << 5, 0x14, 0xff] {
                let data = [value, value, value, value];
                assert_eq!(bus.port_write(port, &data), None, "{port:#x} {value:#x}");
            }
            assert_eq!(bus.port_write(port, &[]), None);
        }
    }

    #[test]
    fn a_reset_after_a_panic_is_a_panic() {
        let (bus, _console) = bus();
        assert_eq!(bus.judge(MachineExit::Restarted), MachineExit::Restarted);
        assert_eq!(bus.port_write(PANIC, &[2]), None);
        assert_eq!(
            bus.judge(MachineExit::TripleFault),
            MachineExit::TripleFault
        );
        assert_eq!(bus.port_write(PANIC, &[PANICKED]), None);
        assert_eq!(bus.judge(MachineExit::Restarted), MachineExit::Panicked);
        assert_eq!(bus.judge(MachineExit::TripleFault), MachineExit::Panicked);
        assert_eq!(bus.judge(MachineExit::PoweredOff), MachineExit::PoweredOff);
    }

    #[test]
    fn a_kernel_without_the_driver_panics_on_its_console() {
        let (bus, mut reader) = bus();
        let words = b"Kernel panic - not syncing: no init";
        for byte in words {
            assert_eq!(bus.port_write(SERIAL, &[*byte]), None);
        }
        assert_eq!(bus.judge(MachineExit::Restarted), MachineExit::Panicked);
        drop(bus);
        let mut console = Vec::new();
        std::io::Read::read_to_end(&mut reader, &mut console).expect("read");
        assert_eq!(
            console, words,
            "the last words are there without the line's end"
        );
    }

    #[test]
    fn nothing_answers_where_nothing_is() {
        let (bus, _console) = bus();
        let mut data = [0; 8];
        bus.memory_read(0xd000_0000, &mut data);
        assert_eq!(data, [0xff; 8]);
        bus.memory_write(0xd000_0000, &data);
        bus.memory_read(u64::MAX, &mut data);
        let mut byte = [0];
        bus.port_read(0xcfc, &mut byte);
        assert_eq!(byte, [0xff]);
        bus.port_read(PANIC, &mut byte);
        assert_eq!(byte, [PANICKED]);
        // The line status register: ready for the next byte.
        bus.port_read(SERIAL + 5, &mut byte);
        assert_eq!(byte[0] & 0x60, 0x60);
    }
}
