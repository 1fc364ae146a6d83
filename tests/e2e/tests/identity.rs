//! Nothing in a guest tells on which host it runs: neither its name, nor its kernel's release and build, nor a number
//! that only this machine has.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use bulkhead_e2e::{Bulkhead, Isolation, cannot_run, each_user, isolation};

/// What identifies this host, by where it was read. Values that are too short to be told from chance are left out.
fn identifiers() -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    let mut note = |source: &str, text: &str| {
        let text = text.trim();
        // The names of many machines in a laboratory; and what is the same on half of all machines.
        if text.len() >= 6 && !["localhost", "00:00:00:00:00:00"].contains(&text) {
            found.insert(source.to_owned(), text.to_owned());
        }
    };
    for path in [
        "/proc/sys/kernel/hostname",
        "/proc/sys/kernel/osrelease",
        "/proc/sys/kernel/version",
        "/proc/sys/kernel/random/boot_id",
        "/etc/machine-id",
        "/sys/class/dmi/id/product_uuid",
        "/sys/class/dmi/id/product_serial",
        "/sys/class/dmi/id/board_serial",
    ] {
        if let Ok(text) = fs::read_to_string(path) {
            note(path, &text);
        }
    }
    // Who built the host's kernel, and with what.
    let version = fs::read_to_string("/proc/version").unwrap_or_default();
    note(
        "/proc/version",
        version.split('(').nth(1).unwrap_or_default(),
    );
    for card in fs::read_dir("/sys/class/net")
        .into_iter()
        .flatten()
        .flatten()
    {
        let path = card.path().join("address");
        note(
            &path.display().to_string(),
            &fs::read_to_string(&path).unwrap_or_default(),
        );
    }
    found
}

/// Prints everything that container root can read of its kernel.
const EVERYTHING: &str = "
    uname -a; dmesg; hostname; env; cat /proc/1/environ
    find /proc /sys -path '/proc/[2-9]*' -prune -o -path '/proc/1[0-9]*' -prune -o -path '/proc/*/task' -prune \
        -o -type f ! -name kmsg ! -name kcore ! -name 'kpage*' ! -name trace_pipe ! -name pagemap ! -name mem \
        ! -name kallsyms ! -name page_idle -print 2>/dev/null |
        xargs -n 100 timeout 30 head -v -c 65536 2>/dev/null; true";

/// Whether the kernel is ours: Debian's user-mode kernel shows its host in /proc/cpuinfo.
fn ours(b: &Bulkhead) -> bool {
    let release = b
        .run(&["run", "--rm", "busybox", "uname", "-r"])
        .ok()
        .text();
    let host = fs::read_to_string("/proc/sys/kernel/osrelease").expect("a release");
    if release == host.trim() {
        cannot_run!("guest and host run the same build of a kernel");
        return false;
    }
    let ours = release.ends_with("-bulkhead") || isolation() != Isolation::UserMode;
    if !ours {
        cannot_run!(
            "Debian's user-mode kernel {release} shows its host's release in /proc/cpuinfo"
        );
    }
    ours
}

each_user! {
    a_guest_does_not_know_its_host(b) {
        if !ours(b) {
            return;
        }
        let seen = b
            .run(&["run", "--rm", "--cap-add", "ALL", "busybox", "sh", "-c", EVERYTHING])
            .ok()
            .stdout;
        let seen = String::from_utf8_lossy(&seen);
        assert!(seen.contains("==> /proc/cpuinfo"), "nothing was read: {seen}");
        let identifiers = identifiers();
        assert!(identifiers.len() >= 3, "{identifiers:?}");
        for (source, value) in identifiers {
            if let Some(at) = seen.find(&value) {
                let before = seen.get(..at).unwrap_or_default();
                let file = before.rfind("==> ").and_then(|start| before.get(start..));
                panic!("{source} ({value}) is in {:?}", file.and_then(|text| text.lines().next()));
            }
        }
        // The host's own value of a file that every Linux has would be found: the test is not blind.
        assert!(Path::new("/proc/sys/kernel/osrelease").exists());
    }
}
