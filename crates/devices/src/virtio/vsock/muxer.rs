//! All connections of a guest, by port pair, and their bounds.
//!
//! Memory a guest can make us use: [`MAX_CONNECTIONS`] entries; for the first [`LARGE_CONNECTIONS`]
//! at most [`LARGE_WINDOW`] bytes each, for the others [`SMALL_WINDOW`]; [`MAX_RESETS`] resets.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::os::unix::net::UnixStream;

use super::connection::{Connection, Packet};
use super::packet::{HOST_CID, Header, Operation, SHUTDOWN_RECEIVE, SHUTDOWN_SEND, TYPE_STREAM};
use super::rx::{Burst, MAX_BURST};
use super::stream::{Stream, is_closed};
use crate::device::DeviceError;
use crate::log_gate::LogGate;
use crate::poll::{Poller, Readiness};
use crate::virtio::queue::{Buffers, VirtQueue};

/// Connections a guest may have at a time; further requests are refused.
const MAX_CONNECTIONS: usize = 1024;
/// Connections that get a window large enough for full speed.
const LARGE_CONNECTIONS: usize = 128;
const LARGE_WINDOW: u32 = 256 * 1024;
const SMALL_WINDOW: u32 = 16 * 1024;
/// Resets waiting for receive buffers; then packets of the guest must wait.
const MAX_RESETS: usize = 256;
/// Buffers taken for a connection's first packet; doubles while it fills them.
const FIRST_BURST: usize = 2;

/// Generations live above the slot number in a token and leave its top bit clear.
const GENERATION_MASK: u32 = 0x3fff_ffff;

/// Decides which ports of the host a guest can reach.
pub trait Acceptor: Send {
    /// The guest asks for a connection to `port`: our end of a socket pair to carry it, or `None`
    /// to refuse. Called in the device's thread; must not block.
    fn accept(&mut self, port: u32) -> Option<UnixStream>;
}

