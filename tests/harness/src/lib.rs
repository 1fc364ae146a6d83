//! What the tests of every crate share.
//!
//! A test that cannot run on this machine calls [`cannot_run!`] and returns. The line that this writes is collected by
//! `scripts/test.sh`, and the run fails unless `tests/expected-skips` has the test's name with the facility that is
//! missing: a green run then shows what it did not prove.

use std::cell::RefCell;
use std::io::Write;
use std::time::Duration;

thread_local! {
    /// The test that [`named`] runs on this thread.
    static NAME: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// Says that the test cannot run here and why: `CANNOT RUN NAME: REASON` on descriptor 2.
#[macro_export]
macro_rules! cannot_run {
    ($($reason:tt)*) => { $crate::say_cannot_run(format_args!($($reason)*)) };
}

/// What [`cannot_run!`] expands to.
///
/// The line does not go through `eprintln!`, which the test harness swallows when the test passes. It is one write, so
/// that the lines of tests that run at the same time stay whole.
pub fn say_cannot_run(reason: std::fmt::Arguments<'_>) {
    let line = line(&name(), &reason.to_string());
    let _ = std::io::stderr().write_all(line.as_bytes());
}

/// The line, with a reason of several lines folded into one.
fn line(name: &str, reason: &str) -> String {
    let words: Vec<&str> = reason.split_whitespace().collect();
    format!("CANNOT RUN {name}: {}\n", words.join(" "))
}

/// The name of the test on this thread: what [`named`] set, else the thread's name, which the test harness sets.
fn name() -> String {
    let set = NAME.with_borrow(Clone::clone);
    set.unwrap_or_else(|| std::thread::current().name().unwrap_or("?").to_owned())
}

/// Runs `body` as the test `name`, in a program that has no test harness to name its threads.
pub fn named<T>(name: &str, body: impl FnOnce() -> T) -> T {
    let before = NAME.replace(Some(name.to_owned()));
    let result = body();
    NAME.set(before);
    result
}

/// How long a test waits for something that is promised within `promise`: ten times as long.
///
/// A test guards against hanging with it, and asserts no speed: a machine that is busy with other work may be ten times
/// slower than the promise, and what takes longer has failed.
#[must_use]
pub const fn guard(promise: Duration) -> Duration {
    promise.saturating_mul(10)
}

/// A bound for what would take `alternative`, a fixed time that the code waits, if the promise did not hold.
///
/// It tells two ways apart and asserts no speed: give it a wait that is long beside what the promise takes.
#[must_use]
pub const fn sooner_than(alternative: Duration) -> Duration {
    alternative
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_has_the_tests_name_and_is_one_line() {
        assert_eq!(name(), "tests::the_line_has_the_tests_name_and_is_one_line");
        named("uid 0: a wall", || assert_eq!(name(), "uid 0: a wall"));
        assert_eq!(name(), "tests::the_line_has_the_tests_name_and_is_one_line");
        assert_eq!(line("a", "no\n  such tool"), "CANNOT RUN a: no such tool\n");
    }
}
