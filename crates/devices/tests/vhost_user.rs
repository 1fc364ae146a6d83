//! Devices behind their real transport, driven by a front end that behaves like user-mode Linux,
//! and by ones that misbehave.

mod support;

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::sync::mpsc::channel;
use std::time::Duration;

use bulkhead_devices::vhost_user::{Handle, TransportError, spawn};
use bulkhead_devices::{Block, Device, HOST_CID, Header, Operation, Rng, Vsock};
use support::front_end::{self as front, FrontEnd, MEMORY, ends, listener, tracked};

fn serve(device: Box<dyn Device>) -> (Handle, UnixStream, tempfile::TempDir) {
    let directory = tempfile::tempdir().unwrap();
    let (listener, stream) = listener(directory.path());
    let handle = spawn(listener, device, "test-device", || Ok(())).unwrap();
    (handle, stream, directory)
}

fn rng() -> (Handle, UnixStream, tempfile::TempDir) {
    serve(Box::new(Rng::new()))
}

#[test]
fn the_guest_gets_random_bytes_and_one_notification_per_batch() {
    let (handle, socket, _directory) = rng();
    let mut front_end = FrontEnd::boot(socket, 1);
    let buffers = front_end.free_memory();
    // Filled while it is disabled, so that the device finds all four at once.
    front_end.pair(front::SET_VRING_ENABLE, 0, 0);
    front_end.ask(front::GET_QUEUE_NUM);
    for index in 0..4_u64 {
        let buffer = (buffers + 64 * index, 64, true);
        front_end.queues[0].driver.add(&[buffer]);
    }
    front_end.pair(front::SET_VRING_ENABLE, 0, 1);
    let queue = &mut front_end.queues[0];
    assert!(queue.called(Duration::from_secs(20)));
    for _ in 0..4 {
        assert_eq!(queue.driver.take_used().unwrap().1, 64);
    }
    assert!(!queue.called(Duration::from_millis(50)));
    let first = queue.driver.read(buffers, 64);
    let second = queue.driver.read(buffers + 64, 64);
    assert_ne!(first, second);
    assert!(first.iter().any(|byte| *byte != 0));

    // A request for more than the bound is answered with less.
    queue.driver.add(&[(buffers, 1 << 20, true)]);
    queue.kick();
    assert_eq!(queue.wait_used().1, 4096);

    drop(front_end);
    assert!(ends(&handle));
    handle.join().unwrap();
}

#[test]
fn a_disk_is_read_through_the_transport() {
    let mut file = tempfile::tempfile().unwrap();
    let content: Vec<u8> = (0..100_000_u32).map(|value| (value / 3) as u8).collect();
    file.write_all(&content).unwrap();
    let disk = Block::read_only(vec![file], "image").unwrap();
    let (handle, socket, _directory) = serve(Box::new(disk));
    let mut front_end = FrontEnd::new(socket);
    front_end.greet(u64::MAX);
    let capacity = u64::from_le_bytes(front_end.config(8).try_into().unwrap());
    assert_eq!(capacity, 100_000_u64.next_multiple_of(4096) / 512);
    // Fields of features that were not offered read as zeros.
    assert_eq!(front_end.config(200)[60..], [0; 140]);
    assert_eq!(front_end.ask(front::GET_QUEUE_NUM), 1);
    front_end.share_memory();
    front_end.set_up_queues(1);

    let header = front_end.free_memory();
    let data = header + 4096;
    let queue = &mut front_end.queues[0];
    for sector in [0_u64, 7, 100] {
        let mut request = [0; 16];
        request[8..].copy_from_slice(&sector.to_le_bytes());
        queue.driver.write(header, &request);
        let chain = [
            (header, 16, false),
            (data, 4096, true),
            (header + 16, 1, true),
        ];
        queue.driver.add(&chain);
        queue.kick();
        assert_eq!(queue.wait_used().1, 4097);
        let at = sector as usize * 512;
        assert_eq!(queue.driver.read(data, 4096), content[at..at + 4096]);
    }
    handle.stop();
    handle.join().unwrap();
}

