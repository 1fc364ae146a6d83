//! Socket device (section 5.10): streams between the guest's processes and host sockets.
//!
//! Three layers, none of which knows the ones above it:
//!
//! * `packet`: the 44-byte header, bytes to values and back;
//! * `connection`: one stream's state machine (credit, shutdown, what the guest is owed), pure;
//! * `muxer` and `stream`: the connections and the host's side of them, Unix stream sockets;
//! * `rx` and `device`: the queues.
//!
//! Only the guest initiates connections. What a guest sends goes straight from its memory to the
//! host socket; only what that does not take is copied and kept, within the credit advertised.
//! What the host sends is received straight into the guest's buffers, many packets per system call.
//!
//! The `virtio-vsock` crate is not used: it wants a packet's data in one descriptor, and Linux
//! sends packets over 32 KiB as several.

mod connection;
mod device;
mod muxer;
mod packet;
mod rx;
mod stream;

pub use device::Vsock;
pub use muxer::Acceptor;
pub use packet::{HOST_CID, Header, Operation};

#[cfg(test)]
mod tests;
