//! The jailed sandbox: everything that listens to the guest. It runs on descriptors that the monitor
//! opened, and knows no path.

pub(crate) mod agent;
mod attachment;
mod connection;
mod console;
mod control;
mod execs;
mod guest;
mod life;
mod walls;

#[cfg(test)]
mod tests;

pub(crate) use guest::{Boot, BootError, Guest};
pub(crate) use life::{Parts, run};
pub(crate) use walls::{StreamLock, Walls};
