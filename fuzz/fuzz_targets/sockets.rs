//! Packets and hosts for the socket device.

#![allow(dead_code)]

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::mpsc::{Receiver, channel};

use bulkhead_devices::{HOST_CID, Header, Operation, Vsock};

use crate::guest::Input;

pub const RX: usize = 0;
pub const TX: usize = 1;

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

/// The processes on the host that the guest is connected to.
pub struct Hosts {
    accepted: Receiver<UnixStream>,
    open: Vec<UnixStream>,
}

/// A device that accepts every port but one, and its hosts.
pub fn device() -> (Vsock, Hosts) {
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
    let hosts = Hosts {
        accepted,
        open: Vec::new(),
    };
    (Vsock::new(3, Box::new(acceptor)), hosts)
}

impl Hosts {
    pub fn accept(&mut self) {
        self.open.extend(self.accepted.try_iter());
    }

    pub fn write(&mut self, count: u16) {
        if let Some(host) = self.open.first_mut() {
            let _ = host.write(&vec![7; usize::from(count)]);
        }
    }

    pub fn read(&mut self) {
        if let Some(host) = self.open.last_mut() {
            let _ = host.read(&mut [0; 8192]);
        }
    }

    pub fn leave(&mut self) {
        self.open.pop();
    }
}

/// A header, and how many bytes follow it.
pub fn packet(input: &mut Input<'_>) -> (Header, u32) {
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
    (header, length)
}
