//! `--privileged`, `--security-opt` and `--device`: what a container may do with its own kernel. None of it reaches the
//! host, of which a container has no device, no path and no privilege to begin with.

use bulkhead_sandbox::GuestDevice;
use serde::{Deserialize, Serialize};

use super::mounts::clean_path;
use super::{CreateOptions, OptionError};

/// Docker's default `MaskedPaths` (moby `oci/defaults.go`).
const MASKED_PATHS: [&str; 12] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
];
/// Docker's default `ReadonlyPaths`.
const READONLY_PATHS: [&str; 5] = [
    "/proc/bus",
    "/proc/fs",
    "/proc/irq",
    "/proc/sys",
    "/proc/sysrq-trigger",
];

/// Devices that a guest's kernel may have and that can be given to a container, below `/dev`. With them go
/// `loop0` to `loop999`.
const DEVICES: [&str; 9] = [
    "fuse",
    "net/tun",
    "loop-control",
    "null",
    "zero",
    "full",
    "random",
    "urandom",
    "tty",
];

/// One `--device`, in Docker's three parts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceMapping {
    /// Path in the guest's `/dev`, where Docker has one of the host.
    pub path_on_host: String,
    /// Path in the container.
    pub path_in_container: String,
    /// `rwm` or a part of it that holds `rw`.
    pub permissions: String,
}

/// What the flags come to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Security {
    pub masked_paths: Vec<String>,
    pub readonly_paths: Vec<String>,
    pub no_new_privileges: bool,
    /// The options as Docker records them: without `systempaths`, which shows in the two lists.
    pub options: Vec<String>,
    pub devices: Vec<DeviceMapping>,
}

/// Parses the flags.
pub(super) fn resolve(options: &CreateOptions) -> Result<Security, OptionError> {
    let mut security = Security {
        masked_paths: MASKED_PATHS.map(str::to_owned).into(),
        readonly_paths: READONLY_PATHS.map(str::to_owned).into(),
        no_new_privileges: false,
        options: Vec::new(),
        devices: Vec::new(),
    };
    let mut unconfined = options.privileged;
    for option in &options.security_opt {
        if option == "systempaths=unconfined" {
            unconfined = true;
            continue;
        }
        security.no_new_privileges = no_new_privileges(option)
            .ok_or_else(|| OptionError::SecurityOption(option.chars().take(100).collect()))?;
        security.options.push(option.clone());
    }
    if unconfined {
        security.masked_paths.clear();
        security.readonly_paths.clear();
    }
    for flag in &options.devices {
        security.devices.push(device(flag)?);
    }
    Ok(security)
}

