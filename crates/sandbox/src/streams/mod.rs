//! A process's stdin, stdout and stderr: from the guest's connection to the log and to the
//! descriptors that callers passed in, and back. One plain thread per stream with blocking I/O,
//! because the callers' descriptors are shared with them and must not be made non-blocking.

mod input;
mod interrupt;
mod keys;
mod outlet;
mod ports;
mod process;

pub(crate) use input::InputEnd;
pub(crate) use interrupt::install_handler;
pub(crate) use outlet::Log;
pub(crate) use ports::Ports;
pub(crate) use process::{Attached, ProcessIo, Wanted};
