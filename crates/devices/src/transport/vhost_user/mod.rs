//! vhost-user back end: devices for a guest kernel that runs as another process.
//!
//! The front end is the kernel itself (`arch/um/drivers/virtio_uml.c`), so everything it sends is
//! as hostile as what it puts into its rings. The `vhost` crate cannot serve it: user-mode Linux
//! always sends two region slots with SET_MEM_TABLE, which that crate rejects. What user-mode
//! Linux needs, and where it differs from other front ends:
//!
//! * SET_MEM_TABLE: 72 bytes of payload, even when it announces one region;
//! * the protocol feature BACKEND_REQ must be offered, or the driver allocates no interrupt;
//! * the descriptor sent with SET_BACKEND_REQ_FD must stay open: when it closes, the driver
//!   removes the device. We send nothing on it;
//! * kick descriptors are eventfds, call descriptors are stream sockets; others may use pipes;
//! * REPLY_ACK is not offered, although it would be used: every message of the set-up would then
//!   wait for our answer, and setting up is part of a container's start time. In-band
//!   notifications are not offered either: they cost a message where an eventfd costs 8 bytes;
//! * nothing says when the driver is ready, so a device is activated once all of its queues are
//!   set up and enabled.
//!
//! # Memory that shrinks
//!
//! The memory file belongs to the kernel process, which could truncate it and so make an access of
//! ours end in SIGBUS. We check the file's size when mapping it and ask the kernel to seal it against
//! shrinking, which works for a memfd but not for the unlinked file on tmpfs that user-mode Linux
//! uses. What remains is accepted: SIGBUS kills this process, which serves this one guest only and
//! is PID 1 of its compartment, so a guest that does this ends its own compartment and nothing else.
//! Accesses made for us by the host's kernel (`preadv`, `sendmsg`) fail with EFAULT instead.
//!
//! # Threads and system calls
//!
//! [`spawn`] makes one thread per device. It first runs the caller's `on_start`, meant for
//! installing a seccomp filter, and only then looks at what the front end sent.

mod backend;
mod channel;
mod message;
mod notify;
mod regions;
mod server;
mod vring;

pub use super::{Handle, TransportError};
pub use backend::SessionError;
pub use channel::ChannelError;
pub use message::{MAX_PAYLOAD, MessageError, ProtocolFeatures, Region, Request, RingAddresses};
pub use server::spawn;
