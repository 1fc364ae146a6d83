//! Where kernels are looked for, best first.

use std::env;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use bulkhead_types::Isolation;

use super::{KernelError, KernelImage};

/// Where to look. [`KernelSearch::from_environment`] is what programs use; tests make their own.
#[derive(Debug, Clone, Default)]
pub struct KernelSearch {
    /// A file chosen by the user (option, configuration or `$BULKHEAD_KERNEL`): it is taken, or the search fails.
    pub chosen: Option<PathBuf>,
    /// Directories that hold a tuned kernel as `linux-um`.
    pub libraries: Vec<PathBuf>,
    /// Cache of `kernel/build.sh`: holds `<key>/linux`.
    pub cache: Option<PathBuf>,
    /// A distribution's kernel.
    pub distribution: Option<PathBuf>,
    /// Its modules, one directory for each version.
    pub distribution_modules: PathBuf,
}

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
        }
    }

    fn candidates(&self) -> Vec<PathBuf> {
        let mut candidates: Vec<PathBuf> = self
            .libraries
            .iter()
            .map(|dir| dir.join("linux-um"))
            .collect();
        candidates.extend(self.cache.as_deref().and_then(newest_build));
        candidates.extend(self.distribution.clone());
        candidates
    }
}

/// Finds the kernel for `isolation`. A tuned kernel is preferred to a distribution's.
pub fn find_kernel(
    isolation: Isolation,
    search: &KernelSearch,
) -> Result<KernelImage, KernelError> {
    if isolation != Isolation::UserMode {
        return Err(KernelError::Platform(isolation));
    }
    if let Some(path) = &search.chosen {
        return KernelImage::inspect(path, &search.distribution_modules);
    }
    let candidates = search.candidates();
    match candidates.iter().find(|path| path.exists()) {
        Some(path) => KernelImage::inspect(path, &search.distribution_modules),
        None => Err(KernelError::NotFound { looked: candidates }),
    }
}

/// The kernel that was built last.
fn newest_build(cache: &Path) -> Option<PathBuf> {
    let builds = std::fs::read_dir(cache).ok()?;
    builds
        .filter_map(Result::ok)
        .map(|entry| entry.path().join("linux"))
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

    /// A minimal static executable: a header and no segments.
    fn static_elf() -> Vec<u8> {
        let mut file = vec![0_u8; 64];
        file[..6].copy_from_slice(b"\x7fELF\x02\x01");
        file[18] = 62;
        file
    }

    fn place(path: &Path) {
        fs::create_dir_all(path.parent().expect("a parent")).expect("a directory");
        fs::write(path, static_elf()).expect("a file");
    }

    #[test]
    fn a_chosen_kernel_is_taken_or_nothing_is() {
        let dir = tempfile::tempdir().expect("a directory");
        place(&dir.path().join("cache/k/linux"));
        let search = KernelSearch {
            chosen: Some(dir.path().join("absent")),
            cache: Some(dir.path().join("cache")),
            ..KernelSearch::default()
        };
        let error =
            find_kernel(Isolation::UserMode, &search).expect_err("the chosen file is absent");
        assert!(matches!(error, KernelError::Read { .. }), "{error:?}");
    }

    #[test]
    fn an_installed_kernel_precedes_a_built_one_and_that_the_distributions() {
        let dir = tempfile::tempdir().expect("a directory");
        let search = KernelSearch {
            libraries: vec![dir.path().join("lib")],
            cache: Some(dir.path().join("cache")),
            distribution: Some(dir.path().join("linux.uml")),
            ..KernelSearch::default()
        };
        let found = || find_kernel(Isolation::UserMode, &search).map(|kernel| kernel.path);
        assert!(matches!(found(), Err(KernelError::NotFound { looked }) if looked.len() == 2));
        for place_next in ["linux.uml", "cache/key/linux", "lib/linux-um"] {
            place(&dir.path().join(place_next));
            assert_eq!(found().expect("a kernel"), dir.path().join(place_next));
        }
    }

    #[test]
    fn a_file_that_is_no_kernel_says_so() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("kernel");
        fs::write(&path, "#!/bin/sh").expect("a file");
        let search = KernelSearch {
            chosen: Some(path),
            ..KernelSearch::default()
        };
        let error = find_kernel(Isolation::UserMode, &search).expect_err("a script is no kernel");
        assert!(matches!(error, KernelError::Format { .. }), "{error:?}");
    }
}
