//! Programs for guests, compiled on the spot.

use std::path::Path;
use std::process::Command;

use crate::command::{Running, tool_exists};
use crate::image::Entry;

/// `guest/NAME.c` as a static program, for [`layer`](crate::layer). `None`, said loudly, without a compiler.
pub fn guest_program(name: &str) -> Option<Entry> {
    if !tool_exists("gcc") {
        return None;
    }
    let directory = tempfile::tempdir().expect("temporary directory");
    let program = directory.path().join(name);
    let mut compiler = Command::new("gcc");
    compiler
        .args(["-O1", "-static", "-pthread", "-Wall", "-Werror", "-o"])
        .arg(&program)
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("guest/{name}.c")));
    Running::start(&mut compiler, None).finish().ok();
    let content = std::fs::read(&program).expect("the program that was compiled");
    Some(Entry::File(0o755, content))
}
