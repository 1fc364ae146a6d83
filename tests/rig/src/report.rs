//! Reads what test binaries write, and tells it as the results of one test run.
//!
//! `suite.sh` puts a line before and after each binary's output, the first with the number of its tests:
//!
//! ```text
//! @@ begin run 41
//! …
//! @@ end run 101
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Write};
use std::time::Instant;

use crate::skips::{Expected, Told};

/// Written now and then, so that a machine that stands still is told from a test that does.
pub const ALIVE: &str = "@@ alive";

/// Second tries that one run may take: tests that failed in a machine of several processors, and machines that were
/// lost. The emulator's faults are as rare as that; what needs more is a fault of ours, and the run fails.
pub const SECOND_TRIES: usize = 3;

/// Files of tests that are named with the time they took, at the end.
const SLOWEST: usize = 8;

/// What one binary has told so far.
#[derive(Debug, Default)]
struct Binary {
    name: String,
    expected: usize,
    told: BTreeSet<String>,
    /// The test whose result follows what it wrote itself.
    open: Option<String>,
    cannot: BTreeMap<String, String>,
    counts: Counts,
    part: Part,
}

/// Results, by kind.
#[derive(Debug, Default)]
struct Counts {
    passed: usize,
    /// Their names.
    failed: Vec<String>,
    cannot_run: usize,
    ignored: usize,
}

impl Counts {
    fn add(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed.extend(other.failed);
        self.cannot_run += other.cannot_run;
        self.ignored += other.ignored;
    }
}

/// Where in a binary's output the reader is.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Part {
    /// Results, one a line.
    #[default]
    Results,
    /// What the tests that failed wrote.
    Failures,
    /// Their names again.
    Names,
}

/// Results so far, and the place where they are told.
#[derive(Debug)]
pub struct Report<W: Write> {
    out: W,
    current: Option<Binary>,
    counts: Counts,
    troubles: Vec<String>,
    told: Told,
    /// What was tried once more, and why.
    second_tries: Vec<String>,
    /// Seconds that each file of tests took, in all machines together.
    seconds: BTreeMap<String, f64>,
    began: Option<Instant>,
    /// Whether tests that fail get a second try, so that their failing is no result yet.
    second_try: bool,
}

impl<W: Write> Report<W> {
    /// An empty report that is told on `out`.
    pub fn new(out: W) -> Self {
        Self {
            out,
            current: None,
            counts: Counts::default(),
            troubles: Vec::new(),
            told: Told::default(),
            second_tries: Vec::new(),
            seconds: BTreeMap::new(),
            began: None,
            second_try: false,
        }
    }

    /// A report of tests that get a second try where they fail: see [`Report::forget_failures`].
    pub fn of_a_first_try(out: W) -> Self {
        Self {
            second_try: true,
            ..Self::new(out)
        }
    }

    /// Takes one line of the run, without its end.
    ///
    /// # Errors
    /// The place cannot be written to.
    pub fn line(&mut self, line: &str) -> io::Result<()> {
        let line = line.trim_end_matches('\r');
        if let Some(rest) = line.strip_prefix("@@ begin ") {
            self.abandon_binary();
            self.began = Some(Instant::now());
            let (name, tests) = rest.rsplit_once(' ').unwrap_or((rest, ""));
            self.current = Some(Binary {
                name: name.to_owned(),
                expected: tests.parse().unwrap_or(0),
                ..Binary::default()
            });
            return Ok(());
        }
        if line == ALIVE {
            return Ok(());
        }
        if let Some(rest) = line.strip_prefix("@@ end ") {
            let code = rest.rsplit(' ').next().and_then(|code| code.parse().ok());
            self.end_binary(code);
            return Ok(());
        }
        let Some(binary) = &mut self.current else {
            return writeln!(self.out, "{line}");
        };
        if line.starts_with("running ") {
            // The number that is asked for counts, not that which the binary knows.
        } else if let Some((test, reason)) = cannot_run(line) {
            let reasons = binary.cannot.entry(test.to_owned()).or_default();
            if !reasons.is_empty() {
                reasons.push_str("; ");
            }
            reasons.push_str(reason);
        } else if let Some((test, rest)) = announced(line).filter(|_| binary.part == Part::Results)
        {
            if is_result(rest) {
                return self.result(test, rest);
            }
            // One test at a time: its name is written before it runs, and what it writes past the capture comes between.
            binary.open = Some(test.to_owned());
            return self.line(rest);
        } else if let Some(test) = binary.open.take_if(|_| is_result(line)) {
            return self.result(&test, line);
        } else if line == "failures:" {
            binary.part = match binary.part {
                Part::Results => Part::Failures,
                Part::Failures | Part::Names => Part::Names,
            };
        } else if line.starts_with("test result:") {
            binary.part = Part::Results;
        } else if binary.part == Part::Names {
            // Told once, at the very end.
        } else if binary.part == Part::Failures
            || !(line.is_empty() || line.ends_with("has been running for over 60 seconds"))
        {
            return writeln!(self.out, "{line}");
        }
        Ok(())
    }

