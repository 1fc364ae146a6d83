//! Loads the kernel modules that come with a distribution's kernel. Ours has everything built in.

use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use crate::syscalls;

/// A module that could not be loaded.
#[derive(Debug, thiserror::Error)]
#[error("cannot load kernel module {path}")]
pub(crate) struct ModuleError {
    path: PathBuf,
    #[source]
    source: io::Error,
}

/// Loads what the file `order` of the directory lists, one file name a line. Without one there is
/// nothing to do.
pub(crate) fn load_all(directory: &Path) -> Result<(), ModuleError> {
    let order = directory.join("order");
    let list = match std::fs::read_to_string(&order) {
        Ok(list) => list,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(source) => {
            return Err(ModuleError {
                path: order,
                source,
            });
        }
    };
    for name in names(&list) {
        let path = directory.join(name);
        let loaded =
            std::fs::File::open(&path).and_then(|module| syscalls::finit_module(module.as_fd()));
        match loaded {
            Err(error) if error.raw_os_error() == Some(libc::EEXIST) => {}
            other => other.map_err(|source| ModuleError { path, source })?,
        }
    }
    Ok(())
}

fn names(list: &str) -> impl Iterator<Item = &str> {
    list.lines()
        .map(str::trim)
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kernel_without_modules_needs_nothing() {
        let empty = tempfile::tempdir().unwrap();
        load_all(empty.path()).unwrap();
    }

    #[test]
    fn a_listed_module_that_is_missing_is_an_error() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("order"), "# comment\n\nvirtio.ko\n").unwrap();
        let error = load_all(directory.path()).unwrap_err();
        assert!(error.to_string().contains("virtio.ko"), "{error}");
    }
}
