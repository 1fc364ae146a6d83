//! Rings and descriptor tables made of arbitrary bytes: walking them must end, without a panic, in
//! chains that lie inside memory or in an error.

#![no_main]

mod guest;

use bulkhead_devices::Chain;
use guest::{Input, Ring, memory};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let mut input = Input(data);
    let memory = memory();
    let sizes = [1, 2, 16, 256];
    let size = sizes[usize::from(input.u8() % 4)];
    let mut ring = Ring::new(&memory, 0, size);
    let mut queue = ring.queue();
    let mut chain = Chain::new(&memory);
    for _ in 0..64 {
        if input.is_empty() {
            break;
        }
        match input.u8() % 4 {
            0 => ring.scribble(&mut input),
            1 => {
                let count = usize::from(input.u8() % 6);
                let pieces: Vec<_> = (0..count)
                    .map(|_| (input.address(), input.length(), u16::from(input.u8() % 8)))
                    .collect();
                if !pieces.is_empty() {
                    ring.add(&pieces);
                }
            }
            2 => queue.give_back(u16::from(input.u8() % 3)),
            _ => {
                for _ in 0..300 {
                    match queue.pop(&mut chain) {
                        Ok(true) => (),
                        Ok(false) => break,
                        Err(_) => return,
                    }
                    let mut copy = [0; 64];
                    let start = usize::from(input.u8());
                    let read = chain.readable.read_at(start, &mut copy);
                    assert!(read <= chain.readable.len().saturating_sub(start));
                    let written = chain.writable.write_at(start, &copy);
                    assert!(written <= chain.writable.len().saturating_sub(start));
                    assert!(chain.readable.pieces() + chain.writable.pieces() <= 2 * 256);
                    if queue.push(chain.head(), written as u32).is_err() {
                        return;
                    }
                }
                let _ = queue.notify();
                let _ = queue.enable_notifications();
            }
        }
    }
});
