//! The bulkhead command line.
mod output;
mod template;
fn main() {}
