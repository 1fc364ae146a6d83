//! `doctor`: what this host offers, what is missing, why, and what to do about it.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use bulkhead_jail::{JailReport, Wall};
use bulkhead_platform::{KernelKind, PlatformReport};
use bulkhead_types::{ByteSize, Isolation, chain, without_codes};
use nix::sys::statvfs::statvfs;
use nix::unistd::{AccessFlags, access};
use serde::Serialize;

use crate::Engine;
use crate::disk::find_tool;
use crate::guest::choose;

/// How a check went.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum CheckStatus {
    /// As it should be.
    Ok,
    /// Containers run, but something is weaker, slower or missing.
    Warn,
    /// Containers cannot run.
    Fail,
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Check {
    /// What, in a word or two.
    pub name: String,
    /// How it went.
    pub status: CheckStatus,
    /// What was found; where something is wrong, the cause.
    pub detail: String,
    /// What to do; empty where nothing is.
    pub remedy: String,
}

impl Check {
    fn new(
        name: impl Into<String>,
        status: CheckStatus,
        detail: impl Into<String>,
        remedy: &str,
    ) -> Self {
        Self {
            name: name.into(),
            status,
            detail: without_codes(&detail.into()).into_owned(),
            remedy: remedy.to_owned(),
        }
    }

    fn ok(name: impl Into<String>, detail: impl Into<String>) -> Self {
        Self::new(name, CheckStatus::Ok, detail, "")
    }
}

/// Below this a container's first writes may fail.
const LITTLE_SPACE: u64 = 2 << 30;
/// Below this not even an image's metadata fits.
const NO_SPACE: u64 = 64 << 20;

impl Engine {
    /// Looks at everything that running containers rests on. Starts a process to try the jail; wants
    /// a process with one thread.
    pub fn doctor(&self) -> Vec<Check> {
        let reports = bulkhead_platform::probe(&self.kernel_search());
        let kvm = reports
            .iter()
            .any(|report| report.isolation == Isolation::Kvm && report.works());
        let mut checks = platforms(&reports);
        checks.push(self.kernel_check());
        checks.push(self.agent_check());
        checks.extend(jail(&bulkhead_jail::probe()));
        checks.push(user_namespaces(Path::new("/proc/sys")));
        checks.push(ptrace_scope(
            fs::read_to_string("/proc/sys/kernel/yama/ptrace_scope")
                .ok()
                .as_deref(),
            if kvm {
                CheckStatus::Warn
            } else {
                CheckStatus::Fail
            },
        ));
        checks.push(control_groups());
        checks.push(tool(
            "mke2fs",
            "e2fsprogs",
            CheckStatus::Fail,
            "writable disks cannot be made",
        ));
        checks.push(tool(
            "mmdebstrap",
            "mmdebstrap",
            CheckStatus::Warn,
            "'bulkhead bootstrap' does not work",
        ));
        checks.push(state_directory(self.root(), self.environment.uid));
        checks.push(space(self.root()));
        checks
    }

    fn kernel_check(&self) -> Check {
        const NAME: &str = "guest kernel";
        match choose(self.settings.isolation, &self.kernel_search()) {
            Err(error) => Check::new(
                NAME,
                CheckStatus::Fail,
                chain(&error),
                &error.hint().unwrap_or_default(),
            ),
            Ok((isolation, kernel)) => {
                let path = kernel.path.display();
                match kernel.kind {
                    KernelKind::Tuned => Check::ok(
                        NAME,
                        format!("{path} for {isolation}, built for compartments"),
                    ),
                    KernelKind::Distribution => Check::new(
                        NAME,
                        CheckStatus::Warn,
                        format!(
                            "{path} for {isolation}, a distribution's kernel with modules: it starts several times slower than ours"
                        ),
                        "make kernel",
                    ),
                }
            }
        }
    }

