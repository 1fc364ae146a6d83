//! The socket device behind registers, with hosts that read, write and leave.

#![no_main]

mod driver;
mod guest;
mod sockets;

use driver::{Machine, address};
use guest::{DATA, Input};
use libfuzzer_sys::fuzz_target;
use sockets::{RX, TX, packet};
use vm_memory::{Bytes, GuestAddress};

fuzz_target!(|data: &[u8]| {
    let mut input = Input(data);
    let (device, mut hosts) = sockets::device();
    let mut machine = Machine::new(Box::new(device));
    machine.boot(&mut input);
    while !input.is_empty() {
        hosts.accept();
        match input.u8() % 10 {
            0 | 1 => machine.disturb(&mut input),
            2 => {
                for _ in 0..=input.u8() % 4 {
                    let length = 45 + u32::from(input.u16() % 4096);
                    let buffer = (address(&mut input), length, 2);
                    machine.ask(RX, &[buffer]);
                }
            }
            3 => hosts.write(input.u16()),
            4 => hosts.read(),
            5 => hosts.leave(),
            _ => {
                let (header, length) = packet(&mut input);
                let _ = machine
                    .memory
                    .write_slice(&header.encode(), GuestAddress(DATA));
                let half = length / 2;
                let rest = (address(&mut input), length - half, 0);
                machine.ask(TX, &[(DATA, 44, 0), (DATA + 64, half, 0), rest]);
            }
        }
        machine.turn();
    }
    machine.finish();
});
