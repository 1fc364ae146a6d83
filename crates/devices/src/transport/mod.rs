//! What carries a device's queues and notifications.

pub mod vhost_user;