    fn agent_check(&self) -> Check {
        let found = self.agent_component();
        match found.path {
            Some(path) => Check::ok("agent", path),
            None => Check::new(
                "agent",
                CheckStatus::Fail,
                found.detail,
                "make install, or set BULKHEAD_AGENT",
            ),
        }
    }
}

fn platforms(reports: &[PlatformReport]) -> Vec<Check> {
    let otherwise = if reports.iter().any(PlatformReport::works) {
        CheckStatus::Warn
    } else {
        CheckStatus::Fail
    };
    reports
        .iter()
        .map(|report| {
            let name = format!("isolation {}", report.isolation);
            if report.works() {
                let notes = report.notes.join("; ");
                return Check::ok(
                    name,
                    if notes.is_empty() {
                        "works".to_owned()
                    } else {
                        format!("works; {notes}")
                    },
                );
            }
            let mut remedy = report.remedies.join("; ");
            if report.isolation == Isolation::Kvm && otherwise == CheckStatus::Warn {
                remedy = format!("not needed, user-mode is used; for KVM: {remedy}");
            }
            Check::new(name, otherwise, report.obstacles.join("; "), &remedy)
        })
        .collect()
}

fn jail(report: &JailReport) -> Vec<Check> {
    if report.is_whole() {
        return vec![Check::ok("jail", "every wall stands")];
    }
    report
        .missing
        .iter()
        .map(|missing| {
            let remedy = match missing.wall {
                Wall::UserNamespace | Wall::EmptyRoot | Wall::PidNamespace | Wall::NetNamespace
                | Wall::IpcNamespace | Wall::UtsNamespace | Wall::CgroupNamespace => {
                    "allow unprivileged user namespaces (see the check of that name), or run as root"
                }
                Wall::Landlock => "boot a kernel with CONFIG_SECURITY_LANDLOCK and lsm=landlock,…",
                Wall::Seccomp => "boot a kernel with CONFIG_SECCOMP_FILTER",
                Wall::DedicatedUid => "run as root with uids to map, or accept that the sandbox has your own uid",
            };
            Check::new(format!("jail: {}", missing.wall), CheckStatus::Warn, missing.reason.clone(), remedy)
        })
        .collect()
}

/// The three switches that distributions have for user namespaces.
fn user_namespaces(sysctl: &Path) -> Check {
    let value = |path: &str| {
        fs::read_to_string(sysctl.join(path))
            .ok()
            .map(|text| text.trim().to_owned())
    };
    let off = [
        (
            "user/max_user_namespaces",
            "0",
            "sysctl user.max_user_namespaces=15000",
        ),
        (
            "kernel/unprivileged_userns_clone",
            "0",
            "sysctl kernel.unprivileged_userns_clone=1",
        ),
        (
            "kernel/apparmor_restrict_unprivileged_userns",
            "1",
            "sysctl kernel.apparmor_restrict_unprivileged_userns=0, or an AppArmor profile for bulkhead",
        ),
    ];
    for (path, bad, remedy) in off {
        if value(path).as_deref() == Some(bad) {
            let name = path.replace('/', ".");
            return Check::new(
                "user namespaces",
                CheckStatus::Warn,
                format!("{name} is {bad}"),
                remedy,
            );
        }
    }
    Check::ok("user namespaces", "not restricted by a sysctl")
}

/// `forbidden` is how bad it is where nothing may be traced.
fn ptrace_scope(value: Option<&str>, forbidden: CheckStatus) -> Check {
    const NAME: &str = "ptrace";
    match value.map(str::trim) {
        None => Check::ok(NAME, "not restricted (no Yama)"),
        Some("3") => Check::new(
            NAME,
            forbidden,
            "kernel.yama.ptrace_scope is 3: user-mode kernels cannot trace their processes",
            "set kernel.yama.ptrace_scope to 2 or less in /etc/sysctl.d and reboot",
        ),
        Some(value) => Check::ok(NAME, format!("kernel.yama.ptrace_scope is {value}")),
    }
}

