//! Split virtqueues (section 2.7) as devices use them: whole, checked chains in; lengths out.
//!
//! The ring itself is `virtio_queue::Queue`. What this module adds is distrust. That crate's
//! chain iterator ends quietly at a bad descriptor, so a device cannot tell a broken chain from a
//! short one; here a chain is walked to its end and every byte of it located before a device sees
//! any of it. A chain that breaks a rule is an error and the device stops.

mod buffers;
mod chain;
mod error;
mod ring;

pub use buffers::Buffers;
pub use chain::Chain;
pub use error::QueueError;
pub use ring::{Notifier, RingLayout, VIRTIO_F_RING_EVENT_IDX, VirtQueue};

#[cfg(test)]
#[path = "../../../tests/support/driver.rs"]
pub(crate) mod driver;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
