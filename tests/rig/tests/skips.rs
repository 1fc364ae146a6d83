//! Reads what the tests of `scripts/test.sh` wrote, and fails on skips that `tests/expected-skips` does not have.
//!
//! usage: skips LIST LOG

use std::process::ExitCode;

use bulkhead_rig::skips;

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [list, log] = words.as_slice() else {
        eprintln!("usage: skips LIST LOG");
        return ExitCode::from(2);
    };
    match run(list, log) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("skips: {error}");
            ExitCode::from(2)
        }
    }
}

fn run(list: &str, log: &str) -> Result<bool, Box<dyn std::error::Error>> {
    let read = |path: &str| std::fs::read(path).map_err(|error| format!("{path}: {error}"));
    let expected = skips::parse(&String::from_utf8_lossy(&read(list)?))?;
    let mut told = skips::Told::default();
    for line in String::from_utf8_lossy(&read(log)?).lines() {
        told.line(line);
    }
    let faults = told.faults(&expected, skips::has);
    for fault in &faults {
        println!("skips: {fault}");
    }
    let (skipped, results) = told.counts();
    println!("skips: {skipped} reasons why a test cannot run here, among {results} results");
    Ok(faults.is_empty())
}
