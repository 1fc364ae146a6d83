//! What carries a device's queues and notifications.
//!
//! * `thread` runs a transport's server: one thread per device, one epoll set;
//! * `served` is the device inside it, with the queues that want a turn;
//! * [`vhost_user`] and [`mmio`] are the ways in which a driver sets the device up.

mod error;
pub mod mmio;
mod served;
mod thread;
pub mod vhost_user;

pub use error::TransportError;
pub use thread::Handle;
