//! What the command line says about wrong usage, and with which exit code. The words are those of
//! docker 28.2; nothing here needs a container.

use std::process::{Command, Output, Stdio};

/// A run with a state directory that does not exist, so that a test that gets past parsing is noticed.
fn bulkhead(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_bulkhead"))
        .args(args)
        .env("BULKHEAD_ROOT", "/proc/nonexistent")
        .stdin(Stdio::null())
        .output()
        .expect("the binary was built")
}

#[track_caller]
fn complains(args: &[&str], code: i32, expected: &str) {
    let out = bulkhead(args);
    let text = String::from_utf8_lossy(&out.stderr);
    assert!(
        text.contains(expected),
        "{args:?}: expected {expected:?} in:\n{text}"
    );
    assert_eq!(out.status.code(), Some(code), "{args:?}: {text}");
    assert_eq!(String::from_utf8_lossy(&out.stdout), "", "{args:?}");
}

#[track_caller]
fn says(args: &[&str]) -> String {
    let out = bulkhead(args);
    assert_eq!(
        out.status.code(),
        Some(0),
        "{args:?}: {}",
        String::from_utf8_lossy(&out.stderr)
    );
    String::from_utf8(out.stdout).expect("text")
}

#[test]
fn unknown_flags_exit_with_125_and_are_named() {
    complains(
        &["run", "--foo", "x"],
        125,
        "unknown flag: --foo\n\nUsage:  bulkhead run [OPTIONS] IMAGE [COMMAND] [ARG...]\n\nRun 'bulkhead run --help' for more information\n",
    );
    complains(&["run", "--foo=bar", "x"], 125, "unknown flag: --foo\n");
    complains(
        &["run", "-Z", "x"],
        125,
        "unknown shorthand flag: 'Z' in -Z\n",
    );
    complains(
        &["run", "-itZ", "x"],
        125,
        "unknown shorthand flag: 'Z' in -",
    );
    complains(
        &["ps", "--foo"],
        125,
        "unknown flag: --foo\n\nUsage:  bulkhead ps [OPTIONS]\n",
    );
    complains(&["--foo"], 125, "unknown flag: --foo\n");
}

#[test]
fn what_docker_has_and_bulkhead_has_not_is_said_by_name() {
    for (flag, value, said) in [
        (
            "-v",
            "/a:/b",
            "bulkhead: -v, --volume is not supported yet: ",
        ),
        (
            "-p",
            "80:80",
            "bulkhead: -p, --publish is not supported yet: ",
        ),
        (
            "-ip",
            "80:80",
            "bulkhead: -p, --publish is not supported yet: ",
        ),
        (
            "--network",
            "host",
            "bulkhead: --network is not supported yet: ",
        ),
        ("--ipc", "host", "bulkhead: --ipc is not supported: "),
    ] {
        complains(&["run", flag, value, "x"], 125, said);
        complains(&["container", "create", flag, value, "x"], 125, said);
    }
    complains(
        &["run", "-v", "/a:/b", "x"],
        125,
        "; see docs/compatibility.md\n\nUsage:  bulkhead run [OPTIONS] IMAGE [COMMAND] [ARG...]\n",
    );
    complains(
        &["-H", "tcp://x", "ps"],
        125,
        "bulkhead: -H, --host is not supported: ",
    );
    for verb in [
        "cp", "diff", "commit", "stats", "events", "build", "network", "volume", "rename",
        "compose",
    ] {
        complains(
            &[verb, "x"],
            1,
            &format!("bulkhead: 'bulkhead {verb}' is not supported yet"),
        );
    }
    complains(
        &["container", "cp"],
        1,
        "bulkhead: 'bulkhead container cp' is not supported yet; see docs/",
    );
}

/// As with pflag, the word behind an option is its value.
#[test]
fn a_value_may_begin_with_a_dash() {
    complains(
        &["run", "-e", "-A=1", "-u", "-1", "--name", "--rm", "x"],
        125,
        "/proc/nonexistent",
    );
    complains(
        &["run", "--memory", "-1", "x"],
        125,
        "invalid argument \"-1\" for \"-m, --memory\" flag",
    );
    complains(&["kill", "-s", "-9", "x"], 1, "-9");
    complains(
        &["logs", "--since", "-1x", "a"],
        1,
        "invalid value for \"since\": '-1x'",
    );
}

