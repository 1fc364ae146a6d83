//! Rules of the source tree that no compiler checks.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;

/// Which workspace crates each crate may use: `docs/ARCHITECTURE.md`, "Dependencies point one way".
const ALLOWED: &[(&str, &[&str])] = &[
    ("bulkhead-types", &[]),
    ("bulkhead-protocol", &["bulkhead-types"]),
    ("bulkhead-image", &["bulkhead-types"]),
    ("bulkhead-devices", &["bulkhead-types"]),
    ("bulkhead-jail", &["bulkhead-types"]),
    ("bulkhead-agent", &["bulkhead-types", "bulkhead-protocol"]),
    (
        "bulkhead-platform",
        &["bulkhead-types", "bulkhead-devices", "bulkhead-jail"],
    ),
    (
        "bulkhead-sandbox",
        &[
            "bulkhead-types",
            "bulkhead-protocol",
            "bulkhead-devices",
            "bulkhead-jail",
            "bulkhead-platform",
        ],
    ),
    (
        "bulkhead-engine",
        &[
            "bulkhead-types",
            "bulkhead-image",
            "bulkhead-jail",
            "bulkhead-platform",
            "bulkhead-sandbox",
        ],
    ),
    (
        "bulkhead-cli",
        &[
            "bulkhead-types",
            "bulkhead-image",
            "bulkhead-engine",
            "bulkhead-platform",
            "bulkhead-sandbox",
        ],
    ),
    ("bulkhead-harness", &[]),
    ("bulkhead-e2e", &["bulkhead-harness"]),
    ("bulkhead-rig", &[]),
];

fn workspace() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."))
}

/// What cargo says about the workspace; `None` (said loudly) where there is no cargo.
fn metadata() -> Option<serde_json::Value> {
    if !Path::new(env!("CARGO")).exists() {
        bulkhead_e2e::cannot_run!("there is no cargo here to ask about the workspace");
        return None;
    }
    let out = Command::new(env!("CARGO"))
        .args([
            "metadata",
            "--format-version",
            "1",
            "--no-deps",
            "--offline",
        ])
        .current_dir(workspace())
        .output()
        .expect("cargo metadata");
    assert!(
        out.status.success(),
        "{}",
        String::from_utf8_lossy(&out.stderr)
    );
    Some(serde_json::from_slice(&out.stdout).expect("JSON from cargo metadata"))
}

#[test]
fn dependencies_point_one_way() {
    let allowed: BTreeMap<&str, BTreeSet<&str>> = ALLOWED
        .iter()
        .map(|(name, deps)| (*name, deps.iter().copied().collect()))
        .collect();
    let Some(metadata) = metadata() else { return };
    for package in metadata["packages"].as_array().expect("packages") {
        let name = package["name"].as_str().expect("name");
        let allowed = allowed
            .get(name)
            .unwrap_or_else(|| panic!("{name} is not in the table of this test"));
        for dependency in package["dependencies"].as_array().expect("dependencies") {
            let to = dependency["name"].as_str().expect("name");
            let only_tests = dependency["kind"].as_str() == Some("dev");
            assert!(
                !to.starts_with("bulkhead-") || allowed.contains(to) || only_tests,
                "{name} must not depend on {to}"
            );
            assert!(
                !(name == "bulkhead-devices" && to.starts_with("kvm")),
                "devices know nothing of KVM"
            );
        }
    }
}

/// A file with more than one reason to change is a heap; generated and tabular files are not here.
#[test]
fn no_file_grows_into_a_heap() {
    const LINES: usize = 900;
    let mut queue = vec![workspace().join("crates"), workspace().join("tests")];
    let mut heaps = Vec::new();
    while let Some(dir) = queue.pop() {
        for entry in std::fs::read_dir(dir).expect("source tree").flatten() {
            let path = entry.path();
            if path.is_dir() {
                queue.push(path);
                continue;
            }
            if path.extension().is_some_and(|e| e == "rs") {
                let stem = path
                    .file_stem()
                    .and_then(|s| s.to_str())
                    .unwrap_or_default()
                    .to_owned();
                let lines = std::fs::read_to_string(&path)
                    .expect("source")
                    .lines()
                    .count();
                if lines > LINES
                    || ["common", "utils", "util", "helpers", "manager", "misc"]
                        .contains(&stem.as_str())
                {
                    heaps.push(format!("{} ({lines} lines)", path.display()));
                }
            }
        }
    }
    assert!(heaps.is_empty(), "{heaps:#?}");
}

/// Every verb that the README's table claims exists, and nothing is offered that `--help` hides.
#[test]
fn the_readme_is_true_about_commands() {
    let Some(b) = bulkhead_e2e::Bulkhead::new(bulkhead_e2e::User::Ordinary) else {
        return;
    };
    let help = b.run(&["--help"]).ok().text();
    let readme = std::fs::read_to_string(workspace().join("README.md")).expect("README.md");
    let table: Vec<&str> = readme
        .lines()
        .skip_while(|l| !l.starts_with("## What works"))
        .take_while(|l| !l.starts_with("## What does not"))
        .collect();
    let mut verbs = 0;
    for word in table.iter().flat_map(|l| l.split('`').skip(1).step_by(2)) {
        if word.bytes().all(|b| b.is_ascii_lowercase()) {
            verbs += 1;
            assert!(
                help.split_whitespace().any(|w| w == word),
                "README names the command '{word}', which --help does not"
            );
        }
    }
    assert!(verbs > 20, "the README's table names {verbs} commands only");
}
