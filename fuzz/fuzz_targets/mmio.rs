//! The register file with a real device behind it: any access in any order. The driver's features
//! are followed along, because what was agreed on is what the device is then trusted to obey.

#![no_main]

mod driver;
mod guest;

use bulkhead_devices::{Balloon, Block, Device, Pmem, Rng, Vsock};
use driver::{Machine, STATUS, file};
use guest::Input;
use libfuzzer_sys::fuzz_target;

fn device(kind: u8) -> Box<dyn Device> {
    match kind % 5 {
        0 => Box::new(Block::read_only(vec![file(b"image")], "image").unwrap()),
        1 => Box::new(Rng::new()),
        2 => Box::new(Balloon::new()),
        3 => Box::new(Vsock::new(3, Box::new(|_: u32| None))),
        _ => Box::new(Pmem::read_only(vec![file(b"image")]).unwrap()),
    }
}

/// What the driver has said about features.
#[derive(Default)]
struct Said {
    select: u32,
    features: u64,
}

impl Said {
    /// As section 4.2.2 has it, as long as features can still be said.
    fn follow(&mut self, machine: &Machine, offset: u64, value: u32) {
        match offset {
            0x20 if machine.read(STATUS) & 0x48 == 0 => match self.select {
                0 => self.features = self.features >> 32 << 32 | u64::from(value),
                1 => self.features = self.features & 0xffff_ffff | u64::from(value) << 32,
                _ => (),
            },
            0x24 if machine.read(STATUS) & 0x40 == 0 => self.select = value,
            0x70 if value == 0 => *self = Self::default(),
            _ => (),
        }
    }
}

fuzz_target!(|data: &[u8]| {
    let mut input = Input(data);
    let device = device(input.u8());
    let offered = device.features();
    let mut machine = Machine::new(device);
    let mut said = Said::default();
    let mut followed = true;
    while !input.is_empty() {
        match input.u8() % 8 {
            0 => {
                machine.disturb(&mut input);
                // Registers may have been written unseen.
                followed = false;
            }
            1 => machine.turn(),
            2 => {
                machine.boot(&mut input);
                followed = false;
            }
            3 => {
                machine.write(STATUS, 0);
                assert_eq!(machine.read(STATUS), 0);
                (said, followed) = (Said::default(), true);
            }
            _ => {
                let offset = 4 * u64::from(input.u8() % 66);
                let value = match input.u8() {
                    0 => input.u32(),
                    bit @ 1..=32 => 1 << (bit - 1),
                    small => u32::from(small - 33),
                };
                said.follow(&machine, offset, value);
                machine.write(offset, value);
            }
        }
        if followed {
            machine.check(said.features, offered);
        }
    }
    machine.finish();
});
