//! Where kernels are looked for, best first.

use std::env;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use bulkhead_types::Isolation;

use super::{KernelError, KernelImage, processor, version};

/// Where to look. [`KernelSearch::from_environment`] is what programs use; tests make their own.
#[derive(Debug, Clone, Default)]
pub struct KernelSearch {
    /// A file chosen by the user (option, configuration or `$BULKHEAD_KERNEL`): it is taken, or the search fails.
    pub chosen: Option<PathBuf>,
    /// Directories that hold tuned kernels as `linux-um` and `linux-kvm`.
    pub libraries: Vec<PathBuf>,
    /// Cache of `kernel/build.sh`: holds `<key>/linux` and `<key>/vmlinux`.
    pub cache: Option<PathBuf>,
    /// A distribution's user-mode kernel.
    pub distribution: Option<PathBuf>,
    /// Its modules, one directory for each version.
    pub distribution_modules: PathBuf,
    /// Where a distribution keeps the kernels of machines, as `vmlinuz-<release>`.
    pub machine_kernels: Option<PathBuf>,
    /// Their modules, one directory for each release.
    pub machine_modules: PathBuf,
}

/// Ends of the releases of Debian's kernels for virtual machines and for all machines, in the order of preference.
const FLAVOURS: [&str; 2] = ["-cloud-amd64", "-amd64"];

impl KernelSearch {
    /// The places of an installed program: beside the running executable (`../lib/bulkhead` and `bulkhead/`), the
    /// user's cache, Debian's package. `chosen` comes from an option or the configuration and wins over
    /// `$BULKHEAD_KERNEL`.
    pub fn from_environment(chosen: Option<PathBuf>) -> Self {
        let variable = |name: &str| {
            env::var_os(name)
                .filter(|value| !value.is_empty())
                .map(PathBuf::from)
        };
        let beside = env::current_exe()
            .ok()
            .and_then(|exe| exe.parent().map(Path::to_owned));
        let cache =
            variable("XDG_CACHE_HOME").or_else(|| variable("HOME").map(|home| home.join(".cache")));
        Self {
            chosen: chosen.or_else(|| variable("BULKHEAD_KERNEL")),
            libraries: beside
                .map(|dir| vec![dir.join("../lib/bulkhead"), dir.join("bulkhead")])
                .unwrap_or_default(),
            cache: cache.map(|dir| dir.join("bulkhead/kernels")),
            distribution: Some(PathBuf::from("/usr/bin/linux.uml")),
            distribution_modules: PathBuf::from("/usr/lib/uml/modules"),
            machine_kernels: Some(PathBuf::from("/boot")),
            machine_modules: PathBuf::from("/lib/modules"),
        }
    }

    fn candidates(&self, isolation: Isolation) -> Vec<PathBuf> {
        let (installed, built) = match isolation {
            Isolation::UserMode => ("linux-um", "linux"),
            Isolation::Kvm => ("linux-kvm", "vmlinux"),
        };
        let mut candidates: Vec<PathBuf> = self
            .libraries
            .iter()
            .map(|dir| dir.join(installed))
            .collect();
        candidates.extend(
            self.cache
                .as_deref()
                .and_then(|cache| newest_build(cache, built)),
        );
        match isolation {
            Isolation::UserMode => candidates.extend(self.distribution.clone()),
            Isolation::Kvm => candidates.extend(self.machine_kernel()),
        }
        candidates
    }

    /// The distribution's kernel for machines that suits best; the pattern of its name where there is none, for the
    /// error to show.
    fn machine_kernel(&self) -> Option<PathBuf> {
        let directory = self.machine_kernels.as_deref()?;
        let names = std::fs::read_dir(directory).into_iter().flatten();
        let releases: Vec<String> = names
            .filter_map(Result::ok)
            .filter_map(|entry| entry.file_name().into_string().ok())
            .filter_map(|name| name.strip_prefix("vmlinuz-").map(str::to_owned))
            .filter(|release| {
                let modules = self.machine_modules.join(release);
                modules.join("modules.dep").exists()
            })
            .collect();
        let newest = FLAVOURS.iter().find_map(|flavour| {
            let suitable = releases.iter().filter(|release| release.ends_with(flavour));
            suitable.max_by(|a, b| version::compare(a, b))
        });
        let release = newest.map_or("*-cloud-amd64", String::as_str);
        Some(directory.join(format!("vmlinuz-{release}")))
    }

    fn modules(&self, isolation: Isolation) -> &Path {
        match isolation {
            Isolation::UserMode => &self.distribution_modules,
            Isolation::Kvm => &self.machine_modules,
        }
    }
}

