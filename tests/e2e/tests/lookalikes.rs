//! A host whose /dev/kvm is missing, closed to this user, or not hardware: each is told by its own name. The host is
//! disguised in a mount namespace of the command's own, so that other tests keep theirs.

use std::process::Command;

use bulkhead_e2e::{Bulkhead, Finished, Running, User, cannot_run};

/// Runs `bulkhead ARGS` after `disguise`, a shell script, in its own mount namespace. `$1` is a directory for it.
fn disguised(b: &Bulkhead, disguise: &str, args: &[&str]) -> Finished {
    let real = b.process(args);
    let script = format!("set -e; {disguise}; shift; exec \"$@\"");
    let mut command = Command::new("unshare");
    command
        .args(["--mount", "sh", "-c", &script, "sh"])
        .arg(b.home())
        .arg(real.get_program())
        .args(real.get_args())
        .current_dir(b.home());
    for (name, value) in real.get_envs() {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    Running::start(&mut command, None).finish()
}

/// Both the report and a run that insists on KVM give this reason.
fn is_told(user: User, disguise: &str, reason: &str) {
    if !nix::unistd::geteuid().is_root() {
        cannot_run!("the tests were not started as root, who alone can disguise the host");
        return;
    }
    let Some(b) = Bulkhead::with_busybox(user) else {
        return;
    };
    let doctor = disguised(&b, disguise, &["doctor"]);
    assert!(doctor.text().contains(reason), "{doctor:?}");
    let run = ["run", "--rm", "--isolation", "kvm", "busybox", "true"];
    disguised(&b, disguise, &run).expect_code(125).says(reason);
    b.expect_nothing_left();
}

/// Puts a device with these numbers and this mode in the place of /dev/kvm, where there is one.
fn device(numbers: &str, mode: &str) -> String {
    format!(
        "rm -f $1/kvm; mknod $1/kvm c {numbers}; chmod {mode} $1/kvm; \
         if [ -e /dev/kvm ]; then mount -o bind $1/kvm /dev/kvm; fi"
    )
}

/// A node without a driver behind it is as good as none; major 240 is nobody's.
#[test]
fn a_missing_device_is_told() {
    is_told(User::Root, &device("240 77", "666"), "there is no /dev/kvm");
}

#[test]
fn a_device_that_this_user_may_not_open_is_told() {
    if !std::path::Path::new("/dev/kvm").exists() {
        cannot_run!("there is no /dev/kvm whose permissions could be taken away");
        return;
    }
    is_told(
        User::Ordinary,
        &device("10 232", "600"),
        "no permission to open /dev/kvm",
    );
}

#[test]
fn a_device_without_hardware_behind_it_is_told() {
    is_told(
        User::Root,
        "sed -e 's/\\bsvm\\b//' -e 's/\\bvmx\\b//' /proc/cpuinfo > $1/cpuinfo; mount -o bind $1/cpuinfo /proc/cpuinfo",
        "neither vmx nor svm",
    );
}
