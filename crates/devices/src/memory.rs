//! What a device sees of the guest's memory.
//!
//! The pages are shared with a guest that runs at the same time and may change any byte at any
//! moment. So nothing here hands out a Rust reference to guest memory: bytes are copied once and
//! judged in the copy, or passed by address to the kernel.

/// The guest's physical memory: mapped regions, looked up by guest physical address. A clone
/// shares the mappings and keeps them alive.
pub type GuestMemory = vm_memory::GuestMemoryMmap<()>;