/// Finds the kernel for `isolation`. A tuned kernel is preferred to a distribution's.
pub fn find_kernel(
    isolation: Isolation,
    search: &KernelSearch,
) -> Result<KernelImage, KernelError> {
    let inspect = |path: &Path| {
        let kernel = KernelImage::inspect(isolation, path, search.modules(isolation))?;
        if isolation == Isolation::UserMode {
            processor::fits(&kernel, processor::state_bytes())?;
        }
        Ok(kernel)
    };
    if let Some(path) = &search.chosen {
        return inspect(path);
    }
    let candidates = search.candidates(isolation);
    match candidates.iter().find(|path| path.exists()) {
        Some(path) => inspect(path),
        None => Err(KernelError::NotFound {
            isolation,
            looked: candidates,
        }),
    }
}

/// The kernel that was built last.
fn newest_build(cache: &Path, name: &str) -> Option<PathBuf> {
    let builds = std::fs::read_dir(cache).ok()?;
    builds
        .filter_map(Result::ok)
        .map(|entry| entry.path().join(name))
        .filter_map(|path| {
            let built = path
                .metadata()
                .ok()?
                .modified()
                .unwrap_or(SystemTime::UNIX_EPOCH);
            Some((built, path))
        })
        .max()
        .map(|(_, path)| path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    use crate::kernel::bzimage::tests::bzimage;
    use crate::kernel::file::tests::{LINKED, elf};
    use crate::kernel::{FileError, KernelKind};

    fn place(path: &Path, content: &[u8]) {
        fs::create_dir_all(path.parent().expect("a parent")).expect("a directory");
        fs::write(path, content).expect("a file");
    }

    fn search_in(dir: &Path) -> KernelSearch {
        KernelSearch {
            chosen: None,
            libraries: vec![dir.join("lib")],
            cache: Some(dir.join("cache")),
            distribution: Some(dir.join("linux.uml")),
            distribution_modules: dir.join("uml"),
            machine_kernels: Some(dir.join("boot")),
            machine_modules: dir.join("modules"),
        }
    }

    #[test]
    fn a_chosen_kernel_is_taken_or_nothing_is() {
        let dir = tempfile::tempdir().expect("a directory");
        let process = elf(0x6000_0000);
        place(&dir.path().join("cache/k/linux"), &process);
        place(&dir.path().join("cache/k/vmlinux"), &elf(LINKED));
        let search = KernelSearch {
            chosen: Some(dir.path().join("absent")),
            ..search_in(dir.path())
        };
        for isolation in [Isolation::UserMode, Isolation::Kvm] {
            let error = find_kernel(isolation, &search).expect_err("the chosen file is absent");
            assert!(matches!(error, KernelError::Read { .. }), "{error:?}");
        }
        // Not in a place where anybody would search, beside kernels that a search would find.
        for (isolation, content) in [
            (Isolation::UserMode, &process),
            (Isolation::Kvm, &elf(LINKED)),
        ] {
            let chosen = dir.path().join(format!("elsewhere-{isolation:?}"));
            place(&chosen, content);
            let search = KernelSearch {
                chosen: Some(chosen.clone()),
                ..search_in(dir.path())
            };
            let found = find_kernel(isolation, &search).expect("the chosen file is a kernel");
            assert_eq!(found.path, chosen);
        }
    }

    #[test]
    fn an_installed_kernel_precedes_a_built_one_and_that_the_distributions() {
        let dir = tempfile::tempdir().expect("a directory");
        let search = search_in(dir.path());
        let found = || find_kernel(Isolation::UserMode, &search).map(|kernel| kernel.path);
        assert!(matches!(found(), Err(KernelError::NotFound { looked, .. }) if looked.len() == 2));
        for place_next in ["linux.uml", "cache/key/linux", "lib/linux-um"] {
            place(&dir.path().join(place_next), &elf(0x6000_0000));
            assert_eq!(found().expect("a kernel"), dir.path().join(place_next));
        }
    }

    #[test]
    fn a_machine_gets_an_installed_kernel_before_a_built_one_before_debians_newest_cloud_kernel() {
        let dir = tempfile::tempdir().expect("a directory");
        let search = search_in(dir.path());
        let found = || find_kernel(Isolation::Kvm, &search);
        let error = found().expect_err("nothing is there");
        assert!(
            error.to_string().contains("vmlinuz-*-cloud-amd64"),
            "{error}"
        );
        assert!(error.remedy().contains("linux-image-cloud-amd64"));

        let modules =
            "kernel/drivers/nvdimm/nd_pmem.ko:\nkernel/drivers/nvdimm/virtio_pmem.ko: x.ko\n";
        for (release, list) in [
            // Without modules it is of no use, however new.
            ("7.0.0-1-cloud-amd64", None),
            ("6.12.0-1-amd64", Some("")),
            ("6.1.0-9-cloud-amd64", Some("")),
            ("6.1.0-56-cloud-amd64", Some(modules)),
        ] {
            place(
                &dir.path().join(format!("boot/vmlinuz-{release}")),
                &bzimage(release),
            );
            if let Some(list) = list {
                place(
                    &dir.path().join(format!("modules/{release}/modules.dep")),
                    list.as_bytes(),
                );
            }
        }
        let kernel = found().expect("a kernel");
        assert_eq!(
            kernel.path,
            dir.path().join("boot/vmlinuz-6.1.0-56-cloud-amd64")
        );
        assert_eq!(kernel.kind, KernelKind::Distribution);
        assert_eq!(
            kernel.modules,
            Some(dir.path().join("modules/6.1.0-56-cloud-amd64"))
        );
        assert!(kernel.dax, "it has both modules");

        for release in ["6.1.0-56-cloud-amd64", "6.1.0-9-cloud-amd64"] {
            fs::remove_file(dir.path().join(format!("boot/vmlinuz-{release}")))
                .expect("it is there");
        }
        let kernel = found().expect("a kernel");
        assert_eq!(kernel.path, dir.path().join("boot/vmlinuz-6.12.0-1-amd64"));
        assert!(!kernel.dax, "it has neither module");

        for place_next in ["cache/key/vmlinux", "lib/linux-kvm"] {
            place(&dir.path().join(place_next), &elf(LINKED));
            let kernel = found().expect("a kernel");
            assert_eq!(kernel.path, dir.path().join(place_next));
            assert_eq!((kernel.kind, kernel.dax), (KernelKind::Tuned, true));
        }
    }

    #[test]
    fn each_unusable_file_has_words_of_its_own() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("kernel");
        let judge = |isolation, content: &[u8]| {
            fs::write(&path, content).expect("a file");
            let search = KernelSearch {
                chosen: Some(path.clone()),
                ..search_in(dir.path())
            };
            let error = find_kernel(isolation, &search).expect_err("an unusable kernel");
            assert!(error.to_string().contains("kernel"), "{error}");
            assert!(!error.remedy().is_empty());
            match error {
                KernelError::Format { source, .. } => source,
                other => panic!("{other:?}"),
            }
        };
        let script = b"#!/bin/sh".as_slice();
        for isolation in [Isolation::UserMode, Isolation::Kvm] {
            assert_eq!(judge(isolation, script), FileError::NoKernel);
            assert_eq!(judge(isolation, &[]), FileError::Empty);
        }
        assert_eq!(judge(Isolation::UserMode, &elf(LINKED)), FileError::Machine);
        assert_eq!(
            judge(Isolation::UserMode, &bzimage("6.1.0")),
            FileError::Machine
        );
        assert_eq!(judge(Isolation::Kvm, &elf(0x6000_0000)), FileError::Program);
        assert!(matches!(
            judge(Isolation::Kvm, &bzimage("6.1.0")[..6000]),
            FileError::Truncated {
                bytes: 6000,
                needed: 8192
            }
        ));
    }

    #[test]
    fn a_self_unpacking_kernel_without_its_modules_says_where_they_should_be() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("vmlinuz");
        place(&path, &bzimage("6.1.0-9-amd64"));
        let search = KernelSearch {
            chosen: Some(path),
            ..search_in(dir.path())
        };
        let error = find_kernel(Isolation::Kvm, &search).expect_err("no modules");
        assert!(
            error.to_string().ends_with("modules/6.1.0-9-amd64"),
            "{error}"
        );
    }

    #[test]
    fn debians_kernel_is_judged_as_what_it_is_where_it_is_installed() {
        let search = KernelSearch {
            libraries: Vec::new(),
            cache: None,
            chosen: None,
            ..KernelSearch::from_environment(None)
        };
        match find_kernel(Isolation::Kvm, &search) {
            Ok(kernel) => {
                assert_eq!(kernel.kind, KernelKind::Distribution, "{kernel:?}");
                assert!(kernel.dax, "{kernel:?}");
            }
            Err(KernelError::NotFound { .. }) => {
                bulkhead_harness::cannot_run!("linux-image-cloud-amd64 is not installed");
            }
            Err(error) => panic!("{error}"),
        }
    }
}
