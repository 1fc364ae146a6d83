//! One stream's state machine; no I/O, so that every sequence of packets can be tried in a test.
//!
//! ```text
//!            REQUEST                 SHUTDOWN both, or RST
//!   guest ─────────────▶  open  ─────────────────────────────▶ closing ──▶ gone
//!                          │  RESPONSE owed at once              │  when all is forwarded: RST owed
//!                          │  SHUTDOWN owed when a direction     │  (not after a RST of the guest)
//!                          ▼  of the host ends
//! ```
//!
//! Packets to the guest need buffers that the guest may withhold, so nothing is sent from here:
//! the connection remembers what it owes, and [`Connection::next_packet`] says what to send next. What
//! is owed is a handful of flags, so a guest cannot make it grow.

use std::num::Wrapping;

use super::packet::{Header, Operation, SHUTDOWN_BOTH, SHUTDOWN_RECEIVE, SHUTDOWN_SEND};

/// What the guest did against the rules; the connection is reset.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Violation {
    /// More data than it had credit for.
    NoCredit,
    /// Data after it had ended its sending direction.
    SentAfterShutdown,
}

/// A control packet to send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Packet {
    Response,
    CreditUpdate,
    Shutdown(u32),
    Reset,
}

#[derive(Debug)]
pub(super) struct Connection {
    /// Room we promised the guest.
    window: u32,
    /// Bytes the guest sent, the host took, and the guest was told the host took.
    received: Wrapping<u32>,
    forwarded: Wrapping<u32>,
    told: Wrapping<u32>,
    /// Room the guest promised us, bytes we sent, and bytes the guest told us it took.
    guest_window: u32,
    sent: Wrapping<u32>,
    guest_forwarded: Wrapping<u32>,
    /// Directions the guest ended (`SHUTDOWN_*` bits, as the guest sees itself).
    guest_ended: u32,
    /// Directions the host ended (as the host sees itself), and those the guest was told of.
    host_ended: u32,
    host_ended_told: u32,
    guest_reset: bool,
    owes_response: bool,
    owes_credit: bool,
    owes_reset: bool,
}

impl Connection {
    /// A connection that the guest asked for with `request` and that was accepted.
    pub(super) fn accepted(request: &Header, window: u32) -> Self {
        Self {
            window,
            received: Wrapping(0),
            forwarded: Wrapping(0),
            told: Wrapping(0),
            guest_window: request.buffer_size,
            sent: Wrapping(0),
            guest_forwarded: Wrapping(request.forwarded),
            guest_ended: 0,
            host_ended: 0,
            host_ended_told: 0,
            guest_reset: false,
            owes_response: true,
            owes_credit: false,
            owes_reset: false,
        }
    }

    /// Every packet of the guest says how much room it has.
    pub(super) fn take_credit(&mut self, header: &Header) {
        self.guest_window = header.buffer_size;
        self.guest_forwarded = Wrapping(header.forwarded);
        self.owe_credit_at_half();
    }

    /// The guest sent `length` bytes.
    pub(super) fn receive(&mut self, length: u32) -> Result<(), Violation> {
        if self.guest_ended & SHUTDOWN_SEND != 0 {
            return Err(Violation::SentAfterShutdown);
        }
        let held = u64::from((self.received - self.forwarded).0);
        if held + u64::from(length) > u64::from(self.window) {
            return Err(Violation::NoCredit);
        }
        self.received += length;
        Ok(())
    }

    /// The host took `length` of the bytes received, or will never take them.
    pub(super) fn forward(&mut self, length: u32) {
        self.forwarded += length;
        self.owe_credit_at_half();
    }

    /// A guest limits itself to the smaller of both windows, so it stalls at that one. Telling it
    /// at half keeps it running; telling it more often costs it an interrupt each time.
    fn owe_credit_at_half(&mut self) {
        let stall = self.window.min(self.guest_window);
        if (self.forwarded - self.told).0 >= (stall / 2).max(1) {
            self.owes_credit = true;
        }
    }

    /// Bytes received that the host has not taken.
    pub(super) fn held(&self) -> u32 {
        (self.received - self.forwarded).0
    }

    /// The guest asked how much room it has.
    pub(super) fn credit_requested(&mut self) {
        self.owes_credit = true;
    }

    /// Bytes that may be sent to the guest now.
    pub(super) fn room(&self) -> u32 {
        if self.owes_response || self.guest_ended & SHUTDOWN_RECEIVE != 0 || self.owes_reset {
            return 0;
        }
        let in_flight = (self.sent - self.guest_forwarded).0;
        self.guest_window.saturating_sub(in_flight)
    }

