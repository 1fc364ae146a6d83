//! What the outer half of a sandbox promises: who holds what, and that its record is true however a run ends.

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use bulkhead_e2e::{
    Bulkhead, Isolation, LINKED_AS_A_KERNEL, Running, Terminal, User, each_user, needs, run_tool,
    sandbox_processes, scaled, wait_until,
};
use nix::fcntl::{Flock, FlockArg};
use nix::sys::signal::Signal;
use nix::unistd::Pid;

fn kill(pid: i32) {
    nix::sys::signal::kill(Pid::from_raw(pid), Signal::SIGKILL).unwrap();
}

/// Process ids of the monitor and of the jailed half.
fn halves(b: &Bulkhead, name: &str) -> (i32, i32) {
    let container = b.inspect(name);
    let pid = |value: &serde_json::Value| i32::try_from(value.as_i64().unwrap()).unwrap();
    (
        pid(&container["Bulkhead"]["MonitorPid"]),
        pid(&container["State"]["Pid"]),
    )
}

/// What `pid` has open: the file, and whether it may be written through this descriptor.
fn open_files(pid: i32) -> Vec<(PathBuf, bool)> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(format!("/proc/{pid}/fd"))
        .unwrap()
        .flatten()
    {
        let number = entry.file_name().into_string().unwrap();
        let (Ok(target), Ok(info)) = (
            std::fs::read_link(entry.path()),
            std::fs::read_to_string(format!("/proc/{pid}/fdinfo/{number}")),
        ) else {
            continue;
        };
        let flags = info
            .lines()
            .find_map(|line| line.strip_prefix("flags:"))
            .unwrap();
        let flags = u32::from_str_radix(flags.trim(), 8).unwrap();
        // O_ACCMODE is 3, O_RDONLY is 0.
        files.push((target, flags & 3 != 0));
    }
    files
}

/// A "kernel" that says `words` to its console and ends. It needs no library and no system call but two.
fn kernel_that_says(b: &Bulkhead, words: &str) -> PathBuf {
    let escaped: String = words.bytes().map(|byte| format!("\\{byte:03o}")).collect();
    let source = format!(
        "static const char words[] = \"{escaped}\";\n\
         static long call(long n, long a, long b, long c) {{\n\
           long r;\n\
           __asm__ volatile(\"syscall\" : \"=a\"(r) : \"a\"(n), \"D\"(a), \"S\"(b), \"d\"(c) : \"rcx\", \"r11\", \"memory\");\n\
           return r;\n\
         }}\n\
         void _start(void) {{ call(1, 1, (long)words, sizeof words - 1); for (;;) call(231, 3, 0, 0); }}\n"
    );
    let (file, kernel) = (b.home().join("kernel.c"), b.home().join("kernel"));
    std::fs::write(&file, source).unwrap();
    let arguments = [
        "-static",
        LINKED_AS_A_KERNEL,
        "-nostdlib",
        "-ffreestanding",
        "-fno-stack-protector",
        "-o",
    ];
    let mut compile = Command::new("gcc");
    compile.args(arguments).arg(&kernel).arg(&file);
    Running::start(&mut compile, None).finish().ok();
    std::fs::set_permissions(&kernel, std::fs::Permissions::from_mode(0o755)).unwrap();
    kernel
}

/// Fails where `shown` would steer a terminal, or does not hold what was to be cleaned.
#[track_caller]
fn expect_clean(shown: &str) {
    assert!(
        shown.contains("pwned"),
        "the kernel's words are not in it: {shown:?}"
    );
    let steers = |c: char| c.is_control() && !matches!(c, '\n' | '\r' | '\t');
    assert!(!shown.contains(steers), "{shown:?}");
    assert!(
        !shown.lines().any(|line| line.starts_with("WARNING")),
        "{shown:?}"
    );
}

