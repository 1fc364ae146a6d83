//! The devices, one folder each, and the queues they share.

pub(crate) mod balloon;
pub(crate) mod block;
pub(crate) mod pmem;
pub(crate) mod queue;
pub(crate) mod rng;
mod serve;
pub(crate) mod vsock;

/// Offered by every device: the driver follows version 1 of the specification (section 6).
pub(crate) const VIRTIO_F_VERSION_1: u64 = 1 << 32;
/// Descriptors may point to tables of descriptors (section 2.7.5.3).
pub(crate) const VIRTIO_F_INDIRECT_DESC: u64 = 1 << 28;

/// Ring features that every device offers.
pub(crate) const RING_FEATURES: u64 =
    VIRTIO_F_VERSION_1 | VIRTIO_F_INDIRECT_DESC | queue::VIRTIO_F_RING_EVENT_IDX;
