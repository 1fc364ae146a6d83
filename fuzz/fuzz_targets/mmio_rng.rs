//! The entropy device behind registers.

#![no_main]

mod driver;
mod guest;

use bulkhead_devices::Rng;
use driver::{Machine, pieces};
use guest::Input;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let mut input = Input(data);
    let mut machine = Machine::new(Box::new(Rng::new()));
    machine.boot(&mut input);
    while !input.is_empty() {
        match input.u8() % 3 {
            0 => machine.disturb(&mut input),
            _ => {
                let chain = pieces(&mut input, 3);
                machine.ask(0, &chain);
            }
        }
    }
    machine.finish();
});
