//! Would the KVM platform work? The device alone proves nothing: there are /dev/kvm that interpret guest code.

use std::fs::File;
use std::io::{self, Read};

use bulkhead_types::{Isolation, chain};
use kvm_ioctls::{Cap, Kvm};

use super::PlatformReport;
use crate::kernel::{KernelKind, KernelSearch, find_kernel};

/// The only version that KVM_GET_API_VERSION ever had since Linux 2.6.22 (Documentation/virt/kvm/api.rst, 4.1).
const API_VERSION: i32 = 12;

/// What our machines use of KVM, all of it in Linux 4.11 and later.
const NEEDED: [(Cap, &str); 8] = [
    (Cap::UserMemory, "KVM_CAP_USER_MEMORY"),
    (Cap::Irqchip, "KVM_CAP_IRQCHIP"),
    (Cap::SetTssAddr, "KVM_CAP_SET_TSS_ADDR"),
    (Cap::ExtCpuid, "KVM_CAP_EXT_CPUID"),
    (Cap::Irqfd, "KVM_CAP_IRQFD"),
    (Cap::Ioeventfd, "KVM_CAP_IOEVENTFD"),
    (Cap::ReadonlyMem, "KVM_CAP_READONLY_MEM"),
    (Cap::ImmediateExit, "KVM_CAP_IMMEDIATE_EXIT"),
];

/// Why this host cannot run machines with KVM.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KvmObstacle {
    /// No device.
    #[error("there is no /dev/kvm")]
    Absent,
    /// A device that this user may not open.
    #[error("no permission to open /dev/kvm")]
    Permission,
    /// A device that does not open for another reason.
    #[error("/dev/kvm cannot be opened: {0}")]
    Device(String),
    /// Without one of the two flags a /dev/kvm is not hardware virtualization.
    #[error(
        "the processor offers no hardware virtualization here (neither vmx nor svm in /proc/cpuinfo), so ordinary \
         kernels do not run even where /dev/kvm exists"
    )]
    NotHardware,
    /// Whatever it is, it does not speak KVM as Linux has it.
    #[error("/dev/kvm speaks version {0} of the interface, and {API_VERSION} is needed")]
    ApiVersion(i32),
    /// A host's kernel that is too old.
    #[error("the host's KVM lacks {}", .0.join(", "))]
    Capabilities(Vec<&'static str>),
}

impl KvmObstacle {
    /// What a person can do about it.
    pub fn remedy(&self) -> &'static str {
        match self {
            Self::Absent => {
                "'modprobe kvm-intel' or 'modprobe kvm-amd'; where that fails, turn virtualization on in the firmware, \
                 or nested virtualization in the hypervisor that runs this machine"
            }
            Self::Permission => "'usermod -aG kvm USER' as root, then log in again",
            Self::Device(_) => "see 'dmesg' for what the host's kernel says of kvm",
            Self::NotHardware => {
                "turn virtualization on in the firmware, or nested virtualization in the hypervisor that runs this \
                 machine"
            }
            Self::ApiVersion(_) | Self::Capabilities(_) => {
                "run a host kernel of Linux 4.11 or newer with its own kvm module"
            }
        }
    }
}

/// What keeps this host from running machines with KVM; nothing where it can. Some system calls, and no kernel is
/// looked for: this decides the default platform of every start.
pub fn kvm_obstacles() -> Vec<KvmObstacle> {
    let mut obstacles: Vec<_> = processor(&first_processor()).into_iter().collect();
    match device() {
        Ok(kvm) => {
            let missing = NEEDED
                .iter()
                .filter(|(capability, _)| !kvm.check_extension(*capability))
                .map(|(_, name)| *name)
                .collect();
            obstacles.extend(interface(kvm.get_api_version(), missing));
        }
        Err(error) => obstacles.push(unopened(&error)),
    }
    obstacles
}

pub(super) fn probe(search: &KernelSearch) -> PlatformReport {
    let mut notes = Vec::new();
    let found = kvm_obstacles();
    let mut obstacles: Vec<_> = found.iter().map(ToString::to_string).collect();
    let mut remedies: Vec<_> = found.iter().map(|o| o.remedy().to_owned()).collect();
    // A kernel helps only where it can run.
    if obstacles.is_empty() {
        match find_kernel(Isolation::Kvm, search) {
            Ok(kernel) if kernel.kind == KernelKind::Distribution => notes.push(format!(
                "{} is a distribution's kernel and starts several times slower than ours: run 'make kernel'",
                kernel.path.display()
            )),
            Ok(kernel) => notes.push(format!("guest kernel: {}", kernel.path.display())),
            Err(error) => {
                obstacles.push(chain(&error));
                remedies.push(error.remedy());
            }
        }
    }
    PlatformReport {
        isolation: Isolation::Kvm,
        obstacles,
        remedies,
        notes,
    }
}

