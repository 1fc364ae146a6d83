//! Which platform runs a compartment: the one that was named, else the best that works here.

use bulkhead_platform::{KernelImage, KernelSearch, KvmObstacle, find_kernel, kvm_obstacles};
use bulkhead_types::Isolation;

use super::GuestError;

/// The platform and its kernel. A platform that was named is taken or nothing is.
pub(crate) fn choose(
    named: Option<Isolation>,
    search: &KernelSearch,
) -> Result<(Isolation, KernelImage), GuestError> {
    let kvm = match named {
        Some(Isolation::UserMode) => Vec::new(),
        _ => kvm_obstacles(),
    };
    choose_with(named, search, &kvm)
}

fn choose_with(
    named: Option<Isolation>,
    search: &KernelSearch,
    kvm: &[KvmObstacle],
) -> Result<(Isolation, KernelImage), GuestError> {
    let kernel = |isolation| {
        find_kernel(isolation, search)
            .map(|kernel| (isolation, kernel))
            .map_err(GuestError::from)
    };
    if named == Some(Isolation::UserMode) {
        return kernel(Isolation::UserMode);
    }
    let with_kvm = if kvm.is_empty() {
        kernel(Isolation::Kvm)
    } else {
        Err(GuestError::Kvm(kvm.to_vec()))
    };
    match with_kvm {
        Err(error) if named.is_none() => kernel(Isolation::UserMode).map_err(|other| match error {
            // Where KVM lacks no more than a kernel, that is the thing to install.
            GuestError::Kernel(_) => error,
            _ => other,
        }),
        result => result,
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use bulkhead_platform::KernelError;

    use super::*;

    /// A search that finds nothing but what the test puts there.
    fn search(dir: &Path) -> KernelSearch {
        KernelSearch {
            libraries: vec![dir.to_owned()],
            ..KernelSearch::default()
        }
    }

    /// The smallest file that is taken for a static user-mode kernel.
    fn place_user_mode_kernel(dir: &Path) {
        let mut file = vec![0_u8; 64];
        file[..6].copy_from_slice(b"\x7fELF\x02\x01");
        file[16] = 2;
        file[18] = 62;
        std::fs::write(dir.join("linux-um"), file).unwrap();
    }

    /// The platform whose kernel was not found.
    fn missing(error: &GuestError) -> Option<Isolation> {
        match error {
            GuestError::Kernel(KernelError::NotFound { isolation, .. }) => Some(*isolation),
            _ => None,
        }
    }

    const LOOK_ALIKE: [KvmObstacle; 1] = [KvmObstacle::NotHardware];

    #[test]
    fn a_device_that_only_looks_like_kvm_is_passed_over() {
        let dir = tempfile::tempdir().unwrap();
        place_user_mode_kernel(dir.path());
        let (isolation, kernel) = choose_with(None, &search(dir.path()), &LOOK_ALIKE).unwrap();
        assert_eq!(isolation, Isolation::UserMode);
        assert_eq!(kernel.path, dir.path().join("linux-um"));
    }

    #[test]
    fn a_platform_that_was_named_is_taken_or_nothing_is() {
        let dir = tempfile::tempdir().unwrap();
        place_user_mode_kernel(dir.path());
        let search = search(dir.path());
        let error = choose_with(Some(Isolation::Kvm), &search, &LOOK_ALIKE).unwrap_err();
        assert!(
            error.to_string().contains("neither vmx nor svm"),
            "{error:?}"
        );
        let error = choose_with(Some(Isolation::Kvm), &search, &[]).unwrap_err();
        assert_eq!(missing(&error), Some(Isolation::Kvm));
        let chosen = choose_with(Some(Isolation::UserMode), &search, &[]).unwrap();
        assert_eq!(chosen.0, Isolation::UserMode);
    }

    #[test]
    fn kvm_without_a_kernel_leaves_the_choice_to_user_mode_and_then_says_what_kvm_lacks() {
        let dir = tempfile::tempdir().unwrap();
        let search = search(dir.path());
        let lacks = |kvm: &[KvmObstacle]| missing(&choose_with(None, &search, kvm).unwrap_err());
        assert_eq!(lacks(&[]), Some(Isolation::Kvm));
        assert_eq!(lacks(&LOOK_ALIKE), Some(Isolation::UserMode));
        place_user_mode_kernel(dir.path());
        assert_eq!(
            choose_with(None, &search, &[]).unwrap().0,
            Isolation::UserMode
        );
    }
}
