//! Entropy device (section 5.4): host randomness for the guest.

mod device;

pub use device::Rng;
