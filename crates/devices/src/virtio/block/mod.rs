//! Block device (section 5.2): a read-only concatenation of files, or one writable file.
//!
//! * `disk`: where the bytes are, and how to move them between files and guest memory;
//! * `request`: what a chain of descriptors asks for, checked before anything is done;
//! * `config`: the configuration space and feature bits;
//! * `device`: the queue.
//!
//! Requests are carried out one after another in the device's thread. The files lie in the host's
//! page cache most of the time, where a second thread would cost more than it saves.

mod config;
mod device;
mod disk;
mod error;
mod request;

pub use device::Block;
pub use error::{BlockError, Fault};

#[cfg(test)]
mod tests;
