//! Memory that containers share, and memory that they give back.

use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use bulkhead_e2e::{Bulkhead, Entry, Isolation, User, layer, needs, wait_until};

/// These tests look at how much memory the host uses: one at a time.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// Kibibytes that `field` of all processes of a container's sandbox sums up to.
fn sandbox_memory(b: &Bulkhead, name: &str, field: &str) -> u64 {
    let pid = b.inspect(name)["State"]["Pid"].as_i64().unwrap();
    let rollup = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap();
    kibibytes(&rollup, field)
}

fn kibibytes(text: &str, field: &str) -> u64 {
    let line = text
        .lines()
        .find(|line| line.split(':').next() == Some(field))
        .unwrap_or_else(|| panic!("no {field} in:\n{text}"));
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

fn host_cached() -> u64 {
    kibibytes(&std::fs::read_to_string("/proc/meminfo").unwrap(), "Cached")
}

const MEBIBYTE: u64 = 1024;

/// The image's files are mapped into each guest from the host's page cache: neither guest has a copy, and the host
/// has one for both.
#[test]
fn two_containers_of_one_image_do_not_double_the_page_cache() {
    const SIZE: u64 = 64;
    let _alone = alone();
    if !needs(Isolation::Kvm) {
        return;
    }
    let Some(b) = Bulkhead::new(User::Root) else {
        return;
    };
    let mut noise = vec![0; usize::try_from(SIZE << 20).unwrap()];
    std::io::Read::read_exact(
        &mut std::fs::File::open("/dev/urandom").unwrap(),
        &mut noise,
    )
    .unwrap();
    let mut tar = bulkhead_e2e::busybox_tar();
    tar.truncate(tar.len() - 1024);
    tar.extend(layer(&[("noise", Entry::File(0o644, noise))]));
    b.command(&["import", "-", "noisy"])
        .with_input(tar)
        .finish()
        .ok();

    let mut before = host_cached();
    let mut grown = Vec::new();
    for name in ["one", "two"] {
        b.run(&["run", "-d", "--name", name, "noisy", "sleep", "10000"])
            .ok();
        b.run(&["exec", name, "sh", "-c", "cat /noise > /dev/null"])
            .ok();
        let cached = host_cached();
        grown.push(cached.saturating_sub(before) / MEBIBYTE);
        before = cached;
    }
    for name in ["one", "two"] {
        let rss = sandbox_memory(&b, name, "Rss") / MEBIBYTE;
        let anonymous = sandbox_memory(&b, name, "Anonymous") / MEBIBYTE;
        let pss = sandbox_memory(&b, name, "Pss") / MEBIBYTE;
        let figures = format!(
            "{name}: RSS {rss} MiB, PSS {pss} MiB, anonymous {anonymous} MiB; page cache {grown:?} MiB"
        );
        assert!(
            rss - anonymous >= SIZE * 3 / 4,
            "the file is not mapped from the host's page cache: {figures}"
        );
        assert!(
            pss - anonymous <= SIZE * 3 / 4,
            "the mapping is not shared by both: {figures}"
        );
        let guest = b.run(&["exec", name, "cat", "/proc/meminfo"]).ok().text();
        let own = kibibytes(&guest, "Cached") / MEBIBYTE;
        assert!(
            own < SIZE / 2,
            "the guest caches {own} MiB of its own: {figures}"
        );
    }
    assert!(
        grown[1] < SIZE / 2,
        "the second container grew the page cache by {grown:?} MiB"
    );
    b.run(&["rm", "-f", "one", "two"]).ok();
    b.expect_nothing_left();
}

/// Free pages are reported by the guest and given back by the sandbox.
#[test]
fn memory_that_a_container_freed_goes_back_to_the_host() {
    const SIZE: u64 = 128;
    let _alone = alone();
    if !needs(Isolation::Kvm) {
        return;
    }
    let Some(b) = Bulkhead::with_busybox(User::Root) else {
        return;
    };
    let rss = || sandbox_memory(&b, "greedy", "Rss") / MEBIBYTE;
    b.run(&[
        "run",
        "-d",
        "--name",
        "greedy",
        "--memory",
        "400m",
        "--shm-size",
        "200m",
        "busybox",
        "sleep",
        "10000",
    ])
    .ok();
    let idle = rss();
    let fill = format!("dd if=/dev/zero of=/dev/shm/file bs=1M count={SIZE} 2>/dev/null");
    b.run(&["exec", "greedy", "sh", "-c", &fill]).ok();
    let full = rss();
    assert!(
        full >= idle + SIZE * 3 / 4,
        "{idle} MiB idle, {full} MiB with {SIZE} MiB in use"
    );
    b.run(&["exec", "greedy", "rm", "/dev/shm/file"]).ok();
    let fell = wait_until(Duration::from_secs(20), || rss() <= idle + SIZE / 4);
    assert!(
        fell,
        "{idle} MiB idle, {full} MiB with {SIZE} MiB in use, {} MiB after",
        rss()
    );
    b.run(&["rm", "-f", "greedy"]).ok();
    b.expect_nothing_left();
}

/// On a PC the addresses below 4 GiB belong to devices: memory beyond lies above them, and the guest uses it first.
#[test]
fn memory_above_the_hole_is_there_and_used() {
    let host = std::fs::read_to_string("/proc/meminfo").unwrap();
    if kibibytes(&host, "MemTotal") < 5 << 20 {
        bulkhead_e2e::cannot_run!("this host has less than 5 GiB of memory");
        return;
    }
    let Some(b) = Bulkhead::with_busybox(User::Root) else {
        return;
    };
    let script = "dd if=/dev/zero of=/dev/shm/f bs=1M count=32 2>/dev/null && md5sum < /dev/shm/f; grep MemTotal /proc/meminfo";
    let out = b
        .run(&[
            "run", "--rm", "--memory", "4g", "busybox", "sh", "-c", script,
        ])
        .ok()
        .text();
    assert!(kibibytes(&out, "MemTotal") > 3900 * MEBIBYTE, "{out}");
    // What md5sum says of 32 MiB of zeros.
    assert!(out.starts_with("58f06dd588d8ffb3beb46ada6309436b"), "{out}");
    b.expect_nothing_left();
}