impl<F: FnMut(u32) -> Option<UnixStream> + Send> Acceptor for F {
    fn accept(&mut self, port: u32) -> Option<UnixStream> {
        self(port)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Ports {
    guest: u32,
    host: u32,
}

#[derive(Debug)]
struct Entry {
    ports: Ports,
    connection: Connection,
    /// `None` once both directions have ended.
    stream: Option<Stream>,
    large: bool,
    burst: usize,
}

#[derive(Debug, Default)]
struct Slot {
    generation: u32,
    /// In the ready list. Outlives the entry, so that opening and closing connections without
    /// end cannot make that list longer than there are slots.
    listed: bool,
    entry: Option<Entry>,
}

pub(super) struct Muxer {
    guest_cid: u64,
    acceptor: Box<dyn Acceptor>,
    slots: Vec<Slot>,
    free: Vec<usize>,
    by_ports: HashMap<Ports, usize>,
    large: usize,
    /// Slots that may have something for the guest.
    ready: VecDeque<usize>,
    /// Resets for packets that belong to no connection.
    resets: VecDeque<Ports>,
    log: LogGate,
}

impl Muxer {
    pub(super) fn new(guest_cid: u64, acceptor: Box<dyn Acceptor>) -> Self {
        Self {
            guest_cid,
            acceptor,
            slots: Vec::new(),
            free: Vec::new(),
            by_ports: HashMap::new(),
            large: 0,
            ready: VecDeque::new(),
            resets: VecDeque::new(),
            log: LogGate::default(),
        }
    }

    /// Drop all connections.
    pub(super) fn clear(&mut self) {
        self.slots.clear();
        self.free.clear();
        self.by_ports.clear();
        self.large = 0;
        self.ready.clear();
        self.resets.clear();
    }

    /// Whether packets of the guest must wait until it has taken some resets.
    pub(super) fn is_congested(&self) -> bool {
        self.resets.len() >= MAX_RESETS
    }

    /// Whether the host has taken everything the guest sent.
    pub(super) fn drained(&self) -> bool {
        let mut entries = self.slots.iter().filter_map(|slot| slot.entry.as_ref());
        entries.all(|entry| entry.stream.as_ref().is_none_or(|s| s.kept() == 0))
    }

    /// A packet of the guest: `header`, and its data in `packet` from `start` on.
    pub(super) fn guest_packet(
        &mut self,
        header: &Header,
        packet: &mut Buffers,
        start: usize,
        poller: &Poller,
    ) -> io::Result<()> {
        let ports = Ports {
            guest: header.source_port,
            host: header.destination_port,
        };
        if header.source_cid != self.guest_cid {
            self.note("packet with a false source address dropped", ports);
            return Ok(());
        }
        let known = match self.by_ports.get(&ports) {
            Some(index) if header.destination_cid == HOST_CID && header.kind == TYPE_STREAM => {
                *index
            }
            _ => {
                self.stranger(header, ports, poller);
                return Ok(());
            }
        };
        let Some(entry) = self.slots.get_mut(known).and_then(|s| s.entry.as_mut()) else {
            return Ok(());
        };
        entry.connection.take_credit(header);
        match header.operation {
            Some(Operation::ReadWrite) => entry.data(header, packet, start),
            Some(Operation::CreditUpdate) => (),
            Some(Operation::CreditRequest) => entry.connection.credit_requested(),
            Some(Operation::Shutdown) => entry.guest_shutdown(header.flags),
            Some(Operation::Reset) => entry.guest_reset(),
            // A second request for a connection that is open, a response nobody asked for, or
            // something unknown: the two sides do not agree about this connection.
            Some(Operation::Request | Operation::Response) | None => entry.connection.abort(),
        }
        self.after(known);
        Ok(())
    }

    /// A packet that belongs to no connection.
    fn stranger(&mut self, header: &Header, ports: Ports, poller: &Poller) {
        let addressed = header.destination_cid == HOST_CID && header.kind == TYPE_STREAM;
        match header.operation {
            Some(Operation::Reset) => (),
            Some(Operation::Request) if addressed => {
                if !self.open(header, ports, poller) {
                    self.resets.push_back(ports);
                }
            }
            _ => self.resets.push_back(ports),
        }
    }

    /// Open a connection if there is room for it and the host wants it.
    fn open(&mut self, request: &Header, ports: Ports, poller: &Poller) -> bool {
        if self.slots.len() - self.free.len() >= MAX_CONNECTIONS {
            self.note("connection refused: too many are open", ports);
            return false;
        }
        let Some(socket) = self.acceptor.accept(ports.host) else {
            self.note("connection refused: nothing listens", ports);
            return false;
        };
        let index = self.free.pop().unwrap_or_else(|| {
            self.slots.push(Slot::default());
            self.slots.len() - 1
        });
        let Some(slot) = self.slots.get_mut(index) else {
            return false;
        };
        slot.generation = slot.generation.wrapping_add(1) & GENERATION_MASK;
        let token = u64::from(slot.generation) << 32 | index as u64;
        let stream = match Stream::new(socket, poller, token) {
            Ok(stream) => stream,
            Err(_) => {
                self.free.push(index);
                return false;
            }
        };
        let large = self.large < LARGE_CONNECTIONS;
        self.large += usize::from(large);
        let window = if large { LARGE_WINDOW } else { SMALL_WINDOW };
        slot.entry = Some(Entry {
            ports,
            connection: Connection::accepted(request, window),
            stream: Some(stream),
            large,
            burst: FIRST_BURST,
        });
        self.by_ports.insert(ports, index);
        self.after(index);
        true
    }

    /// A host socket is ready.
    pub(super) fn stream_event(&mut self, token: u64, ready: Readiness) {
        let index = (token & u64::from(u32::MAX)) as usize;
        let Some(slot) = self.slots.get_mut(index) else {
            return;
        };
        if u64::from(slot.generation) != token >> 32 {
            return;
        }
        let Some(entry) = &mut slot.entry else {
            return;
        };
        if let Some(stream) = &mut entry.stream {
            stream.readable |= ready.readable;
            stream.ended |= ready.read_closed;
            stream.gone |= ready.closed;
        }
        if ready.writable {
            entry.flush();
        }
        self.after(index);
    }

    /// A connection changed: list it if it may have something for the guest, forget it if it is over.
    fn after(&mut self, index: usize) {
        let Some(slot) = self.slots.get_mut(index) else {
            return;
        };
        let Some(entry) = &mut slot.entry else {
            return;
        };
        if entry.connection.is_forgotten() {
            // The guest may use the ports again, even while its last bytes are still on their way.
            if self.by_ports.get(&entry.ports) == Some(&index) {
                self.by_ports.remove(&entry.ports);
            }
            if entry.stream.is_none() || entry.connection.is_over() {
                self.large -= usize::from(entry.large);
                slot.entry = None;
                self.free.push(index);
            }
            return;
        }
        if !slot.listed && entry.has_work() {
            slot.listed = true;
            self.ready.push_back(index);
        }
    }

    /// Send one turn's worth to the guest. `false` if there is nothing to send or no buffer for it.
    pub(super) fn send_some(
        &mut self,
        queue: &mut VirtQueue,
        burst: &mut Burst,
    ) -> Result<bool, DeviceError> {
        if let Some(ports) = self.resets.front().copied() {
            burst.take(queue, 1, 0)?;
            if burst.is_empty() {
                return Ok(false);
            }
            let header = self.header(ports, (Operation::Reset, 0), (0, 0));
            burst.finish(queue, header, 0)?;
            self.resets.pop_front();
            return Ok(true);
        }
        let Some(index) = self.ready.pop_front() else {
            return Ok(false);
        };
        let Some(slot) = self.slots.get_mut(index) else {
            return Ok(true);
        };
        slot.listed = false;
        let Some(entry) = &mut slot.entry else {
            return Ok(true);
        };
        let progressed = entry.send(self.guest_cid, queue, burst)?;
        if !progressed {
            // No buffers: the same connection goes first when there are some.
            slot.listed = true;
            self.ready.push_front(index);
        }
        self.after(index);
        Ok(progressed)
    }

    /// Whether there may be something to send.
    pub(super) fn has_work(&self) -> bool {
        !self.ready.is_empty() || !self.resets.is_empty()
    }

    fn header(&self, ports: Ports, what: (Operation, u32), credit: (u32, u32)) -> Header {
        header(self.guest_cid, ports, what, credit)
    }

    fn note(&mut self, what: &'static str, ports: Ports) {
        if let Some(suppressed) = self.log.pass() {
            let Ports { guest, host } = ports;
            tracing::debug!(guest, host, suppressed, "vsock: {what}");
        }
    }
}

fn header(
    guest_cid: u64,
    ports: Ports,
    (operation, flags): (Operation, u32),
    (buffer_size, forwarded): (u32, u32),
) -> Header {
    Header {
        source_cid: HOST_CID,
        destination_cid: guest_cid,
        source_port: ports.host,
        destination_port: ports.guest,
        length: 0,
        kind: TYPE_STREAM,
        operation: Some(operation),
        flags,
        buffer_size,
        forwarded,
    }
}

impl Entry {
    /// Data of the guest.
    fn data(&mut self, header: &Header, packet: &mut Buffers, start: usize) {
        if self.connection.receive(header.length).is_err() {
            self.connection.abort();
            self.finish_streams();
            return;
        }
        let outcome = match &mut self.stream {
            Some(stream) if self.connection.host_receives() => stream.write(packet, start),
            // Nobody reads it; the guest was told, or will be. It must not stall.
            _ => {
                self.connection.forward(header.length);
                return;
            }
        };
        match outcome {
            Ok(forwarded) if forwarded.closed => {
                self.connection.forward(header.length);
                self.connection.host_ended_receiving();
            }
            Ok(forwarded) => self.connection.forward(forwarded.taken as u32),
            Err(_) => self.fail(),
        }
    }

    /// The host has room for what was kept.
    fn flush(&mut self) {
        let Some(stream) = &mut self.stream else {
            return;
        };
        if stream.kept() == 0 {
            return;
        }
        match stream.flush() {
            Ok(forwarded) => {
                self.connection.forward(forwarded.taken as u32);
                if forwarded.closed {
                    let lost = stream.discard();
                    self.connection.forward(lost as u32);
                    self.connection.host_ended_receiving();
                }
                self.finish_streams();
            }
            Err(_) => self.fail(),
        }
    }

    fn guest_shutdown(&mut self, flags: u32) {
        self.connection.guest_shutdown(flags);
        if flags & SHUTDOWN_RECEIVE != 0
            && let Some(stream) = &self.stream
        {
            stream.end_receiving();
        }
        if flags & SHUTDOWN_SEND != 0 {
            self.finish_streams();
        }
    }

    fn guest_reset(&mut self) {
        self.connection.guest_reset();
        self.finish_streams();
    }

    /// Pass on the end of the guest's sending direction once all before it was passed on.
    fn finish_streams(&mut self) {
        let Some(stream) = &self.stream else {
            return;
        };
        if stream.kept() > 0 || self.connection.guest_sends() {
            return;
        }
        stream.end_sending();
        self.connection.all_forwarded();
        if !self.connection.guest_receives() {
            self.stream = None;
        }
    }

    /// The host's socket failed.
    fn fail(&mut self) {
        let lost = self.stream.take().map_or(0, |mut stream| stream.discard());
        self.connection.forward(lost as u32);
        self.connection.abort();
    }

    fn has_work(&self) -> bool {
        self.connection.next_packet().is_some()
            || (self.connection.room() > 0 && self.stream.as_ref().is_some_and(|s| s.readable))
    }

    /// Send what is owed, or data. `false` if the guest has no buffer for it.
    fn send(
        &mut self,
        guest_cid: u64,
        queue: &mut VirtQueue,
        burst: &mut Burst,
    ) -> Result<bool, DeviceError> {
        if let Some(packet) = self.connection.next_packet() {
            burst.take(queue, 1, 0)?;
            if burst.is_empty() {
                return Ok(false);
            }
            self.finish(guest_cid, queue, burst, packet.into(), 0)?;
            self.connection.packet_sent(packet);
            if packet == Packet::Reset {
                self.finish_streams();
            }
            return Ok(true);
        }
        let room = self.connection.room() as usize;
        let Some(stream) = self.stream.as_mut().filter(|s| s.readable && room > 0) else {
            return Ok(true);
        };
        let capacity = burst.take(queue, self.burst, room)?;
        if burst.is_empty() {
            return Ok(false);
        }
        let limit = capacity.min(room);
        match burst.receive(stream.descriptor(), limit) {
            Ok(0) => {
                burst.cancel(queue);
                stream.readable = false;
                self.connection.host_ended_sending();
                if stream.gone {
                    self.connection.host_ended_receiving();
                }
            }
            Ok(length) => {
                // A short read emptied the socket, and more data will be an event. The end of the
                // stream was an event already, so after that one must read on to find it.
                stream.readable = length == limit || stream.ended;
                let filled = burst.count();
                let what = (Operation::ReadWrite, 0);
                let used = self.finish(guest_cid, queue, burst, what, length)?;
                self.connection.sent(length as u32);
                self.burst = match used == filled {
                    true => (self.burst * 2).min(MAX_BURST),
                    false => used + 1,
                };
            }
            Err(error) => {
                burst.cancel(queue);
                stream.readable = false;
                if is_closed(&error) {
                    self.connection.host_ended_sending();
                    self.connection.host_ended_receiving();
                } else if error.kind() != io::ErrorKind::WouldBlock {
                    self.fail();
                }
            }
        }
        Ok(true)
    }

    fn finish(
        &mut self,
        guest_cid: u64,
        queue: &mut VirtQueue,
        burst: &mut Burst,
        what: (Operation, u32),
        length: usize,
    ) -> Result<usize, DeviceError> {
        let credit = self.connection.credit();
        burst.finish(queue, header(guest_cid, self.ports, what, credit), length)
    }
}
