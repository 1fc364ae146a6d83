//! How results reach a person or a script: tables, JSON, templates, human durations.

mod columns;
mod format;
mod glob;
mod human;
mod write;

pub use columns::align;
pub use format::{Format, Listing};
pub use glob::glob;
pub use human::{ago, binary_size, created_at, ellipsis, image_size, size};
pub use write::{Out, say};
