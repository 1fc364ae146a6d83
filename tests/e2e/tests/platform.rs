//! Which platform runs a container: the one that was named, or nothing; where none was named, the best that works, and
//! the reason for what does not. What a container may ask of its machine: processors and memory.

use bulkhead_e2e::{Bulkhead, User, cannot_run, each_user};

/// What `info` says of `platform`: whether it works, and the obstacles where it does not.
fn verdict(b: &Bulkhead, platform: &str) -> (bool, String) {
    let out = b.run(&["info", "--format", "json"]).ok();
    let info: serde_json::Value = serde_json::from_slice(&out.stdout).expect("info prints JSON");
    let reports = info["Isolations"].as_array().expect("a list of platforms");
    let report = reports
        .iter()
        .find(|report| report["isolation"] == platform)
        .expect("every platform is in the list");
    let obstacles: Vec<_> = report["obstacles"]
        .as_array()
        .expect("a list of obstacles")
        .iter()
        .filter_map(serde_json::Value::as_str)
        .collect();
    (obstacles.is_empty(), obstacles.join("; "))
}

/// Whether the processor has what KVM needs, as anybody can look it up.
fn has_virtualization() -> bool {
    let cpuinfo = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    cpuinfo
        .split_whitespace()
        .any(|word| word == "vmx" || word == "svm")
}

/// The isolation of a container that is created with `flags` and these variables.
fn isolation(b: &Bulkhead, flags: &[&str], variable: &str) -> String {
    let mut arguments = vec!["create", "--name", "chosen"];
    arguments.extend(flags);
    arguments.extend(["busybox", "true"]);
    b.command(&arguments)
        .with_env("BULKHEAD_ISOLATION", variable)
        .finish()
        .ok();
    let shown = b.inspect("chosen");
    assert_eq!(
        shown["HostConfig"]["Isolation"],
        shown["Bulkhead"]["Isolation"]
    );
    b.run(&["rm", "chosen"]).ok();
    shown["Bulkhead"]["Isolation"]
        .as_str()
        .unwrap_or_default()
        .to_owned()
}

each_user! {
    what_only_looks_like_kvm_is_passed_over_and_says_why(b) {
        let (works, why) = verdict(b, "kvm");
        if works {
            cannot_run!("KVM works here: nothing to pass over");
            return;
        }
        if !has_virtualization() {
            assert!(why.contains("neither vmx nor svm"), "{why}");
        }
        assert_eq!(isolation(b, &[], ""), "user-mode");
        let doctor = b.run(&["doctor"]);
        assert!(doctor.text().contains(&why), "{}", doctor.text());
        for attempt in [
            b.command(&["run", "--rm", "--isolation", "kvm", "busybox", "true"]),
            b.command(&["run", "--rm", "busybox", "true"]).with_env("BULKHEAD_ISOLATION", "kvm"),
        ] {
            attempt.finish().expect_code(125).says(&why);
        }
        let config = b.home().join("config.toml");
        std::fs::write(&config, "isolation = 'kvm'").unwrap();
        let config = config.to_str().unwrap();
        let from_file = ["--config", config, "run", "--rm", "busybox", "true"];
        b.command(&from_file).with_env("BULKHEAD_ISOLATION", "").finish().expect_code(125).says(&why);
        let over_file = ["--config", config, "run", "--rm", "--isolation", "user-mode", "busybox", "echo", "ran"];
        assert_eq!(b.command(&over_file).with_env("BULKHEAD_ISOLATION", "").finish().ok().text(), "ran");
        b.expect_nothing_left();
    }

    kvm_is_the_default_where_it_works(b) {
        let (works, why) = verdict(b, "kvm");
        if !works {
            cannot_run!("no KVM here: {why}");
            return;
        }
        assert!(has_virtualization());
        assert_eq!(isolation(b, &[], ""), "kvm");
        if verdict(b, "user-mode").0 {
            assert_eq!(isolation(b, &[], "user-mode"), "user-mode");
            assert_eq!(isolation(b, &["--isolation", "kvm"], "user-mode"), "kvm", "the flag wins");
        }
    }

    more_memory_than_the_host_has_is_refused(b) {
        for limit in ["100t", "8000000t"] {
            b.run(&["run", "--rm", "--memory", limit, "busybox", "true"]).expect_code(125).says("more than the");
        }
        b.expect_nothing_left();
    }

    a_part_of_a_cpu_is_all_that_a_container_gets(b) {
        // Busy until the scheduler has taken the CPU away, which without a limit it never does.
        let script = "cat /sys/fs/cgroup/cpu.max; until grep -q '^nr_throttled [1-9]' /sys/fs/cgroup/cpu.stat; do :; done; echo throttled";
        let out = b.run(&["run", "--rm", "--cpus", "0.25", "busybox", "sh", "-c", script]).ok();
        assert_eq!(out.text(), "25000 100000\nthrottled");
    }

    processors_follow_dockers_range_and_the_platform(b) {
        let host = std::thread::available_parallelism().map_or(1, usize::from);
        for beyond in ["1000000".to_owned(), format!("{}.01", host)] {
            b.run(&["run", "--rm", "--cpus", &beyond, "busybox", "true"])
                .expect_code(125)
                .says(&format!("range of CPUs is from 0.01 to {host}.00"));
        }
        let kvm = isolation(b, &[], &std::env::var("BULKHEAD_ISOLATION").unwrap_or_default()) == "kvm";
        let nproc = |cpus: &str| b.run(&["run", "--rm", "--cpus", cpus, "busybox", "nproc"]).ok();
        assert_eq!(nproc("1").text(), "1");
        assert_eq!(nproc("1").stderr, "");
        let half = nproc("0.5");
        assert_eq!((half.text().as_str(), half.stderr.as_str()), ("1", ""));
        if host < 2 {
            cannot_run!("this host has one CPU");
            return;
        }
        let two = nproc("2");
        if kvm {
            assert_eq!(two.text(), "2");
            assert_eq!(two.stderr, "");
            let more_than_one = nproc("1.5");
            assert_eq!(more_than_one.text(), "2", "rounded up");
            assert_eq!(more_than_one.stderr, "");
        } else {
            assert_eq!(two.text(), "1");
            assert!(two.stderr.contains("gets 1"), "{}", two.stderr);
        }
    }
}

/// Beyond the hole below 4 GiB, in which devices are.
#[test]
fn a_container_has_more_than_four_gibibytes() {
    let Some(b) = Bulkhead::with_busybox(User::Root) else {
        return;
    };
    const WANTED: u64 = 5 << 30;
    let host = nix::sys::sysinfo::sysinfo().expect("the host's memory");
    if host.ram_total() + host.swap_total() < WANTED + (1 << 30) {
        cannot_run!(
            "this host has {} bytes of memory, too few",
            host.ram_total()
        );
        return;
    }
    let out = b
        .run(&[
            "run",
            "--rm",
            "--memory",
            "5g",
            "busybox",
            "cat",
            "/proc/meminfo",
        ])
        .ok();
    let total = out
        .text()
        .lines()
        .find_map(|line| {
            line.strip_prefix("MemTotal:")?
                .trim()
                .strip_suffix(" kB")?
                .parse::<u64>()
                .ok()
        })
        .expect("the guest's memory");
    // What the kernel keeps for itself is not in it.
    assert!(total * 1024 > WANTED - (128 << 20), "{total} kB");
}
