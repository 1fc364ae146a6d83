//! The front end that user-mode Linux is (`arch/um/drivers/virtio_uml.c`), with its habits: two
//! region slots for one region, 256 entries in every queue, an eventfd to kick, a stream socket
//! to be called on, and no acknowledgements.

#![allow(dead_code)]

use std::fs::File;
use std::io::{IoSlice, Read, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
use vm_memory::{FileOffset, GuestAddress, GuestMemoryMmap, GuestRegionMmap, MmapRegion};

use super::driver::Driver;

/// Where the shared region begins: below it lies the kernel image, which is not shared.
pub const RESERVED: u64 = 0x2000;
/// Length of guest memory, the reserved part included.
pub const MEMORY: u64 = 32 << 20;

pub const GET_FEATURES: u32 = 1;
pub const SET_FEATURES: u32 = 2;
pub const SET_OWNER: u32 = 3;
pub const SET_MEM_TABLE: u32 = 5;
pub const SET_VRING_NUM: u32 = 8;
pub const SET_VRING_ADDR: u32 = 9;
pub const SET_VRING_BASE: u32 = 10;
pub const GET_VRING_BASE: u32 = 11;
pub const SET_VRING_KICK: u32 = 12;
pub const SET_VRING_CALL: u32 = 13;
pub const GET_PROTOCOL_FEATURES: u32 = 15;
pub const SET_PROTOCOL_FEATURES: u32 = 16;
pub const GET_QUEUE_NUM: u32 = 17;
pub const SET_VRING_ENABLE: u32 = 18;
pub const SET_BACKEND_REQ_FD: u32 = 21;
pub const GET_CONFIG: u32 = 24;

/// A listener whose socket has no name outside this directory.
pub fn listener(directory: &Path) -> (UnixListener, UnixStream) {
    let path = directory.join("socket");
    let listener = UnixListener::bind(&path).unwrap();
    let stream = UnixStream::connect(&path).unwrap();
    (listener, stream)
}

pub struct FrontEnd {
    pub socket: UnixStream,
    pub memory_file: File,
    pub memory: GuestMemoryMmap<()>,
    pub features: u64,
    pub backend_requests: Option<OwnedFd>,
    pub queues: Vec<Queue>,
    next: u64,
}

pub struct Queue {
    pub driver: Driver,
    pub kick: EventFd,
    pub call: UnixStream,
}

impl Queue {
    pub fn kick(&self) {
        self.kick.write(1).unwrap();
    }

    /// Wait for a notification; `false` if none comes.
    pub fn called(&self, patience: Duration) -> bool {
        let mut entries = [PollFd::new(self.call.as_fd(), PollFlags::POLLIN)];
        let timeout = PollTimeout::try_from(patience).unwrap();
        if poll(&mut entries, timeout).unwrap() == 0 {
            return false;
        }
        let mut count = [0; 8];
        (&self.call).read_exact(&mut count).unwrap();
        assert_eq!(count, 1_u64.to_ne_bytes());
        true
    }

    /// Whether the device uses a buffer within `patience`.
    pub fn waits_used(&self, patience: Duration) -> bool {
        self.driver.listen();
        // A call may be left over from buffers that were found without waiting for it.
        while !self.driver.has_used() {
            if !self.called(patience) {
                return self.driver.has_used();
            }
        }
        true
    }

    /// Wait until the device used a buffer.
    pub fn wait_used(&mut self) -> (u16, u32) {
        let give_up = Instant::now() + Duration::from_secs(20);
        loop {
            if let Some(used) = self.driver.take_used() {
                return used;
            }
            self.driver.listen();
            if let Some(used) = self.driver.take_used() {
                return used;
            }
            assert!(Instant::now() < give_up, "the device used nothing");
            self.called(Duration::from_secs(1));
        }
    }
}

impl FrontEnd {
    pub fn new(socket: UnixStream) -> Self {
        let memory_file = File::from(memfd_create("guest", MFdFlags::MFD_ALLOW_SEALING).unwrap());
        memory_file.set_len(MEMORY).unwrap();
        let offset = FileOffset::new(memory_file.try_clone().unwrap(), RESERVED);
        let mapping = MmapRegion::from_file(offset, (MEMORY - RESERVED) as usize).unwrap();
        let region = GuestRegionMmap::new(mapping, GuestAddress(RESERVED)).unwrap();
        Self {
            socket,
            memory_file,
            memory: GuestMemoryMmap::from_regions(vec![region]).unwrap(),
            features: 0,
            backend_requests: None,
            queues: Vec::new(),
            next: RESERVED,
        }
    }

    pub fn send(&self, request: u32, flags: u32, payload: &[u8], descriptors: &[RawFd]) {
        let mut message = Vec::new();
        message.extend(request.to_ne_bytes());
        message.extend((flags | 1).to_ne_bytes());
        message.extend((payload.len() as u32).to_ne_bytes());
        message.extend(payload);
        let rights = [ControlMessage::ScmRights(descriptors)];
        let control = if descriptors.is_empty() {
            &[][..]
        } else {
            &rights[..]
        };
        // A back end that ended the session is no failure of the sender: tests look at its verdict.
        let _ = sendmsg::<()>(
            self.socket.as_raw_fd(),
            &[IoSlice::new(&message)],
            control,
            MsgFlags::MSG_NOSIGNAL,
            None,
        );
    }

    pub fn number(&self, request: u32, value: u64) {
        self.send(request, 0, &value.to_ne_bytes(), &[]);
    }

    pub fn pair(&self, request: u32, first: u32, second: u32) {
        let payload = [first.to_ne_bytes(), second.to_ne_bytes()].concat();
        self.send(request, 0, &payload, &[]);
    }

    /// The payload of the reply to `request`.
    pub fn reply(&mut self, request: u32) -> Vec<u8> {
        let mut header = [0; 12];
        self.socket.read_exact(&mut header).unwrap();
        let field = |at: usize| u32::from_ne_bytes(header[at..at + 4].try_into().unwrap());
        assert_eq!((field(0), field(4)), (request, 5));
        let mut payload = vec![0; field(8) as usize];
        self.socket.read_exact(&mut payload).unwrap();
        payload
    }

    pub fn ask(&mut self, request: u32) -> u64 {
        self.send(request, 0, &[], &[]);
        u64::from_ne_bytes(self.reply(request).try_into().unwrap())
    }

    /// As the driver reads fields: everything from the start up to the end of the field.
    pub fn config(&mut self, length: usize) -> Vec<u8> {
        let mut payload = vec![0; 12 + length];
        payload[4..8].copy_from_slice(&(length as u32).to_ne_bytes());
        self.send(GET_CONFIG, 0, &payload, &[]);
        let reply = self.reply(GET_CONFIG);
        assert_eq!(reply.len(), 12 + length);
        assert_eq!(reply[..12], payload[..12]);
        reply[12..].to_vec()
    }

    /// Everything up to the accepted features, `mask` of those offered.
    pub fn greet(&mut self, mask: u64) {
        self.send(SET_OWNER, 0, &[], &[]);
        let offered = self.ask(GET_FEATURES);
        assert_ne!(offered & (1 << 30), 0, "protocol features are offered");
        let protocol = self.ask(GET_PROTOCOL_FEATURES);
        assert_ne!(protocol & (1 << 5), 0, "BACKEND_REQ is offered");
        assert_ne!(protocol & (1 << 9), 0, "CONFIG is offered");
        self.number(SET_PROTOCOL_FEATURES, protocol);
        let (ours, theirs) = UnixStream::pair().unwrap();
        self.send(SET_BACKEND_REQ_FD, 0, &[], &[theirs.as_raw_fd()]);
        self.backend_requests = Some(ours.into());
        self.features = offered & mask;
        self.number(SET_FEATURES, self.features);
    }

    /// One region in two slots, the second full of garbage.
    pub fn share_memory(&self) {
        self.share(&self.memory_file, MEMORY);
    }

    pub fn share(&self, file: &File, end: u64) {
        let mut payload = vec![0xa5; 72];
        payload[..8].copy_from_slice(&1_u64.to_ne_bytes());
        let fields = [RESERVED, end - RESERVED, RESERVED, RESERVED];
        for (slot, value) in fields.into_iter().enumerate() {
            payload[8 + 8 * slot..16 + 8 * slot].copy_from_slice(&value.to_ne_bytes());
        }
        self.send(SET_MEM_TABLE, 0, &payload, &[file.as_raw_fd()]);
    }

    pub fn set_up_queues(&mut self, count: u32) {
        for index in 0..count {
            let driver = Driver::new(&self.memory, self.next, 256);
            self.next = driver.end().next_multiple_of(4096);
            let kick = EventFd::from_value_and_flags(0, EfdFlags::EFD_CLOEXEC).unwrap();
            let (call, theirs) = UnixStream::pair().unwrap();
            let descriptor = [theirs.as_raw_fd()];
            let number = u64::from(index).to_ne_bytes();
            self.send(SET_VRING_CALL, 0, &number, &descriptor);
            self.pair(SET_VRING_NUM, index, 256);
            self.pair(SET_VRING_BASE, index, 0);
            self.addresses(index, [driver.descriptors, driver.used, driver.available]);
            self.queues.push(Queue { driver, kick, call });
        }
        for index in 0..count {
            let kick = self.queues[index as usize].kick.as_fd().as_raw_fd();
            self.send(SET_VRING_KICK, 0, &u64::from(index).to_ne_bytes(), &[kick]);
            self.pair(SET_VRING_ENABLE, index, 1);
        }
    }

    pub fn addresses(&self, index: u32, addresses: [u64; 3]) {
        let mut payload = Vec::new();
        payload.extend(index.to_ne_bytes());
        payload.extend(0_u32.to_ne_bytes());
        addresses
            .iter()
            .for_each(|address| payload.extend(address.to_ne_bytes()));
        payload.extend(u64::MAX.to_ne_bytes());
        self.send(SET_VRING_ADDR, 0, &payload, &[]);
    }

    /// All of what a driver does until its device is live.
    pub fn boot(socket: UnixStream, queues: u32) -> Self {
        let mut front_end = Self::new(socket);
        front_end.greet(u64::MAX);
        front_end.share_memory();
        front_end.set_up_queues(queues);
        front_end
    }

    /// First address that no queue occupies.
    pub fn free_memory(&self) -> u64 {
        self.next
    }
}

/// A descriptor to send, and a way to see whether every copy of it was closed.
pub fn tracked() -> (OwnedFd, impl Fn() -> bool) {
    let (read, write) = nix::unistd::pipe().unwrap();
    let closed = move || {
        let mut entries = [PollFd::new(read.as_fd(), PollFlags::POLLIN)];
        poll(&mut entries, 5000_u16).unwrap();
        let seen = entries[0].revents().unwrap();
        seen.contains(PollFlags::POLLHUP)
    };
    (write, closed)
}

/// Wait for a device thread's end; `false` if it goes on.
pub fn ends(handle: &bulkhead_devices::vhost_user::Handle) -> bool {
    let mut entries = [PollFd::new(handle.ended(), PollFlags::POLLIN)];
    poll(&mut entries, 5000_u16).unwrap() == 1
}

/// Write all, in a thread, and report how it went.
pub fn feed(mut stream: UnixStream, data: Vec<u8>) -> std::thread::JoinHandle<std::io::Result<()>> {
    std::thread::spawn(move || {
        stream.write_all(&data)?;
        stream.shutdown(std::net::Shutdown::Write)
    })
}