/// A shell that runs `script` and then, as `"$@"`, `bulkhead ARGS`.
fn from_a_shell(b: &Bulkhead, script: &str, args: &[&str]) -> Command {
    let real = b.process(args);
    let mut command = Command::new("sh");
    command.args(["-c", &format!("{script}\n\"$@\""), "sh"]);
    command.arg(real.get_program()).args(real.get_args());
    command.current_dir(b.home());
    for (name, value) in real.get_envs() {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    command
}

each_user! {
    // Code that broke into the jailed half let go of the lock, and a second kernel started on the same disk.
    nothing_in_the_jail_holds_the_lock_that_means_running(b) {
        b.run(&["run", "-d", "--name", "held", "busybox", "sleep", "1000"]).ok();
        let (monitor, jailed) = halves(b, "held");
        let at = |name: &str| b.run(&["inspect", "-f", "{{.Bulkhead.Directory}}", "held"]).ok().text() + "/" + name;
        let lock = PathBuf::from(at("lock"));
        assert!(open_files(monitor).contains(&(lock.clone(), true)), "the monitor holds it");
        let kernel = sandbox_processes(&b.root()).into_iter().filter(|process| process.parent == jailed);
        for pid in kernel.map(|process| process.pid).chain([jailed]) {
            let files = open_files(pid);
            assert!(files.iter().all(|(file, _)| *file != lock), "{pid}: {files:?}");
            let writable = files.iter().filter(|(file, writable)| *writable && file.starts_with(b.root()));
            let mut names: Vec<_> = writable.filter_map(|(file, _)| file.file_name()?.to_str()).collect();
            names.sort_unstable();
            names.dedup();
            let known = ["console.log", "log.0", "log.1", "sandbox.log", "scratch.ext4"];
            assert!(names.iter().all(|name| known.contains(name)), "{pid} may write {names:?}");
        }
        b.run(&["rm", "-f", "held"]).ok();
        b.expect_nothing_left();
    }

    // `flock -n 9 && bulkhead run -d …` held the lock until the container ended.
    a_callers_descriptors_do_not_stay_open_in_a_container(b) {
        let path = b.home().join("callers.lock");
        std::fs::write(&path, "").unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o666)).unwrap();
        let locked = format!("exec 9>{0} && flock -n 9 || exit 9", path.display());
        let mut run = from_a_shell(b, &locked, &["run", "-d", "--name", "started", "busybox", "sleep", "1000"]);
        Running::start(&mut run, None).finish().ok();
        let file = std::fs::File::open(&path).unwrap();
        assert!(Flock::lock(file, FlockArg::LockExclusiveNonblock).is_ok(), "the caller's lock is held by the container");
        for process in sandbox_processes(&b.root()) {
            let files = open_files(process.pid);
            assert!(files.iter().all(|(file, _)| *file != path), "{}: {files:?}", process.line);
        }
        b.run(&["rm", "-f", "started"]).ok();
        b.expect_nothing_left();
    }

    a_start_right_after_the_monitors_death_has_the_disk_to_itself(b) {
        b.run(&["run", "-d", "--name", "again", "busybox", "sleep", "1000"]).ok();
        for _ in 0..3 {
            let (monitor, jailed) = halves(b, "again");
            kill(monitor);
            b.run(&["start", "again"]).ok();
            let (next, other) = halves(b, "again");
            assert!(next != monitor && other != jailed, "it was started anew");
            assert!(sandbox_processes(&b.root()).iter().all(|p| p.pid != jailed), "the run before is gone");
        }
        b.run(&["rm", "-f", "again"]).ok();
        b.expect_nothing_left();
    }

    // With two kernels on it, a disk's file system is lost.
    a_disk_that_another_process_writes_is_not_started_on(b) {
        b.run(&["run", "--name", "busy", "busybox", "true"]).ok();
        let disk = b.run(&["inspect", "-f", "{{.Bulkhead.Directory}}", "busy"]).ok().text() + "/scratch.ext4";
        let writer = std::fs::OpenOptions::new().write(true).open(&disk).unwrap();
        b.run(&["start", "busy"]).expect_code(1).says("scratch.ext4").says("another process has it open for writing");
        drop(writer);
        b.run(&["start", "-a", "busy"]).ok();
        b.run(&["rm", "busy"]).ok();
        b.expect_nothing_left();
    }

    // ESC ]0; sets a terminal's title, ESC ]52; its clipboard; U+009B begins a command too.
    what_a_hostile_kernel_says_steers_no_terminal(b) {
        if !needs(Isolation::UserMode) { return }
        let words = "a\x1b]0;pwned\x07b\x1b]52;c;cHduZWQ=\x07c\u{9b}31m\rWARNING: pwned\n";
        let kernel = kernel_that_says(b, words);
        let kernel = kernel.to_str().unwrap();
        let out = b.command(&["run", "--name", "hostile", "busybox", "true"]).with_env("BULKHEAD_KERNEL", kernel).finish();
        expect_clean(&out.expect_code(125).stderr);
        expect_clean(&b.run(&["inspect", "-f", "{{.State.Error}}", "hostile"]).ok().text());
        let mut process = b.process(&["start", "-a", "hostile"]);
        process.env("BULKHEAD_KERNEL", kernel);
        let mut terminal = Terminal::start(process);
        // What was shown may be read after the command's end.
        terminal.expect("pwned");
        terminal.wait();
        expect_clean(&terminal.shown());
        let raw = b.run(&["logs", "--kernel", "hostile"]).ok();
        assert_eq!(String::from_utf8_lossy(&raw.stdout), words, "to a program it goes as it is");
        let mut terminal = Terminal::start(b.process(&["logs", "--kernel", "hostile"]));
        terminal.expect("pwned\r\n");
        assert_eq!(terminal.wait(), 0);
        expect_clean(&terminal.shown());
        b.run(&["rm", "hostile"]).ok();
        b.expect_nothing_left();
    }
}

