//! The kernel's command line.

use crate::boot;
use crate::machine::{PlatformError, VmConfig};

/// COMMAND_LINE_SIZE of ARCH=um (include/uapi/asm-generic/setup.h says 512, arch/um raises it to this).
const LONGEST: usize = 4096;

/// Name of a device's socket in the kernel's root.
pub(super) fn socket_name(index: usize) -> String {
    index.to_string()
}

/// The words that every compartment's kernel gets.
const ALWAYS: [&str; 12] = [
    // Skips a delay loop calibration of a tenth of a second; the value only matters to drivers that spin.
    "lpj=5000000",
    "rdinit=/init",
    // One console: descriptor 1. It is the end of a pipe, from which nothing can be read. The channel "null" would
    // open /dev/null, which its root does not have.
    "con0=fd:1",
    "console=tty0",
    // Warnings and worse; a panic raises the level by itself.
    "quiet",
    "loglevel=4",
    // A kernel that has gone wrong must end, with its reason on the console, not limp on.
    "oops=panic",
    "panic=-1",
    // A restart would execute the kernel again: end instead.
    "noreboot",
    "umid=vm",
    "uml_dir=./",
    // Randomness is seeded from the host's.
    "random.trust_bootloader=on",
];

/// All words, beginning with the program's name.
pub(super) fn build(config: &VmConfig) -> Result<Vec<String>, PlatformError> {
    let mut words = vec!["linux".to_owned()];
    words.push(format!("mem={}K", config.memory_bytes.div_ceil(4096) * 4));
    words.push(format!("initrd={}", boot::INITRAMFS));
    words.extend(ALWAYS.map(str::to_owned));
    words.extend(
        config
            .boot
            .arguments()
            .iter()
            .map(|word| (*word).to_owned()),
    );
    for (index, device) in config.devices.iter().enumerate() {
        let kind = device.device.id().number();
        words.push(format!(
            "virtio_uml.device={}:{kind}:{index}",
            socket_name(index)
        ));
    }
    for word in &config.arguments {
        // A blank would split it, and the kernel process takes these for options of its own.
        let plain =
            !word.is_empty() && !word.starts_with("--") && !word.contains(char::is_whitespace);
        let ours = [
            "mem=",
            "initrd=",
            "iomem=",
            "uml_dir=",
            "umid=",
            "con",
            "ssl",
            "ubd",
            "virtio_uml",
        ];
        if !plain || ours.iter().any(|name| word.starts_with(name)) {
            return Err(PlatformError::Argument(word.clone()));
        }
        words.push(word.clone());
    }
    let length = words.iter().map(|word| word.len() + 1).sum();
    if length >= LONGEST {
        return Err(PlatformError::CommandLine(length));
    }
    Ok(words)
}

/// The kernel process's environment.
pub(super) fn environment() -> Vec<String> {
    vec![
        // The file behind guest memory lies in the working directory, its private tmpfs.
        "TMPDIR=.".to_owned(),
        "HOME=/".to_owned(),
        // A guest process inherits the registration of restartable sequences without the memory behind it, and would
        // die at its first page fault. The jail's filter refuses the call as well.
        "GLIBC_TUNABLES=glibc.pthread.rseq=0".to_owned(),
    ]
}
