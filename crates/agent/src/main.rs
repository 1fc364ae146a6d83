//! `bulkhead-agent`: the guest's first process, or a container's init, by the name it is started under.

#![no_main]

use std::ffi::{OsString, c_char, c_int};
use std::path::PathBuf;

/// Entered by the C runtime. Rust's own start-up code makes a dozen system calls (a guard page, signal
/// stacks, checks of descriptors) for things that this program does not use.
// SAFETY: the name is the C runtime's entry point, and the signature is that of C's main.
#[unsafe(no_mangle)]
pub extern "C" fn main(_count: c_int, _arguments: *const *const c_char) -> c_int {
    let mut arguments = std::env::args_os();
    let name = arguments.next().unwrap_or_default();
    if bulkhead_agent::is_init(&name.to_string_lossy()) {
        let rest: Vec<OsString> = arguments.collect();
        return bulkhead_agent::init(rest).into();
    }
    if std::process::id() != 1 {
        eprintln!("bulkhead-agent: runs as the first process of a guest only");
        return 1;
    }
    bulkhead_agent::boot(PathBuf::from(name))
}
