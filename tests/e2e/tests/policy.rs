//! The system call policies allow what sandboxes do, and nothing that they never do: the calls of traced compartments are
//! held against every entry of the sandbox's policy. `kernel_policy.rs` does so with that of user-mode kernels.

use bulkhead_e2e::{
    Bulkhead, Calls, Census, Counting, Isolation, Numbers, Policy, PolicyEntry, User, Watched,
    cannot_run, isolation, wait_until,
};

/// Entries that a healthy compartment seldom or never hits, and why they stay.
const RARE: &[(&str, &str, &str)] = &[
    ("runtime", "writev", "the message of a panic"),
    (
        "runtime",
        "poll",
        "waits for a caller's descriptor that does not block",
    ),
    (
        "runtime",
        "epoll_create1",
        "an event loop that is made under the lock",
    ),
    (
        "runtime",
        "epoll_pwait",
        "epoll_wait of a C library for other architectures",
    ),
    ("runtime", "eventfd2", "the same"),
    ("runtime", "mremap", "a large block that grows"),
    (
        "runtime",
        "rt_sigaction",
        "std's overflow handler, a thread that is started under the lock",
    ),
    (
        "runtime",
        "rt_sigreturn",
        "the signal that takes a thread out of a read that blocks",
    ),
    ("runtime", "tgkill", "that signal, and abort()"),
    (
        "runtime",
        "restart_syscall",
        "the kernel's own, after a stop and a continue",
    ),
    (
        "runtime",
        "clock_gettime",
        "a host whose clock is not readable without a call",
    ),
    ("runtime", "clock_nanosleep", "a thread that sleeps"),
    ("runtime", "sched_yield", "a lock that is waited for"),
    (
        "runtime",
        "fstat",
        "a C library that does not use newfstatat for it",
    ),
    (
        "runtime",
        "lseek",
        "a container that starts again goes on in its log",
    ),
    (
        "runtime",
        "fcntl",
        "which commands are used depends on the optimiser and the platform",
    ),
    ("control", "sendmsg", "an answer with a descriptor"),
    (
        "control",
        "getsockopt",
        "the error of a client that is gone",
    ),
    (
        "control",
        "ioctl",
        "FIONREAD: input that was not read when its reader was cancelled",
    ),
    (
        "control",
        "pwrite64",
        "what the guest's kernel says on its console",
    ),
    ("control", "ftruncate", "a console that has said a mebibyte"),
    (
        "control",
        "seccomp",
        "not counted: a thread that adds a filter has not all of its filters yet",
    ),
    (
        "device",
        "fcntl",
        "sealing the memory file; Debian's kernel notifies by pipes",
    ),
    ("device", "recvfrom", "a stream that is peeked at"),
    (
        "device",
        "socketpair",
        "a guest's connection to a port that was not opened ahead",
    ),
    (
        "device",
        "fallocate",
        "blocks that the guest's file system gives back when it likes",
    ),
    ("device", "madvise", "the balloon, which only kvm has"),
    ("stream", "shutdown", "a stream's half-close"),
    (
        "stream",
        "ioctl",
        "FIONREAD: input that was not read when its reader was cancelled",
    ),
];

/// Entries of `section` that none of `calls` needed.
fn idle(policy: &Policy, section: &str, calls: &Calls) -> Vec<String> {
    let rare = |entry: &PolicyEntry| {
        RARE.iter()
            .any(|(in_section, call, _)| *in_section == section && *call == entry.call)
    };
    policy
        .section(section)
        .filter(|entry| !rare(entry) && !entry.is_needed(calls))
        .map(ToString::to_string)
        .collect()
}

/// What a user does with a container, as far as it makes its threads do different things.
fn use_it(b: &Bulkhead) {
    b.command(&["exec", "-i", "counted", "cat"])
        .with_input(vec![b'x'; 100_000])
        .finish()
        .ok();
    b.run(&["exec", "counted", "sh", "-c", WORK]).ok();
    b.run(&["exec", "-d", "counted", "true"]).ok();
    b.run(&["exec", "counted", "false"]).expect_code(1);
    b.run(&["kill", "-s", "USR1", "counted"]).ok();
    b.run(&["logs", "counted"]).ok();
    b.run(&["logs", "--kernel", "counted"]).ok();
    b.run(&["stop", "-t", "0", "counted"]).ok();
}

/// Files, memory, processes and time in the guest.
const WORK: &str = "
    dd if=/dev/zero of=/file bs=64k count=8 conv=fsync 2>/dev/null; cat /file >/dev/null
    sync; rm /file; fstrim / 2>/dev/null
    dd if=/dev/urandom of=/dev/null bs=64k count=4 2>/dev/null
    for i in 1 2 3; do true & done; wait
    sleep 0.2; cat /bin/busybox >/dev/null; true";

fn census(b: &Bulkhead, watched: Watched) -> Census {
    let file = b.home().join("config.toml");
    std::fs::write(&file, "[log]\nmax-size = \"128k\"\n").expect("a file");
    let file = file.to_str().expect("a plain path");
    let words = [
        "--config", file, "run", "-i", "--rm", "--name", "counted", "-m", "96m", "busybox", "sh",
        "-c",
    ];
    // More than two log files hold, so that they are turned over.
    let main = "trap : USR1; yes 0123456789012345678901234567890123456789 | head -c 400000; while :; do sleep 1; done";
    let mut words = words.to_vec();
    words.push(main);
    let counting = Counting::start(b.process(&words), watched);
    let runs = wait_until(std::time::Duration::from_secs(60), || {
        b.run(&["exec", "counted", "true"]).code == 0
    });
    assert!(runs, "the counted container does not start");
    use_it(b);
    counting.finish()
}

#[test]
fn the_policies_allow_nothing_that_nobody_does() {
    let Some(b) = Bulkhead::with_busybox(User::Root) else {
        return;
    };
    let Some(numbers) = Numbers::read() else {
        cannot_run!("the C library's headers, which number the system calls, are not installed");
        return;
    };
    let sandbox = Policy::read("sandbox", &numbers);
    let census = census(&b, sandbox.watched());
    let none = Calls::new();
    let of = |kind: &str| census.get(kind).unwrap_or(&none);
    let mut unneeded = Vec::new();
    let mut kinds = vec!["control", "device", "stream"];
    if isolation() == Isolation::Kvm {
        kinds.extend(["vcpu", "ahead"]);
    }
    let anybody: Calls = ["control", "device", "stream"]
        .iter()
        .flat_map(|kind| of(kind).iter().copied())
        .collect();
    unneeded.extend(idle(&sandbox, "runtime", &anybody));
    for kind in kinds {
        assert!(
            !of(kind).is_empty(),
            "no thread of the kind {kind} was seen: {:?}",
            census.keys()
        );
        unneeded.extend(idle(&sandbox, kind, of(kind)));
    }
    b.expect_nothing_left();
    assert!(
        unneeded.is_empty(),
        "nobody needs:\n{}",
        unneeded.join("\n")
    );
}
