//! Virtio devices and their transports; they know queues and guest memory, never a hypervisor.
//!
//! * [`Device`] is the seam: a transport owns the thread and the poll loop, and calls the device.
//! * [`Balloon`], [`Block`], [`Pmem`], [`Rng`] and [`Vsock`] are the devices.
//! * [`vhost_user`] is the transport for a kernel that runs as a process of its own, [`mmio`] the
//!   one for a kernel on virtual CPUs of this process.
//!
//! Everything a guest writes (rings, descriptors, headers) and everything a front end sends is
//! hostile input: it is checked before use, and a violation stops that one device until its driver
//! resets it, or ends it.

mod device;
mod log_gate;
mod memory;
mod poll;
mod transport;
mod virtio;

pub use device::{Activation, Device, DeviceError, DeviceId, Work};
pub use memory::{GuestMemory, JoinError, SharedMemory};
pub use poll::{Interest, Poller, Readiness};
pub use transport::{Handle, TransportError, mmio, vhost_user};
pub use virtio::balloon::Balloon;
pub use virtio::block::{Block, BlockError, Fault};
pub use virtio::pmem::{Pmem, PmemError};
pub use virtio::queue::{
    Buffers, Chain, Notifier, QueueError, RingLayout, VIRTIO_F_RING_EVENT_IDX, VirtQueue,
};
pub use virtio::rng::Rng;
pub use virtio::vsock::{Acceptor, HOST_CID, Header, Operation, Vsock};
