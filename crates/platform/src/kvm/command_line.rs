//! The kernel's command line.

use linux_loader::cmdline::Cmdline;

use super::error::KvmError;
use super::layout::COMMAND_LINE_BYTES;
use crate::machine::PlatformError;

/// The words that every compartment's kernel gets (Documentation/admin-guide/kernel-parameters.txt).
const ALWAYS: [&str; 15] = [
    "rdinit=/init",
    // The serial line; there is one. Warnings and worse; a panic raises the level by itself.
    "console=ttyS0",
    "8250.nr_uarts=1",
    "quiet",
    "loglevel=4",
    // A kernel that has gone wrong must end, with its reason on the console, not limp on.
    "oops=panic",
    "panic=-1",
    // By the reset register: with hardware-reduced ACPI a kernel that knows EFI would ask that first, and then a BIOS
    // (`efi_reboot_required` in arch/x86/platform/efi/quirks.c). There is neither.
    "reboot=acpi",
    // There is no PCI bus: nothing answers, and asking costs exits.
    "pci=off",
    // KVM keeps the counters of all virtual CPUs in step, so the kernel need not measure whether they are.
    "tsc=reliable",
    // With one processor the kernel would write over each of its eight thousand lock prefixes, one at a time with a change
    // of page tables for each: a tenth of its start, for a few cycles less in what it does later.
    "noreplace-smp",
    // Randomness is seeded from the host's, and the processor's may be trusted as the host trusts it.
    "random.trust_bootloader=on",
    "random.trust_cpu=on",
    // No interrupt controller or timer of old PCs is there to be checked.
    "no_timer_check",
    // What a compartment's processes do is not recorded by its kernel.
    "audit=0",
];

/// Words that would take a device away or put one where there is none.
const OURS: [&str; 10] = [
    "mem=",
    "memmap=",
    "initrd=",
    "rdinit=",
    "init=",
    "console=",
    "8250.",
    "acpi",
    "reboot=",
    "virtio_mmio.",
];

/// The command line, with the words of this `kernel` and `further` ones.
pub(super) fn build(kernel: &[&str], further: &[String]) -> Result<Cmdline, PlatformError> {
    let mut line = Cmdline::new(COMMAND_LINE_BYTES).map_err(KvmError::CommandLine)?;
    for word in ALWAYS.iter().chain(kernel) {
        line.insert_str(word).map_err(KvmError::CommandLine)?;
    }
    for word in further {
        // A blank would split it.
        let plain = !word.is_empty() && !word.contains(char::is_whitespace);
        if !plain || word == "--" || OURS.iter().any(|name| word.starts_with(name)) {
            return Err(PlatformError::Argument(word.clone()));
        }
        line.insert_str(word).map_err(KvmError::CommandLine)?;
    }
    Ok(line)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(line: &Cmdline) -> String {
        line.as_cstring()
            .expect("no zero in it")
            .into_string()
            .expect("ASCII")
    }

    #[test]
    fn further_words_come_last_behind_those_of_the_kernel() {
        let line = build(&["apparmor=0"], &["test=1".to_owned()]).expect("a line");
        let line = text(&line);
        assert!(line.starts_with("rdinit=/init console=ttyS0 "), "{line}");
        assert!(line.ends_with(" apparmor=0 test=1"), "{line}");
    }

    #[test]
    fn words_that_are_several_or_ours_are_refused() {
        for word in [
            "",
            "a b",
            "a\nb",
            "--",
            "mem=1G",
            "console=tty0",
            "acpi=off",
        ] {
            let error = build(&[], &[word.to_owned()]).expect_err(word);
            assert!(matches!(error, PlatformError::Argument(_)), "{error:?}");
        }
        let error = build(&[], &["x".repeat(COMMAND_LINE_BYTES)]);
        assert!(matches!(
            error,
            Err(PlatformError::Kvm(KvmError::CommandLine(_)))
        ));
    }
}
