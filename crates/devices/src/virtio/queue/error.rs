//! What a driver can get wrong about a queue.

/// A rule of virtqueues that was broken; the queue must not be used any more.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum QueueError {
    /// The size is zero, too large or no power of two.
    #[error("set up ring: size {size} is not a power of two up to {limit}")]
    Size {
        /// What was asked for.
        size: u16,
        /// The largest size the device offers.
        limit: u16,
    },
    /// A part of the ring is misaligned.
    #[error("set up ring: {part} at {address:#x} is misaligned")]
    Alignment {
        /// Which part.
        part: &'static str,
        /// Its guest physical address.
        address: u64,
    },
    /// A part of the ring lies outside the guest's memory, or in memory that is not to be written.
    #[error("set up ring: {part} at {address:#x} is outside guest memory")]
    Placement {
        /// Which part.
        part: &'static str,
        /// Its guest physical address.
        address: u64,
    },
    /// The ring could not be read or written.
    #[error("access ring: {operation}")]
    Ring {
        /// What was being done.
        operation: &'static str,
        /// The cause.
        #[source]
        source: virtio_queue::Error,
    },
    /// A chain breaks off: its next descriptor, or its indirect table, is invalid.
    #[error("walk chain {head}: it breaks off or loops")]
    BrokenChain {
        /// Index of the chain's first descriptor.
        head: u16,
    },
    /// A chain has more descriptors than the queue has entries (section 2.7.5.3.1).
    #[error("walk chain {head}: more than {limit} descriptors")]
    LongChain {
        /// Index of the chain's first descriptor.
        head: u16,
        /// The bound.
        limit: u16,
    },
    /// A descriptor the device may read follows one it may write (section 2.7.4.2).
    #[error("walk chain {head}: a readable descriptor follows a writable one")]
    Order {
        /// Index of the chain's first descriptor.
        head: u16,
    },
    /// A descriptor points outside the guest's memory, or to memory that is not to be written.
    #[error("walk chain {head}: {length} bytes at {address:#x} are outside guest memory")]
    OutsideMemory {
        /// Index of the chain's first descriptor.
        head: u16,
        /// Guest physical address.
        address: u64,
        /// Length in bytes.
        length: u32,
    },
    /// The driver could not be notified.
    #[error("notify the driver")]
    Notify(#[source] std::io::Error),
}
