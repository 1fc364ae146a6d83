//! How a guest kernel is run: the platform seam, the user-mode platform, and the probe.
//!
//! ```text
//! outside the jail                                   inside the jail (one thread, not yet locked)
//! find_kernel, build_initramfs                       platform(isolation)?.start(VmConfig { boot, root, devices, … })
//! Boot::open ── Boot::root ──▶ SandboxJail.vm_root          └▶ Machine: exit_fd, wait, stop
//! ```
//!
//! [`Platform`] and [`Machine`] are the seam; what stands behind them is chosen with [`platform`]. Everything that
//! needs the host's file system happens in [`Boot::open`]; a start works from open descriptors alone.

mod boot;
mod device_thread;
mod initramfs;
mod kernel;
mod kvm;
mod machine;
mod probe;
mod user_mode;

pub use boot::{Boot, BootError};
pub use initramfs::{InitramfsError, build_initramfs};
pub use kernel::{FileError, KernelError, KernelImage, KernelKind, KernelSearch, find_kernel};
pub use kvm::{Kvm, KvmError, Prepared};
pub use machine::{
    DeviceEnd, Machine, MachineExit, Platform, PlatformError, VmConfig, VmDevice, host_memory,
    platform,
};
pub use probe::{KvmObstacle, PlatformReport, kvm_obstacles, probe};
pub use user_mode::UserMode;
