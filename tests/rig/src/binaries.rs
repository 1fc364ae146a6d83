//! The test binaries that cargo builds.

use std::io;
use std::path::PathBuf;
use std::process::{Command, Stdio};

/// Directories of the packages whose tests run on KVM: the end-to-end suite, and what speaks to /dev/kvm itself.
const PACKAGES: &[&str] = &["e2e", "platform"];

/// Files of tests whose results do not depend on the platform, since they start no container, or start user-mode kernels:
/// the suite on user-mode has shown them already, and in an emulated machine each takes many times as long.
const LEFT_OUT: &[&str] = &[
    "bulkhead-platform::boot",
    "completion",
    "habits",
    "hostile_kernel",
    "images",
    "install",
    "kernel_policy",
    "layering",
    // What our patches to the user-mode kernel promise, shown by programs that a compiler makes, which no machine here has.
    "registers",
    "registry",
    "touching",
];

/// Of other files those promises, `FILE::PROMISE`, that are about user-mode or the host alone.
const LEFT_OUT_TESTS: &[&str] = &[
    "debian::an_ordinary_user_bootstraps_debian",
    "debian::debian_runs_on_debians_own_user_mode_kernel",
    "monitor::what_a_hostile_kernel_says_steers_no_terminal",
    "policy::the_policies_allow_nothing_that_nobody_does",
    "stuck::a_guest_whose_kernel_hangs_can_be_ended",
    "weakened::a_kernel_in_a_weakened_jail_reaches_no_other_compartment",
    "weakened::the_apparmor_profile_is_one",
];

/// Whether a test is about user-mode or the host alone.
pub fn is_left_out(binary: &str, test: &str) -> bool {
    LEFT_OUT_TESTS.iter().any(|out| {
        let (file, promise) = out.split_once("::").unwrap_or((out, ""));
        let rest = test.strip_prefix(promise);
        file == binary && rest.is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
    })
}

/// One binary with tests in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TestBinary {
    /// `run` for the end-to-end file `run.rs`; `bulkhead-platform` or `bulkhead-platform::boot` for those of a crate.
    pub name: String,
    /// Where cargo put it.
    pub path: PathBuf,
    /// The directory of its package, in which cargo would run it.
    pub directory: PathBuf,
}

/// The binaries could not be built.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// Cargo cannot be started.
    #[error("cannot start cargo")]
    Start(#[source] io::Error),
    /// Cargo says why on stderr.
    #[error("the test binaries cannot be built")]
    Failed,
    /// Cargo named no test binary.
    #[error("cargo built no test binaries")]
    None,
}

/// Builds the test binaries and says where they are.
///
/// # Errors
/// [`BuildError`].
pub fn build(workspace: &std::path::Path) -> Result<Vec<TestBinary>, BuildError> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let out = Command::new(cargo)
        .args([
            "test",
            "--no-run",
            // A part of it alone has other features of the dependencies, which would be compiled once more.
            "--workspace",
            "--locked",
            "--message-format=json-render-diagnostics",
        ])
        .current_dir(workspace)
        .stderr(Stdio::inherit())
        .output()
        .map_err(BuildError::Start)?;
    if !out.status.success() {
        return Err(BuildError::Failed);
    }
    let mut binaries: Vec<TestBinary> = String::from_utf8_lossy(&out.stdout)
        .lines()
        .filter_map(test_binary)
        .filter(|binary| !LEFT_OUT.contains(&binary.name.as_str()))
        .collect();
    binaries.sort_by(|a, b| a.name.cmp(&b.name));
    if binaries.is_empty() {
        return Err(BuildError::None);
    }
    Ok(binaries)
}

/// The test binary that one of cargo's messages announces.
fn test_binary(message: &str) -> Option<TestBinary> {
    let message: serde_json::Value = serde_json::from_str(message).ok()?;
    if message["reason"] != "compiler-artifact" || message["profile"]["test"] != true {
        return None;
    }
    let manifest = PathBuf::from(message["manifest_path"].as_str()?);
    let directory = manifest.parent()?.to_owned();
    let package = directory.file_name()?.to_str()?;
    if !PACKAGES.contains(&package) {
        return None;
    }
    let target = message["target"]["name"].as_str()?;
    let is_library = message["target"]["kind"][0] != "test";
    let name = match (package, is_library) {
        ("e2e", false) => target.to_owned(),
        (_, true) => format!("bulkhead-{package}"),
        (_, false) => format!("bulkhead-{package}::{target}"),
    };
    Some(TestBinary {
        name,
        path: message["executable"].as_str()?.into(),
        directory,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_promise_about_user_mode_alone_is_left_out_for_both_users() {
        let promise = "a_guest_whose_kernel_hangs_can_be_ended";
        assert!(is_left_out("stuck", &format!("{promise}::as_root")));
        assert!(is_left_out("weakened", "the_apparmor_profile_is_one"));
        assert!(!is_left_out("run", &format!("{promise}::as_root")));
        assert!(!is_left_out("stuck", &format!("{promise}_soon::as_root")));
    }

    #[test]
    fn binaries_are_named_after_their_file() {
        let message = |manifest: &str, kind: &str, target: &str| {
            serde_json::json!({
                "reason": "compiler-artifact", "manifest_path": manifest, "executable": "/t/x-1",
                "profile": {"test": true}, "target": {"kind": [kind], "name": target},
            })
            .to_string()
        };
        let name = |message: String| test_binary(&message).map(|b| b.name);
        assert_eq!(
            name(message("/w/tests/e2e/Cargo.toml", "test", "run")).as_deref(),
            Some("run")
        );
        assert_eq!(
            name(message(
                "/w/crates/platform/Cargo.toml",
                "lib",
                "bulkhead_platform"
            ))
            .as_deref(),
            Some("bulkhead-platform")
        );
        assert_eq!(
            name(message("/w/crates/platform/Cargo.toml", "test", "boot")).as_deref(),
            Some("bulkhead-platform::boot")
        );
        assert_eq!(
            name(message("/w/crates/jail/Cargo.toml", "test", "walls")),
            None
        );
        assert_eq!(test_binary("{\"reason\":\"build-finished\"}"), None);
    }
}