#[test]
fn kicks_that_came_before_the_device_was_ready_are_not_lost() {
    let (_handle, socket, _directory) = rng();
    let mut front_end = FrontEnd::new(socket);
    front_end.greet(u64::MAX);
    front_end.share_memory();
    let ready = front_end.free_memory() + (1 << 20);
    front_end.set_up_queues(1);
    // The ring is disabled and filled, kicked while nobody listens, and enabled again.
    front_end.pair(front::SET_VRING_ENABLE, 0, 0);
    front_end.queues[0].driver.add(&[(ready, 16, true)]);
    front_end.queues[0].kick();
    front_end.pair(front::SET_VRING_ENABLE, 0, 1);
    assert_eq!(front_end.queues[0].wait_used().1, 16);
}

#[test]
fn a_stopped_ring_says_where_it_stopped() {
    let (_handle, socket, _directory) = rng();
    let mut front_end = FrontEnd::boot(socket, 1);
    let buffer = front_end.free_memory();
    for _ in 0..3 {
        front_end.queues[0].driver.add(&[(buffer, 8, true)]);
        front_end.queues[0].kick();
        front_end.queues[0].wait_used();
    }
    front_end.pair(front::GET_VRING_BASE, 0, 0);
    let reply = front_end.reply(front::GET_VRING_BASE);
    assert_eq!(reply, [0_u32.to_ne_bytes(), 3_u32.to_ne_bytes()].concat());
}

#[test]
fn an_acknowledgement_is_given_where_it_is_asked_for() {
    let (_handle, socket, _directory) = rng();
    let mut front_end = FrontEnd::new(socket);
    front_end.send(front::SET_OWNER, 1 << 3, &[], &[]);
    assert_eq!(front_end.reply(front::SET_OWNER), 0_u64.to_ne_bytes());
}

/// What `misbehave` does must end the session with an error, and close every descriptor sent.
fn rejected(misbehave: impl FnOnce(&mut FrontEnd)) -> TransportError {
    let (handle, socket, _directory) = rng();
    let mut front_end = FrontEnd::new(socket);
    front_end.greet(u64::MAX);
    misbehave(&mut front_end);
    assert!(ends(&handle), "the session goes on");
    handle.join().unwrap_err()
}

#[test]
fn nonsense_ends_the_session() {
    rejected(|front_end| front_end.send(99, 0, &[], &[]));
    rejected(|front_end| front_end.send(front::GET_FEATURES, 0, &[0; 8], &[]));
    rejected(|front_end| front_end.send(front::GET_FEATURES, 1 << 2, &[], &[]));
    rejected(|front_end| front_end.send(front::SET_MEM_TABLE, 0, &[0; 72], &[]));
    rejected(|front_end| front_end.send(front::SET_FEATURES, 0, &[0; 513], &[]));
    rejected(|front_end| front_end.number(front::SET_FEATURES, u64::MAX));
    rejected(|front_end| front_end.number(front::SET_PROTOCOL_FEATURES, 1 << 3));
    rejected(|front_end| front_end.pair(front::SET_VRING_NUM, 1, 256));
    rejected(|front_end| front_end.pair(front::SET_VRING_NUM, 0, 65536));
    rejected(|front_end| front_end.send(front::SET_VRING_KICK, 0, &[0; 8], &[]));
    rejected(|front_end| front_end.set_up_queues(1));
    rejected(|front_end| {
        front_end.share_memory();
        front_end.addresses(0, [0x100, 0x100, 0x100]);
        front_end.pair(front::SET_VRING_NUM, 0, 100);
        front_end.set_up_queues(1);
        front_end.pair(front::SET_VRING_NUM, 0, 100);
    });
    rejected(|front_end| {
        front_end.share_memory();
        front_end.set_up_queues(1);
        front_end.addresses(0, [MEMORY, MEMORY, MEMORY]);
    });
}

#[test]
fn memory_that_is_not_there_is_not_mapped() {
    let short = tempfile::tempfile().unwrap();
    short.set_len(MEMORY - 1).unwrap();
    rejected(|front_end| front_end.share(&short, MEMORY));
    rejected(|front_end| front_end.share(&short, front::RESERVED));
    let directory = File::open("/").unwrap();
    rejected(|front_end| front_end.share(&directory, MEMORY));
}

#[test]
fn memory_from_a_memfd_cannot_shrink_under_the_device() {
    let (_handle, socket, _directory) = rng();
    let mut front_end = FrontEnd::boot(socket, 1);
    front_end.ask(front::GET_QUEUE_NUM);
    assert!(front_end.memory_file.set_len(4096).is_err());
}

