//! Persistent memory (section 5.19): files that the guest maps instead of reading them.
//!
//! The host's page cache is the guest's memory: what one guest has read of a file, every other
//! guest with that file finds there, and a guest keeps no copy of it. Read only.
//!
//! # Files that shrink
//!
//! An access beyond the end of a mapped file is an error for whoever accesses: for a virtual CPU
//! its run call fails, and the machine ends; for a disk or socket that sends from there, its system
//! call fails; only a request's header that a guest put there would be read by this process itself,
//! and be a signal (SIGBUS). Any of it ends at the one compartment, and it takes somebody on the
//! host who truncates a layer in the store, whose files never change from the moment they have a
//! name.

mod device;
mod error;

pub use device::Pmem;
pub use error::PmemError;

#[cfg(test)]
mod tests;