/// `no-new-privileges`, alone or with a boolean as Go's `ParseBool` reads it.
fn no_new_privileges(option: &str) -> Option<bool> {
    let value = option.strip_prefix("no-new-privileges")?;
    if value.is_empty() {
        return Some(true);
    }
    match value.strip_prefix(['=', ':'])? {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

/// Parses `PATH[:PATH IN CONTAINER][:PERMISSIONS]`.
fn device(flag: &str) -> Result<DeviceMapping, OptionError> {
    let short = || flag.chars().take(200).collect::<String>();
    let syntax = || OptionError::DeviceSyntax(short());
    let parts: Vec<&str> = flag.split(':').collect();
    let (path, target, permissions) = match parts.as_slice() {
        [path] => (*path, *path, "rwm"),
        [path, permissions] if is_mode(permissions) => (*path, *path, *permissions),
        [path, target] => (*path, *target, "rwm"),
        [path, target, permissions] if is_mode(permissions) => (*path, *target, *permissions),
        _ => return Err(syntax()),
    };
    if !path.starts_with('/') || !target.starts_with('/') || flag.contains('\0') {
        return Err(syntax());
    }
    let (path, target) = (clean_path(path), clean_path(target));
    if target == "/" {
        return Err(syntax());
    }
    let known = path.strip_prefix("/dev/").is_some_and(|node| {
        let number = node.strip_prefix("loop").unwrap_or_default();
        let is_loop = (1..=3).contains(&number.len()) && number.bytes().all(|b| b.is_ascii_digit());
        is_loop || DEVICES.contains(&node)
    });
    if !known {
        return Err(OptionError::HostDevice(path));
    }
    if !(permissions.contains('r') && permissions.contains('w')) {
        return Err(OptionError::DevicePermissions {
            path,
            permissions: permissions.to_owned(),
        });
    }
    Ok(DeviceMapping {
        path_on_host: path,
        path_in_container: target,
        permissions: permissions.to_owned(),
    })
}

/// Some of `r`, `w` and `m`, each at most once.
fn is_mode(text: &str) -> bool {
    let once = |letter| text.matches(letter).count() <= 1;
    !text.is_empty()
        && text.bytes().all(|byte| b"rwm".contains(&byte))
        && ['r', 'w', 'm'].into_iter().all(once)
}

impl From<&DeviceMapping> for GuestDevice {
    fn from(mapping: &DeviceMapping) -> Self {
        let path = &mapping.path_on_host;
        Self {
            node: path.strip_prefix("/dev/").unwrap_or(path).to_owned(),
            target: mapping.path_in_container.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(privileged: bool, options: &[&str]) -> Result<Security, OptionError> {
        resolve(&CreateOptions {
            privileged,
            security_opt: options.iter().map(|text| (*text).to_owned()).collect(),
            ..Default::default()
        })
    }

    #[test]
    fn paths_are_dockers_until_they_are_unconfined() {
        let usual = of(false, &[]).unwrap();
        assert!(usual.masked_paths.contains(&"/proc/kcore".to_owned()));
        assert!(usual.readonly_paths.contains(&"/proc/sys".to_owned()));
        assert!(!usual.no_new_privileges);
        for open in [of(true, &[]), of(false, &["systempaths=unconfined"])] {
            let open = open.unwrap();
            assert!(open.masked_paths.is_empty() && open.readonly_paths.is_empty());
            assert!(open.options.is_empty(), "{open:?}");
        }
    }

    #[test]
    fn security_options_are_known_or_refused_by_name() {
        for (option, expected) in [
            ("no-new-privileges", true),
            ("no-new-privileges=true", true),
            ("no-new-privileges:false", false),
        ] {
            let security = of(false, &[option]).unwrap();
            assert_eq!(security.no_new_privileges, expected, "{option}");
            assert_eq!(security.options, [option]);
        }
        for bad in [
            "seccomp=unconfined",
            "no-new-privileges=maybe",
            "no-new-privilegesX",
            "systempaths=confined",
            "",
        ] {
            let error = of(false, &[bad]).unwrap_err().to_string();
            assert!(error.contains(&format!("\"{bad}\"")), "{error}");
        }
    }

    #[test]
    fn a_device_is_the_guests_or_refused_by_name() {
        let parts =
            |flag| device(flag).map(|d| (d.path_on_host, d.path_in_container, d.permissions));
        let own = |a: &str, b: &str, c: &str| Ok((a.to_owned(), b.to_owned(), c.to_owned()));
        let fuse = "/dev/fuse";
        assert_eq!(parts(fuse), own(fuse, fuse, "rwm"));
        assert_eq!(parts("/dev/fuse:rw"), own(fuse, fuse, "rw"));
        assert_eq!(parts("/dev//fuse:/dev/x"), own(fuse, "/dev/x", "rwm"));
        let tun = "/dev/net/tun";
        assert_eq!(parts("/dev/net/tun:/t:mrw"), own(tun, "/t", "mrw"));
        assert!(parts("/dev/loop17").is_ok() && parts("/dev/loop-control").is_ok());
        for host in [
            "/dev/kvm",
            "/dev/sda",
            "/dev/vda",
            "/dev/loop",
            "/dev/loop1p1",
            "/dev/../etc/passwd",
        ] {
            let refused = device(host).unwrap_err();
            assert!(matches!(refused, OptionError::HostDevice(_)), "{refused}");
        }
        for bad in [
            "",
            "fuse",
            "/dev/fuse:",
            "/dev/fuse:x:rw",
            "/dev/fuse:/x:rr",
            "/dev/fuse:/x:rw:y",
            "/dev/fuse:/",
        ] {
            let refused = device(bad).unwrap_err();
            assert!(
                matches!(refused, OptionError::DeviceSyntax(_)),
                "{bad}: {refused}"
            );
        }
        let refused = device("/dev/fuse:r").unwrap_err();
        assert!(
            matches!(refused, OptionError::DevicePermissions { .. }),
            "{refused}"
        );
    }
}