#[test]
fn the_kernels_log_is_not_followed() {
    complains(
        &["logs", "--kernel", "-f", "a"],
        1,
        "conflicting options: --kernel goes with --tail only",
    );
}

#[test]
fn wrong_numbers_of_words_exit_with_1() {
    complains(
        &["run"],
        1,
        "bulkhead: 'bulkhead run' requires at least 1 argument\n\nUsage:  bulkhead run [OPTIONS] IMAGE",
    );
    complains(
        &["exec", "a"],
        1,
        "'bulkhead exec' requires at least 2 arguments\n",
    );
    complains(
        &["exec"],
        1,
        "'bulkhead exec' requires at least 2 arguments\n",
    );
    complains(&["rm"], 1, "'bulkhead rm' requires at least 1 argument\n");
    complains(&["ps", "x"], 1, "'bulkhead ps' accepts no arguments\n");
    complains(&["logs"], 1, "'bulkhead logs' requires 1 argument\n");
    complains(
        &["logs", "a", "b"],
        1,
        "'bulkhead logs' requires 1 argument\n",
    );
    complains(
        &["images", "a", "b"],
        1,
        "'bulkhead images' requires at most 1 argument\n",
    );
    complains(&["tag", "a"], 1, "'bulkhead tag' requires 2 arguments\n");
    complains(
        &["container", "rm"],
        1,
        "'bulkhead container rm' requires at least 1 argument\n",
    );
}

#[test]
fn unknown_commands_exit_with_1() {
    complains(
        &["foo"],
        1,
        "bulkhead: unknown command: bulkhead foo\n\nRun 'bulkhead --help' for more information\n",
    );
    complains(
        &["container", "foo"],
        1,
        "unknown command: bulkhead container foo\n\nUsage:  bulkhead container\n",
    );
    complains(&["help", "foo"], 1, "unknown help topic: foo\n");
}

#[test]
fn values_that_do_not_fit_name_the_flag() {
    complains(
        &["run", "--memory", "abc", "x"],
        125,
        "invalid argument \"abc\" for \"-m, --memory\" flag: invalid size: 'abc'",
    );
    complains(
        &["run", "--memory"],
        125,
        "flag needs an argument: --memory\n",
    );
    complains(&["run", "--name"], 125, "flag needs an argument: --name\n");
    for (words, short) in [(&["run", "-e"][..], 'e'), (&["run", "-itu"], 'u')] {
        let expected =
            format!("flag needs an argument: '{short}' in -{short}\n\nUsage:  bulkhead run");
        complains(words, 125, &expected);
    }
    complains(
        &["run", "--ulimit", "foo=1", "x"],
        125,
        "invalid argument \"foo=1\" for \"--ulimit\" flag: invalid ulimit type: foo\n\nUsage:  bulkhead run",
    );
    complains(
        &["run", "--attach", "", "x"],
        125,
        "invalid argument \"\" for \"-a, --attach\" flag: must be one of ",
    );
    complains(
        &["run", "--memory", "", "x"],
        125,
        "invalid argument \"\" for \"-m, --memory\" flag: invalid size",
    );
    complains(
        &["stop", "-t", "abc", "x"],
        125,
        "invalid argument \"abc\" for \"-t, --timeout\" flag: strconv.ParseInt: parsing \"abc\": invalid syntax\n",
    );
    complains(
        &["ps", "-n", "abc"],
        125,
        "invalid argument \"abc\" for \"-n, --last\" flag: ",
    );
    complains(
        &["run", "--cpus", "abc", "x"],
        125,
        "invalid argument \"abc\" for \"--cpus\" flag: failed to parse abc as a rational number\n",
    );
    complains(
        &["run", "--rm=abc", "x"],
        125,
        "invalid argument \"abc\" for \"--rm\" flag: strconv.ParseBool: parsing \"abc\": invalid syntax\n",
    );
    complains(
        &["ps", "--filter", "foo"],
        125,
        "invalid argument \"foo\" for \"-f, --filter\" flag: bad format of filter (expected name=value)\n",
    );
    complains(
        &["run", "--label", "=x", "x"],
        125,
        "invalid argument \"=x\" for \"-l, --label\" flag: invalid label '=x': empty name\n",
    );
    complains(
        &["run", "-e", "=x", "x"],
        125,
        "invalid argument \"=x\" for \"-e, --env\" flag: invalid environment variable: =x\n",
    );
    complains(
        &["run", "--isolation", "hope", "x"],
        125,
        "unknown isolation 'hope'",
    );
    complains(
        &["run", "--pull", "maybe", "x"],
        125,
        "invalid argument \"maybe\" for \"--pull\" flag",
    );
}