    fn result(&mut self, test: &str, result: &str) -> io::Result<()> {
        let Some(binary) = &mut self.current else {
            return Ok(());
        };
        binary.told.insert(test.to_owned());
        let name = name(&binary.name, test);
        self.told.result(&name);
        if result == "FAILED" {
            if self.second_try {
                writeln!(self.out, "rig: {name} failed, and gets a second try")?;
            } else {
                writeln!(self.out, "test {name} ... FAILED")?;
            }
            binary.counts.failed.push(name);
        } else if let Some(reason) = result.strip_prefix("ignored") {
            binary.counts.ignored += 1;
            writeln!(self.out, "test {name} ... ignored{reason}")?;
        } else if let Some(reason) = binary.cannot.get(test) {
            binary.counts.cannot_run += 1;
            self.told.skip(&format!("{name}: {reason}"));
            writeln!(self.out, "test {name} ... CANNOT RUN: {reason}")?;
        } else {
            binary.counts.passed += 1;
            writeln!(self.out, "test {name} ... ok")?;
        }
        self.out.flush()
    }

    fn end_binary(&mut self, code: Option<i32>) {
        let Some(binary) = self.current.take() else {
            return;
        };
        let name = &binary.name;
        if let Some(began) = self.began.take() {
            *self.seconds.entry(name.clone()).or_default() += began.elapsed().as_secs_f64();
        }
        match code {
            Some(0) => {}
            Some(101) if !binary.counts.failed.is_empty() => {}
            Some(code) => self.troubles.push(format!("{name} ended with code {code}")),
            None => self.troubles.push(format!("{name} ended without a code")),
        }
        if binary.told.len() != binary.expected {
            self.troubles.push(format!(
                "{name} told {} results of {} tests",
                binary.told.len(),
                binary.expected
            ));
        }
        self.counts.add(binary.counts);
    }

    /// The name of the binary that is being read, of which nothing counts then: it will be run again.
    pub fn forget_binary(&mut self) -> Option<String> {
        self.current.take().map(|binary| binary.name)
    }

    fn abandon_binary(&mut self) {
        if let Some(binary) = self.current.take() {
            self.troubles.push(format!(
                "{} did not come to its end: {} results of {} tests",
                binary.name,
                binary.told.len(),
                binary.expected
            ));
            self.counts.add(binary.counts);
        }
    }

    /// Tells something that is no result.
    ///
    /// # Errors
    /// The place cannot be written to.
    pub fn note(&mut self, what: &str) -> io::Result<()> {
        writeln!(self.out, "rig: {what}")
    }

    /// The names of the tests that failed, which do not count then: they will be run again.
    pub fn forget_failures(&mut self) -> Vec<String> {
        let failed = std::mem::take(&mut self.counts.failed);
        self.second_tries.extend(failed.iter().cloned());
        failed
    }

    /// Something is done once more, for a reason that lies with the emulator.
    ///
    /// # Errors
    /// The place cannot be written to.
    pub fn second_try(&mut self, what: &str) -> io::Result<()> {
        self.second_tries.push(what.to_owned());
        self.note(what)
    }

    /// Adds what another machine has told.
    pub fn add(&mut self, mut other: Self) {
        other.abandon_binary();
        self.counts.add(other.counts);
        self.troubles.append(&mut other.troubles);
        self.second_tries.append(&mut other.second_tries);
        self.told.add(other.told);
        for (name, seconds) in std::mem::take(&mut other.seconds) {
            *self.seconds.entry(name).or_default() += seconds;
        }
    }

    /// Something outside the tests went wrong, so that the run as a whole has failed.
    pub fn trouble(&mut self, what: impl Into<String>) {
        self.troubles.push(what.into());
    }

    /// Compares the tests that could not run with those that are expected to; `has` says whether a facility is here.
    pub fn compare_skips(&mut self, expected: &[Expected], has: impl Fn(&str) -> bool) {
        self.troubles.extend(self.told.faults(expected, has));
    }