each_user! {
    // FinishedAt lay before StartedAt, and `ps` counted from there.
    a_run_whose_record_is_cut_off_ends_when_it_is_noticed(b) {
        b.run(&["run", "-d", "--name", "cut", "busybox", "sleep", "1000"]).ok();
        kill(halves(b, "cut").0);
        assert!(wait_until(Duration::from_secs(40), || b.inspect("cut")["State"]["Running"] == false));
        let first = b.inspect("cut")["State"].clone();
        // RFC 3339 with as many digits of a second as there are: made as long, they are in the order of time.
        let time = |name: &str| {
            let text = first[name].as_str().unwrap().trim_end_matches('Z');
            let (seconds, fraction) = text.split_once('.').unwrap_or((text, ""));
            format!("{seconds}.{fraction:0<9}")
        };
        assert!(time("FinishedAt") >= time("StartedAt"), "{first}");
        assert_eq!(first["ExitCode"], 137, "{first}");
        assert_eq!(b.inspect("cut")["State"], first, "a second look");
        b.run(&["rm", "cut"]).ok();
        b.expect_nothing_left();
    }

    // A sandbox that was killed and not recorded yet passed for a running container: `start` returned 0 and did nothing.
    after_a_kill_a_start_starts(b) {
        b.run(&["run", "-d", "--name", "phoenix", "busybox", "sleep", "1000"]).ok();
        for round in 0..scaled(30, 10) {
            let (_, jailed) = halves(b, "phoenix");
            kill(jailed);
            let out = b.run(&["start", "phoenix"]);
            let state = b.inspect("phoenix")["State"].clone();
            assert_eq!(out.code, 0, "{round}: {out:?}");
            assert_eq!(state["Running"], true, "{round}: {state}");
            assert_ne!(state["Pid"], jailed, "{round}: {state}");
        }
        b.run(&["rm", "-f", "phoenix"]).ok();
        b.expect_nothing_left();
    }

    its_processes_have_names(b) {
        b.run(&["run", "-d", "--name", "named", "busybox", "sleep", "1000"]).ok();
        let (monitor, jailed) = halves(b, "named");
        for (pid, line, short) in [
            (monitor, "bulkhead: monitor named", "bulkhead-monitr"),
            (jailed, "bulkhead: sandbox named", "bulkhead-sandbx"),
        ] {
            let shown = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap();
            assert_eq!(String::from_utf8_lossy(&shown), format!("{line}\0"));
            assert_eq!(std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap().trim(), short);
        }
        b.run(&["rm", "-f", "named"]).ok();
        b.expect_nothing_left();
    }
}

/// Runs `test` with a state directory of 64 MiB, in which there is the image `busybox`.
fn on_a_small_disk(test: impl FnOnce(&Bulkhead)) {
    let Some(b) = Bulkhead::new(User::Root) else {
        return;
    };
    std::fs::create_dir_all(b.root()).unwrap();
    let root = b.root().to_str().unwrap().to_owned();
    run_tool(
        "mount",
        &["-t", "tmpfs", "-o", "mode=0700,size=64m", "tmpfs", &root],
    )
    .ok();
    let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        let import = b.command(&["import", "-", "busybox"]);
        import.with_input(bulkhead_e2e::busybox_tar()).finish().ok();
        test(&b);
    }));
    for process in sandbox_processes(&b.root()) {
        kill(process.pid);
    }
    run_tool("umount", &["-l", &root]).ok();
    if let Err(panic) = result {
        std::panic::resume_unwind(panic);
    }
}

