//! A real Debian, made by mmdebstrap, on every guest kernel that is here.

use std::path::Path;

use bulkhead_e2e::{Bulkhead, Isolation, User, debian_archive, needs};

fn with_debian(user: User) -> Option<Bulkhead> {
    let b = Bulkhead::new(user)?;
    let archive = debian_archive(&[])?;
    // By descriptor: the cache is not readable for every user.
    let loaded = b
        .process(&["load", "-q"])
        .stdin(std::fs::File::open(archive).unwrap())
        .status()
        .unwrap();
    assert!(loaded.success());
    Some(b)
}

fn a_debian_runs(b: &Bulkhead) {
    let out = b.run(&["run", "--rm", "debian:bookworm", "sh", "-ec",
        ". /etc/os-release; echo $VERSION_CODENAME; bash -c 'echo bash $((6 * 7))'; dpkg --version | head -1; apt-get --version | head -1; perl -e 'print 1+1'"]).ok().text();
    assert!(out.starts_with("bookworm\nbash 42\nDebian 'dpkg'"), "{out}");
    b.run(&[
        "run",
        "--rm",
        "debian:bookworm",
        "sh",
        "-ec",
        "groupadd -r g; useradd -r -g g u; su u -c id | grep -q '(u)'; dpkg --verify",
    ])
    .ok();
    b.expect_nothing_left();
}

#[test]
fn debian_runs_for_root() {
    if let Some(b) = with_debian(User::Root) {
        a_debian_runs(&b);
    }
}

#[test]
fn debian_runs_for_an_ordinary_user() {
    if let Some(b) = with_debian(User::Ordinary) {
        a_debian_runs(&b);
    }
}

#[test]
fn debian_runs_on_debians_own_user_mode_kernel() {
    if !needs(Isolation::UserMode) {
        return;
    }
    let kernel = "/usr/bin/linux.uml";
    if !Path::new(kernel).exists() {
        bulkhead_e2e::cannot_run!(
            "the package user-mode-linux is not installed (make deps installs it)"
        );
        return;
    }
    if let Some(mut b) = with_debian(User::Root) {
        b.env.push(("BULKHEAD_KERNEL".into(), kernel.into()));
        let out = b.run(&["run", "--rm", "debian:bookworm", "true"]);
        if out.code == 125 && out.stderr.contains("cannot run programs on this processor") {
            out.says("make kernel");
            bulkhead_e2e::cannot_run!(
                "Debian's user-mode kernel does not run on this processor (AMX)"
            );
            return;
        }
        let release = b
            .run(&["run", "--rm", "debian:bookworm", "uname", "-r"])
            .ok()
            .text();
        assert!(release.starts_with("6.1."), "{release}");
        a_debian_runs(&b);
    }
}

#[test]
fn an_ordinary_user_bootstraps_debian() {
    if !bulkhead_e2e::tool_exists("mmdebstrap") {
        return;
    }
    let Some(b) = Bulkhead::new(User::Ordinary) else {
        return;
    };
    let out = b.run(&["bootstrap", "bookworm"]);
    if out.code != 0 && out.stderr.contains("subuid") {
        bulkhead_e2e::cannot_run!(
            "this user has no subordinate ids (/etc/subuid): {}",
            out.stderr
        );
        return;
    }
    out.ok();
    a_debian_runs(&b);
}