/// Limits are enforced by the guest's own kernel, so nothing of this is required.
fn control_groups() -> Check {
    let unified = Path::new("/sys/fs/cgroup/cgroup.controllers").exists();
    let hybrid = Path::new("/sys/fs/cgroup/unified").exists();
    let layout = match (unified, hybrid) {
        (true, _) => "v2",
        (false, true) => "v1 with an unused v2 tree",
        (false, false) => "v1 or none",
    };
    Check::ok(
        "control groups",
        format!("{layout}; not needed, limits are kept in the guest"),
    )
}

fn tool(name: &str, package: &str, when_missing: CheckStatus, consequence: &str) -> Check {
    match find_tool(name) {
        Some(path) => Check::ok(package, path.display().to_string()),
        None => Check::new(
            package,
            when_missing,
            format!("{name} is not installed: {consequence}"),
            &format!("apt-get install {package}"),
        ),
    }
}

fn state_directory(root: &Path, uid: u32) -> Check {
    const NAME: &str = "state directory";
    let shown = root.display();
    let meta = match fs::metadata(root) {
        Ok(meta) => meta,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let above = existing(root);
            return match access(above, AccessFlags::W_OK | AccessFlags::X_OK) {
                Ok(()) => Check::ok(NAME, format!("{shown} is made when it is needed")),
                Err(error) => Check::new(
                    NAME,
                    CheckStatus::Fail,
                    format!("{shown} cannot be made in {}: {error}", above.display()),
                    "choose another with --root",
                ),
            };
        }
        Err(error) => {
            return Check::new(
                NAME,
                CheckStatus::Fail,
                format!("{shown}: {error}"),
                "choose another with --root",
            );
        }
    };
    if let Err(error) = tempfile_in(root) {
        return Check::new(
            NAME,
            CheckStatus::Fail,
            format!("{shown} cannot be written: {error}"),
            "change its owner, or choose another with --root",
        );
    }
    let mode = meta.permissions().mode() & 0o777;
    if meta.uid() != uid {
        return Check::new(
            NAME,
            CheckStatus::Warn,
            format!("{shown} belongs to uid {}, not to you ({uid})", meta.uid()),
            "use a directory of your own",
        );
    }
    if mode & 0o022 != 0 {
        return Check::new(
            NAME,
            CheckStatus::Warn,
            format!("{shown} can be written by others (mode {mode:o})"),
            "chmod go-w it: whoever writes there decides what runs in containers",
        );
    }
    Check::ok(NAME, format!("{shown}, mode {mode:o}"))
}

/// Writing is tried, because modes do not tell about read-only mounts and quotas.
fn tempfile_in(root: &Path) -> std::io::Result<()> {
    let path = root.join(format!(".doctor-{}", std::process::id()));
    fs::File::create_new(&path)?;
    fs::remove_file(&path)
}

/// The directory itself, or the nearest one above it that exists.
fn existing(path: &Path) -> &Path {
    path.ancestors()
        .find(|above| above.exists())
        .unwrap_or(path)
}

fn space(root: &Path) -> Check {
    const NAME: &str = "disk space";
    let free = match statvfs(existing(root)) {
        Ok(status) => status.blocks_available() * status.fragment_size(),
        Err(error) => return Check::new(NAME, CheckStatus::Warn, format!("unknown: {error}"), ""),
    };
    let detail = format!("{} free", ByteSize(free));
    const REMEDY: &str =
        "'bulkhead container prune' and 'bulkhead image prune' remove what is unused";
    match free {
        n if n < NO_SPACE => Check::new(NAME, CheckStatus::Fail, detail, REMEDY),
        n if n < LITTLE_SPACE => Check::new(NAME, CheckStatus::Warn, detail, REMEDY),
        _ => Check::ok(NAME, detail),
    }
}

#[cfg(test)]
mod tests;
