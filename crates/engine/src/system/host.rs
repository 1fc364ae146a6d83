//! Facts about the host, each from the one place that knows it. A fact that cannot be read is empty
//! or zero: it is shown, never decided upon.

use std::fs;

use nix::sys::utsname::uname;

/// `uname`.
pub(super) struct Kernel {
    pub release: String,
    pub machine: String,
    pub node: String,
}

pub(super) fn kernel() -> Kernel {
    let name = uname().ok();
    let text =
        |field: Option<&std::ffi::OsStr>| field.unwrap_or_default().to_string_lossy().into_owned();
    Kernel {
        release: text(name.as_ref().map(|n| n.release())),
        machine: text(name.as_ref().map(|n| n.machine())),
        node: text(name.as_ref().map(|n| n.nodename())),
    }
}

/// `PRETTY_NAME` of os-release(5).
pub(super) fn operating_system() -> String {
    let text = fs::read_to_string("/etc/os-release")
        .or_else(|_| fs::read_to_string("/usr/lib/os-release"))
        .unwrap_or_default();
    let pretty = text
        .lines()
        .find_map(|line| line.strip_prefix("PRETTY_NAME="));
    pretty
        .unwrap_or("Linux")
        .trim_matches(['"', '\''])
        .to_owned()
}

/// Bytes of memory.
pub(super) fn memory() -> u64 {
    let text = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let kib = text.lines().find_map(|line| {
        line.strip_prefix("MemTotal:")?
            .trim()
            .strip_suffix(" kB")?
            .parse::<u64>()
            .ok()
    });
    kib.unwrap_or(0).saturating_mul(1024)
}

/// Processors that this process may use.
pub(super) fn cpus() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// The architecture as images name it (GOARCH).
pub(super) fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}