    /// `length` bytes were put into the guest's buffers.
    pub(super) fn sent(&mut self, length: u32) {
        self.sent += length;
    }

    /// The guest ended one or both of its directions.
    pub(super) fn guest_shutdown(&mut self, flags: u32) {
        self.guest_ended |= flags & SHUTDOWN_BOTH;
        self.reset_when_done();
    }

    /// The guest forgot the connection. What it had sent before is still to be forwarded.
    pub(super) fn guest_reset(&mut self) {
        self.guest_ended = SHUTDOWN_BOTH;
        self.guest_reset = true;
    }

    /// Whether the guest will send nothing more, and whether all it sent was forwarded.
    pub(super) fn guest_sends(&self) -> bool {
        self.guest_ended & SHUTDOWN_SEND == 0
    }

    /// Whether the guest still takes data.
    pub(super) fn guest_receives(&self) -> bool {
        self.guest_ended & SHUTDOWN_RECEIVE == 0
    }

    /// The host will send no more.
    pub(super) fn host_ended_sending(&mut self) {
        self.host_ended |= SHUTDOWN_SEND;
    }

    /// The host will take no more.
    pub(super) fn host_ended_receiving(&mut self) {
        self.host_ended |= SHUTDOWN_RECEIVE;
    }

    /// Whether the host still takes data.
    pub(super) fn host_receives(&self) -> bool {
        self.host_ended & SHUTDOWN_RECEIVE == 0
    }

    /// The connection failed: tell the guest that it is gone.
    pub(super) fn abort(&mut self) {
        self.owes_reset = !self.guest_reset;
        self.guest_ended = SHUTDOWN_BOTH;
    }

    /// Everything held was forwarded: a guest that closed is told that the connection is gone.
    pub(super) fn all_forwarded(&mut self) {
        self.reset_when_done();
    }

    fn reset_when_done(&mut self) {
        if self.guest_ended == SHUTDOWN_BOTH && !self.guest_reset && self.held() == 0 {
            self.owes_reset = true;
        }
    }

    /// Whether the guest has closed the connection and everything it sent was forwarded.
    pub(super) fn is_over(&self) -> bool {
        self.guest_ended == SHUTDOWN_BOTH && self.held() == 0
    }

    /// Whether the guest knows that the connection is gone.
    pub(super) fn is_forgotten(&self) -> bool {
        self.guest_reset
    }

    /// What is to be sent before any data, if anything.
    pub(super) fn next_packet(&self) -> Option<Packet> {
        if self.guest_reset {
            None
        } else if self.owes_response {
            Some(Packet::Response)
        } else if self.owes_reset {
            Some(Packet::Reset)
        } else if self.host_ended != self.host_ended_told {
            Some(Packet::Shutdown(self.host_ended))
        } else if self.owes_credit && self.guest_sends() {
            Some(Packet::CreditUpdate)
        } else {
            None
        }
    }

    /// `packet` was put into the guest's buffers.
    pub(super) fn packet_sent(&mut self, packet: Packet) {
        match packet {
            Packet::Response => self.owes_response = false,
            Packet::CreditUpdate => self.owes_credit = false,
            Packet::Shutdown(flags) => self.host_ended_told = flags,
            Packet::Reset => {
                self.owes_reset = false;
                self.guest_reset = true;
            }
        }
    }

    /// Window and count for the next header; sending them tells the guest.
    pub(super) fn credit(&mut self) -> (u32, u32) {
        self.told = self.forwarded;
        self.owes_credit = false;
        (self.window, self.forwarded.0)
    }
}