#[test]
fn conflicts_and_missing_terminals_come_before_any_work() {
    complains(&["run", "-it", "x"], 1, "the input device is not a TTY");
    complains(
        &["exec", "-it", "x", "sh"],
        1,
        "the input device is not a TTY",
    );
    complains(
        &["run", "-d", "-a", "stdout", "x"],
        1,
        "conflicting options: cannot specify both --attach and --detach",
    );
}

#[test]
fn templates_are_checked_before_any_work() {
    // Docker's client has a code of its own for these.
    for words in [
        &["inspect", "-f", "{{.foo", "x"][..],
        &["container", "inspect", "-f", "{{.foo", "x"],
        &["image", "inspect", "-f", "{{.foo", "x"],
        &["info", "-f", "{{"],
        &["version", "-f", "{{"],
        &["doctor", "-f", "{{"],
    ] {
        let expected = "bulkhead: template parsing error: template: :1: unclosed action\n";
        complains(words, 64, expected);
    }
    for listing in [&["ps"][..], &["images"], &["history", "x"]] {
        for (template, expected) in [
            ("{{", "template: :1: unclosed action\n"),
            ("{{.Foo}}", "at <.Foo>: map has no entry for key \"Foo\"\n"),
            (
                "table {{.Foo}}",
                "at <.Foo>: map has no entry for key \"Foo\"\n",
            ),
        ] {
            complains(&[listing, &["--format", template]].concat(), 1, expected);
        }
    }
    assert_eq!(says(&["ps", "--format", "{{slice .ID 0 99}}"]), "");
}

#[test]
fn a_state_directory_that_cannot_be_read_is_told_once() {
    let root = std::env::temp_dir().join(format!("bulkhead-unread-{}", std::process::id()));
    std::fs::create_dir(&root).expect("a directory");
    std::fs::write(root.join("containers"), "no directory").expect("a file");
    let out = Command::new(env!("CARGO_BIN_EXE_bulkhead"))
        .args(["ps"])
        .env("BULKHEAD_ROOT", &root)
        .output()
        .expect("the binary was built");
    let said = String::from_utf8_lossy(&out.stderr);
    let line = format!(
        "bulkhead: cannot read directory {}/containers: Not a directory\n",
        root.display()
    );
    assert_eq!(said, line);
    std::fs::remove_dir_all(&root).expect("removable");
}

#[test]
fn a_kernel_that_is_none_is_told_as_that_and_its_remedy_once() {
    let here = |words: &[&str]| {
        let out = Command::new(env!("CARGO_BIN_EXE_bulkhead"))
            .args(words)
            .envs([
                ("BULKHEAD_ROOT", "/proc/nonexistent"),
                ("BULKHEAD_KERNEL", "/bin/ls"),
                ("BULKHEAD_ISOLATION", "user-mode"),
            ])
            .output()
            .expect("the binary was built");
        String::from_utf8(out.stdout).expect("text")
    };
    assert!(
        here(&["info"]).contains("\nDefault Isolation: user-mode (does not work)\n"),
        "{}",
        here(&["info"])
    );
    let said = here(&["doctor"]);
    let mut lines = said
        .lines()
        .skip_while(|line| !line.contains("isolation user-mode: "));
    let (what, remedy) = (lines.next(), lines.next());
    assert!(
        what.is_some_and(|line| line.contains("/bin/ls") && line.ends_with("no Linux kernel")),
        "{said}"
    );
    assert!(
        remedy.is_some_and(|line| line.contains("'make install'")),
        "{said}"
    );
}

