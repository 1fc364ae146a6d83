//! What processes may do with the memory that their guest has.

use std::time::{Duration, Instant};

use bulkhead_e2e::{Bulkhead, User, guest_program, layer, patience};

/// An installation with the image `touching`, whose programs are guest/touch.c and guest/fill.c.
fn touching() -> Option<Bulkhead> {
    let b = Bulkhead::new(User::Root)?;
    let tar = layer(&[
        ("touch", guest_program("touch")?),
        ("fill", guest_program("fill")?),
    ]);
    b.command(&["import", "-", "touching"])
        .with_input(tar)
        .finish()
        .ok();
    Some(b)
}

fn touch(b: &Bulkhead, memory: &str, arguments: [&str; 4]) {
    let mut words = vec!["run", "--rm", "--memory", memory, "touching", "/touch"];
    words.extend(arguments);
    let said = b.run(&words).ok().text();
    assert!(said.starts_with("0 of "), "{said}");
    b.expect_nothing_left();
}

/// On user-mode each page that does not continue its neighbour is a mapping on the host, which allows a process 65,530
/// of them, 256 MiB of pages. Pages of shared memory come one by one.
#[test]
fn a_process_with_more_scattered_pages_than_the_host_allows_mappings_lives() {
    if let Some(b) = touching() {
        touch(&b, "512m", ["320", "shared", "random", "1"]);
    }
}

/// More than two and a half times what the host's limit comes to in single pages.
#[test]
fn a_process_that_touches_600_mb_at_random_lives() {
    if let Some(b) = touching() {
        touch(&b, "800m", ["600", "private", "random", "1"]);
    }
}

/// Without swap space the kernel drops the program's own file, which is read again at once, and so on for minutes: it
/// makes progress, so that it kills nobody.
#[test]
fn a_container_whose_memory_is_full_ends_although_its_kernel_kills_nobody() {
    /// Five times what it took on a busy host; more than a minute without the agent's kill.
    const SOON: Duration = Duration::from_secs(30);
    let Some(b) = touching() else { return };
    for memory in ["64m", "256m"] {
        let began = Instant::now();
        b.run(&[
            "run", "--name", "full", "--memory", memory, "touching", "/fill",
        ])
        .expect_code(137)
        .says("give it more with '--memory'");
        assert!(
            began.elapsed() < patience(SOON),
            "{memory}: {:?}",
            began.elapsed()
        );
        assert_eq!(b.inspect("full")["State"]["OOMKilled"], true, "{memory}");
        b.run(&["rm", "full"]).ok();
    }
    b.expect_nothing_left();
}