    /// Tells the failures and the sum; whether all is well.
    ///
    /// # Errors
    /// The place cannot be written to.
    pub fn finish(mut self, seconds: f64) -> io::Result<bool> {
        self.abandon_binary();
        if self.counts.passed + self.counts.failed.len() + self.counts.cannot_run == 0 {
            self.trouble("not one test ran");
        }
        if self.second_tries.len() > SECOND_TRIES {
            let tries = self.second_tries.len();
            self.trouble(format!(
                "{tries} second tries, and {SECOND_TRIES} are the most"
            ));
        }
        let mut slowest: Vec<_> = self.seconds.iter().filter(|(_, s)| **s >= 1.0).collect();
        slowest.sort_by(|a, b| b.1.total_cmp(a.1));
        for (name, seconds) in slowest.into_iter().take(SLOWEST) {
            writeln!(self.out, "rig: {seconds:.0} s of a machine went to {name}")?;
        }
        for what in &self.second_tries {
            writeln!(self.out, "rig: second try: {what}")?;
        }
        if !self.counts.failed.is_empty() {
            writeln!(self.out, "\nfailures:")?;
            for name in &self.counts.failed {
                writeln!(self.out, "    {name}")?;
            }
        }
        for trouble in &self.troubles {
            writeln!(self.out, "rig: {trouble}")?;
        }
        let well = self.counts.failed.is_empty() && self.troubles.is_empty();
        writeln!(
            self.out,
            "\ntest result: {}. {} passed; {} failed; {} cannot run; {} ignored; {} second tries; finished in {seconds:.0}s\n",
            if well { "ok" } else { "FAILED" },
            self.counts.passed,
            self.counts.failed.len(),
            self.counts.cannot_run,
            self.counts.ignored,
            self.second_tries.len(),
        )?;
        Ok(well)
    }
}

/// What a test of a binary is called here.
pub fn name(binary: &str, test: &str) -> String {
    format!("kvm::{binary}::{test}")
}

/// `test NAME ... REST`; a test that should panic says so after its name.
fn announced(line: &str) -> Option<(&str, &str)> {
    let (name, rest) = line.strip_prefix("test ")?.split_once(" ...")?;
    let name = name.strip_suffix(" - should panic").unwrap_or(name);
    Some((name, rest.trim_start()))
}

fn is_result(word: &str) -> bool {
    matches!(word, "ok" | "FAILED") || word == "ignored" || word.starts_with("ignored, ")
}

