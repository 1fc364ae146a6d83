//! Persistent memory (section 5.19): files that the guest maps instead of reading them.
//!
//! The host's page cache is the guest's memory: what one guest has read of a file, every other
//! guest with that file finds there, and a guest keeps no copy of it. Read only.
//!
//! # Files that shrink
//!
//! An access beyond the end of a mapped file is an error for whoever accesses: for a virtual CPU
//! its run call fails, and the machine ends; a signal (SIGBUS) comes only to a process that reads
//! the mapping itself, which this one never does. Either way the harm ends at one compartment, and it takes a host that
//! truncates a layer in its store, where files are immutable from the moment they get their name.

mod device;
mod error;

pub use device::Pmem;
pub use error::PmemError;

#[cfg(test)]
mod tests;
