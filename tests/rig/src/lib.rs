//! Runs the tests that need a KVM machine, and reports them as ordinary test results.
//!
//! Where the host has hardware virtualization they run directly. Elsewhere the test binaries, the built programs,
//! guest kernels and an image become the payload of `run.sh`, which starts an emulated machine with a true
//! `/dev/kvm`; what the tests write there is read back line by line. Several machines share the tests.

pub mod binaries;
pub mod hardware;
pub mod machine;
pub mod payload;
pub mod report;
pub mod share;
pub mod skips;
