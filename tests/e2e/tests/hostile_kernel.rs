//! What code in the place of a user-mode kernel, at root's mercy in its guest, can take of the host and see of it.

use bulkhead_e2e::{Bulkhead, Finished, HostileKernel, Isolation, each_user, needs};

/// What the program that makes `attempt` printed, with what was said about its end.
fn attempt(b: &Bulkhead, attempt: &str) -> Option<Finished> {
    if !needs(Isolation::UserMode) {
        return None;
    }
    let kernel = HostileKernel::new(attempt, "")?;
    let path = kernel.path();
    let ended = b
        .command(&["run", "--rm", "-m", "64m", "busybox", "true"])
        .with_env("BULKHEAD_KERNEL", path.to_str().expect("a plain path"))
        .finish()
        .expect_code(125);
    b.expect_nothing_left();
    Some(ended)
}

/// The number in the line `NAME: NUMBER UNIT` of the console.
fn number(ended: &Finished, name: &str) -> u64 {
    let line = ended
        .stderr
        .lines()
        .find_map(|line| line.trim().strip_prefix(name)?.strip_prefix(": "));
    let word = line.and_then(|line| line.split(' ').next());
    word.and_then(|word| word.parse().ok())
        .unwrap_or_else(|| panic!("no number '{name}' in: {}", ended.stderr))
}

each_user! {
    memory_beyond_the_limit_is_refused_or_bounded(b) {
        let Some(ended) = attempt(b, "memory") else {
            return;
        };
        for what in ["growing down", "huge pages", "locked", "shared"] {
            let refused = format!("{what}: Operation not permitted");
            assert!(ended.stderr.contains(&refused), "{what}: {}", ended.stderr);
        }
        // The bounds of docs/threat-model.md, for each process.
        assert!(number(&ended, "stack") <= 1024, "{}", ended.stderr);
        assert!(number(&ended, "private") <= 8, "{}", ended.stderr);
        assert!(number(&ended, "addresses") <= 512 + 2 * 256, "{}", ended.stderr);
        // And their number.
        let processes = number(&ended, "processes");
        assert!((100..=1024).contains(&processes), "{}", ended.stderr);
    }

    a_stack_does_not_grow_by_being_moved(b) {
        if let Some(ended) = attempt(b, "growth") {
            let forbidden = "made a forbidden system call";
            assert!(ended.stderr.contains(forbidden), "{}", ended.stderr);
            assert!(!ended.stderr.contains("grown:"), "{}", ended.stderr);
        }
    }

    the_file_behind_guest_memory_is_not_cut_short(b) {
        if let Some(ended) = attempt(b, "truncation") {
            for what in ["for both with O_TRUNC", "for reading with O_TRUNC"] {
                let refused = format!("{what}: Operation not permitted");
                assert!(ended.stderr.contains(&refused), "{what}: {}", ended.stderr);
            }
            assert!(ended.stderr.contains("for reading: it worked"), "{}", ended.stderr);
        }
    }

    memory_that_cannot_be_filled_ends_one_compartment_with_its_cause(b) {
        b.run(&["run", "-d", "--name", "other", "busybox", "sleep", "600"]).ok();
        let Some(kernel) = HostileKernel::new("hole", "").filter(|_| needs(Isolation::UserMode)) else {
            return;
        };
        let path = kernel.path();
        b.command(&["run", "--name", "holed", "-m", "64m", "busybox", "true"])
            .with_env("BULKHEAD_KERNEL", path.to_str().expect("a plain path"))
            .finish()
            .expect_code(125)
            .says("could not be filled (SIGBUS)");
        let error = b.inspect("holed")["State"]["Error"].to_string();
        assert!(error.contains("SIGBUS"), "{error}");
        let alive = b.run(&["exec", "other", "echo", "alive"]).ok();
        assert_eq!(alive.text(), "alive");
        b.run(&["rm", "-f", "other", "holed"]).ok();
        b.expect_nothing_left();
    }

    the_host_has_no_name_and_no_load_for_it(b) {
        if let Some(ended) = attempt(b, "sees") {
            assert!(ended.stderr.contains("name: bulkhead\n"), "{}", ended.stderr);
            let refused = "sysinfo: Operation not permitted";
            assert!(ended.stderr.contains(refused), "{}", ended.stderr);
        }
    }
}
