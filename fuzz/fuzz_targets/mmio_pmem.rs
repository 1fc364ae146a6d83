//! Persistent memory behind registers: its place in the configuration, and flush requests. The file
//! must never change.

#![no_main]

mod driver;
mod guest;

use std::fs::File;
use std::os::unix::fs::FileExt;

use bulkhead_devices::{Device, Pmem};
use driver::{Machine, file, pieces};
use guest::{DATA, Input};
use libfuzzer_sys::fuzz_target;
use vm_memory::{Bytes, GuestAddress};

thread_local! {
    static FILE: File = file(&[0x55; 5000]);
}

fuzz_target!(|data: &[u8]| {
    FILE.with(|file| {
        let mut input = Input(data);
        let mut device = Pmem::read_only(vec![file.try_clone().unwrap()]).unwrap();
        let place = input.u64();
        device.place(place);
        let mut machine = Machine::new(Box::new(device));
        machine.boot(&mut input);
        while !input.is_empty() {
            match input.u8() % 4 {
                0 => machine.disturb(&mut input),
                1 => {
                    let chain = pieces(&mut input, 3);
                    machine.ask(0, &chain);
                }
                _ => {
                    let kind = u32::from(input.u8() % 3);
                    let _ = machine.memory.write_obj(kind, GuestAddress(DATA));
                    let mut chain = vec![(DATA, 4, 0)];
                    chain.extend(pieces(&mut input, 1));
                    chain.push((DATA + 8, 4, 2));
                    machine.ask(0, &chain);
                }
            }
        }
        let mut start = [0; 8];
        machine.registers.read(0x100, &mut start);
        assert_eq!(u64::from_le_bytes(start), place);
        machine.finish();
        let mut content = [0; 5000];
        file.read_exact_at(&mut content, 0).unwrap();
        assert!(content.iter().all(|byte| *byte == 0x55));
    });
});