/// Writes a file until there is no byte left on the disk.
fn fill(b: &Bulkhead) -> PathBuf {
    let filler = b.root().join("filler");
    let mut file = std::fs::File::create(&filler).unwrap();
    while std::io::Write::write_all(&mut file, &[7; 4096]).is_ok() {}
    filler
}

/// With no byte left on the disk, a run that ended with 0 was recorded as killed, and so was one that was stopped.
#[test]
fn a_full_disk_does_not_make_a_record_untrue() {
    on_a_small_disk(|b| {
        for (name, script) in [
            ("ends", "read line; exit 0"),
            (
                "stopped",
                "trap 'exit 5' TERM; while :; do sleep 0.05; done",
            ),
        ] {
            b.run(&["run", "-di", "--name", name, "busybox", "sh", "-c", script])
                .ok();
        }
        let filler = fill(b);
        b.command(&["attach", "ends"])
            .with_input("line\n")
            .finish()
            .ok();
        b.run(&["stop", "stopped"]).ok();
        for (name, code) in [("ends", 0), ("stopped", 5)] {
            let state = b.inspect(name)["State"].clone();
            assert_eq!(state["Status"], "exited", "{name}: {state}");
            assert_eq!(state["ExitCode"], code, "{name}: {state}");
            assert_eq!(state["Error"], "", "{name}: {state}");
            assert_eq!(b.run(&["wait", name]).ok().text(), code.to_string());
        }
        std::fs::remove_file(filler).unwrap();
        b.run(&["rm", "ends", "stopped"]).ok();
        assert_eq!(b.run(&["ps", "-aq"]).ok().text(), "");
    });
}

/// The host's disk was full, and only the guest's kernel said so, as an I/O error of a disk that is not full.
#[test]
fn a_full_disk_under_a_container_is_told_to_its_user() {
    const FULL: &str = "the host's disk is full: writes to the container's disk failed with 'No space left on device'";
    on_a_small_disk(|b| {
        // The second round's writes fail as well, and say nothing new.
        let script = |wait: &str| {
            format!(
                "echo up; {wait}; \
                 for i in 1 2; do dd if=/dev/zero of=/big$i bs=1M count=12 conv=fsync; done; exit 3"
            )
        };
        let (line, file) = (
            script("read line"),
            script("until [ -e /dev/shm/go ]; do sleep 0.05; done"),
        );
        b.run(&["run", "-di", "--name", "kept", "busybox", "sh", "-c", &line])
            .ok();
        b.wait_for_log("kept", "up");
        let inspect = |format: &str| b.run(&["inspect", "-f", format, "kept"]).ok().text();
        let directory = PathBuf::from(inspect("{{.Bulkhead.Directory}}"));
        assert_eq!(inspect("{{json .Bulkhead.Warnings}}"), "[]");
        let filler = fill(b);
        let attach = b.command(&["attach", "kept"]).with_input("line\n");
        let told = attach.finish().expect_code(3).stderr;
        let lines: Vec<_> = told.lines().filter(|line| line.contains(FULL)).collect();
        let expected = format!("WARNING: {FULL}; free space in {}", directory.display());
        assert_eq!(lines, [expected.as_str()], "{told}");
        let container = b.inspect("kept");
        let warnings = &container["Bulkhead"]["Warnings"];
        let first = warnings[0].as_str().unwrap_or_default();
        assert!(first.starts_with(FULL), "{warnings}");
        assert_eq!(container["State"]["Error"], "", "it is Docker's");
        let log = directory.join("sandbox.log");
        let about = std::fs::metadata(&log).unwrap();
        assert_eq!(about.permissions().mode() & 0o777, 0o600);
        assert!(about.len() <= 1 << 20, "{}", about.len());
        let log = std::fs::read_to_string(log).unwrap();
        assert!(
            log.contains("WARN") && log.contains("No space left on device"),
            "{log}"
        );

        // Who started it in the foreground is told in any case: with --rm there is no record to ask any more.
        std::fs::remove_file(filler).unwrap();
        let run = [
            "run", "--rm", "--name", "short", "busybox", "sh", "-c", &file,
        ];
        let run = b.command(&run).start();
        b.wait_for_log("short", "up");
        let filler = fill(b);
        b.run(&["exec", "short", "touch", "/dev/shm/go"]).ok();
        run.finish()
            .expect_code(3)
            .says(&format!("WARNING: {FULL}"));
        std::fs::remove_file(filler).unwrap();

        b.run(&["start", "kept"]).ok();
        assert_eq!(inspect("{{json .Bulkhead.Warnings}}"), "[]", "another run");
        b.run(&["rm", "-f", "kept"]).ok();
        assert_eq!(b.run(&["ps", "-aq"]).ok().text(), "");
    });
}

