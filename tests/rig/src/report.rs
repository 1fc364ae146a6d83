//! Reads what test binaries write, and tells it as the results of one test run.
//!
//! `suite.sh` puts a line before and after each binary's output:
//!
//! ```text
//! @@ begin run
//! …
//! @@ end run 101
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Write};

/// Written now and then, so that a machine that stands still is told from a test that does.
pub const ALIVE: &str = "@@ alive";

/// What one binary has told so far.
#[derive(Debug, Default)]
struct Binary {
    name: String,
    expected: usize,
    told: BTreeSet<String>,
    cannot: BTreeMap<String, String>,
    passed: usize,
    failed: Vec<String>,
    cannot_run: usize,
    ignored: usize,
    part: Part,
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
    passed: usize,
    failed: Vec<String>,
    cannot_run: usize,
    ignored: usize,
    troubles: Vec<String>,
}

impl<W: Write> Report<W> {
    /// An empty report that is told on `out`.
    pub fn new(out: W) -> Self {
        Self {
            out,
            current: None,
            passed: 0,
            failed: Vec::new(),
            cannot_run: 0,
            ignored: 0,
            troubles: Vec::new(),
        }
    }

    /// Takes one line of the run, without its end.
    ///
    /// # Errors
    /// The place cannot be written to.
    pub fn line(&mut self, line: &str) -> io::Result<()> {
        let line = line.trim_end_matches('\r');
        if let Some(name) = line.strip_prefix("@@ begin ") {
            self.abandon_binary();
            self.current = Some(Binary {
                name: name.to_owned(),
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
        if let Some(rest) = line.strip_prefix("running ") {
            binary.expected = rest
                .split(' ')
                .next()
                .and_then(|n| n.parse().ok())
                .unwrap_or(0);
        } else if let Some((test, reason)) = cannot_run(line) {
            let reasons = binary.cannot.entry(test.to_owned()).or_default();
            if !reasons.is_empty() {
                reasons.push_str("; ");
            }
            reasons.push_str(reason);
        } else if let Some((test, result)) = result(line).filter(|_| binary.part == Part::Results) {
            return self.result(&test, &result);
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
        let name = format!("kvm::{}::{test}", binary.name);
        if result == "FAILED" {
            writeln!(self.out, "test {name} ... FAILED")?;
            binary.failed.push(name);
        } else if let Some(reason) = result.strip_prefix("ignored") {
            binary.ignored += 1;
            writeln!(self.out, "test {name} ... ignored{reason}")?;
        } else if let Some(reason) = binary.cannot.get(test) {
            binary.cannot_run += 1;
            writeln!(self.out, "test {name} ... CANNOT RUN: {reason}")?;
        } else {
            binary.passed += 1;
            writeln!(self.out, "test {name} ... ok")?;
        }
        self.out.flush()
    }

    fn end_binary(&mut self, code: Option<i32>) {
        let Some(binary) = self.current.take() else {
            return;
        };
        let name = &binary.name;
        match code {
            Some(0) => {}
            Some(101) if !binary.failed.is_empty() => {}
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
        self.count(binary);
    }

    fn count(&mut self, binary: Binary) {
        self.passed += binary.passed;
        self.cannot_run += binary.cannot_run;
        self.ignored += binary.ignored;
        self.failed.extend(binary.failed);
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
            self.count(binary);
        }
    }

    /// Something outside the tests went wrong, so that the run as a whole has failed.
    pub fn trouble(&mut self, what: impl Into<String>) {
        self.troubles.push(what.into());
    }

    /// Tells the failures and the sum; whether all is well.
    ///
    /// # Errors
    /// The place cannot be written to.
    pub fn finish(mut self, seconds: f64) -> io::Result<bool> {
        self.abandon_binary();
        if self.passed + self.failed.len() + self.cannot_run == 0 {
            self.trouble("not one test ran");
        }
        if !self.failed.is_empty() {
            writeln!(self.out, "\nfailures:")?;
            for name in &self.failed {
                writeln!(self.out, "    {name}")?;
            }
        }
        for trouble in &self.troubles {
            writeln!(self.out, "rig: {trouble}")?;
        }
        let well = self.failed.is_empty() && self.troubles.is_empty();
        writeln!(
            self.out,
            "\ntest result: {}. {} passed; {} failed; {} cannot run; {} ignored; finished in {seconds:.0}s\n",
            if well { "ok" } else { "FAILED" },
            self.passed,
            self.failed.len(),
            self.cannot_run,
            self.ignored,
        )?;
        Ok(well)
    }
}

/// `test NAME ... RESULT`; a test that should panic says so after its name.
fn result(line: &str) -> Option<(String, String)> {
    let (name, result) = line.strip_prefix("test ")?.split_once(" ... ")?;
    let name = name.strip_suffix(" - should panic").unwrap_or(name);
    Some((name.to_owned(), result.to_owned()))
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

    const GOOD: &str = "@@ begin run\n\nrunning 2 tests\nCANNOT RUN b::as_root: no such tool\ntest a ... ok\n\
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
            "@@ begin run\nrunning 1 test\ntest a ... FAILED\n\nfailures:\n\n---- a stdout ----\nthe reason\n\n\
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
                "@@ begin run\nrunning 2 tests\ntest a ... ok\n@@ end run 0\n",
                "1 results of 2",
            ),
            (
                "@@ begin run\nrunning 1 test\ntest a ... ok\n@@ end run 134\n",
                "code 134",
            ),
            (
                "@@ begin run\nrunning 1 test\ntest a ... ok\n",
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
            "@@ begin run",
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
    fn trouble_outside_the_tests_fails_the_run() {
        let mut out = Vec::new();
        let mut report = Report::new(&mut out);
        GOOD.lines().for_each(|line| report.line(line).unwrap());
        report.trouble("the machine died");
        assert!(!report.finish(0.0).unwrap());
    }
}
