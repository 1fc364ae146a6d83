//! Which modules a distribution's kernel needs for what we use, in the order in which they must be loaded.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use super::InitramfsError;

/// What a compartment uses and a kernel may have as a module: disk, image file system, overlay, vsock.
const WANTED: [&str; 6] = [
    "virtio_blk",
    "erofs",
    "overlay",
    "ext4",
    "vmw_vsock_virtio_transport",
    "virtio_rng",
];

/// Those of [`WANTED`] without which no compartment works; `virtio_rng` is welcome, not needed.
const OPTIONAL: [&str; 1] = ["virtio_rng"];

/// Paths of the modules to load, dependencies first, each once. Reads `modules.dep` and `modules.builtin`.
pub(crate) fn load_order(modules: &Path) -> Result<Vec<PathBuf>, InitramfsError> {
    let read = |name: &str| {
        let path = modules.join(name);
        std::fs::read_to_string(&path).map_err(|source| InitramfsError::Read { path, source })
    };
    let order = order(&read("modules.dep")?, &read("modules.builtin")?).map_err(|module| {
        InitramfsError::Module {
            module,
            modules: modules.to_owned(),
        }
    })?;
    Ok(order.into_iter().map(|path| modules.join(path)).collect())
}

/// The same on the files' text; the error is the name of a module that is neither there nor built in.
fn order(dependencies: &str, builtin: &str) -> Result<Vec<String>, String> {
    let mut table: HashMap<String, (&str, Vec<&str>)> = HashMap::new();
    for line in dependencies.lines() {
        if let Some((path, needs)) = line.split_once(':') {
            table.insert(
                module_name(path),
                (path, needs.split_whitespace().collect()),
            );
        }
    }
    let built_in: Vec<String> = builtin.lines().map(module_name).collect();
    let mut order: Vec<String> = Vec::new();
    for wanted in WANTED {
        if built_in.iter().any(|name| name == wanted) {
            continue;
        }
        let Some((path, needs)) = table.get(wanted) else {
            if OPTIONAL.contains(&wanted) {
                continue;
            }
            return Err(wanted.to_owned());
        };
        // depmod lists needs from the nearest to the farthest: the last must be loaded first.
        for module in needs.iter().rev().chain([path]) {
            if !order.iter().any(|known| known == module) {
                order.push((*module).to_owned());
            }
        }
    }
    Ok(order)
}

/// `kernel/fs/erofs/erofs.ko.xz` → `erofs`; dashes and underscores are the same to the kernel.
fn module_name(path: &str) -> String {
    let file = path.rsplit('/').next().unwrap_or(path);
    file.split('.').next().unwrap_or(file).replace('-', "_")
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEPENDENCIES: &str = "\
kernel/fs/overlayfs/overlay.ko:
kernel/fs/erofs/erofs.ko: kernel/lib/crc.ko
kernel/lib/crc.ko:
kernel/drivers/block/virtio_blk.ko:
kernel/net/vmw_vsock/vmw_vsock_virtio_transport.ko: kernel/net/vmw_vsock/vmw_vsock_virtio_transport_common.ko kernel/net/vmw_vsock/vsock.ko
kernel/net/vmw_vsock/vmw_vsock_virtio_transport_common.ko: kernel/net/vmw_vsock/vsock.ko
kernel/net/vmw_vsock/vsock.ko:
";

    #[test]
    fn dependencies_come_before_what_needs_them() {
        let order = order(DEPENDENCIES, "kernel/fs/ext4/ext4.ko\n").expect("all are there");
        let at = |name: &str| {
            order
                .iter()
                .position(|path| module_name(path) == name)
                .expect("is loaded")
        };
        assert!(at("crc") < at("erofs"));
        assert!(at("vsock") < at("vmw_vsock_virtio_transport_common"));
        assert!(at("vmw_vsock_virtio_transport_common") < at("vmw_vsock_virtio_transport"));
        assert_eq!(order.len(), 7);
    }

    #[test]
    fn a_module_that_is_nowhere_is_named() {
        assert_eq!(order(DEPENDENCIES, ""), Err("ext4".to_owned()));
    }
}
