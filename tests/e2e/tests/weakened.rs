//! Where the host refuses the namespaces that separate compartments, nothing runs unless somebody gave them up by name;
//! and then what is missing is said at each run, kept, and as little as can be.

use std::path::Path;

use bulkhead_e2e::{
    Bulkhead, HostileKernel, Isolation, Newer, cannot_run, each_user, needs, run_tool,
};

/// Names under /dev/shm that a weakened jail uses.
fn shared_memory(b: &Bulkhead) -> Vec<String> {
    use std::os::unix::fs::MetadataExt;
    let owner = std::fs::metadata(b.home()).expect("its home").uid();
    let entries = std::fs::read_dir("/dev/shm").expect("shared memory");
    entries
        .flatten()
        .filter(|entry| entry.metadata().is_ok_and(|about| about.uid() == owner))
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .filter(|name| name.starts_with("bulkhead-"))
        .collect()
}

/// Whether this host lets a test make itself a namespace in which there are no others.
fn can_forbid(b: &Bulkhead) -> bool {
    let tried = b.without_namespaces(&["--version"]).finish();
    if tried.code != 0 {
        cannot_run!(
            "this host has no user namespace to begin with: {}",
            tried.stderr
        );
    }
    tried.code == 0
}

each_user! {
    a_run_without_the_walls_is_refused_with_the_remedy(b) {
        if !can_forbid(b) {
            return;
        }
        let refused = b
            .without_namespaces(&["run", "--rm", "busybox", "true"])
            .finish()
            .expect_code(125);
        for part in ["no user namespace", "process namespace", "doctor", "--weakened-jail"] {
            assert!(refused.stderr.contains(part), "'{part}' is not in: {}", refused.stderr);
        }
        assert!(!refused.stderr.contains("WARNING"), "{}", refused.stderr);
        b.expect_nothing_left();
    }

    a_weakened_run_names_what_is_missing_and_leaves_nothing(b) {
        if !can_forbid(b) {
            return;
        }
        let before = shared_memory(b);
        let run = ["run", "-d", "--name", "weak", "--weakened-jail", "busybox", "sleep", "600"];
        b.without_namespaces(&run)
            .finish()
            .ok()
            .says("WARNING: the jail of this container is weakened: no user namespace")
            .says("process namespace");
        let about = &b.inspect("weak")["Bulkhead"]["Jail"];
        assert_eq!(about["Weakened"], true);
        let missing = about["Missing"].to_string();
        for wall in ["user-namespace", "pid-namespace", "net-namespace", "empty-root"] {
            assert!(missing.contains(wall), "'{wall}' is not in {missing}");
        }
        let alive = b.without_namespaces(&["exec", "weak", "echo", "alive"]).finish().ok();
        assert_eq!(alive.text(), "alive");
        b.without_namespaces(&["restart", "-t", "0", "weak"])
            .finish()
            .ok()
            .says("WARNING");
        // Its end may come without a word.
        let pid = b.inspect("weak")["State"]["Pid"].as_i64().expect("a number");
        // SAFETY: kill(2) has no memory effects.
        unsafe { libc::kill(i32::try_from(pid).expect("a process"), libc::SIGKILL) };
        b.run(&["wait", "weak"]);
        b.run(&["rm", "weak"]).ok();
        b.expect_nothing_left();
        assert_eq!(shared_memory(b), before);
    }

    the_configuration_may_weaken_jails(b) {
        if !can_forbid(b) {
            return;
        }
        let file = b.home().join("config.toml");
        std::fs::write(&file, "jail = \"weakened\"\n").expect("a file");
        let file = file.to_str().expect("a plain path").to_owned();
        let run = ["--config", &file, "run", "--rm", "busybox", "echo", "hello"];
        let ran = b.without_namespaces(&run).finish().ok().says("WARNING");
        assert_eq!(ran.text(), "hello");
        // Where nothing is missing, nothing is said.
        let ran = b.run(&run).ok();
        assert_eq!((ran.text().as_str(), ran.stderr.as_str()), ("hello", ""));
        b.expect_nothing_left();
    }

    a_kernel_in_a_weakened_jail_reaches_no_other_compartment(b) {
        if !needs(Isolation::UserMode) || !can_forbid(b) {
            return;
        }
        let run = ["run", "-d", "--name", "other", "--weakened-jail", "busybox", "sleep", "600"];
        b.without_namespaces(&run).finish().ok();
        let directory = b.inspect("other")["Bulkhead"]["Directory"].clone();
        let socket = Path::new(directory.as_str().expect("a path")).join("ctl.sock");
        let Some(kernel) = HostileKernel::new("reach", socket.to_str().expect("a plain path")) else {
            return;
        };
        let kernel = kernel.path();
        let tried = b
            .without_namespaces(&["run", "--rm", "--weakened-jail", "busybox", "true"])
            .with_env("BULKHEAD_KERNEL", kernel.to_str().expect("a plain path"))
            .finish()
            .expect_code(125);
        for part in ["connect: Function not implemented", "signals: reached 0", "traces: reached 0"] {
            assert!(tried.stderr.contains(part), "'{part}' is not in: {}", tried.stderr);
        }
        let alive = b.run(&["exec", "other", "echo", "alive"]).ok();
        assert_eq!(alive.text(), "alive");
        b.run(&["rm", "-f", "other"]).ok();
        b.expect_nothing_left();
    }
}

/// Ubuntu's AppArmor lets only programs with a profile make user namespaces; `install` brings one.
#[test]
fn the_apparmor_profile_is_one() {
    // Only since 4.0 is there a rule for user namespaces, and Debian 12 has 3.0.
    let Some(apparmor) = Newer::of("apparmor") else {
        return;
    };
    let includes = apparmor.file("etc/apparmor.d");
    let includes = includes.to_str().expect("a plain path");
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../packaging/apparmor/bulkhead");
    let text = std::fs::read_to_string(source).expect("the profile");
    assert!(text.contains("@PROGRAM@"), "{text}");
    assert!(text.contains("  userns,\n"), "{text}");
    let text = text.replace("@PROGRAM@", "/usr/local/bin/bulkhead");
    // Parsed and compiled, not loaded.
    let parse = |text: &str| {
        let file = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(file.path(), text).expect("a file");
        let path = file.path().to_str().expect("a plain path");
        let parser = apparmor.program("apparmor_parser");
        run_tool(&parser, &["-Q", "-K", "--base", includes, path])
    };
    parse(&text).ok();
    for broken in [
        text.replace("userns,", "user_namespaces,"),
        text.replace("abi/4.0", "abi/none"),
        text.replace('}', ""),
    ] {
        assert_ne!(parse(&broken).code, 0, "{broken}");
    }
}
