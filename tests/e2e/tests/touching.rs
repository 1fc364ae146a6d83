//! What processes may do with the memory that their guest has.

use bulkhead_e2e::{Bulkhead, User, guest_program, layer};

/// An installation with the image `touching`, whose one program is guest/touch.c.
fn touching() -> Option<Bulkhead> {
    let b = Bulkhead::new(User::Root)?;
    let tar = layer(&[("touch", guest_program("touch")?)]);
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
