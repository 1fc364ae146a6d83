//! `scripts/install.sh`, behind `make install`: what it puts where, and that the installed program finds it.

use std::path::Path;
use std::process::Command;

use bulkhead_e2e::binary;

#[test]
fn everything_that_was_built_is_installed_and_found() {
    let home = tempfile::tempdir().expect("temporary directory");
    let (cache, prefix) = (home.path().join("cache"), home.path().join("prefix"));
    // Of several builds the newest is taken, whatever its name; an hour apart, so that the clock cannot confuse them.
    for (build, age, text) in [
        ("aaa", "1 hour ago", "old"),
        ("zzz", "2 hours ago", "older"),
    ] {
        for name in ["linux", "vmlinux"] {
            let file = cache.join("bulkhead/kernels").join(build).join(name);
            std::fs::create_dir_all(file.parent().expect("a parent")).expect("a directory");
            std::fs::write(&file, format!("{text} {name}")).expect("a file");
            run(Command::new("touch").args(["-d", age]).arg(&file));
        }
    }
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../scripts/install.sh");
    run(Command::new("bash")
        .arg(script)
        .args([&prefix, &binary()])
        .env("XDG_CACHE_HOME", &cache));
    let text = |path: &str| {
        std::fs::read_to_string(prefix.join(path)).unwrap_or_else(|e| panic!("{path}: {e}"))
    };
    assert_eq!(text("lib/bulkhead/linux-um"), "old linux");
    assert_eq!(text("lib/bulkhead/linux-kvm"), "old vmlinux");
    assert!(text("share/man/man1/bulkhead-run.1").contains("EXIT STATUS"));
    assert!(text("share/bash-completion/completions/bulkhead").contains("complete -o default"));
    assert!(text("share/zsh/site-functions/_bulkhead").starts_with("#compdef bulkhead"));
    assert!(text("share/fish/vendor_completions.d/bulkhead.fish").contains("complete -c bulkhead"));

    // What messages and man pages name is there.
    let documented = prefix.join("share/doc/bulkhead/compatibility.md");
    assert!(text("share/doc/bulkhead/README.md").contains("make install"));
    assert!(text("share/man/man1/bulkhead-run.1").contains("share/doc/bulkhead/compatibility.md"));
    let refused = Command::new(prefix.join("bin/bulkhead"))
        .args(["run", "-v", "/a:/b", "x"])
        .output()
        .expect("the installed program");
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(
        documented.is_file() && said.contains(&format!("see {}", documented.display())),
        "{said}"
    );

    // Neither is a kernel, so that the complaint says which file was found.
    let doctor = Command::new(prefix.join("bin/bulkhead"))
        .args(["doctor"])
        .env("BULKHEAD_ROOT", home.path().join("root"))
        .env("BULKHEAD_ISOLATION", "user-mode")
        .env("XDG_CACHE_HOME", home.path().join("empty"))
        .env_remove("BULKHEAD_KERNEL")
        .output()
        .expect("the installed program");
    let said = String::from_utf8_lossy(&doctor.stdout).into_owned();
    assert!(said.contains("/lib/bulkhead/linux-um"), "{said}");
    assert!(said.contains("/lib/bulkhead/bulkhead-agent"), "{said}");
}

fn run(command: &mut Command) {
    let out = command.output().expect("a program");
    assert!(
        out.status.success(),
        "{}",
        String::from_utf8_lossy(&out.stderr)
    );
}