#[test]
fn descriptors_are_closed_when_a_message_is_refused() {
    for (request, payload, count) in [
        (99, &[][..], 3),
        (front::SET_MEM_TABLE, &[0; 72][..], 2),
        (front::SET_VRING_CALL, &[0; 8][..], 2),
        (front::SET_VRING_KICK, &[9, 0, 0, 0, 0, 0, 0, 0][..], 1),
        (front::GET_FEATURES, &[0; 600][..], 1),
        (front::SET_OWNER, &[][..], 30),
    ] {
        let (descriptor, closed) = tracked();
        let (handle, socket, _directory) = rng();
        let front_end = FrontEnd::new(socket);
        let copies = vec![descriptor.as_raw_fd(); count];
        front_end.send(request, 0, payload, &copies);
        drop(descriptor);
        assert!(ends(&handle), "request {request}");
        handle.join().unwrap_err();
        assert!(closed(), "request {request}");
    }
}

#[test]
fn a_message_may_come_in_pieces_and_several_at_once() {
    let (_handle, socket, _directory) = rng();
    let mut front_end = FrontEnd::new(socket);
    let mut message = Vec::new();
    for _ in 0..2 {
        for word in [front::GET_FEATURES, 1, 0] {
            message.extend(word.to_ne_bytes());
        }
    }
    for piece in message.chunks(5) {
        front_end.socket.write_all(piece).unwrap();
        std::thread::sleep(Duration::from_millis(2));
    }
    for _ in 0..2 {
        assert_eq!(front_end.reply(front::GET_FEATURES).len(), 8);
    }
}

#[test]
fn a_guest_that_breaks_its_ring_ends_only_its_device() {
    let (handle, socket, _directory) = rng();
    let mut front_end = FrontEnd::boot(socket, 1);
    front_end.queues[0].driver.add(&[(MEMORY * 2, 64, true)]);
    front_end.queues[0].kick();
    assert!(ends(&handle));
    let error = handle.join().unwrap_err();
    assert!(matches!(error, TransportError::Session(_)));
}

#[test]
fn a_thread_that_cannot_be_prepared_serves_nobody() {
    let directory = tempfile::tempdir().unwrap();
    let (listener, mut stream) = listener(directory.path());
    let fail = || Err(std::io::Error::from_raw_os_error(libc::EPERM));
    let handle = spawn(listener, Box::new(Rng::new()), "test", fail).unwrap();
    assert!(ends(&handle));
    assert!(matches!(handle.join(), Err(TransportError::Prepare(_))));
    assert_eq!(stream.read(&mut [0; 1]).unwrap_or(0), 0);
}

/// The guest's end of one vsock connection over the transport.
struct Socket {
    front_end: FrontEnd,
    buffers: u64,
    packet: u64,
    sent: u32,
    told: u32,
    taken: u32,
}

const RX_COUNT: u64 = 128;
const RX_LENGTH: u32 = 3776;
const WINDOW: u32 = 256 * 1024;

impl Socket {
    fn open(mut front_end: FrontEnd) -> Self {
        let buffers = front_end.free_memory();
        for index in 0..RX_COUNT {
            let address = buffers + 4096 * index;
            front_end.queues[0]
                .driver
                .add(&[(address, RX_LENGTH, true)]);
        }
        front_end.queues[0].kick();
        let mut socket = Self {
            front_end,
            buffers,
            packet: buffers + 4096 * RX_COUNT,
            sent: 0,
            told: 0,
            taken: 0,
        };
        socket.send(Operation::Request, 0, &[]);
        let (header, _) = socket.receive();
        assert_eq!(header.operation, Some(Operation::Response));
        socket
    }

    fn send(&mut self, operation: Operation, flags: u32, data: &[u8]) {
        let header = Header {
            source_cid: 3,
            destination_cid: HOST_CID,
            source_port: 1,
            destination_port: 2,
            length: data.len() as u32,
            kind: 1,
            operation: Some(operation),
            flags,
            buffer_size: WINDOW,
            forwarded: self.taken,
        };
        let queue = &mut self.front_end.queues[1];
        queue.driver.write(self.packet, &header.encode());
        queue.driver.write(self.packet + 64, data);
        let mut chain = vec![(self.packet, 44, false)];
        for (index, piece) in data.chunks(32768).enumerate() {
            let at = self.packet + 64 + 32768 * index as u64;
            chain.push((at, piece.len() as u32, false));
        }
        queue.driver.add(&chain);
        queue.kick();
        queue.wait_used();
    }