#[test]
fn a_kind_of_object_that_does_not_exist_is_said_with_1() {
    complains(
        &["inspect", "--type", "foo", "x"],
        1,
        "bulkhead: unknown type: \"foo\": must be one of \"container\", \"image\"\n",
    );
}

#[test]
fn what_cannot_be_an_images_name_is_said_and_not_looked_for() {
    complains(&["tag", "a:b:c", "d"], 1, "invalid reference format");
    complains(&["rmi", "a:b:c"], 1, "invalid reference format");
    let root = std::env::temp_dir().join(format!("bulkhead-names-{}", std::process::id()));
    std::fs::create_dir(&root).expect("a directory");
    for policy in ["missing", "never", "always"] {
        let out = Command::new(env!("CARGO_BIN_EXE_bulkhead"))
            .args(["run", "--pull", policy, "UPPER"])
            .env("BULKHEAD_ROOT", &root)
            .output()
            .expect("the binary was built");
        assert_eq!(out.status.code(), Some(125));
        assert_eq!(
            String::from_utf8_lossy(&out.stderr),
            "bulkhead: invalid reference format: repository name (library/UPPER) must be lowercase\n",
            "{policy}"
        );
    }
    std::fs::remove_dir_all(&root).expect("removable");
}

#[test]
fn help_goes_to_stdout_and_lists_what_works() {
    let help = says(&["--help"]);
    for heading in [
        "Usage:  bulkhead [OPTIONS] COMMAND",
        "Common Commands:",
        "Management Commands:",
        "Global Options:",
    ] {
        assert!(help.contains(heading), "{heading} is missing in:\n{help}");
    }
    assert!(
        !help.contains("gen-man") && !help.contains("sandbox"),
        "{help}"
    );
    assert_eq!(says(&[]), help);
    assert_eq!(says(&["help"]), help);
    assert_eq!(says(&["-h"]), help);
    let run = says(&["run", "--help"]);
    assert!(
        run.starts_with("Usage:  bulkhead run [OPTIONS] IMAGE [COMMAND] [ARG...]\n"),
        "{run}"
    );
    assert!(
        run.contains("Aliases:\n  bulkhead container run, bulkhead run\n"),
        "{run}"
    );
    assert!(run.contains("-h, --hostname"), "{run}");
    assert_eq!(says(&["help", "run"]), run);
    assert!(says(&["container"]).contains("prune"));
    assert!(says(&["version", "--help"]).starts_with("Usage:  bulkhead version"));
    assert!(says(&["--version"]).starts_with("bulkhead version "));
}

#[test]
fn help_is_as_wide_as_the_terminal_and_80_without_one() {
    let widest = |text: &str| {
        let lines = text.lines().map(|line| line.trim_end().chars().count());
        lines.max().unwrap_or(0)
    };
    let piped = says(&["run", "--help"]);
    assert!((70..=80).contains(&widest(&piped)), "{piped}");
    for columns in [60, 132] {
        let help = on_a_terminal(columns, &["run", "--help"]);
        let most = usize::from(columns);
        assert!((most - 20..=most).contains(&widest(&help)), "{help}");
    }
}

#[test]
fn no_help_has_two_blank_lines_in_a_row() {
    for words in [
        &["--help"][..],
        &["container", "--help"],
        &["image", "--help"],
        &["run", "--help"],
    ] {
        let help = says(words);
        assert!(!help.contains("\n\n\n"), "{words:?}:\n{help}");
    }
}

