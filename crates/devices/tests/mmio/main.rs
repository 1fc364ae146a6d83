//! Devices behind memory-mapped registers, driven as a guest's driver does, and as none should.

#[path = "../support/mod.rs"]
mod support;

mod events;
mod hostile;
mod rules;
mod threads;
mod working;

use std::fs::File;
use std::io::Write;
use std::os::unix::net::UnixStream;
use std::sync::mpsc::{Receiver, channel};

use bulkhead_devices::{Balloon, Block, Device, HOST_CID, Header, Operation, Pmem, Rng, Vsock};
use support::mmio_guest::DATA;

const ALL: u64 = u64::MAX;

fn file(content: &[u8]) -> File {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(content).unwrap();
    file
}

fn disk(content: &[u8]) -> Block {
    Block::read_only(vec![file(content)], "image").unwrap()
}

fn refuse(_: u32) -> Option<UnixStream> {
    None
}

/// One of each kind, with the number of its type and of its queues.
fn every_device() -> Vec<(Box<dyn Device>, u32, u32)> {
    let pmem = Pmem::read_only(vec![file(b"image")]).unwrap();
    vec![
        (Box::new(disk(&[5; 8192])), 2, 1),
        (Box::new(Rng::new()), 4, 1),
        (Box::new(Balloon::new()), 5, 3),
        (Box::new(Vsock::new(3, Box::new(refuse))), 19, 3),
        (Box::new(pmem), 27, 1),
    ]
}

fn header(operation: Operation, length: u32) -> Header {
    Header {
        source_cid: 3,
        destination_cid: HOST_CID,
        source_port: 1000,
        destination_port: 5,
        length,
        kind: 1,
        operation: Some(operation),
        flags: 0,
        buffer_size: 1 << 20,
        forwarded: 0,
    }
}

/// A socket device whose host ends come out of the channel.
fn sockets() -> (Vsock, Receiver<UnixStream>) {
    let (sender, accepted) = channel();
    let acceptor = move |_port: u32| {
        let (ours, theirs) = UnixStream::pair().ok()?;
        sender.send(theirs).ok()?;
        Some(ours)
    };
    (Vsock::new(3, Box::new(acceptor)), accepted)
}

/// A request that every queue answers at once: what to write to memory, and the chain.
fn request(id: u32, queue: u32) -> (Vec<u8>, Vec<(u64, u32, bool)>) {
    let word = (DATA, 4, false);
    match (id, queue) {
        (2, _) => {
            let get_id = [8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
            let chain = vec![(DATA, 16, false), (DATA + 64, 21, true)];
            (get_id.to_vec(), chain)
        }
        (4, _) => (Vec::new(), vec![(DATA, 8, true)]),
        (5, 0) => (vec![0x90, 0, 0, 0], vec![word]),
        (5, 1) => (vec![0x90, 0, 0, 0], vec![word]),
        (5, _) => (Vec::new(), vec![(DATA + 0x1000, 4096, true)]),
        (19, _) => {
            let reset = header(Operation::Reset, 0).encode().to_vec();
            (reset, vec![(DATA, 44, false)])
        }
        _ => (vec![0; 4], vec![word, (DATA + 64, 4, true)]),
    }
}
