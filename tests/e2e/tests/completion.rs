//! Completions, asked by the shells themselves, know what there is.

use std::process::{Command, Stdio};

use bulkhead_e2e::{Bulkhead, cannot_run, each_user, tool_exists};

each_user! {
    bash_completes_containers_images_and_values(b) {
        web_and_idle(b);
        // The words are split as bash splits them, at `:` and `=` too.
        let ask = |line: &str| shell(b, "bash", r#"
            eval "$("$BULKHEAD" completion bash)"
            COMP_LINE=$LINE COMP_POINT=${#LINE}
            _bulkhead "$BULKHEAD"
            printf '%s\n' "${COMPREPLY[@]}""#, line);
        assert_eq!(ask("bulkhead rm "), "idle\nweb\n");
        assert_eq!(ask("bulkhead stop "), "web\n");
        assert_eq!(ask("bulkhead start "), "idle\n");
        assert_eq!(ask("bulkhead logs w"), "web\n");
        assert_eq!(ask("bulkhead run -it "), "busybox:latest\n");
        assert_eq!(ask("bulkhead run busybox:la"), "latest\n");
        assert_eq!(ask("bulkhead run --isolation=u"), "user-mode\n");
        assert_eq!(ask("bulkhead run --isolation "), "kvm\nuser-mode\n");
        assert_eq!(ask("bulkhead --root /nonexistent rm "), "\n");
        assert_eq!(ask("bulkhead images --di"), "--digests\n");
        assert_eq!(ask("bulkhead ps --filter status="), "created\nexited\nrunning\n");
    }

    fish_completes_containers_images_and_values(b) {
        if !tool_exists("fish") {
            cannot_run!("fish is not installed");
            return;
        }
        web_and_idle(b);
        // fish finds the program by its name.
        let ask = |line: &str| shell(b, "fish", r#"
            function bulkhead; $BULKHEAD $argv; end
            bulkhead completion fish | source
            complete -C $LINE | string replace -r '\t.*' ''"#, line);
        assert_eq!(ask("bulkhead rm "), "idle\nweb\n");
        assert_eq!(ask("bulkhead stop "), "web\n");
        assert_eq!(ask("bulkhead run -it "), "busybox:latest\n");
        assert_eq!(ask("bulkhead run --isolation "), "kvm\nuser-mode\n");
    }

    zsh_completes_containers_images_and_values(b) {
        if !tool_exists("zsh") {
            cannot_run!("zsh is not installed");
            return;
        }
        web_and_idle(b);
        // What zsh's completion system gives to a function and takes from it.
        let ask = |line: &str| shell(b, "zsh", r#"
            compdef() { : }
            compadd() { print -rl -- $values }
            _files() { print files }
            eval "$($BULKHEAD completion zsh)"
            words=("$BULKHEAD" "${(@)${(z)LINE}[2,-1]}")
            [[ $LINE == *' ' ]] && words+=("")
            CURRENT=$#words
            PREFIX=$words[CURRENT]
            _bulkhead"#, line);
        assert_eq!(ask("bulkhead rm "), "idle\nweb\n");
        assert_eq!(ask("bulkhead stop "), "web\n");
        assert_eq!(ask("bulkhead run busybox:l"), "busybox:latest\n");
        assert_eq!(ask("bulkhead run --isolation "), "kvm\nuser-mode\n");
        assert_eq!(ask("bulkhead load -i "), "files\n");
    }
}

/// Two containers, one of which runs.
fn web_and_idle(b: &Bulkhead) {
    b.run(&["create", "--name", "idle", "busybox"]).ok();
    b.run(&["run", "-d", "--name", "web", "busybox", "sleep", "1000"])
        .ok();
}

/// What `script` prints in a shell that knows the program as `$BULKHEAD` and the line as `$LINE`, sorted.
fn shell(b: &Bulkhead, shell: &str, script: &str, line: &str) -> String {
    // The environment, and the user, that a command of this installation has.
    let ours = b.process(&[]);
    let mut command = Command::new(ours.get_program());
    let mut words: Vec<_> = ours.get_args().map(ToOwned::to_owned).collect();
    let program = words.pop().unwrap_or_else(|| ours.get_program().to_owned());
    if words.is_empty() {
        command = Command::new(shell);
    } else {
        command.args(&words).arg(shell);
    }
    let variables = ours
        .get_envs()
        .filter_map(|(key, value)| Some((key, value?)));
    let out = command
        .envs(variables)
        .args(["-c", script])
        .env("BULKHEAD", program)
        .env("LINE", line)
        .current_dir(b.home())
        .stdin(Stdio::null())
        .output()
        .expect("the shell");
    let complaints = String::from_utf8_lossy(&out.stderr);
    assert!(complaints.is_empty(), "{shell}: {line}: {complaints}");
    let mut lines: Vec<_> = String::from_utf8_lossy(&out.stdout)
        .lines()
        .map(str::to_owned)
        .collect();
    lines.sort();
    lines.iter().map(|line| format!("{line}\n")).collect()
}
