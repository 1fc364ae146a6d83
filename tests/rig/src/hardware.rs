//! Whether this host can run the KVM platform without the rig.

use std::os::fd::AsRawFd;

/// `KVM_GET_API_VERSION`, <https://docs.kernel.org/virt/kvm/api.html> 4.1.
const KVM_GET_API_VERSION: libc::c_ulong = 0xae00;

/// Why the KVM platform cannot run on this host; `None` when it can.
pub fn obstacle() -> Option<String> {
    let processors = match std::fs::read_to_string("/proc/cpuinfo") {
        Ok(text) => text,
        Err(error) => return Some(format!("/proc/cpuinfo cannot be read: {error}")),
    };
    if !offers_virtualization(&processors) {
        return Some(
            "the processor offers no hardware virtualization (neither vmx nor svm)".into(),
        );
    }
    let device = match std::fs::OpenOptions::new()
        .read(true)
        .write(true)
        .open("/dev/kvm")
    {
        Ok(device) => device,
        Err(error) => return Some(format!("/dev/kvm cannot be opened: {error}")),
    };
    // SAFETY: this request takes no argument and touches no memory of ours.
    let version = unsafe { libc::ioctl(device.as_raw_fd(), KVM_GET_API_VERSION, 0) };
    (version != 12).then(|| format!("/dev/kvm speaks version {version} of its interface, not 12"))
}

/// Whether the text of /proc/cpuinfo names the flag of either vendor.
fn offers_virtualization(cpuinfo: &str) -> bool {
    cpuinfo
        .lines()
        .filter(|line| line.starts_with("flags"))
        .any(|line| {
            line.split_whitespace()
                .any(|word| word == "vmx" || word == "svm")
        })
}

/// Memory that this host could give to programs, in mebibytes; 0 where it does not say.
pub fn free_memory_mib() -> u64 {
    let about = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let available = about
        .lines()
        .find_map(|line| line.strip_prefix("MemAvailable:"));
    available
        .and_then(|rest| rest.trim().strip_suffix("kB")?.trim().parse::<u64>().ok())
        .unwrap_or(0)
        / 1024
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_flag_of_the_processor_counts() {
        assert!(offers_virtualization(
            "processor: 0\nflags\t\t: fpu vme svm sse\n"
        ));
        assert!(offers_virtualization("flags : vmx"));
        assert!(!offers_virtualization(
            "flags : fpu svm_lock vme\nbugs : svm vmx\n"
        ));
        assert!(!offers_virtualization(""));
    }
}
