//! The socket device under arbitrary packets, buffers, and hosts that read, write and leave.

#![no_main]

mod guest;

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::mpsc::channel;

use bulkhead_devices::{Device, HOST_CID, Header, Operation, Poller, Vsock, Work};
use guest::{DATA, Input, activate};
use libfuzzer_sys::fuzz_target;
use vm_memory::{Bytes, GuestAddress};

const RX: usize = 0;
const TX: usize = 1;

const OPERATIONS: [Option<Operation>; 8] = [
    None,
    Some(Operation::Request),
    Some(Operation::Response),
    Some(Operation::Reset),
    Some(Operation::Shutdown),
    Some(Operation::ReadWrite),
    Some(Operation::CreditUpdate),
    Some(Operation::CreditRequest),
];

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
    let (sender, accepted) = channel();
    let acceptor = move |port: u32| {
        if port == 3 {
            return None;
        }
        let (ours, theirs) = UnixStream::pair().ok()?;
        theirs.set_nonblocking(true).ok()?;
        sender.send(theirs).ok()?;
        Some(ours)
    };
    let mut device = Vsock::new(3, Box::new(acceptor));
    let (memory, mut rings, poller) = activate(&mut device);
    let mut hosts: Vec<UnixStream> = Vec::new();
    while !input.is_empty() {
        hosts.extend(accepted.try_iter());
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
            3 => {
                if let Some(host) = hosts.first_mut() {
                    let _ = host.write(&vec![7; usize::from(input.u16())]);
                }
            }
            4 => {
                if let Some(host) = hosts.last_mut() {
                    let _ = host.read(&mut [0; 8192]);
                }
            }
            5 => {
                hosts.pop();
            }
            _ => {
                let length = u32::from(input.u16() % 3000);
                let header = Header {
                    source_cid: if input.u8() == 0 { input.u64() } else { 3 },
                    destination_cid: if input.u8() == 0 { 9 } else { HOST_CID },
                    source_port: u32::from(input.u8() % 4),
                    destination_port: u32::from(input.u8() % 4),
                    length: if input.u8() == 0 { input.u32() } else { length },
                    kind: if input.u8() == 0 { input.u16() } else { 1 },
                    operation: OPERATIONS[usize::from(input.u8() % 8)],
                    flags: u32::from(input.u8() % 5),
                    buffer_size: input.u32(),
                    forwarded: if input.u8() < 8 { input.u32() } else { 0 },
                };
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