fn device() -> io::Result<Kvm> {
    Kvm::new().map_err(|error| io::Error::from_raw_os_error(error.errno()))
}

/// The first processor's part of /proc/cpuinfo: reading all of it takes a host with many processors milliseconds.
fn first_processor() -> String {
    let mut text = vec![0; 16 << 10];
    let read = File::open("/proc/cpuinfo").and_then(|mut file| file.read(&mut text));
    text.truncate(read.unwrap_or(0));
    String::from_utf8_lossy(&text).into_owned()
}

/// What opening the device says.
fn unopened(error: &io::Error) -> KvmObstacle {
    match (error.kind(), error.raw_os_error()) {
        (io::ErrorKind::NotFound, _) | (_, Some(libc::ENODEV | libc::ENXIO)) => KvmObstacle::Absent,
        (io::ErrorKind::PermissionDenied, _) => KvmObstacle::Permission,
        _ => KvmObstacle::Device(error.to_string()),
    }
}

fn processor(cpuinfo: &str) -> Option<KvmObstacle> {
    let flags = cpuinfo
        .lines()
        .find(|line| line.starts_with("flags"))
        .unwrap_or_default();
    let hardware = flags
        .split_whitespace()
        .any(|flag| flag == "vmx" || flag == "svm");
    (!hardware).then_some(KvmObstacle::NotHardware)
}

fn interface(version: i32, missing: Vec<&'static str>) -> Option<KvmObstacle> {
    if version != API_VERSION {
        return Some(KvmObstacle::ApiVersion(version));
    }
    (!missing.is_empty()).then_some(KvmObstacle::Capabilities(missing))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_state_of_the_device_has_its_own_words_and_its_own_remedy() {
        let of = |errno| unopened(&io::Error::from_raw_os_error(errno));
        assert_eq!(of(libc::ENOENT), KvmObstacle::Absent);
        assert_eq!(of(libc::ENODEV), KvmObstacle::Absent);
        assert_eq!(of(libc::EACCES), KvmObstacle::Permission);
        assert!(of(libc::EACCES).remedy().contains("usermod -aG kvm"));
        assert!(matches!(of(libc::EBUSY), KvmObstacle::Device(_)));
    }

    #[test]
    fn a_device_without_the_processors_flag_is_not_hardware_virtualization() {
        assert_eq!(
            processor("flags\t: fpu sse2\n"),
            Some(KvmObstacle::NotHardware)
        );
        assert_eq!(processor(""), Some(KvmObstacle::NotHardware));
        assert_eq!(processor("flags\t: fpu svm sse2\n"), None);
        assert_eq!(processor("flags\t: vmx\n"), None);
        // A flag of another name that begins alike.
        assert_eq!(
            processor("flags\t: svm_lock vmx_x\n"),
            Some(KvmObstacle::NotHardware)
        );
    }

    #[test]
    fn an_old_interface_is_named_with_what_it_lacks() {
        assert_eq!(interface(12, Vec::new()), None);
        assert_eq!(
            interface(11, vec!["KVM_CAP_IRQFD"]),
            Some(KvmObstacle::ApiVersion(11))
        );
        let old = interface(12, vec!["KVM_CAP_IRQFD", "KVM_CAP_IMMEDIATE_EXIT"]);
        let text = old.expect("two are missing").to_string();
        assert!(text.ends_with("lacks KVM_CAP_IRQFD, KVM_CAP_IMMEDIATE_EXIT"));
    }

    #[test]
    fn the_verdict_on_this_host_agrees_with_its_processor() {
        let cpuinfo = std::fs::read_to_string("/proc/cpuinfo").expect("a proc file system");
        let hardware = cpuinfo
            .split_whitespace()
            .any(|word| word == "vmx" || word == "svm");
        assert_eq!(
            kvm_obstacles().contains(&KvmObstacle::NotHardware),
            !hardware
        );
    }
}
