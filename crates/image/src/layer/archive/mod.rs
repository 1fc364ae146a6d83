//! Tar as a stream of entries: ustar, GNU and PAX, as Docker and OCI image tools write it.
//!
//! The `tar` crate knows the header's layout. What is around it is done here, because a layer comes from anywhere: every
//! extension record is bounded before it is read, every form of sparse file is taken as the holes it means rather
//! than as gigabytes of zeros, and every error names the entry and the byte.

mod field;
mod header;
mod input;
mod pax;
mod sparse;

pub(crate) use header::{Archive, Entry, Kind};
pub(super) use sparse::Segment;
