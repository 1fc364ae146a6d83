//! Mount points inside a container: `--tmpfs`, and the image's volumes.

use bulkhead_sandbox::{FIXED_DEVICES, TmpfsMount};

use super::OptionError;

/// Anonymous volumes per container. Each is a virtio disk of its own with a thread in the sandbox;
/// no image in practice declares more.
pub const MAX_VOLUMES: usize = 16;

/// Parses the `--tmpfs` flags; a later one for the same path wins.
pub(super) fn tmpfs(flags: &[String]) -> Result<Vec<TmpfsMount>, OptionError> {
    let mut mounts: Vec<TmpfsMount> = Vec::new();
    for flag in flags {
        let (path, options) = flag.split_once(':').unwrap_or((flag, ""));
        let target = mount_point("tmpfs", path)?;
        let options = options.parse()?;
        mounts.retain(|known| known.target != target);
        mounts.push(TmpfsMount { target, options });
    }
    // Parents before what is mounted inside them.
    mounts.sort_by(|a, b| a.target.cmp(&b.target));
    Ok(mounts)
}

/// The disks for volumes that a machine has room for which can have `devices` devices.
pub(super) fn room(devices: usize) -> usize {
    MAX_VOLUMES.min(devices.saturating_sub(FIXED_DEVICES))
}

/// The targets of anonymous volumes, at most `most`: the image's, each once, without those that a tmpfs covers.
pub(super) fn volume_targets(
    image: &[String],
    tmpfs: &[TmpfsMount],
    most: usize,
) -> Result<Vec<String>, OptionError> {
    let mut targets = Vec::new();
    for path in image {
        let target = mount_point("volume", path)?;
        if !targets.contains(&target) && !tmpfs.iter().any(|mount| mount.target == target) {
            targets.push(target);
        }
    }
    if targets.len() > most {
        return Err(OptionError::TooManyVolumes(targets.len(), most));
    }
    targets.sort();
    Ok(targets)
}

fn mount_point(what: &'static str, path: &str) -> Result<String, OptionError> {
    let bad = |reason| OptionError::MountPoint {
        what,
        path: path.chars().take(200).collect(),
        reason,
    };
    if path.contains('\0') {
        return Err(bad("it contains a NUL byte"));
    }
    if !path.starts_with('/') {
        return Err(bad("it must be an absolute path"));
    }
    let clean = clean_path(path);
    if clean == "/" {
        return Err(bad("it cannot be '/'"));
    }
    Ok(clean)
}

/// An absolute path without empty, `.` and `..` components, as Go's `path.Clean` has it.
pub(super) fn clean_path(path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            other => parts.push(other),
        }
    }
    format!("/{}", parts.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tmpfs_options_override_the_defaults() {
        for (flag, target, options) in [
            ("/run", "/run", "noexec,nosuid,nodev"),
            ("/a/../b/:exec,size=1m", "/b", "nosuid,nodev,exec,size=1m"),
            (
                "/t:size=1m,size=2m,ro,rw",
                "/t",
                "noexec,nosuid,nodev,size=2m,rw",
            ),
        ] {
            let mounts = tmpfs(&[flag.to_owned()]).unwrap();
            assert_eq!(mounts[0].options.to_string(), options, "{flag}");
            assert_eq!(
                mounts,
                [TmpfsMount {
                    target: target.into(),
                    options: options.parse().unwrap()
                }],
                "{flag}"
            );
        }
        for bad in [
            "run",
            "/",
            "/a/..",
            "",
            "/x:colour=red",
            "/x:bind",
            "/x:size=",
        ] {
            assert!(tmpfs(&[bad.to_owned()]).is_err(), "{bad}");
        }
    }

    #[test]
    fn volumes_are_unique_sorted_and_yield_to_tmpfs() {
        let mounts = tmpfs(&["/cache".into()]).unwrap();
        let image: Vec<String> = ["/z", "/a/b", "/a", "/a/", "/cache"]
            .map(String::from)
            .into();
        assert_eq!(
            volume_targets(&image, &mounts, MAX_VOLUMES).unwrap(),
            ["/a", "/a/b", "/z"]
        );
        assert!(volume_targets(&["data".into()], &[], 1).is_err());
        assert!(volume_targets(&["/".into()], &[], 1).is_err());
        let many: Vec<String> = (0..17).map(|n| format!("/v{n}")).collect();
        assert!(matches!(
            volume_targets(&many, &[], room(usize::MAX)),
            Err(OptionError::TooManyVolumes(17, 16))
        ));
    }

    #[test]
    fn no_more_volumes_than_the_machine_has_devices_for() {
        use bulkhead_types::Isolation;
        let kvm = bulkhead_platform::platform(Isolation::Kvm).unwrap();
        let most = room(kvm.most_devices());
        assert_eq!(kvm.most_devices(), 19);
        let many = |count| -> Vec<String> { (0..count).map(|n| format!("/v{n:02}")).collect() };
        assert_eq!(volume_targets(&many(most), &[], most).unwrap().len(), 14);
        let refused = volume_targets(&many(most + 1), &[], most).unwrap_err();
        assert_eq!(
            refused.to_string(),
            "the image declares 15 volumes, at most 14 are supported"
        );
        let user_mode = bulkhead_platform::platform(Isolation::UserMode).unwrap();
        assert_eq!(room(user_mode.most_devices()), MAX_VOLUMES);
        assert_eq!(room(0), 0);
    }
}