/// What the command writes to a terminal of `columns`.
fn on_a_terminal(columns: u16, args: &[&str]) -> String {
    use std::io::Read;
    let size = nix::pty::Winsize {
        ws_row: 24,
        ws_col: columns,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    let pty = nix::pty::openpty(Some(&size), None).expect("a terminal");
    let mut child = Command::new(env!("CARGO_BIN_EXE_bulkhead"))
        .args(args)
        .stdout(pty.slave)
        .spawn()
        .expect("the binary was built");
    let (mut text, mut master) = (Vec::new(), std::fs::File::from(pty.master));
    // The end of a terminal is an error.
    let _ = master.read_to_end(&mut text);
    assert!(child.wait().expect("its end").success());
    String::from_utf8(text).expect("text")
}

#[test]
fn every_verb_has_help_and_a_man_page() {
    let dir = std::env::temp_dir().join(format!("bulkhead-man-{}", std::process::id()));
    says(&["gen-man", dir.to_str().expect("text")]);
    let help = says(&["--help"]);
    let verbs = help
        .lines()
        .filter_map(|line| line.strip_prefix("  "))
        .filter(|line| line.starts_with(char::is_alphabetic));
    let mut count = 0;
    for line in verbs {
        let verb = line.split_whitespace().next().expect("a word");
        assert!(
            says(&[verb, "--help"]).starts_with(&format!("Usage:  bulkhead {verb}")),
            "{verb}"
        );
        let page = std::fs::read_to_string(dir.join(format!("bulkhead-{verb}.1"))).expect(verb);
        assert!(page.contains(".SH NAME"), "{verb}");
        count += 1;
    }
    assert!(count > 25, "{count}");
    for entry in std::fs::read_dir(&dir).expect("pages") {
        let path = entry.expect("page").path();
        let page = std::fs::read_to_string(&path).expect("text");
        for section in ["EXAMPLES", "FILES", "ENVIRONMENT", "EXIT STATUS"] {
            let heading = [format!(".SH {section}\n"), format!(".SH \"{section}\"\n")];
            let text = heading
                .iter()
                .find_map(|heading| page.split_once(heading.as_str()));
            let (_, text) = text.unwrap_or_else(|| panic!("{}: no {section}", path.display()));
            assert!(
                text.starts_with(".TP\n"),
                "{}: nothing under {section}",
                path.display()
            );
        }
    }
    std::fs::remove_dir_all(&dir).expect("removable");
}

#[test]
fn shells_get_completions() {
    for (shell, mark) in [
        ("bash", "complete -o default -F _bulkhead bulkhead"),
        ("zsh", "#compdef bulkhead"),
        ("fish", "complete -c bulkhead"),
    ] {
        let script = says(&["completion", shell]);
        assert!(
            script.contains(mark) && script.contains(" __complete "),
            "{shell}"
        );
    }
    for (line, expected) in [
        ("bulkhead run --isolation ", "kvm\t\nuser-mode\t\n"),
        (
            "bulkhead run --pull=",
            "--pull=always\t\n--pull=missing\t\n--pull=never\t\n",
        ),
        ("bulkhead ps --format j", "json\t\n"),
        ("bulkhead --log-level d", "debug\t\n"),
        ("bulkhead inspect --type c", "container\t\n"),
        (
            "bulkhead ps --filter status=",
            "status=created\t\nstatus=exited\t\nstatus=running\t\n",
        ),
        (
            "bulkhead images -f dangling=",
            "dangling=false\t\ndangling=true\t\n",
        ),
        (
            "bulkhead run --cap-add SYS_P",
            "SYS_PTRACE\t\nSYS_PACCT\t\n",
        ),
        ("bulkhead kill -s W", "WINCH\t\n"),
        ("bulkhead run --ulimit nof", "nofile=\t\n"),
        ("bulkhead cont", "container\tManage containers\n"),
        ("bulkhead exec x --ev", ""),
        (
            "bulkhead run --env-",
            "--env-file\tRead in a file of environment variables\n",
        ),
        // Nothing is there, and nothing is made or complained about.
        ("bulkhead rm ", ""),
        ("bulkhead rmi 'x", ""),
    ] {
        assert_eq!(says(&["__complete", line]), expected, "{line}");
    }
    complains(
        &["completion", "tcsh"],
        125,
        "must be one of bash, fish, zsh",
    );
}

/// As Docker's client: by the signal, and without a word.
#[test]
fn a_reader_that_leaves_ends_the_command() {
    use std::os::unix::process::ExitStatusExt;
    let (reader, writer) = std::io::pipe().expect("a pipe");
    drop(reader);
    let out = Command::new(env!("CARGO_BIN_EXE_bulkhead"))
        .args(["completion", "zsh"])
        .stdout(writer)
        .output()
        .expect("the binary was built");
    assert_eq!(String::from_utf8_lossy(&out.stderr), "");
    assert_eq!(out.status.signal(), Some(13), "{:?}", out.status);
}

#[test]
fn an_unusable_state_directory_is_an_engine_failure_with_its_cause() {
    // Nothing is there, and nothing was made.
    assert_eq!(says(&["ps", "-q"]), "");
    assert_eq!(says(&["images", "-q"]), "");
    complains(&["run", "x"], 125, "/proc/nonexistent");
    // What follows the image is the container's: these flags are not ours, and parsing must not refuse them.
    complains(
        &["run", "x", "--foo", "-Z", "--", "-it"],
        125,
        "/proc/nonexistent",
    );
    complains(
        &[
            "run",
            "--rm=false",
            "-e",
            "A=1",
            "--name=a",
            "--name",
            "b",
            "--",
            "x",
        ],
        125,
        "/proc/nonexistent",
    );
    complains(
        &["exec", "-e", "A=b", "x", "ls", "-la", "--help"],
        1,
        "bulkhead: No such container: x",
    );
}

/// Of a path that was mistyped nothing may be left, and who named it is told.
#[test]
fn what_only_looks_makes_no_state_directory() {
    let dir = std::env::temp_dir().join(format!("bulkhead-no-root-{}", std::process::id()));
    let root = dir.to_str().expect("text");
    for (words, code) in [
        (&["ps", "-a"][..], 0),
        (&["images"], 0),
        (&["container", "prune", "-f"], 0),
        (&["image", "prune", "-af"], 0),
        (&["info"], 0),
        (&["version"], 0),
        (&["history", "x"], 1),
        (&["inspect", "x"], 1),
        (&["image", "inspect", "x"], 1),
        (&["save", "-o", "/dev/null", "x"], 1),
        (&["tag", "x", "y"], 1),
        (&["rmi", "x"], 1),
        (&["push", "x"], 1),
        (&["logs", "x"], 1),
        (&["start", "x"], 1),
        (&["stop", "x"], 1),
        (&["kill", "x"], 1),
        (&["rm", "x"], 1),
        (&["wait", "x"], 1),
        (&["doctor"], -1),
    ] {
        let out = bulkhead(&[&["--root", root], words].concat());
        let text = String::from_utf8_lossy(&out.stderr);
        assert!(
            code < 0 || out.status.code() == Some(code),
            "{words:?}: {text}"
        );
        assert!(
            text.contains(&format!("WARNING: there is no state directory {root}")),
            "{words:?}: {text}"
        );
        assert!(!dir.exists(), "{words:?}");
    }
}

#[test]
fn a_configuration_file_that_is_not_there_is_named() {
    complains(
        &["--config", "/nonexistent.toml", "ps"],
        1,
        "bulkhead: cannot read configuration file /nonexistent.toml: No such file or directory",
    );
}

/// A warning is for whoever typed the command; module paths are for those who look into the program.
#[test]
fn warnings_are_in_words_and_name_modules_only_to_debug() {
    let root = std::env::temp_dir().join(format!("bulkhead-damaged-{}", std::process::id()));
    let id = "a".repeat(64);
    let container = root.join("containers").join(&id);
    std::fs::create_dir_all(&container).expect("a directory");
    std::fs::create_dir_all(root.join("names")).expect("a directory");
    std::fs::write(container.join("config.json"), "{").expect("a file");
    let root_text = root.to_str().expect("text");
    let said = |flags: &[&str]| {
        let out = bulkhead(&[&["--root", root_text], flags, &["ps", "-a"]].concat());
        assert_eq!(out.status.code(), Some(0));
        String::from_utf8(out.stderr).expect("text")
    };
    let plain = said(&[]);
    assert!(
        plain.starts_with(
            "WARNING: container aaaaaaaaaaaa is left out: damaged container configuration "
        ),
        "{plain}"
    );
    assert!(
        !plain.contains("::") && plain.lines().count() == 1,
        "{plain}"
    );
    assert!(said(&["--debug"]).contains("bulkhead_engine::"));
    assert_eq!(said(&["--log-level", "error"]), "");
    std::fs::remove_dir_all(&root).expect("removable");
}
