//! Habits of the tests themselves that no compiler checks.

use std::path::{Path, PathBuf};

fn workspace() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."))
}

/// Every source file of the crates and of their tests.
fn sources() -> Vec<(PathBuf, String)> {
    let mut queue = vec![workspace().join("crates"), workspace().join("tests")];
    let mut found = Vec::new();
    while let Some(directory) = queue.pop() {
        for entry in std::fs::read_dir(directory).expect("source tree").flatten() {
            let path = entry.path();
            if path.is_dir() {
                queue.push(path);
            } else if path.extension().is_some_and(|e| e == "rs")
                && !path.ends_with("e2e/tests/habits.rs")
            {
                let text = std::fs::read_to_string(&path).expect("source");
                found.push((path, text));
            }
        }
    }
    found
}

/// A passing test's `println!` is swallowed, so that nobody learns that it did not run.
fn says_so_in_secret(text: &str) -> bool {
    text.split("println!(").skip(1).any(|rest| {
        let said = rest.trim_start();
        ["\"CANNOT RUN", "\"SKIP"]
            .iter()
            .any(|word| said.starts_with(word))
    })
}

/// The names that `let` gives to a time that passed, in this text.
fn times(text: &str) -> Vec<&str> {
    text.split("let ")
        .skip(1)
        .filter_map(|rest| rest.split(';').next()?.split_once(" = "))
        .filter(|(_, value)| value.contains(".elapsed()"))
        .map(|(name, _)| name.trim_start_matches("mut ").trim())
        .collect()
}

/// An assertion that looks at how long something took, by another bound than `guard`, `patience` or `sooner_than`.
fn asserts_a_speed(text: &str) -> Option<&str> {
    let times = times(text);
    text.split("assert").skip(1).find_map(|rest| {
        let (kind, condition) = rest.split(';').next()?.split_once("!(")?;
        let is_assertion = ["", "_eq", "_ne"].contains(&kind);
        let looks = condition.contains(".elapsed()")
            || times.iter().any(|time| {
                condition
                    .split(|c: char| !c.is_alphanumeric() && c != '_')
                    .any(|word| word == *time)
            });
        let upper = condition.contains('<') || condition.contains("contains(");
        (is_assertion
            && looks
            && upper
            && !["guard(", "patience(", "sooner_than("]
                .iter()
                .any(|bound| condition.contains(bound)))
        .then_some(condition)
    })
}

#[test]
fn a_test_that_cannot_run_says_so_aloud() {
    let quiet: Vec<_> = sources()
        .into_iter()
        .filter(|(_, text)| says_so_in_secret(text))
        .map(|(path, _)| path)
        .collect();
    assert!(quiet.is_empty(), "not with cannot_run!: {quiet:#?}");
    assert!(says_so_in_secret("eprintln!(\n  \"SKIPPED: no tool\")"));
}

/// A promised deadline is a guard against hanging, at ten times the promise; any other bound makes a busy machine fail.
#[test]
fn no_test_asserts_a_speed() {
    let fast: Vec<_> = sources()
        .into_iter()
        .filter_map(|(path, text)| {
            asserts_a_speed(&text).map(|what| format!("{}: {what}", path.display()))
        })
        .collect();
    assert!(fast.is_empty(), "without guard(): {fast:#?}");
    assert!(asserts_a_speed("assert!(began.elapsed() < LIMIT, \"slow\");").is_some());
    assert!(
        asserts_a_speed("let took = began.elapsed();\nassert!((A..B).contains(&took));").is_some()
    );
    assert!(asserts_a_speed("let took = began.elapsed();\nassert!(took < guard(A));").is_none());
    assert!(asserts_a_speed("let took = began.elapsed();\nassert!(took >= A);").is_none());
}

/// `make lint` refuses a promise without a test, a test that is not there, and a wall that the table leaves out.
#[test]
fn a_promise_without_a_test_is_refused() {
    let tree = tempfile::tempdir().expect("a directory");
    std::fs::create_dir(tree.path().join("docs")).expect("a directory");
    std::fs::write(tree.path().join("a.rs"), "fn it_holds() {}\n").expect("a file");
    let verdict = |tests: &str, wall: &str| {
        let text = format!(
            "## What must hold\n\n1. It holds.\n\n## The walls\n\n| wall | x |\n|---|---|\n| {wall} | x |\n\n\
             ## Each promise\n\n| subject | promise | tests |\n|---|---|---|\n| promise 1 | it holds | {tests} |\n\
             | gate | it is shut | `a.rs::it_holds` |\n"
        );
        std::fs::write(tree.path().join("docs/threat-model.md"), text).expect("a file");
        let script = workspace().join("scripts/promises.sh");
        let directory = tree.path().to_str().expect("UTF-8").to_owned();
        let out = bulkhead_e2e::run_tool(script.to_str().expect("UTF-8"), &[&directory]);
        (out.code, out.stderr)
    };
    assert_eq!(verdict("`a.rs::it_holds`", "gate"), (0, String::new()));
    for (tests, wall, said) in [
        ("", "gate", "no test for: promise 1"),
        ("`a.rs::it_is_gone`", "gate", "no test 'it_is_gone'"),
        ("`b.rs::it_holds`", "gate", "there is no b.rs"),
        ("`a.rs::it_holds`", "moat", "the wall 'moat' has no test"),
    ] {
        let (code, stderr) = verdict(tests, wall);
        assert!(code == 1 && stderr.contains(said), "{said}: {stderr}");
    }
}
