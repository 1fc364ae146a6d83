//! Two hundred kills at random moments, then a look at the store and the process table.

use std::time::Duration;

use bulkhead_e2e::{
    Bulkhead, User, guard, patience, run_tool, sandbox_processes, scaled, tool_exists, wait_until,
};

/// A xorshift generator: the sequence is printed with its seed, so that a failure can be repeated.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }
}

#[test]
fn two_hundred_random_kills_lose_and_leave_nothing() {
    let Some(b) = Bulkhead::with_busybox(User::Root) else {
        return;
    };
    let seed = std::env::var("BULKHEAD_CRASH_SEED")
        .ok()
        .and_then(|s| s.parse().ok())
        .unwrap_or_else(|| {
            u64::from(std::process::id()) << 20
                | std::time::SystemTime::now()
                    .duration_since(std::time::UNIX_EPOCH)
                    .unwrap()
                    .subsec_nanos() as u64
                | 1
        });
    eprintln!("BULKHEAD_CRASH_SEED={seed}");
    let mut random = Random(seed);
    let tar = bulkhead_e2e::busybox_tar();
    for round in 0..scaled(200, 12) {
        let name = format!("crash-{round}");
        let running = match random.below(4) {
            0 => b
                .command(&[
                    "run",
                    "--name",
                    &name,
                    "busybox",
                    "sh",
                    "-c",
                    "echo x > /f; sync; sleep 0.2",
                ])
                .start(),
            1 => b
                .command(&[
                    "run", "--rm", "--name", &name, "busybox", "sh", "-c", "echo x",
                ])
                .start(),
            2 => b
                .command(&["import", "-", &format!("{name}:1")])
                .with_input(tar.clone())
                .start(),
            _ => b
                .command(&["run", "-d", "--name", &name, "busybox", "sleep", "0.2"])
                .start(),
        };
        std::thread::sleep(patience(Duration::from_millis(random.below(180))));
        let processes = sandbox_processes(&b.root());
        if !processes.is_empty() {
            let index = usize::try_from(random.below(processes.len() as u64)).unwrap();
            // SAFETY: kill(2) has no memory effects; a process already gone is an error we ignore.
            unsafe { libc::kill(processes[index].pid, libc::SIGKILL) };
        }
        running.finish();
    }
    // Containers whose command line alone was killed may still run their 0.2 s.
    let all_ended = wait_until(guard(Duration::from_secs(5)), || {
        b.run(&["ps", "-q"]).ok().text().is_empty()
    });
    assert!(all_ended, "{}", b.run(&["ps"]).text());
    for id in b.run(&["ps", "-aq", "--no-trunc"]).ok().text().lines() {
        let shown = b.run(&["inspect", "-f", "{{.State.Status}}", id]);
        if shown.stderr.contains("No such object") {
            // Of a `run --rm` whose command line was killed: whoever is left removes it after its end.
            continue;
        }
        let status = shown.ok().text();
        assert!(status == "exited" || status == "created", "{id}: {status}");
        let removed = b.run(&["rm", "-f", id]);
        assert!(
            removed.code == 0 || removed.stderr.contains("No such container"),
            "{removed:?}"
        );
    }
    b.expect_nothing_left();
    assert_eq!(
        b.run(&["run", "--rm", "busybox", "echo", "fine"])
            .ok()
            .text(),
        "fine"
    );
    for id in b.run(&["images", "-q", "--no-trunc"]).ok().text().lines() {
        b.run(&["run", "--rm", id, "/bin/true"]).ok();
    }
    if tool_exists("skopeo") {
        let index = std::fs::read(b.root().join("image/index.json")).unwrap();
        let index: serde_json::Value = serde_json::from_slice(&index).unwrap();
        for manifest in index["manifests"].as_array().unwrap() {
            let name = manifest["annotations"]["org.opencontainers.image.ref.name"]
                .as_str()
                .unwrap_or_default();
            if !name.is_empty() {
                run_tool(
                    "skopeo",
                    &[
                        "inspect",
                        &format!("oci:{}:{name}", b.root().join("image").display()),
                    ],
                )
                .ok();
            }
        }
    }
    b.run(&["image", "prune", "-a", "-f"]).ok();
    let tmp: Vec<_> = std::fs::read_dir(b.root().join("tmp"))
        .map(|d| d.flatten().collect())
        .unwrap_or_default();
    assert!(tmp.is_empty(), "temporary files are left: {tmp:?}");
    let containers: Vec<_> = std::fs::read_dir(b.root().join("containers"))
        .map(|d| d.flatten().collect())
        .unwrap_or_default();
    assert!(
        containers.is_empty(),
        "container directories are left: {containers:?}"
    );
}
