//! The balloon behind registers: page numbers and ranges, inside memory and out.

#![no_main]

mod driver;
mod guest;

use bulkhead_devices::Balloon;
use driver::{Machine, SHOWN, pieces};
use guest::{BASE, DATA, Input, REGION};
use libfuzzer_sys::fuzz_target;
use vm_memory::{Bytes, GuestAddress};

const PAGE: u64 = 4096;

/// A page number that is usually one of memory.
fn page(input: &mut Input<'_>) -> u32 {
    let address = match input.u8() {
        0 => return input.u32(),
        1 => SHOWN + u64::from(input.u8()) * PAGE,
        _ => BASE + u64::from(input.u8()) * PAGE % (3 * REGION),
    };
    (address / PAGE) as u32
}

fuzz_target!(|data: &[u8]| {
    let mut input = Input(data);
    let mut machine = Machine::new(Box::new(Balloon::new()));
    machine.boot(&mut input);
    while !input.is_empty() {
        match input.u8() % 4 {
            0 => machine.disturb(&mut input),
            1 => {
                let queue = usize::from(input.u8() % 3);
                let chain = pieces(&mut input, 4);
                machine.ask(queue, &chain);
            }
            2 => {
                // Free pages, of which some are where rings and numbers lie.
                let chain: Vec<_> = (0..=input.u8() % 4)
                    .map(|_| {
                        let start = u64::from(page(&mut input)) * PAGE;
                        (start, u32::from(input.u8()) * 1024, 2)
                    })
                    .collect();
                machine.ask(2, &chain);
            }
            _ => {
                let count = u32::from(input.u8() % 16);
                let numbers: Vec<u8> = (0..count)
                    .flat_map(|_| page(&mut input).to_le_bytes())
                    .collect();
                let _ = machine.memory.write_slice(&numbers, GuestAddress(DATA));
                let queue = usize::from(input.u8() % 8 == 0);
                let cut = u32::from(input.u8() % 16 == 0);
                machine.ask(queue, &[(DATA, 4 * count + cut, 0)]);
            }
        }
    }
    machine.finish();
});
