//! Virtio over memory-mapped registers, version 2 (section 4.2), for a guest that runs in this
//! process. It knows nothing of a hypervisor: whoever runs the virtual CPUs brings their accesses
//! to [`Registers`], and an eventfd that interrupts the guest.
//!
//! ```text
//!   vCPU threads                                   the device's thread
//!   Registers ── setup (features, queues, status)
//!       │  DRIVER_OK, reset, end ──▶ mailbox ──▶ Worker ── the device
//!       │  QueueNotify ────────────▶ kick eventfds ──▶ │
//!       └─ InterruptStatus, ACK ◀── interrupt line ◀───┘ ──▶ interrupt eventfd
//! ```
//!
//! * Kicks are eventfds, one per queue, so that the hypervisor can signal them without leaving the
//!   kernel; a write to QueueNotify that reaches us does the same.
//! * A reset waits until the device's thread has let go of the queues, because the driver reuses
//!   their memory right after the write. DRIVER_OK does not wait: what the driver does next is to
//!   kick, and kicks wait for the device in their eventfds.
//! * Nothing a driver does ends the device's thread. A broken rule, of the registers or of a queue,
//!   stops the device and says DEVICE_NEEDS_RESET (section 2.1.2) until the driver resets it.
//!   What no driver can do on purpose (registers that do not exist or cannot be written, writes to
//!   the configuration space, which has no writable field that we use) is ignored.
//! * The configuration space never changes, so the generation is constant (section 4.2.2).

mod interrupt;
mod mailbox;
mod registers;
mod setup;
mod worker;

use std::io;
use std::os::fd::OwnedFd;

pub use registers::Registers;
pub use worker::Worker;

use super::thread::{self, Handle};
use crate::device::Device;
use crate::memory::GuestMemory;

/// Length of a device's window of registers and configuration space in guest physical memory.
pub const WINDOW_BYTES: u64 = 0x1000;

/// Offset of QueueNotify in the window: a 32-bit write of a queue's index there is a kick.
pub const QUEUE_NOTIFY: u64 = 0x50;

/// Serve `device` in a thread called `name` (15 bytes of it show). The thread first runs
/// `on_start`; an error of it ends the thread. `memory` is what the device may access;
/// `interrupt` is an eventfd, written once for every interrupt (an edge).
///
/// The thread ends when [`Registers::guest_ended`] was called, or the registers were dropped, and
/// everything the guest handed over is delivered.
///
/// # Errors
/// Descriptors or a thread could not be made.
pub fn spawn(
    device: Box<dyn Device>,
    memory: GuestMemory,
    interrupt: OwnedFd,
    name: &str,
    on_start: impl FnOnce() -> io::Result<()> + Send + 'static,
) -> io::Result<(Registers, Handle)> {
    let (registers, worker, poller) = worker::build(device, memory, interrupt, true)?;
    let handle = thread::spawn(worker, poller, name, on_start)?;
    Ok((registers, handle))
}

/// As [`spawn`] without a thread: the caller serves the device by [`Worker::turn`]. A reset does
/// not wait; it is carried out by the next turn, before anything else.
///
/// # Errors
/// Descriptors could not be made.
pub fn detached(
    device: Box<dyn Device>,
    memory: GuestMemory,
    interrupt: OwnedFd,
) -> io::Result<(Registers, Worker)> {
    let (registers, worker, _) = worker::build(device, memory, interrupt, false)?;
    Ok((registers, worker))
}
