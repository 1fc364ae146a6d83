//! The whole device against a guest played by the test.

use std::io::{ErrorKind, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::sync::mpsc::{Receiver, channel};

use super::packet::{SHUTDOWN_BOTH, SHUTDOWN_RECEIVE, SHUTDOWN_SEND, TYPE_STREAM};
use super::{HOST_CID, Header, Operation, Vsock};
use crate::device::{Device, DeviceError, Work};
use crate::poll::Poller;
use crate::virtio::queue::driver::Driver;
use crate::virtio::queue::testing::activate;

const GUEST_CID: u64 = 3;
const PORT: u32 = 70;
/// Receive buffers lie here, 4 KiB apart.
const RX_BUFFERS: u64 = 0x100_0000;
const RX_LENGTH: u32 = 3776;
/// Packets of the guest lie here.
const TX_PACKET: u64 = 0x180_0000;
const GUEST_WINDOW: u32 = 256 * 1024;

struct Guest {
    device: Vsock,
    rx: Driver,
    tx: Driver,
    poller: Poller,
    accepted: Receiver<(u32, UnixStream)>,
    /// What the guest tells of itself in every packet.
    window: u32,
    forwarded: u32,
}

impl Guest {
    fn new() -> Self {
        let (sender, accepted) = channel();
        let acceptor = move |port: u32| {
            if port == 9 {
                return None;
            }
            let (ours, theirs) = UnixStream::pair().unwrap();
            theirs.set_nonblocking(true).unwrap();
            sender.send((port, theirs)).unwrap();
            Some(ours)
        };
        let mut device = Vsock::new(GUEST_CID, Box::new(acceptor));
        let (mut drivers, _, poller) = activate(&mut device);
        let (rx, tx) = (drivers.remove(0), drivers.remove(0));
        Self {
            device,
            rx,
            tx,
            poller,
            accepted,
            window: GUEST_WINDOW,
            forwarded: 0,
        }
    }

    fn with_buffers(count: u16) -> Self {
        let mut guest = Self::new();
        guest.provide(count);
        guest
    }

    fn provide(&mut self, count: u16) {
        for index in 0..u64::from(count) {
            self.rx.add(&[(RX_BUFFERS + 4096 * index, RX_LENGTH, true)]);
        }
    }

    fn header(&self, source_port: u32, operation: Operation, length: u32, flags: u32) -> Header {
        Header {
            source_cid: GUEST_CID,
            destination_cid: HOST_CID,
            source_port,
            destination_port: PORT,
            length,
            kind: TYPE_STREAM,
            operation: Some(operation),
            flags,
            buffer_size: self.window,
            forwarded: self.forwarded,
        }
    }

    fn send_header(&mut self, header: Header, data: &[u8]) -> Result<(), DeviceError> {
        self.tx.write(TX_PACKET, &header.encode());
        self.tx.write(TX_PACKET + 64, data);
        // As Linux does: the header, then the data in several pieces.
        let mut chain = vec![(TX_PACKET, 44, false)];
        let mut at = 0;
        while at < data.len() {
            let piece = (data.len() - at).min(32 * 1024);
            chain.push((TX_PACKET + 64 + at as u64, piece as u32, false));
            at += piece;
        }
        self.tx.add(&chain);
        let _ = self.device.queue_event(1)?;
        self.turn()?;
        while self.tx.take_used().is_some() {}
        Ok(())
    }

    fn send(&mut self, port: u32, operation: Operation, flags: u32, data: &[u8]) {
        let header = self.header(port, operation, data.len() as u32, flags);
        self.send_header(header, data).unwrap();
    }

    /// One wake-up of the transport.
    fn turn(&mut self) -> Result<(), DeviceError> {
        loop {
            let ready = self.poller.ready_now().unwrap();
            let idle = ready.is_empty();
            for (token, readiness) in ready {
                self.device.source_event(token, readiness)?;
            }
            if self.device.settle()? == Work::Done && idle {
                return Ok(());
            }
        }
    }

    /// What the device put into receive buffers since the last call.
    fn received(&mut self) -> Vec<(Header, Vec<u8>)> {
        self.turn().unwrap();
        let mut packets = Vec::new();
        while let Some((head, length)) = self.rx.take_used() {
            let raw = self.rx.read(self.rx.descriptors + 16 * u64::from(head), 8);
            let address = u64::from_le_bytes(raw.try_into().unwrap());
            let header = self.rx.read(address, 44).try_into().unwrap();
            let header = Header::parse(&header);
            assert_eq!(length, 44 + header.length);
            packets.push((header, self.rx.read(address + 44, header.length as usize)));
        }
        packets
    }

    fn operations(&mut self) -> Vec<(Operation, u32)> {
        let packets = self.received();
        packets
            .iter()
            .map(|(header, _)| (header.operation.unwrap(), header.flags))
            .collect()
    }

    fn open(&mut self, port: u32) -> UnixStream {
        self.send(port, Operation::Request, 0, &[]);
        assert_eq!(self.operations(), [(Operation::Response, 0)]);
        self.accepted.recv().unwrap().1
    }
}

fn drain(stream: &mut UnixStream) -> (Vec<u8>, bool) {
    let mut all = Vec::new();
    let mut chunk = vec![0; 1 << 16];
    loop {
        match stream.read(&mut chunk) {
            Ok(0) => return (all, true),
            Ok(count) => all.extend_from_slice(&chunk[..count]),
            Err(error) if error.kind() == ErrorKind::WouldBlock => return (all, false),
            Err(error) => panic!("{error}"),
        }
    }
}

fn pattern(length: usize, seed: usize) -> Vec<u8> {
    (0..length)
        .map(|at| (at * 7 + seed + at / 251) as u8)
        .collect()
}

#[test]
fn bytes_flow_both_ways() {
    let mut guest = Guest::with_buffers(16);
    let mut host = guest.open(1000);
    guest.send(1000, Operation::ReadWrite, 0, b"from the guest");
    assert_eq!(drain(&mut host), (b"from the guest".to_vec(), false));
    host.write_all(b"from the host").unwrap();
    let packets = guest.received();
    assert_eq!(packets.len(), 1);
    let (header, data) = &packets[0];
    assert_eq!(header.operation, Some(Operation::ReadWrite));
    assert_eq!((header.source_cid, header.destination_cid), (2, GUEST_CID));
    assert_eq!((header.source_port, header.destination_port), (PORT, 1000));
    assert_eq!(header.forwarded, 14);
    assert_eq!(data, b"from the host");
}

#[test]
fn large_packets_in_several_pieces_arrive_whole() {
    let mut guest = Guest::with_buffers(16);
    let mut host = guest.open(1000);
    let mut expected = Vec::new();
    let mut read = Vec::new();
    for round in 0..20 {
        let data = pattern(65536, round);
        guest.send(1000, Operation::ReadWrite, 0, &data);
        expected.extend_from_slice(&data);
        read.extend(drain(&mut host).0);
    }
    guest.turn().unwrap();
    read.extend(drain(&mut host).0);
    assert!(read == expected);
}

#[test]
fn a_slow_reader_makes_the_guest_wait_and_loses_nothing() {
    let mut guest = Guest::with_buffers(200);
    let mut host = guest.open(1000);
    let mut sent = Vec::new();
    let mut told = 0_u32;
    // Send all that the device gives credit for, until it gives no more.
    for round in 0.. {
        let free = 256 * 1024 - (sent.len() as u32 - told);
        if free < 30_000 {
            break;
        }
        let data = pattern(30_000, round);
        guest.send(1000, Operation::ReadWrite, 0, &data);
        sent.extend_from_slice(&data);
        for (header, _) in guest.received() {
            assert_eq!(header.operation, Some(Operation::CreditUpdate));
            told = header.forwarded;
        }
        assert!(round < 100, "no back-pressure");
    }
    assert!(!guest.device.drained());
    let mut read = Vec::new();
    while read.len() < sent.len() {
        let (data, _) = drain(&mut host);
        assert!(!data.is_empty());
        read.extend(data);
        guest.turn().unwrap();
    }
    assert!(read == sent);
    assert!(guest.device.drained());
    let credit = guest.received().last().unwrap().0;
    assert_eq!(credit.operation, Some(Operation::CreditUpdate));
    assert!(sent.len() as u32 - credit.forwarded < 128 * 1024);
}

#[test]
fn a_guest_that_sends_without_credit_is_reset() {
    let mut guest = Guest::with_buffers(200);
    let mut host = guest.open(1000);
    let data = pattern(65536, 1);
    let mut operations = Vec::new();
    for _ in 0..40 {
        guest.send(1000, Operation::ReadWrite, 0, &data);
        operations.extend(guest.operations());
    }
    assert!(operations.contains(&(Operation::Reset, 0)));
    // What was within its credit still arrives, then the end.
    let mut ended = false;
    while !ended {
        ended = drain(&mut host).1;
        guest.turn().unwrap();
    }
}

#[test]
fn the_guest_s_own_credit_is_respected() {
    let mut guest = Guest::with_buffers(200);
    guest.window = 10_000;
    let mut host = guest.open(1000);
    let data = pattern(100_000, 3);
    host.write_all(&data).unwrap();
    let mut read = Vec::new();
    while read.len() < data.len() {
        let packets = guest.received();
        let bytes: Vec<u8> = packets.iter().flat_map(|(_, data)| data.clone()).collect();
        assert!(!bytes.is_empty() && bytes.len() <= 10_000);
        read.extend(bytes);
        guest.forwarded = read.len() as u32;
        guest.provide(4);
        guest.send(1000, Operation::CreditUpdate, 0, &[]);
    }
    assert!(read == data);
}

#[test]
fn everything_sent_before_a_close_arrives_before_the_end() {
    let mut guest = Guest::with_buffers(200);
    let mut host = guest.open(1000);
    // More than the socket takes at once, so that some of it is kept by the device.
    let data = pattern(65536, 1);
    let mut sent = 0;
    while guest.device.drained() {
        guest.send(1000, Operation::ReadWrite, 0, &data);
        sent += data.len();
        guest.received();
    }
    guest.send(1000, Operation::Shutdown, SHUTDOWN_BOTH, &[]);
    assert_eq!(guest.operations(), []);
    let mut read = 0;
    loop {
        let (bytes, ended) = drain(&mut host);
        read += bytes.len();
        if ended {
            break;
        }
        guest.turn().unwrap();
    }
    assert_eq!(read, sent);
    assert_eq!(guest.operations(), [(Operation::Reset, 0)]);
}

#[test]
fn everything_sent_before_a_reset_arrives_and_the_ports_are_free_at_once() {
    let mut guest = Guest::with_buffers(200);
    let mut host = guest.open(1000);
    let data = pattern(65536, 1);
    let mut sent = 0;
    while guest.device.drained() {
        guest.send(1000, Operation::ReadWrite, 0, &data);
        sent += data.len();
        guest.received();
    }
    guest.send(1000, Operation::Reset, 0, &[]);
    let mut second = guest.open(1000);
    guest.send(1000, Operation::ReadWrite, 0, b"second");
    assert_eq!(drain(&mut second).0, b"second");
    let mut read = 0;
    loop {
        let (bytes, ended) = drain(&mut host);
        read += bytes.len();
        if ended {
            break;
        }
        guest.turn().unwrap();
    }
    assert_eq!(read, sent);
}

#[test]
fn each_direction_closes_by_itself() {
    let mut guest = Guest::with_buffers(16);
    let mut host = guest.open(1000);
    guest.send(1000, Operation::ReadWrite, 0, b"question");
    guest.send(1000, Operation::Shutdown, SHUTDOWN_SEND, &[]);
    assert_eq!(drain(&mut host), (b"question".to_vec(), true));
    host.write_all(b"answer").unwrap();
    host.shutdown(Shutdown::Write).unwrap();
    let packets = guest.received();
    assert_eq!(packets[0].1, b"answer");
    let last = packets.last().unwrap().0;
    assert_eq!(last.operation, Some(Operation::Shutdown));
    assert_ne!(last.flags & SHUTDOWN_SEND, 0);
    guest.send(1000, Operation::Shutdown, SHUTDOWN_BOTH, &[]);
    assert_eq!(guest.operations(), [(Operation::Reset, 0)]);
    guest.send(1000, Operation::ReadWrite, 0, b"ghost");
    assert_eq!(guest.operations(), [(Operation::Reset, 0)]);
}

#[test]
fn data_and_end_that_arrive_together_are_both_seen() {
    let mut guest = Guest::with_buffers(16);
    guest.send(1000, Operation::Request, 0, &[]);
    let (_, mut host) = guest.accepted.recv().unwrap();
    host.write_all(b"all").unwrap();
    drop(host);
    let packets = guest.received();
    let operations: Vec<_> = packets.iter().map(|(h, _)| h.operation.unwrap()).collect();
    assert_eq!(
        operations,
        [
            Operation::Response,
            Operation::ReadWrite,
            Operation::Shutdown
        ]
    );
    assert_eq!(packets[1].1, b"all");
    assert_eq!(packets[2].0.flags, SHUTDOWN_BOTH);
}

#[test]
fn a_guest_writing_to_a_host_that_left_is_told_and_does_not_stall() {
    let mut guest = Guest::with_buffers(200);
    drop(guest.open(1000));
    let data = pattern(60_000, 0);
    let mut operations = Vec::new();
    for _ in 0..20 {
        guest.send(1000, Operation::ReadWrite, 0, &data);
        operations.extend(guest.operations());
    }
    assert!(operations.contains(&(Operation::Shutdown, SHUTDOWN_BOTH)));
    assert!(!operations.contains(&(Operation::Reset, 0)));
    assert!(operations.contains(&(Operation::CreditUpdate, 0)));
}

#[test]
fn a_guest_that_stops_receiving_makes_the_host_s_writes_fail() {
    let mut guest = Guest::with_buffers(16);
    let mut host = guest.open(1000);
    guest.send(1000, Operation::Shutdown, SHUTDOWN_RECEIVE, &[]);
    let error = host.write_all(b"unwanted").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::BrokenPipe);
    guest.send(1000, Operation::ReadWrite, 0, b"still");
    assert_eq!(drain(&mut host).0, b"still");
}