/// Only `sandbox.log` said that an end was not recorded, and it was never recorded afterwards.
#[test]
fn an_end_that_cannot_be_recorded_is_told_and_recorded_when_there_is_room() {
    on_a_small_disk(|b| {
        let trap = "trap 'exit 5' TERM; echo up; while :; do sleep 0.05; done";
        let state_file = |name: &str| {
            let directory = b.run(&["inspect", "-f", "{{.Bulkhead.Directory}}", name]);
            PathBuf::from(directory.ok().text()).join("state.json")
        };
        for name in ["stopped", "killed", "waited"] {
            b.run(&["run", "-d", "--name", name, "busybox", "sh", "-c", trap])
                .ok();
            b.wait_for_log(name, "up");
        }
        let files = ["stopped", "killed", "waited"].map(state_file);
        // What a file system that never writes in place does of itself: there is no room for a record any more.
        for file in &files {
            std::fs::File::create(file).unwrap();
        }
        let filler = fill(b);
        let [stopped, killed, waited] = &files;
        let words = |file: &PathBuf| {
            format!(
                "WARNING: the container's record {} could not be written: No space left on device; free space in {}",
                file.display(),
                file.parent().unwrap().display(),
            )
        };
        b.run(&["stop", "stopped"]).ok().says(&words(stopped));
        b.run(&["kill", "killed"]).ok().says(&words(killed));
        let wait = b.command(&["wait", "waited"]).start();
        b.run(&["kill", "-s", "TERM", "waited"]).ok();
        let waited_for = wait.finish().ok().says(&words(waited));
        assert_eq!(waited_for.text(), "5");
        for (name, code, file) in [("stopped", 5, stopped), ("killed", 137, killed)] {
            let shown = b.inspect(name);
            assert_eq!(shown["State"]["ExitCode"], code, "{shown}");
            // Its disk may have said the same of itself.
            let warnings = shown["Bulkhead"]["Warnings"].as_array().unwrap();
            let last = warnings.last().unwrap().as_str().unwrap();
            assert!(
                format!("WARNING: {last}").starts_with(&words(file)),
                "{shown}"
            );
            assert_eq!(std::fs::metadata(file).unwrap().len(), 0);
        }

        std::fs::remove_file(filler).unwrap();
        b.run(&["ps", "-a"]).ok();
        for (file, code) in files.iter().zip([5, 137, 5]) {
            let text = std::fs::read(file).unwrap();
            let record: serde_json::Value = serde_json::from_slice(&text).unwrap();
            assert_eq!(record["status"], "exited", "{record}");
            assert_eq!(record["exit"]["code"], code, "{record}");
        }
        let shown = b.inspect("stopped")["Bulkhead"]["Warnings"].to_string();
        assert!(!shown.contains("state.json"), "{shown}");
        let quiet = b.run(&["wait", "stopped"]).ok();
        assert_eq!((quiet.text(), quiet.stderr.as_str()), ("5".to_owned(), ""));

        // A run in the foreground ends with the process's own code.
        let run = ["run", "--name", "front", "busybox", "sh", "-c", trap];
        let run = b.command(&run).start();
        b.wait_for_log("front", "up");
        let file = state_file("front");
        std::fs::File::create(&file).unwrap();
        let filler = fill(b);
        b.run(&["kill", "-s", "TERM", "front"]).ok();
        run.finish().expect_code(5).says(&words(&file));
        std::fs::remove_file(filler).unwrap();
        b.run(&["start", "front"]).ok();
        b.run(&["rm", "-f", "front"]).ok();
    });
}
