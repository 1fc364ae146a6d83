//! The threads that serve a machine's devices, the same on every platform.

use std::io;

use bulkhead_devices::Handle;
use bulkhead_jail::{Thread, ThreadLock};

use crate::machine::DeviceEnd;

/// A device's thread.
#[derive(Debug)]
pub(crate) struct DeviceThread {
    pub(crate) name: String,
    pub(crate) handle: Handle,
}

/// What a device's thread does first: it locks itself, outside a jail nothing.
pub(crate) fn lock_first(
    lock: Option<ThreadLock>,
) -> impl FnOnce() -> io::Result<()> + Send + 'static {
    move || match lock {
        Some(lock) => lock.lock(Thread::Device).map_err(io::Error::other),
        None => Ok(()),
    }
}

/// Waits until each has delivered what the guest gave it, and tells how it ended.
pub(crate) fn finish(devices: &mut Vec<DeviceThread>) -> Vec<DeviceEnd> {
    let ends = devices.drain(..).map(|device| DeviceEnd {
        name: device.name,
        outcome: device.handle.join(),
    });
    ends.collect()
}