/// `CANNOT RUN NAME: REASON`, as the end-to-end harness says it.
fn cannot_run(line: &str) -> Option<(&str, &str)> {
    line.strip_prefix("CANNOT RUN ")?.split_once(": ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(lines: &str) -> (String, bool) {
        let mut out = Vec::new();
        let mut report = Report::new(&mut out);
        for line in lines.lines() {
            report.line(line).unwrap();
        }
        let well = report.finish(1.0).unwrap();
        (String::from_utf8(out).unwrap(), well)
    }

    const GOOD: &str = "@@ begin run 2\n\nrunning 2 tests\nCANNOT RUN b::as_root: no such tool\ntest a ... ok\n\
        test b::as_root ... ok\n\ntest result: ok. 2 passed\n\n@@ end run 0\n";

    #[test]
    fn results_carry_the_name_of_their_file() {
        let (text, well) = told(GOOD);
        assert!(text.contains("test kvm::run::a ... ok\n"), "{text}");
        assert!(
            text.contains("test kvm::run::b::as_root ... CANNOT RUN: no such tool\n"),
            "{text}"
        );
        assert!(
            text.contains("test result: ok. 1 passed; 0 failed; 1 cannot run"),
            "{text}"
        );
        assert!(well);
    }

    #[test]
    fn a_failure_is_told_with_its_output_and_fails_the_run() {
        let (text, well) = told(
            "@@ begin run 1\nrunning 1 test\ntest a ... FAILED\n\nfailures:\n\n---- a stdout ----\nthe reason\n\n\
             failures:\n    a\n\ntest result: FAILED. 0 passed\n@@ end run 101\n",
        );
        assert!(text.contains("test kvm::run::a ... FAILED\n"), "{text}");
        assert!(text.contains("the reason\n"), "{text}");
        assert!(text.contains("failures:\n    kvm::run::a\n"), "{text}");
        assert!(!text.contains("\n    a\n"), "{text}");
        assert!(!well);
    }

    #[test]
    fn a_binary_that_dies_or_tells_too_little_fails_the_run() {
        for (lines, expected) in [
            (
                "@@ begin run 2\nrunning 2 tests\ntest a ... ok\n@@ end run 0\n",
                "1 results of 2",
            ),
            (
                "@@ begin run 1\nrunning 1 test\ntest a ... ok\n@@ end run 134\n",
                "code 134",
            ),
            (
                "@@ begin run 1\nrunning 1 test\ntest a ... ok\n",
                "did not come to its end",
            ),
            ("", "not one test"),
        ] {
            let (text, well) = told(lines);
            assert!(text.contains(expected) && !well, "{text}");
        }
    }

    #[test]
    fn a_binary_that_is_run_again_counts_once() {
        let mut out = Vec::new();
        let mut report = Report::new(&mut out);
        for line in [
            "@@ begin run 2",
            "running 2 tests",
            "test a ... FAILED",
            ALIVE,
        ] {
            report.line(line).unwrap();
        }
        assert_eq!(report.forget_binary().as_deref(), Some("run"));
        GOOD.lines().for_each(|line| report.line(line).unwrap());
        assert!(report.finish(0.0).unwrap());
    }

    #[test]
    fn what_a_test_writes_before_its_result_is_not_taken_for_it() {
        let (text, well) = told(
            "@@ begin run 3\nrunning 3 tests\ntest a ... CANNOT RUN a: no such tool\nok\ntest b ... Loaded image: x\nFAILED\n\
             test c ... \nmore\nok\n\nfailures:\n    b\n\ntest result: FAILED.\n@@ end run 101\n",
        );
        assert!(
            text.contains("test kvm::run::a ... CANNOT RUN: no such tool\n"),
            "{text}"
        );
        assert!(text.contains("test kvm::run::b ... FAILED\n"), "{text}");
        assert!(text.contains("1 passed; 1 failed; 1 cannot run"), "{text}");
        assert!(!text.contains("rig:") && !well, "{text}");
    }

    #[test]
    fn what_several_machines_told_is_one_run() {
        let mut whole = Report::new(Vec::new());
        for lines in [GOOD, "@@ begin faults 2\ntest a ... FAILED\n"] {
            let mut part = Report::new(Vec::new());
            lines.lines().for_each(|line| part.line(line).unwrap());
            whole.add(part);
        }
        assert_eq!((whole.counts.passed, whole.counts.cannot_run), (1, 1));
        assert_eq!(whole.counts.failed, ["kvm::faults::a"]);
        assert!(
            whole.troubles[0].contains("1 results of 2"),
            "{:?}",
            whole.troubles
        );
    }

    #[test]
    fn a_second_try_counts_instead_of_the_first() {
        let mut first = Report::of_a_first_try(Vec::new());
        "@@ begin kernels 2\ntest a ... FAILED\ntest b ... ok\n@@ end kernels 101"
            .lines()
            .for_each(|line| first.line(line).unwrap());
        assert_eq!(first.forget_failures(), ["kvm::kernels::a"]);
        let told = String::from_utf8(first.out.clone()).unwrap();
        assert!(told.contains("rig: kvm::kernels::a failed") && !told.contains("a ... FAILED"));
        let mut second = Report::new(Vec::new());
        "@@ begin kernels 1\ntest a ... FAILED\n@@ end kernels 101"
            .lines()
            .for_each(|line| second.line(line).unwrap());
        first.add(second);
        assert_eq!((first.counts.passed, first.counts.failed.len()), (1, 1));
        assert!(!first.finish(0.0).unwrap());
    }

    #[test]
    fn second_tries_are_told_counted_and_at_most_three() {
        for (lost, well) in [(2, true), (3, false)] {
            let (mut out, mut other) = (Vec::new(), Vec::new());
            let mut whole = Report::new(&mut out);
            let mut part = Report::of_a_first_try(&mut other);
            "@@ begin kernels 1\ntest a ... FAILED\n@@ end kernels 101"
                .lines()
                .for_each(|line| part.line(line).unwrap());
            part.forget_failures();
            whole.add(part);
            GOOD.lines().for_each(|line| whole.line(line).unwrap());
            for _ in 0..lost {
                whole.second_try("the machine died").unwrap();
            }
            assert_eq!(whole.finish(0.0).unwrap(), well, "{lost} machines lost");
            let text = String::from_utf8(out).unwrap();
            assert!(
                text.contains("rig: second try: kvm::kernels::a\n"),
                "{text}"
            );
            assert!(
                text.contains(&format!("{} second tries;", lost + 1)),
                "{text}"
            );
        }
    }

    #[test]
    fn a_skip_that_is_not_expected_fails_the_run() {
        for (list, well) in [("kvm::run::b::as_root | a tool\n", true), ("", false)] {
            let mut whole = Report::new(Vec::new());
            let mut part = Report::new(Vec::new());
            GOOD.lines().for_each(|line| part.line(line).unwrap());
            whole.add(part);
            whole.compare_skips(&crate::skips::parse(list).unwrap(), |_| false);
            assert_eq!(whole.finish(0.0).unwrap(), well);
        }
    }

    #[test]
    fn trouble_outside_the_tests_fails_the_run() {
        let mut out = Vec::new();
        let mut report = Report::new(&mut out);
        GOOD.lines().for_each(|line| report.line(line).unwrap());
        report.trouble("the machine died");
        assert!(!report.finish(0.0).unwrap());
    }
}