#[test]
fn what_nobody_listens_to_is_refused() {
    let mut guest = Guest::with_buffers(64);
    let mut refused = guest.header(1000, Operation::Request, 0, 0);
    refused.destination_port = 9;
    let mut wrong_host = guest.header(1000, Operation::Request, 0, 0);
    wrong_host.destination_cid = 77;
    let mut datagram = guest.header(1000, Operation::Request, 0, 0);
    datagram.kind = 2;
    let stray = guest.header(1000, Operation::ReadWrite, 0, 0);
    let response = guest.header(1000, Operation::Response, 0, 0);
    let mut unknown = guest.header(1000, Operation::Request, 0, 0);
    unknown.operation = None;
    for header in [refused, wrong_host, datagram, stray, response, unknown] {
        guest.send_header(header, &[]).unwrap();
        assert_eq!(guest.operations(), [(Operation::Reset, 0)], "{header:?}");
    }
    let reset = guest.header(1000, Operation::Reset, 0, 0);
    let mut forged = guest.header(1000, Operation::Request, 0, 0);
    forged.source_cid = 4;
    for header in [reset, forged] {
        guest.send_header(header, &[]).unwrap();
        assert_eq!(guest.operations(), [], "{header:?}");
    }
    assert!(guest.accepted.try_recv().is_err());
}

