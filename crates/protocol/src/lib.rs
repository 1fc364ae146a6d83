//! The protocol between a sandbox on the host and the agent in its guest.
//!
//! The agent is the ttRPC *server* and the sandbox its *client*, but the agent opens every connection:
//! the host never connects into a guest, so a guest can offer nothing that it was not asked for.
//!
//! ```text
//! vsock port 1024    control: ttRPC, service bulkhead.agent.v1.Agent (proto/agent.proto)
//! vsock port 65536…  one raw byte stream each, named by the host per stdin, stdout, stderr;
//!                    end of file is a half-close
//! ```
//!
//! # Versions
//!
//! Host and agent are built and installed together, so there is one version at a time and no
//! negotiation: [`HelloRequest`](api::HelloRequest) carries [`PROTOCOL_VERSION`], the agent answers
//! with its own, and a host that reads another number refuses the guest. What can go stale is a cached
//! initramfs or a compartment that outlives an upgrade; both are found by that check.
//!
//! `schema/v2.txt` is the frozen wire: every message, field number, type and method, dumped from the
//! descriptor. A test compares it. To change the protocol:
//!
//! 1. Adding a field, message or method that an old peer may ignore: keep the version, run the test
//!    with `BULKHEAD_BLESS=1`, and commit the new dump with the change, where review sees it.
//! 2. Anything that an old peer would misunderstand (a field's meaning, type or number; a removal):
//!    raise [`PROTOCOL_VERSION`] and start a new dump, `schema/v<N>.txt`. Numbers of removed fields
//!    are `reserved`, never used again.

mod convert;
mod generated;
mod ports;

pub use generated::{api, service};
pub use ports::{CONTROL_PORT, FIRST_STREAM_PORT, GUEST_CID, HOST_CID, PROTOCOL_VERSION};
