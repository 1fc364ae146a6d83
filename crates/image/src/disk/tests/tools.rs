//! The tools that judge, and mounts that go away again.

use std::ffi::OsStr;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// Says what was not judged and why, past the test harness, which hides what tests that pass print.
pub(super) fn not_run(test: &str, reason: &str) {
    let _ = writeln!(std::io::stderr(), "NOT RUN: {test}: {reason}");
}

/// Whether the named tools are installed; says loudly where one is not.
pub(super) fn have(test: &str, tools: &[&str]) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    for tool in tools {
        if !std::env::split_paths(&path).any(|dir| dir.join(tool).is_file()) {
            not_run(test, &format!("{tool} is not installed"));
            return false;
        }
    }
    true
}

/// Whether this is root; says loudly where not.
pub(super) fn is_root(test: &str) -> bool {
    let root = nix::unistd::geteuid().is_root();
    if !root {
        not_run(test, "it must mount, which only root can");
    }
    root
}

pub(super) fn run<I: AsRef<OsStr>>(program: &str, args: impl IntoIterator<Item = I>) -> Output {
    run_in(Path::new("/"), program, args)
}

/// Runs a tool and insists that it succeeds.
pub(super) fn run_in<I: AsRef<OsStr>>(
    dir: &Path,
    program: &str,
    args: impl IntoIterator<Item = I>,
) -> Output {
    let mut command = Command::new(program);
    command.args(args).current_dir(dir);
    let output = command.output().unwrap();
    assert!(
        output.status.success(),
        "{command:?}: {}\n{}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    output
}

/// A mount that lasts as long as this value.
pub(super) struct Mount(PathBuf);

impl Mount {
    /// Mounts an image. `None`, loudly, where the host has no loop devices or no EROFS.
    pub(super) fn image(test: &str, image: &Path, target: &Path) -> Option<Self> {
        std::fs::create_dir_all(target).unwrap();
        let output = Command::new("mount")
            .args(["-t", "erofs", "-o", "loop,ro"])
            .args([image, target])
            .output()
            .unwrap();
        if output.status.success() {
            return Some(Self(target.to_owned()));
        }
        let filesystems = std::fs::read_to_string("/proc/filesystems").unwrap_or_default();
        let able = filesystems.contains("\terofs") && Path::new("/dev/loop-control").exists();
        let reason = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        assert!(!able, "the kernel refuses the image: {reason}");
        not_run(
            test,
            &format!("this host cannot mount EROFS images ({reason})"),
        );
        None
    }

    /// Joins directories below `dir`, lowest first, as the host's overlay does.
    pub(super) fn overlay(test: &str, dir: &Path, lowers: &[String], target: &str) -> Option<Self> {
        std::fs::create_dir_all(dir.join(target)).unwrap();
        let top_first: Vec<&str> = lowers.iter().rev().map(String::as_str).collect();
        let options = format!("ro,lowerdir={}", top_first.join(":"));
        let output = Command::new("mount")
            .args(["-t", "overlay", "overlay", "-o", &options, target])
            .current_dir(dir)
            .output()
            .unwrap();
        if output.status.success() {
            return Some(Self(dir.join(target)));
        }
        let reason = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        not_run(
            test,
            &format!("this host cannot mount an overlay ({reason})"),
        );
        None
    }

    pub(super) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(&self.0).status();
    }
}
