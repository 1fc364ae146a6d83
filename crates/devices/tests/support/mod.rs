//! A guest kernel played by the test.

pub mod driver;
pub mod front_end;
pub mod mmio_guest;
