//! The policy of user-mode kernels allows what they and their guest processes do, and nothing that they never do: what a
//! counted kernel of ours called is held against every entry. The policy is for Debian's kernel too, which cannot run on
//! every processor: what only that calls is listed here, and so is what happens too seldom to be seen.
//!
//! A line of these lists whose entry our kernel did need fails the test as well. So the lists stay true.

use std::time::Duration;

use bulkhead_e2e::{
    Bulkhead, Calls, Counting, Isolation, Numbers, Policy, PolicyEntry, User, cannot_run, needs,
    wait_until,
};

/// An entry that our kernel does not need in a healthy run: the call, what its only condition compares with, and who
/// needs it (a file below arch/um of Linux, and a function).
type Line = (&'static str, Option<u64>, &'static str);

/// What Debian's kernel of Linux 6.1 calls and ours does not.
const DEBIAN: &[Line] = &[
    (
        "pread64",
        None,
        "ld.so, since that kernel is not static: the headers of a library",
    ),
    ("openat", Some(0x8_0000), "ld.so: a library"),
    (
        "mmap",
        Some(0x802),
        "ld.so: a library, MAP_PRIVATE|MAP_DENYWRITE",
    ),
    ("clone", Some(0x500), "drivers/ubd_user.c, start_io_thread"),
    (
        "clone",
        Some(0x8411),
        "kernel/skas/clone.c, stub_clone_handler; gone in 6.12",
    ),
    (
        "poll",
        None,
        "os-Linux/file.c, os_poll: the thread of drivers/ubd_kern.c",
    ),
    ("madvise", Some(9), "os-Linux/process.c, can_drop_memory"),
    (
        "modify_ldt",
        Some(0),
        "../x86/um/ldt.c, ldt_get_host_info; gone in 6.12",
    ),
    ("modify_ldt", Some(1), "../x86/um/ldt.c, init_new_ldt"),
];

/// What our kernel calls in rare cases alone.
const RARE: &[Line] = &[
    (
        "openat",
        Some(0x9_0800),
        "os-Linux/umid.c, remove_files_and_dir: a guest that powers itself off, since its agent found no host",
    ),
    ("getdents64", None, "the same"),
    ("unlink", None, "the same"),
    ("rmdir", None, "the same"),
    (
        "clock_gettime",
        None,
        "os-Linux/time.c, os_nsecs: on a host whose clock is not readable without a call",
    ),
    (
        "fstat",
        None,
        "os-Linux/file.c, os_stat_fd: of a C library since 2.39; older ones use newfstatat for it",
    ),
];

/// Calls that do very different things depending on their arguments: no entry may let all of them through.
const DEPENDENT: &[&str] = &[
    "arch_prctl",
    "clone",
    "execveat",
    "fcntl",
    "ioctl",
    "madvise",
    "mmap",
    "modify_ldt",
    "mprotect",
    "openat",
    "prctl",
    "prlimit64",
    "socket",
    "socketpair",
    "timer_create",
];

fn is(line: &Line, entry: &PolicyEntry) -> bool {
    line.0 == entry.call && line.1 == entry.value()
}

/// A container with an own name: the words of its `run`, and what is done with it while it runs.
struct Scenario {
    run: &'static [&'static str],
    then: &'static [&'static [&'static str]],
}

/// Files, memory, processes, signals, time, a pseudo-terminal; the ways in which a container ends; a kernel that panics.
const SCENARIOS: &[Scenario] = &[
    Scenario {
        run: &[
            "-t",
            "--tmpfs",
            "/t",
            "busybox",
            "sh",
            "-c",
            "dd if=/dev/zero of=/file bs=64k count=8 conv=fsync; cat /file >/t/file; sync; rm /file; fstrim /
             dd if=/dev/urandom of=/dev/null bs=64k count=4
             for i in 1 2 3; do true & done; wait
             (kill -SEGV $(exec sh -c 'echo $PPID')) & wait
             cat /proc/cpuinfo; tail /dev/zero; sleep 0.2",
        ],
        then: &[],
    },
    Scenario {
        run: &[
            "busybox",
            "sh",
            "-c",
            "trap : USR1; while :; do sleep 1; done",
        ],
        then: &[
            &["exec", "counted", "sh", "-c", "echo | cat"],
            &["exec", "-d", "counted", "true"],
            &["kill", "-s", "USR1", "counted"],
            &["logs", "--kernel", "counted"],
            &["stop", "-t", "0", "counted"],
        ],
    },
    Scenario {
        run: &["busybox", "sh", "-c", "while :; do :; done"],
        then: &[&["kill", "counted"]],
    },
    // A panic, as in faults.rs.
    Scenario {
        run: &[
            "--cap-add",
            "ALL",
            "busybox",
            "sh",
            "-c",
            "mkdir /p; mount -t proc proc /p; echo 2 > /p/sys/vm/panic_on_oom && tail /dev/zero",
        ],
        then: &[],
    },
];

/// What the kernels of all scenarios called.
fn counted(b: &Bulkhead, policy: &Policy) -> Calls {
    let mut calls = Calls::new();
    for scenario in SCENARIOS {
        let mut words = vec!["run", "--rm", "--name", "counted", "-m", "96m"];
        words.extend(scenario.run);
        let counting = Counting::start(b.process(&words), policy.watched());
        if !scenario.then.is_empty() {
            let runs = wait_until(Duration::from_secs(60), || {
                b.run(&["exec", "counted", "true"]).code == 0
            });
            assert!(runs, "it does not start: {words:?}");
        }
        for words in scenario.then {
            b.run(words).ok();
        }
        let census = counting.finish();
        let of_kernel = census.get("kernel").expect("a kernel was counted");
        calls.extend(of_kernel);
    }
    calls
}

#[test]
fn the_kernels_policy_allows_nothing_that_no_kernel_does() {
    if !needs(Isolation::UserMode) {
        return;
    }
    let Some(b) = Bulkhead::with_busybox(User::Root) else {
        return;
    };
    let Some(numbers) = Numbers::read() else {
        cannot_run!("the C library's headers, which number the system calls, are not installed");
        return;
    };
    let policy = Policy::read("kernel", &numbers);
    let calls = counted(&b, &policy);
    b.expect_nothing_left();

    let mut faults = Vec::new();
    let lines = || DEBIAN.iter().chain(RARE);
    for entry in policy.section("kernel") {
        let listed = lines().find(|line| is(line, entry));
        match (listed, entry.is_needed(&calls)) {
            (None, false) => faults.push(format!("nobody needs: {entry}")),
            (Some((.., who)), true) => faults.push(format!(
                "our kernel does need what is listed for another ({who}): {entry}"
            )),
            (None, true) if entry.idle_bits(&calls) != 0 => faults.push(format!(
                "nobody needs the bits {:#x} of: {entry}",
                entry.idle_bits(&calls)
            )),
            _ => {}
        }
        if DEPENDENT.contains(&entry.call.as_str()) && !entry.is_narrow() {
            faults.push(format!("whatever its arguments are: {entry}"));
        }
    }
    for line in lines() {
        if !policy.section("kernel").any(|entry| is(line, entry)) {
            faults.push(format!("listed, and not in the policy: {line:?}"));
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}
