//! Would the KVM platform work? The device alone proves nothing: there are /dev/kvm that interpret guest code.

use std::fs::{self, OpenOptions};
use std::io;

use bulkhead_types::Isolation;

use super::PlatformReport;

pub(super) fn probe() -> PlatformReport {
    let mut obstacles = Vec::new();
    let mut notes = Vec::new();
    if let Some(obstacle) = device(
        OpenOptions::new()
            .read(true)
            .write(true)
            .open("/dev/kvm")
            .map(drop),
    ) {
        obstacles.push(obstacle);
    }
    match fs::read_to_string("/proc/cpuinfo") {
        Ok(cpuinfo) => obstacles.extend(processor(&cpuinfo)),
        Err(error) => notes.push(format!("the processor's flags could not be read: {error}")),
    }
    obstacles.push("this build has no KVM platform yet".to_owned());
    PlatformReport {
        isolation: Isolation::Kvm,
        obstacles,
        notes,
    }
}

/// What opening the device says.
fn device(opened: io::Result<()>) -> Option<String> {
    match opened {
        Ok(()) => None,
        Err(error) => Some(match error.kind() {
            io::ErrorKind::NotFound => "there is no /dev/kvm".to_owned(),
            io::ErrorKind::PermissionDenied => {
                "no permission to open /dev/kvm (membership in group kvm gives it)".to_owned()
            }
            _ => format!("/dev/kvm cannot be opened: {error}"),
        }),
    }
}

/// Without one of the two flags a /dev/kvm is not hardware virtualization.
fn processor(cpuinfo: &str) -> Option<String> {
    let flags = cpuinfo.lines().find(|line| line.starts_with("flags"))?;
    let hardware = flags
        .split_whitespace()
        .any(|flag| flag == "vmx" || flag == "svm");
    (!hardware).then(|| {
        "the processor offers no hardware virtualization here (neither vmx nor svm in /proc/cpuinfo), so ordinary \
         kernels do not run even where /dev/kvm exists"
            .to_owned()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_state_of_the_device_has_its_own_words() {
        let of = |kind: io::ErrorKind| device(Err(kind.into())).unwrap_or_default();
        assert_eq!(device(Ok(())), None);
        assert!(of(io::ErrorKind::NotFound).contains("there is no /dev/kvm"));
        assert!(of(io::ErrorKind::PermissionDenied).contains("no permission"));
    }

    #[test]
    fn a_device_without_the_processors_flag_is_not_hardware_virtualization() {
        assert!(
            processor("flags\t: fpu sse2\n")
                .is_some_and(|reason| reason.contains("neither vmx nor svm"))
        );
        assert_eq!(processor("flags\t: fpu svm sse2\n"), None);
        assert_eq!(processor("flags\t: vmx\n"), None);
    }
}
