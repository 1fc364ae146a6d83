//! Which modules a distribution's kernel needs for what we use, in the order in which they must be loaded.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use bulkhead_types::Isolation;

use super::InitramfsError;

/// A module that a kernel may need for what a compartment uses.
struct Wanted {
    name: &'static str,
    /// Without it no compartment works.
    needed: bool,
}

const fn needed(name: &'static str) -> Wanted {
    Wanted { name, needed: true }
}

const fn welcome(name: &'static str) -> Wanted {
    Wanted {
        name,
        needed: false,
    }
}

/// Disk, image file system, overlay, vsock; the transport is in the kernel.
const USER_MODE: [Wanted; 6] = [
    needed("virtio_blk"),
    needed("erofs"),
    needed("overlay"),
    needed("ext4"),
    needed("vmw_vsock_virtio_transport"),
    welcome("virtio_rng"),
];

/// The same with the transport before all, and what makes a machine better. `pvpanic` comes first, so that it can tell
/// of a panic in the others; the checksum that ext4 needs is no dependency that its module lists.
const KVM: [Wanted; 12] = [
    welcome("pvpanic_mmio"),
    needed("virtio_mmio"),
    needed("vmw_vsock_virtio_transport"),
    welcome("virtio_rng"),
    needed("virtio_blk"),
    welcome("nd_pmem"),
    welcome("virtio_pmem"),
    welcome("crc32c_generic"),
    needed("erofs"),
    needed("overlay"),
    needed("ext4"),
    welcome("virtio_balloon"),
];

/// Paths of the modules to load, dependencies first, each once. Reads `modules.dep` and `modules.builtin`.
pub(crate) fn load_order(
    isolation: Isolation,
    modules: &Path,
) -> Result<Vec<PathBuf>, InitramfsError> {
    let read = |name: &str| {
        let path = modules.join(name);
        std::fs::read_to_string(&path).map_err(|source| InitramfsError::Read { path, source })
    };
    let wanted = match isolation {
        Isolation::UserMode => USER_MODE.as_slice(),
        Isolation::Kvm => &KVM,
    };
    let order =
        order(wanted, &read("modules.dep")?, &read("modules.builtin")?).map_err(|module| {
            InitramfsError::Module {
                module,
                modules: modules.to_owned(),
            }
        })?;
    Ok(order.into_iter().map(|path| modules.join(path)).collect())
}

/// The same on the files' text; the error is the name of a module that is neither there nor built in.
fn order(wanted: &[Wanted], dependencies: &str, builtin: &str) -> Result<Vec<String>, String> {
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
    for Wanted { name, needed } in wanted {
        if built_in.iter().any(|known| known == name) {
            continue;
        }
        let Some((path, needs)) = table.get(*name) else {
            if *needed {
                return Err((*name).to_owned());
            }
            continue;
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
        let order =
            order(&USER_MODE, DEPENDENCIES, "kernel/fs/ext4/ext4.ko\n").expect("all are there");
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
        assert_eq!(order(&USER_MODE, DEPENDENCIES, ""), Err("ext4".to_owned()));
    }

    #[test]
    fn a_machine_loads_its_transport_before_what_uses_it_and_does_without_what_is_only_welcome() {
        let dependencies = format!(
            "{DEPENDENCIES}kernel/drivers/virtio/virtio_mmio.ko: kernel/drivers/virtio/virtio.ko\nkernel/drivers/virtio/virtio.ko:\n\
             kernel/drivers/misc/pvpanic/pvpanic-mmio.ko:\n"
        );
        let order = order(&KVM, &dependencies, "kernel/fs/ext4/ext4.ko\n").expect("all are there");
        let names: Vec<String> = order.iter().map(|path| module_name(path)).collect();
        assert_eq!(names[..3], ["pvpanic_mmio", "virtio", "virtio_mmio"]);
        assert_eq!(
            super::order(&KVM, DEPENDENCIES, "kernel/fs/ext4/ext4.ko\n"),
            Err("virtio_mmio".to_owned())
        );
    }

    #[test]
    fn debians_kernel_for_machines_has_all_that_is_welcome_where_it_is_installed() {
        let search = crate::kernel::KernelSearch {
            libraries: Vec::new(),
            cache: None,
            ..crate::kernel::KernelSearch::from_environment(None)
        };
        let kernel = crate::kernel::find_kernel(Isolation::Kvm, &search);
        let Some(modules) = kernel.ok().and_then(|kernel| kernel.modules) else {
            bulkhead_harness::cannot_run!("linux-image-cloud-amd64 is not installed");
            return;
        };
        let order = load_order(Isolation::Kvm, &modules).expect("all are there");
        let names: Vec<String> = order
            .iter()
            .map(|path| module_name(&path.to_string_lossy()))
            .collect();
        for name in ["virtio_pmem", "nd_pmem", "virtio_balloon", "pvpanic_mmio"] {
            assert!(names.iter().any(|known| known == name), "{name}: {names:?}");
        }
    }
}
