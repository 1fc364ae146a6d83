//! The entropy device under arbitrary chains.

#![no_main]

mod guest;

use bulkhead_devices::{Device, Rng};
use guest::{Input, activate};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let mut input = Input(data);
    let mut device = Rng::new();
    let (_memory, mut rings, _poller) = activate(&mut device);
    while !input.is_empty() {
        match input.u8() % 3 {
            0 => rings[0].scribble(&mut input),
            1 => {
                let writable = 2 * u16::from(!input.u8().is_multiple_of(8));
                rings[0].add(&[(input.address(), input.length(), writable)]);
            }
            _ => {
                if device.queue_event(0).is_err() {
                    return;
                }
            }
        }
    }
});