/// The wire form of a control packet: operation and flags.
impl From<Packet> for (Operation, u32) {
    fn from(packet: Packet) -> Self {
        match packet {
            Packet::Response => (Operation::Response, 0),
            Packet::CreditUpdate => (Operation::CreditUpdate, 0),
            Packet::Shutdown(flags) => (Operation::Shutdown, flags),
            Packet::Reset => (Operation::Reset, 0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::packet::{HOST_CID, TYPE_STREAM};
    use super::*;

    fn request(buffer_size: u32) -> Header {
        Header {
            source_cid: 3,
            destination_cid: HOST_CID,
            source_port: 1,
            destination_port: 2,
            length: 0,
            kind: TYPE_STREAM,
            operation: Some(Operation::Request),
            flags: 0,
            buffer_size,
            forwarded: 0,
        }
    }

    fn open() -> Connection {
        let mut connection = Connection::accepted(&request(1000), 1000);
        assert_eq!(connection.next_packet(), Some(Packet::Response));
        connection.packet_sent(Packet::Response);
        connection
    }

    #[test]
    fn nothing_goes_to_the_guest_before_the_response() {
        let connection = Connection::accepted(&request(1000), 1000);
        assert_eq!(connection.room(), 0);
    }

    #[test]
    fn a_guest_that_exceeds_its_credit_is_caught() {
        let mut connection = open();
        assert_eq!(connection.receive(1000), Ok(()));
        assert_eq!(connection.receive(1), Err(Violation::NoCredit));
        connection.forward(1);
        assert_eq!(connection.receive(1), Ok(()));
        assert_eq!(connection.receive(u32::MAX), Err(Violation::NoCredit));
    }

    #[test]
    fn a_guest_is_told_of_room_before_it_stalls_and_not_at_every_byte() {
        let mut connection = open();
        connection.receive(1000).unwrap();
        connection.forward(499);
        assert_eq!(connection.next_packet(), None);
        connection.forward(1);
        assert_eq!(connection.next_packet(), Some(Packet::CreditUpdate));
        assert_eq!(connection.credit(), (1000, 500));
        connection.packet_sent(Packet::CreditUpdate);
        assert_eq!(connection.next_packet(), None);
    }

    #[test]
    fn a_guest_with_a_small_window_of_its_own_is_told_at_half_of_that() {
        let mut connection = Connection::accepted(&request(10), 1000);
        connection.packet_sent(Packet::Response);
        connection.receive(10).unwrap();
        connection.forward(5);
        assert_eq!(connection.next_packet(), Some(Packet::CreditUpdate));
    }

    #[test]
    fn a_guest_that_shrinks_its_window_while_it_sends_does_not_stall() {
        let mut connection = open();
        connection.receive(400).unwrap();
        connection.forward(400);
        assert_eq!(connection.next_packet(), None);
        connection.take_credit(&request(300));
        assert_eq!(connection.next_packet(), Some(Packet::CreditUpdate));
    }

    #[test]
    fn counters_survive_their_wrap() {
        let mut connection = open();
        for _ in 0..10_000 {
            connection.receive(900).unwrap();
            connection.forward(900);
        }
        connection.received = Wrapping(u32::MAX - 10);
        connection.forwarded = Wrapping(u32::MAX - 10);
        connection.receive(100).unwrap();
        assert_eq!(connection.held(), 100);
        connection.forward(100);
        assert_eq!(connection.held(), 0);
        connection.sent = Wrapping(5);
        connection.guest_forwarded = Wrapping(u32::MAX - 4);
        assert_eq!(connection.room(), 990);
    }

    #[test]
    fn a_guest_that_lies_about_what_it_took_gets_nothing_rather_than_an_overflow() {
        let mut connection = open();
        let mut lie = request(1000);
        lie.forwarded = 5000;
        connection.take_credit(&lie);
        assert_eq!(connection.room(), 0);
    }

    #[test]
    fn closing_waits_until_everything_was_forwarded() {
        let mut connection = open();
        connection.receive(10).unwrap();
        connection.guest_shutdown(SHUTDOWN_BOTH);
        assert_eq!(connection.next_packet(), None);
        assert!(!connection.is_over());
        connection.forward(10);
        connection.all_forwarded();
        assert_eq!(connection.next_packet(), Some(Packet::Reset));
        assert!(connection.is_over());
    }

    #[test]
    fn half_a_shutdown_leaves_the_other_direction_open() {
        let mut connection = open();
        connection.guest_shutdown(SHUTDOWN_SEND);
        assert_eq!(connection.next_packet(), None);
        assert_eq!(connection.room(), 1000);
        assert_eq!(connection.receive(1), Err(Violation::SentAfterShutdown));
        connection.host_ended_sending();
        assert_eq!(
            connection.next_packet(),
            Some(Packet::Shutdown(SHUTDOWN_SEND))
        );
    }

    #[test]
    fn a_guest_that_reset_the_connection_hears_nothing_more_of_it() {
        let mut connection = open();
        connection.receive(10).unwrap();
        connection.guest_reset();
        connection.host_ended_sending();
        connection.forward(10);
        connection.all_forwarded();
        connection.abort();
        assert_eq!(connection.next_packet(), None);
        assert!(connection.is_over());
    }
}
