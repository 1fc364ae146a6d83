//! The socket device under arbitrary packets, buffers, and hosts that read, write and leave.

#![no_main]

mod guest;
mod sockets;

use bulkhead_devices::{Device, Poller, Vsock, Work};
use guest::{DATA, Input, activate};
use libfuzzer_sys::fuzz_target;
use sockets::{RX, TX, packet};
use vm_memory::{Bytes, GuestAddress};

/// One wake-up; `false` once the device is broken.
fn turn(device: &mut Vsock, poller: &Poller) -> bool {
    for (token, ready) in poller.ready_now().unwrap() {
        if device.source_event(token, ready).is_err() {
            return false;
        }
    }
    for _ in 0..16 {
        match device.settle() {
            Ok(Work::More) => (),
            Ok(Work::Done) => return true,
            Err(_) => return false,
        }
    }
    true
}

fuzz_target!(|data: &[u8]| {
    let mut input = Input(data);
    let (mut device, mut hosts) = sockets::device();
    let (memory, mut rings, poller) = activate(&mut device);
    while !input.is_empty() {
        hosts.accept();
        match input.u8() % 10 {
            0 => {
                let queue = usize::from(input.u8() % 3);
                rings[queue].scribble(&mut input);
            }
            1 | 2 => {
                for _ in 0..=input.u8() % 4 {
                    let length = 45 + u32::from(input.u16() % 4096);
                    rings[RX].add(&[(input.address(), length, 2)]);
                }
                let _ = device.queue_event(RX);
            }
            3 => hosts.write(input.u16()),
            4 => hosts.read(),
            5 => hosts.leave(),
            _ => {
                let (header, length) = packet(&mut input);
                let _ = memory.write_slice(&header.encode(), GuestAddress(DATA));
                let half = length / 2;
                rings[TX].add(&[
                    (DATA, 44, 0),
                    (DATA + 64, half, 0),
                    (input.address(), length - half, 0),
                ]);
                if device.queue_event(TX).is_err() {
                    return;
                }
            }
        }
        if !turn(&mut device, &poller) {
            return;
        }
    }
    let _ = device.reset();
    assert!(device.drained());
});