#[test]
fn the_number_of_connections_is_bounded_and_their_room_is_given_back() {
    let mut guest = Guest::with_buffers(4);
    let mut hosts = Vec::new();
    for port in 0..1024 {
        hosts.push(guest.open(port));
        guest.provide(1);
    }
    guest.send(5000, Operation::Request, 0, &[]);
    assert_eq!(guest.operations(), [(Operation::Reset, 0)]);
    guest.provide(1);
    guest.send(7, Operation::Reset, 0, &[]);
    guest.open(5000);
}

#[test]
fn opening_and_closing_without_end_does_not_use_memory_without_end() {
    let mut guest = Guest::new();
    for _ in 0..5000 {
        guest.send(1, Operation::Request, 0, &[]);
        guest.send(1, Operation::Reset, 0, &[]);
        drop(guest.accepted.recv().unwrap());
    }
    // Packets nobody can be told about: the queue stops instead of growing.
    let mut taken = 0;
    for port in 0..2000 {
        let header = guest.header(port, Operation::ReadWrite, 0, 0);
        guest.tx.write(TX_PACKET, &header.encode());
        guest.tx.add(&[(TX_PACKET, 44, false)]);
        let _ = guest.device.queue_event(1).unwrap();
        if guest.tx.take_used().is_none() {
            break;
        }
        taken += 1;
    }
    assert_eq!(taken, 256);
    guest.provide(200);
    assert_eq!(guest.received().len(), 200);
    guest.turn().unwrap();
    assert!(guest.tx.take_used().is_some());
}