    fn receive(&mut self) -> (Header, Vec<u8>) {
        let queue = &mut self.front_end.queues[0];
        let (head, length) = queue.wait_used();
        let address = self.buffers + 4096 * (u64::from(head) % RX_COUNT);
        let raw: [u8; 44] = queue.driver.read(address, 44).try_into().unwrap();
        let header = Header::parse(&raw);
        let data = queue.driver.read(address + 44, length as usize - 44);
        // Heads count through the 256 entries; the buffers alternate between two of them.
        queue.driver.describe(
            queue.driver.descriptors,
            head,
            (address, RX_LENGTH),
            support::driver::WRITE,
            0,
        );
        queue.driver.offer(head);
        queue.kick();
        self.told = header.forwarded;
        self.taken = self.taken.wrapping_add(data.len() as u32);
        (header, data)
    }
}

fn vsock() -> (Handle, Socket, UnixStream, tempfile::TempDir) {
    let (sender, accepted) = channel();
    let acceptor = move |_port: u32| {
        let (ours, theirs) = UnixStream::pair().ok()?;
        sender.send(theirs).ok()?;
        Some(ours)
    };
    let device = Vsock::new(3, Box::new(acceptor));
    let (handle, socket, directory) = serve(Box::new(device));
    let socket = Socket::open(FrontEnd::boot(socket, 3));
    let stream = accepted.recv().unwrap();
    (handle, socket, stream, directory)
}

fn pattern(length: usize) -> Vec<u8> {
    (0..length).map(|at| (at * 31 + at / 255) as u8).collect()
}

#[test]
fn megabytes_from_the_guest_arrive_unchanged() {
    let (handle, mut socket, mut stream, _directory) = vsock();
    let data = pattern(8 << 20);
    let reader = std::thread::spawn(move || {
        let mut all = Vec::new();
        stream.read_to_end(&mut all).unwrap();
        all
    });
    for piece in data.chunks(65536) {
        while socket.sent.wrapping_sub(socket.told) + piece.len() as u32 > WINDOW {
            let (header, _) = socket.receive();
            assert_eq!(header.operation, Some(Operation::CreditUpdate));
        }
        socket.send(Operation::ReadWrite, 0, piece);
        socket.sent = socket.sent.wrapping_add(piece.len() as u32);
    }
    socket.send(Operation::Shutdown, 2, &[]);
    assert!(reader.join().unwrap() == data);
    drop(socket);
    assert!(ends(&handle));
    handle.join().unwrap();
}

#[test]
fn megabytes_to_the_guest_arrive_unchanged() {
    let (_handle, mut socket, stream, _directory) = vsock();
    let data = pattern(8 << 20);
    let writer = front::feed(stream, data.clone());
    let mut all = Vec::new();
    loop {
        let (header, bytes) = socket.receive();
        if header.operation == Some(Operation::Shutdown) {
            break;
        }
        all.extend(bytes);
        if all.len().is_multiple_of(64) || socket.taken % WINDOW > WINDOW / 2 {
            socket.send(Operation::CreditUpdate, 0, &[]);
        }
    }
    writer.join().unwrap().unwrap();
    assert!(all == data);
}

#[test]
fn what_the_guest_sent_last_arrives_although_the_guest_is_gone() {
    let (handle, mut socket, mut stream, _directory) = vsock();
    let data = pattern(65536);
    let mut sent = Vec::new();
    // Without a reader, until the device gives no more credit because it had to keep some of it.
    loop {
        if socket.sent.wrapping_sub(socket.told) + 65536 <= WINDOW {
            socket.send(Operation::ReadWrite, 0, &data);
            socket.sent += 65536;
            sent.extend_from_slice(&data);
            continue;
        }
        if !socket.front_end.queues[0].waits_used(Duration::from_millis(300)) {
            break;
        }
        socket.receive();
    }
    drop(socket);
    assert!(!handle.is_finished());
    let mut all = Vec::new();
    stream.read_to_end(&mut all).unwrap();
    assert!(all == sent);
    assert!(ends(&handle));
    handle.join().unwrap();
}
