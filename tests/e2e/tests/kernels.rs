//! Guest kernels: ours and Debian's run a Debian, and files that are no kernel are named as what they are.

use std::path::{Path, PathBuf};

use bulkhead_e2e::{Bulkhead, Isolation, User, cache_home, debian_archive, each_user, needs};

/// The kernels for virtual machines that are here.
fn tuned() -> Option<PathBuf> {
    std::fs::read_dir(cache_home().join("bulkhead/kernels"))
        .ok()?
        .flatten()
        .map(|entry| entry.path().join("vmlinux"))
        .filter_map(|path| Some((path.metadata().ok()?.modified().ok()?, path)))
        .max()
        .map(|(_, path)| path)
}

/// Debian's kernels for machines that are here: with plain modules up to Linux 6.1, with compressed ones from 6.12 on.
fn debians() -> Vec<PathBuf> {
    let boot = std::fs::read_dir("/boot");
    boot.into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| {
            path.to_string_lossy().contains("/vmlinuz-")
                && path.to_string_lossy().ends_with("-cloud-amd64")
        })
        .collect()
}

fn debian_runs_on(kernels: &[PathBuf], remedy: &str) {
    if !needs(Isolation::Kvm) {
        return;
    }
    if kernels.is_empty() {
        bulkhead_e2e::cannot_run!("this kernel is not here: {remedy}");
    }
    for kernel in kernels {
        debian_runs_on_one(kernel);
    }
}

fn debian_runs_on_one(kernel: &Path) {
    let (Some(mut b), Some(archive)) = (Bulkhead::new(User::Root), debian_archive(&[])) else {
        return;
    };
    b.run(&["load", "-q", "-i", archive.to_str().unwrap()]).ok();
    b.env
        .push(("BULKHEAD_KERNEL".into(), kernel.to_str().unwrap().into()));
    for processors in ["1", "2"] {
        let script = ". /etc/os-release; echo $VERSION_CODENAME; nproc; grep -c ^processor /proc/cpuinfo; \
            dpkg --version | head -n 1; echo x > /file && cat /file; uname -r";
        let out = b
            .run(&[
                "run",
                "--rm",
                "--cpus",
                processors,
                "debian:bookworm",
                "sh",
                "-ec",
                script,
            ])
            .ok();
        let text = out.text();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[..3], ["bookworm", processors, processors], "{text}");
        assert!(
            lines[3].starts_with("Debian 'dpkg'") && lines[4] == "x",
            "{text}"
        );
        if let Some(release) = kernel
            .file_name()
            .and_then(|n| n.to_str())
            .and_then(|n| n.strip_prefix("vmlinuz-"))
        {
            assert_eq!(lines[5], release, "another kernel ran");
        }
    }
    b.expect_nothing_left();
}

#[test]
fn debian_runs_on_our_kernel_with_one_and_two_processors() {
    let ours: Vec<PathBuf> = tuned().into_iter().collect();
    debian_runs_on(&ours, "make kernel builds it");
}

#[test]
fn debian_runs_on_debians_kernels_with_one_and_two_processors() {
    debian_runs_on(&debians(), "the package linux-image-cloud-amd64 brings it");
}

/// Files in the place of a kernel, made from a good one.
fn bad_kernels(good: &Path, dir: &Path) -> Vec<(&'static str, PathBuf)> {
    use std::os::unix::fs::PermissionsExt;
    let bytes = std::fs::read(good).unwrap();
    let mut foreign = bytes.clone();
    if foreign.starts_with(b"\x7fELF") {
        foreign[18..20].copy_from_slice(&183u16.to_le_bytes()); // e_machine: EM_AARCH64
    } else {
        // A boot protocol's header without its signature "HdrS": what another architecture's Image looks like.
        foreign[0x202..0x206].copy_from_slice(b"ARMd");
    }
    let files: [(&str, &[u8]); 5] = [
        ("empty", b""),
        ("script", b"#!/bin/sh\necho I am no kernel\n"),
        ("truncated", &bytes[..bytes.len() / 2]),
        ("head", &bytes[..100]),
        ("foreign", &foreign),
    ];
    files
        .map(|(name, content)| {
            let path = dir.join(name);
            std::fs::write(&path, content).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
            (name, path)
        })
        .into()
}

fn refuses_bad_kernels(b: &Bulkhead, good: &Path) {
    for (what, path) in bad_kernels(good, b.home()) {
        let path = path.to_str().unwrap();
        let out = b
            .command(&["run", "--rm", "busybox", "true"])
            .with_env("BULKHEAD_KERNEL", path)
            .finish();
        assert!(out.code == 125, "a kernel file that is {what}: {out:?}");
        assert!(
            out.stderr.contains(path),
            "a kernel file that is {what} is not named: {}",
            out.stderr
        );
        b.expect_nothing_left();
    }
}

each_user! {
    what_is_no_kernel_is_refused_by_name(b) {
        let info: serde_json::Value = serde_json::from_slice(&b.run(&["info", "--format", "json"]).ok().stdout).unwrap();
        refuses_bad_kernels(b, Path::new(info["Kernel"]["Path"].as_str().unwrap()));
        for nowhere in ["/no/such/kernel", "/etc"] {
            b.command(&["run", "--rm", "busybox", "true"]).with_env("BULKHEAD_KERNEL", nowhere).finish()
                .expect_code(125).says(nowhere);
        }
        b.expect_nothing_left();
    }

    a_damaged_kernel_of_debian_is_refused_by_name(b) {
        if !needs(Isolation::Kvm) { return; }
        match debians().into_iter().max() {
            Some(kernel) => refuses_bad_kernels(b, &kernel),
            None => bulkhead_e2e::cannot_run!("linux-image-cloud-amd64 is not installed"),
        }
    }
}