#[test]
fn packets_without_their_data_break_the_device() {
    let mut guest = Guest::with_buffers(4);
    guest.tx.add(&[(TX_PACKET, 43, false)]);
    let error = guest.device.queue_event(1).unwrap_err();
    assert!(matches!(error, DeviceError::Request { queue: 1, .. }));
    for length in [1, 3, u32::MAX] {
        let mut guest = Guest::with_buffers(4);
        let header = guest.header(1, Operation::ReadWrite, length, 0);
        let error = guest.send_header(header, b"ab").unwrap_err();
        assert!(matches!(error, DeviceError::Request { queue: 1, .. }));
    }
}

#[test]
fn receive_buffers_without_room_break_the_device() {
    let mut guest = Guest::new();
    guest.rx.add(&[(RX_BUFFERS, 44, true)]);
    let header = guest.header(1, Operation::Request, 0, 0);
    let error = guest.send_header(header, &[]).unwrap_err();
    assert!(matches!(error, DeviceError::Request { queue: 0, .. }));
}

#[test]
fn a_busy_stream_does_not_starve_the_others() {
    let mut guest = Guest::with_buffers(100);
    let mut busy = guest.open(1);
    let mut quiet = guest.open(2);
    busy.write_all(&pattern(150_000, 0)).unwrap();
    quiet.write_all(b"me too").unwrap();
    let packets = guest.received();
    assert!(packets.iter().any(|(_, data)| data == b"me too"));
}

#[test]
fn a_reset_device_forgets_its_connections() {
    let mut guest = Guest::with_buffers(4);
    let mut host = guest.open(1);
    let activation = guest.device.reset().unwrap();
    assert_eq!(drain(&mut host), (Vec::new(), true));
    guest.device.activate(activation).unwrap();
    guest.open(1);
}
