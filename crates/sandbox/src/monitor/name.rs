//! What `ps` and `top` call the two halves of a sandbox: `bulkhead: monitor NAME` and `bulkhead: sandbox NAME`.

use std::fs;

use super::sys;
use crate::launch::MONITOR_TITLE;

/// In the place of [`MONITOR_TITLE`], and as long.
pub(crate) const SANDBOX_TITLE: &str = "bulkhead: sandbox ";
/// Short names (`comm`), at most 15 bytes.
const MONITOR_COMM: &std::ffi::CStr = c"bulkhead-monitr";
const SANDBOX_COMM: &std::ffi::CStr = c"bulkhead-sandbx";

const _: () = assert!(SANDBOX_TITLE.len() == MONITOR_TITLE.len());

/// Where the command line of this process is in its memory, when it begins with the monitor's title.
#[derive(Debug, Clone, Copy)]
pub(super) struct Title(usize);

/// Names the monitor, whose command line its launcher has chosen. To be called before the jailed half is forked.
pub(super) fn monitor() -> Option<Title> {
    sys::set_comm(MONITOR_COMM);
    let line = fs::read("/proc/self/cmdline").ok()?;
    if !line.starts_with(MONITOR_TITLE.as_bytes()) {
        return None;
    }
    // proc(5): the name in field 2 may hold blanks; arg_start is field 48, which is the 46th behind it.
    let stat = fs::read_to_string("/proc/self/stat").ok()?;
    let (_, behind) = stat.rsplit_once(')')?;
    behind.split_whitespace().nth(45)?.parse().ok().map(Title)
}

/// Names the jailed half, in its copy of the monitor's memory.
pub(super) fn sandbox(title: Option<Title>) {
    sys::set_comm(SANDBOX_COMM);
    if let Some(Title(at)) = title {
        sys::overwrite_title(at, SANDBOX_TITLE.as_bytes());
    }
}
