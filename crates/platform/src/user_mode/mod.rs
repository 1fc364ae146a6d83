//! The user-mode platform: Linux as a jailed, unprivileged process, where there is no KVM.
//!
//! The kernel is built for `ARCH=um`. It runs guest processes as its ptraced children, backs guest memory with a file
//! in its private root, and reaches its virtio devices, which are threads of the sandbox, over vhost-user sockets
//! there. Everything is named relative to that root, its working directory, so that the same command line serves
//! with and without a mount namespace.
//!
//! ```text
//! sandbox, one thread:  bind sockets ─▶ start kernel process ─▶ start device threads ─▶ confirm ─▶ Machine
//!                                        └▶ jail, exec, boot … connects to its devices when it finds them
//! ```

mod command_line;
mod cpu;
mod process;

use std::os::fd::AsFd;
use std::os::unix::net::UnixListener;
use std::time::Duration;

use bulkhead_devices::vhost_user;
use bulkhead_jail::{KernelCommand, KernelLimits, VmRoot};
use bulkhead_types::Isolation;

use crate::device_thread::{DeviceThread, lock_first};
use crate::machine::{Machine, Platform, PlatformError, VmConfig, check_host_memory};
use process::Process;

/// The least memory with which our kernel and the agent start.
const LEAST_MEMORY: u64 = 40 << 20;

/// A kernel that has not found its devices by then has gone wrong; the first tenths of a second are usual. Later it is
/// refused the connection, and its boot fails.
const CONNECTED_WITHIN: Duration = Duration::from_secs(60);

/// Each device is a word of the command line and has a socket and a thread; more than this was never tried.
const MOST_DEVICES: usize = 24;

/// The user-mode platform.
#[derive(Debug, Clone, Copy)]
pub struct UserMode;

impl Platform for UserMode {
    fn isolation(&self) -> Isolation {
        Isolation::UserMode
    }

    fn max_vcpus(&self) -> u32 {
        1
    }

    fn most_devices(&self) -> usize {
        MOST_DEVICES
    }

    fn shares_memory(&self) -> bool {
        // Its guest memory is a file of its own, made by the kernel's process.
        false
    }

    fn start(&self, mut config: VmConfig) -> Result<Box<dyn Machine>, PlatformError> {
        check(&config)?;
        let root = config
            .root
            .take()
            .ok_or(PlatformError::Unprepared(Isolation::UserMode))?;
        let sockets = config
            .devices
            .iter()
            .enumerate()
            .map(|(index, device)| {
                bind(&root, index).map_err(|source| PlatformError::Socket {
                    name: device.name.clone(),
                    source,
                })
            })
            .collect::<Result<Vec<_>, _>>()?;
        let command = KernelCommand {
            program: config.boot.kernel(),
            libraries: config.boot.libraries(),
            arguments: command_line::build(&config)?,
            environment: command_line::environment(),
            console: config.console.as_fd(),
            root: &root,
            cpu: cpu::choose(),
            limits: KernelLimits::of(config.memory_bytes),
        };
        let kernel = command.spawn().map_err(PlatformError::Kernel)?;
        // From here on the kernel ends with this value, also where a later step fails.
        let mut process = Process::new(kernel, root);
        for (device, listener) in config.devices.into_iter().zip(sockets) {
            let on_start = lock_first(config.thread_lock.clone());
            let handle = vhost_user::spawn(listener, device.device, &device.name, on_start)
                .map_err(|source| PlatformError::Thread {
                    name: device.name.clone(),
                    source,
                })?;
            process.devices.push(DeviceThread {
                name: device.name,
                handle,
            });
        }
        process.kernel.confirm().map_err(PlatformError::Kernel)?;
        let devices = process.devices.len();
        let admitted = process.kernel.admit(devices, CONNECTED_WITHIN);
        admitted.map_err(PlatformError::Kernel)?;
        Ok(Box::new(process))
    }
}

fn check(config: &VmConfig) -> Result<(), PlatformError> {
    if config.vcpus > 1 {
        return Err(PlatformError::Vcpus {
            isolation: Isolation::UserMode,
            most: 1,
            asked: config.vcpus,
        });
    }
    if config.memory_bytes < LEAST_MEMORY {
        return Err(PlatformError::TooLittleMemory {
            asked: config.memory_bytes,
            least: LEAST_MEMORY,
        });
    }
    check_host_memory(config.memory_bytes)
}

/// The listening socket of the device with this index, in the kernel's root.
fn bind(root: &VmRoot, index: usize) -> std::io::Result<UnixListener> {
    let path = root.path().join(command_line::socket_name(index));
    let listener = UnixListener::bind(&path)?;
    if !root.is_enclosed() {
        // The kernel may run under another uid; nobody else can reach the directory.
        std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o777))?;
    }
    Ok(listener)
}
