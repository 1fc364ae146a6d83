//! The extended state of this host's processor, which not every user-mode kernel can carry.
//!
//! A user-mode kernel keeps the extended state of its processes (vector registers and more) and writes it back with
//! `PTRACE_SETREGSET`. The host takes its whole state or nothing. Before Linux 6.13 such a kernel keeps 2,696 bytes,
//! whatever the processor has: on a processor with AMX it ends with "ptrace set fp regs failed" at its first process.

use std::cmp::Ordering;
use std::ffi::OsStr;

use super::{KernelError, KernelImage, KernelKind, version};

/// Bytes that a kernel before [`LARGE_STATE_SINCE`] keeps: AVX-512 and protection keys fit, AMX does not.
const SMALL_STATE: u32 = 2696;
/// The first release that asks the host for the size (arch/x86/um/os-Linux/registers.c).
const LARGE_STATE_SINCE: &str = "6.13";

/// Bytes of the extended state with every feature that this host's kernel has switched on: CPUID, leaf 0xD, EBX
/// (Intel SDM, volume 1, 13.2). 0 where the processor has no such leaf.
pub(super) fn state_bytes() -> u32 {
    #[cfg(target_arch = "x86_64")]
    {
        const LEAF: u32 = 0xd;
        if std::arch::x86_64::__cpuid(0).eax >= LEAF {
            return std::arch::x86_64::__cpuid_count(LEAF, 0).ebx;
        }
    }
    0
}

/// Whether a user-mode kernel can carry `state` bytes. Ours can; of a distribution's the release decides, which is the
/// name of its modules' directory.
pub(super) fn fits(kernel: &KernelImage, state: u32) -> Result<(), KernelError> {
    let release = kernel.modules.as_deref().and_then(|path| path.file_name());
    let release = release.and_then(OsStr::to_str).unwrap_or_default();
    let carries_all = kernel.kind == KernelKind::Tuned
        || version::compare(release, LARGE_STATE_SINCE) != Ordering::Less;
    if carries_all || state <= SMALL_STATE {
        return Ok(());
    }
    Err(KernelError::Processor {
        path: kernel.path.clone(),
        state,
    })
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use bulkhead_types::Isolation;

    use super::*;

    fn kernel(kind: KernelKind, release: &str) -> KernelImage {
        KernelImage {
            isolation: Isolation::UserMode,
            path: PathBuf::from("/usr/bin/linux.uml"),
            kind,
            modules: Some(PathBuf::from("/usr/lib/uml/modules").join(release)),
            libraries: Vec::new(),
            dax: false,
        }
    }

    /// Bytes on a processor with AMX.
    const WITH_AMX: u32 = 11_008;

    #[test]
    fn a_kernel_that_cannot_carry_the_processors_state_is_refused_with_the_remedy() {
        let old = kernel(KernelKind::Distribution, "6.1.100");
        fits(&old, SMALL_STATE).expect("AVX-512 fits");
        let error = fits(&old, WITH_AMX).expect_err("AMX does not");
        assert!(error.to_string().contains("11008 bytes"), "{error}");
        assert!(error.remedy().contains("make kernel"), "{error}");
        for release in ["6.13", "6.16.3-1", "7.2.13"] {
            fits(&kernel(KernelKind::Distribution, release), WITH_AMX).expect(release);
        }
        fits(&kernel(KernelKind::Tuned, ""), WITH_AMX).expect("ours can");
    }

    #[test]
    #[cfg(target_arch = "x86_64")]
    fn this_processors_state_is_at_least_the_legacy_area_and_its_header() {
        if std::arch::is_x86_feature_detected!("avx") {
            assert!(state_bytes() >= 512 + 64 + 256, "{}", state_bytes());
        }
    }
}
