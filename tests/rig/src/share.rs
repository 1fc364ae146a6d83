//! Which machine runs which tests.

use std::io;
use std::process::{Command, Stdio};

use crate::binaries::{TestBinary, is_left_out};
use crate::report;

/// Tests of one binary that one machine runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Share {
    /// The binary.
    pub binary: TestBinary,
    /// Names of tests in it; never empty.
    pub tests: Vec<String>,
}

/// A binary does not tell its tests.
#[derive(Debug, thiserror::Error)]
#[error("list the tests of {binary}")]
pub struct ListError {
    binary: String,
    #[source]
    source: io::Error,
}

/// The tests of each binary whose names contain one of `filters`, or all where there is none. Binaries without such a
/// test are left out.
///
/// # Errors
/// [`ListError`] names the binary.
pub fn all(binaries: &[TestBinary], filters: &[String]) -> Result<Vec<Share>, ListError> {
    let mut shares = Vec::new();
    for binary in binaries {
        let failed = |source| ListError {
            binary: binary.name.clone(),
            source,
        };
        let out = Command::new(&binary.path)
            .args(["--list", "--format", "terse"])
            .args(filters)
            .current_dir(&binary.directory)
            .stderr(Stdio::inherit())
            .output()
            .map_err(failed)?;
        if !out.status.success() {
            return Err(failed(io::Error::other(out.status.to_string())));
        }
        let mut tests = tests_in(&String::from_utf8_lossy(&out.stdout));
        tests.retain(|test| !is_left_out(&binary.name, test));
        if !tests.is_empty() {
            shares.push(Share {
                binary: binary.clone(),
                tests,
            });
        }
    }
    Ok(shares)
}

fn tests_in(list: &str) -> Vec<String> {
    let names = list.lines().filter_map(|line| line.strip_suffix(": test"));
    names.map(str::to_owned).collect()
}

/// What tests of containers with two CPUs have in their names. A host with one processor refuses such a container.
const SEVERAL: &str = "processors";

/// The tests for machines with one processor, and those for machines with two.
pub fn by_processors(shares: &[Share]) -> (Vec<Share>, Vec<Share>) {
    let those = |several| only(shares, |_, test| test.contains(SEVERAL) == several);
    (those(false), those(true))
}

/// Files of tests in which it matters on KVM who runs them: the device's permissions, and walls that only root has.
const BOTH_USERS: &[&str] = &["lookalikes", "platform", "walls"];

/// Leaves one of each pair `PROMISE::as_root` and `PROMISE::as_user`, by turns, except in `BOTH_USERS`.
///
/// The suite on user-mode runs every promise as both. On KVM a promise runs once, and each user gets half of them. A
/// machine inside an emulated machine takes a hundred times as long to start. Only in the files of `BOTH_USERS` does it
/// matter to the platform who the user is.
pub fn one_user_each(shares: &[Share]) -> Vec<Share> {
    let mut turn = 0_usize;
    let mut unwanted = std::collections::BTreeSet::new();
    for Share { binary, tests } in shares {
        if BOTH_USERS.contains(&binary.name.as_str()) {
            continue;
        }
        for test in tests {
            let Some(promise) = test.strip_suffix("::as_root") else {
                continue;
            };
            let other = format!("{promise}::as_user");
            if tests.contains(&other) {
                turn += 1;
                let left_out = if turn.is_multiple_of(2) { &other } else { test };
                unwanted.insert(report::name(&binary.name, left_out));
            }
        }
    }
    only(shares, |binary, test| {
        !unwanted.contains(&report::name(binary, test))
    })
}

/// Those tests of `shares` that a report names as `kvm::FILE::TEST`.
pub fn named(shares: &[Share], names: &[String]) -> Vec<Share> {
    only(shares, |binary, test| {
        names.contains(&report::name(binary, test))
    })
}

/// The tests that `wanted` picks by their binary's name and their own.
fn only(shares: &[Share], wanted: impl Fn(&str, &str) -> bool) -> Vec<Share> {
    let mut picked = shares.to_vec();
    for Share { binary, tests } in &mut picked {
        tests.retain(|test| wanted(&binary.name, test));
    }
    picked.retain(|share| !share.tests.is_empty());
    picked
}

/// Deals the tests out to so many machines, one after the other as cards are: files take from a second to minutes, and
/// so each machine gets a part of every one.
pub fn deal(shares: &[Share], machines: usize) -> Vec<Vec<Share>> {
    let machines = machines.max(1);
    let mut dealt = vec![Vec::<Share>::new(); machines];
    let mut next = (0..machines).cycle();
    for Share { binary, tests } in shares {
        for test in tests {
            let Some(hand) = next.next().and_then(|machine| dealt.get_mut(machine)) else {
                continue;
            };
            match hand.last_mut() {
                Some(share) if share.binary == *binary => share.tests.push(test.clone()),
                _ => hand.push(Share {
                    binary: binary.clone(),
                    tests: vec![test.clone()],
                }),
            }
        }
    }
    dealt.retain(|hand| !hand.is_empty());
    dealt
}

#[cfg(test)]
mod tests {
    use super::*;

    fn share(name: &str, tests: &[&str]) -> Share {
        Share {
            binary: TestBinary {
                name: name.into(),
                path: "/t".into(),
                directory: "/".into(),
            },
            tests: tests.iter().map(|&test| test.to_owned()).collect(),
        }
    }

    #[test]
    fn every_test_is_dealt_once_and_all_machines_get_alike() {
        let whole = [
            share("a", &["1", "2", "3"]),
            share("b", &["4"]),
            share("c", &["5", "6"]),
        ];
        let dealt = deal(&whole, 2);
        assert_eq!(dealt[0], [share("a", &["1", "3"]), share("c", &["5"])]);
        assert_eq!(
            dealt[1],
            [share("a", &["2"]), share("b", &["4"]), share("c", &["6"])]
        );
        assert_eq!(deal(&whole, 1), [whole.to_vec()]);
        assert_eq!(deal(&whole, 40).len(), 6, "no machine without a test");
        assert!(deal(&[], 2).is_empty());
    }

    #[test]
    fn tests_of_several_processors_are_told_from_the_others() {
        let whole = [
            share("a", &["one", "two_processors"]),
            share("b", &["processors::as_root"]),
        ];
        let again = named(
            &whole,
            &["kvm::b::processors::as_root".into(), "kvm::b::one".into()],
        );
        assert_eq!(again, [share("b", &["processors::as_root"])]);
        let (one, two) = by_processors(&whole);
        assert_eq!(one, [share("a", &["one"])]);
        assert_eq!(
            two,
            [
                share("a", &["two_processors"]),
                share("b", &["processors::as_root"])
            ]
        );
    }

    #[test]
    fn a_promise_is_kept_to_one_of_two_users_where_it_does_not_matter_which() {
        let pairs = ["x::as_root", "x::as_user", "y::as_root", "y::as_user", "z"];
        let whole = [share("run", &pairs), share("walls", &pairs)];
        let thin = one_user_each(&whole);
        assert_eq!(thin[0], share("run", &["x::as_user", "y::as_root", "z"]));
        assert_eq!(thin[1], whole[1]);
        let alone = [share("run", &["x::as_root", "z"])];
        assert_eq!(
            one_user_each(&alone),
            alone,
            "what was asked for by name runs"
        );
    }

    #[test]
    fn only_tests_are_read_from_a_list() {
        assert_eq!(
            tests_in("a::b: test\nc: benchmark\nd: test\n"),
            ["a::b", "d"]
        );
    }
}
