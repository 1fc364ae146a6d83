//! Both kinds of disk behind registers. A read-only disk must never change, a writable one never grow.

#![no_main]

mod driver;
mod guest;

use std::fs::File;
use std::os::unix::fs::FileExt;

use bulkhead_devices::Block;
use driver::{Machine, file, pieces};
use guest::{DATA, Input};
use libfuzzer_sys::fuzz_target;
use vm_memory::{Bytes, GuestAddress};

const BYTES: usize = 64 * 1024;

thread_local! {
    static FILES: [File; 3] = [
        file(&[0x55; BYTES]),
        file(&[0x55; 5000]),
        file(&[0x55; 4096]),
    ];
}

fn request(machine: &mut Machine, input: &mut Input<'_>) {
    let mut header = [0; 16];
    header[0] = input.u8() % 16;
    let sector = match input.u8() {
        0 => input.u64(),
        near => u64::from(near % 140),
    };
    header[8..].copy_from_slice(&sector.to_le_bytes());
    let _ = machine.memory.write_slice(&header, GuestAddress(DATA));
    let mut chain = vec![(DATA, 16, 0)];
    chain.extend(pieces(input, 3));
    if !input.u8().is_multiple_of(16) {
        chain.push((DATA + 16, 1, 2));
    }
    machine.ask(0, &chain);
}

fuzz_target!(|data: &[u8]| {
    FILES.with(|files| {
        let mut input = Input(data);
        let read_only = input.u8().is_multiple_of(2);
        let copy = |file: &File| file.try_clone().unwrap();
        let device = if read_only {
            Block::read_only(files[1..].iter().map(copy).collect(), "image")
        } else {
            Block::writable(copy(&files[0]), "scratch")
        };
        let mut machine = Machine::new(Box::new(device.unwrap()));
        machine.boot(&mut input);
        while !input.is_empty() {
            match input.u8() % 3 {
                0 => machine.disturb(&mut input),
                _ => request(&mut machine, &mut input),
            }
        }
        machine.finish();
        assert_eq!(files[0].metadata().unwrap().len(), BYTES as u64);
        if read_only {
            let mut content = [0; 5000];
            files[1].read_exact_at(&mut content, 0).unwrap();
            assert!(content.iter().all(|byte| *byte == 0x55));
        }
    });
});
