//! Tests that cannot run: each must be in `tests/expected-skips`, with the facility that is missing.
//!
//! A line of that file is `NAME | FACILITY`. A test that skips without being in it fails the run, and so does one in it
//! that ran although its facility is missing: the list says exactly what a green run did not prove.

use std::collections::BTreeSet;

use crate::hardware;

/// A processor with hardware virtualization and a `/dev/kvm` that works.
pub const VIRTUALIZATION: &str = "hardware virtualization";
/// The host itself, for tests that an emulated machine has no network or no compiler for.
pub const OUTSIDE: &str = "the host outside the rig";

/// A processor whose extended state Debian's user-mode kernel can carry.
pub const PLAIN_STATE: &str = "a processor without AMX";

/// Whether a facility of the host is here; what is not known by name counts as missing.
pub fn has(facility: &str) -> bool {
    match facility {
        VIRTUALIZATION => hardware::obstacle().is_none(),
        PLAIN_STATE => {
            !std::fs::read_to_string("/proc/cpuinfo").is_ok_and(|text| text.contains(" amx_tile"))
        }
        _ => false,
    }
}

/// A test that may skip.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expected {
    /// The test, as the run names it.
    pub name: String,
    /// What is missing.
    pub facility: String,
}

/// The list has a line that is none.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "line {line} of the expected skips is not NAME | FACILITY, or not the only one for that name: {text}"
)]
pub struct ListError {
    line: usize,
    text: String,
}

/// Reads the list; lines that are empty or begin with `#` do not count.
///
/// # Errors
/// [`ListError`] names the first line that cannot be read.
pub fn parse(text: &str) -> Result<Vec<Expected>, ListError> {
    let mut expected = Vec::<Expected>::new();
    for (index, line) in text.lines().enumerate() {
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let parts = line
            .split_once(" | ")
            .map(|(name, facility)| (name.trim(), facility.trim()));
        match parts {
            Some((name, facility))
                if !name.is_empty()
                    && !facility.is_empty()
                    && expected.iter().all(|e| e.name != name) =>
            {
                expected.push(Expected {
                    name: name.to_owned(),
                    facility: facility.to_owned(),
                });
            }
            _ => {
                return Err(ListError {
                    line: index + 1,
                    text: line.to_owned(),
                });
            }
        }
    }
    Ok(expected)
}

/// What a run told.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Told {
    /// Tests that gave a result, those that skipped among them.
    results: BTreeSet<String>,
    /// `NAME: REASON` of those that could not run.
    skips: BTreeSet<String>,
}

impl Told {
    /// Takes a line of what test programs write: results, and `CANNOT RUN NAME: REASON`, which may stand in the middle
    /// of a line when the test harness has not ended its own.
    pub fn line(&mut self, line: &str) {
        let (before, skip) = match line.split_once("CANNOT RUN ") {
            Some((before, skip)) => (before, Some(skip)),
            None => (line, None),
        };
        if let Some(skip) = skip.filter(|skip| skip.contains(": ")) {
            self.skip(skip.trim_end());
        }
        if let Some((name, _)) = before
            .strip_prefix("test ")
            .and_then(|rest| rest.split_once(" ..."))
        {
            self.result(name);
        }
    }

    /// Takes the name of a test that gave a result.
    pub fn result(&mut self, name: &str) {
        self.results.insert(name.to_owned());
    }

    /// Takes `NAME: REASON` of a test that could not run.
    pub fn skip(&mut self, name_and_reason: &str) {
        self.skips.insert(name_and_reason.to_owned());
    }

    /// Adds what another run told.
    pub fn add(&mut self, other: Self) {
        self.results.extend(other.results);
        self.skips.extend(other.skips);
    }

    /// What is wrong with the skips, one line each. `has` says whether a facility is there: a test that was expected to
    /// miss it must run then, and may.
    pub fn faults(&self, expected: &[Expected], has: impl Fn(&str) -> bool) -> Vec<String> {
        let of = |name: &str, skip: &str| {
            skip.strip_prefix(name)
                .is_some_and(|rest| rest.starts_with(": "))
        };
        let unexpected = self
            .skips
            .iter()
            .filter(|skip| !expected.iter().any(|e| of(&e.name, skip)))
            .map(|skip| format!("a skip that tests/expected-skips does not have: {skip}"));
        let stale = expected
            .iter()
            .filter(|e| self.results.contains(&e.name) && !has(&e.facility))
            .filter(|e| !self.skips.iter().any(|skip| of(&e.name, skip)))
            .map(|e| {
                format!(
                    "tests/expected-skips has {}, which ran: take it off the list",
                    e.name
                )
            });
        unexpected.chain(stale).collect()
    }

    /// How many tests could not run, and how many gave a result.
    pub fn counts(&self) -> (usize, usize) {
        (self.skips.len(), self.results.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIST: &str = "# a comment\n\na::b | KVM\nuid 0: a wall | user namespaces\n";

    fn faults(lines: &[&str], has: bool) -> Vec<String> {
        let mut told = Told::default();
        lines.iter().for_each(|line| told.line(line));
        told.faults(&parse(LIST).unwrap(), |_| has)
    }

    #[test]
    fn a_skip_is_in_the_list_or_a_fault() {
        let good = [
            "test a::b ... ok",
            "CANNOT RUN a::b: no KVM",
            "test c ... ok",
        ];
        assert!(faults(&good, false).is_empty());
        let walls = [
            "CANNOT RUN uid 0: a wall: none here",
            "test uid 0: a wall ... ok",
        ];
        assert!(faults(&walls, false).is_empty());
        let bad = faults(&["CANNOT RUN a::bc: no KVM"], false);
        assert_eq!(
            bad,
            ["a skip that tests/expected-skips does not have: a::bc: no KVM"]
        );
        let inside = faults(&["test x ... CANNOT RUN x: no tool"], false);
        assert!(inside[0].ends_with("x: no tool"), "{inside:?}");
    }

    #[test]
    fn a_test_of_the_list_that_runs_is_a_fault_unless_its_facility_is_there() {
        let ran = ["test a::b ... ok"];
        assert_eq!(faults(&ran, false).len(), 1);
        assert!(faults(&ran, true).is_empty());
        assert!(
            faults(&["test c ... ok"], false).is_empty(),
            "it was not asked for"
        );
    }

    #[test]
    fn a_list_that_cannot_be_read_is_refused_with_its_line() {
        assert_eq!(parse("a | b\nnonsense\n").unwrap_err().line, 2);
        assert!(parse("a | b\na | c\n").is_err(), "one line for each name");
        assert_eq!(parse(LIST).unwrap()[1].name, "uid 0: a wall");
    }
}
