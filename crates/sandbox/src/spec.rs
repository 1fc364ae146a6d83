//! What a compartment is to be. The engine resolves names, images and defaults into this; nothing
//! here is looked up again, so a container restarts the same way however often its image is retagged.

use std::path::PathBuf;

use bulkhead_platform::KernelImage;
use bulkhead_types::{ByteSize, ContainerId, Isolation, ProcessSpec, TmpfsOptions};
use serde::{Deserialize, Serialize};

/// One compartment with its one container.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SandboxSpec {
    /// The container's identifier.
    pub id: ContainerId,
    /// Host name inside the container.
    pub hostname: String,
    /// Which platform runs the kernel.
    pub isolation: Isolation,
    /// Guest memory in bytes.
    pub memory: ByteSize,
    /// Virtual CPUs.
    pub cpus: u32,
    /// The guest kernel, as `bulkhead_platform::find_kernel` found it.
    pub kernel: KernelImage,
    /// The initramfs that holds the agent (and modules where the kernel needs them).
    pub initramfs: PathBuf,
    /// Parts of the read-only image disk, in order; each is padded to 4 KiB.
    pub image: Vec<PathBuf>,
    /// The container's writable ext4 disk; `None` only with `read_only`.
    #[serde(default)]
    pub scratch: Option<PathBuf>,
    /// Further writable disks.
    #[serde(default)]
    pub volumes: Vec<VolumeDisk>,
    /// The root file system is mounted read-only.
    #[serde(default)]
    pub read_only: bool,
    /// Memory file systems.
    #[serde(default)]
    pub tmpfs: Vec<TmpfsMount>,
    /// Paths of the container that show nothing; what the guest lacks is skipped.
    #[serde(default)]
    pub masked_paths: Vec<String>,
    /// Paths of the container that are read-only; what the guest lacks is skipped.
    #[serde(default)]
    pub readonly_paths: Vec<String>,
    /// Further devices of the guest.
    #[serde(default)]
    pub devices: Vec<GuestDevice>,
    /// Every device of the guest, and /sys and the cgroups writable. Nothing of the host.
    #[serde(default)]
    pub privileged: bool,
    /// The agent's minimal init runs as the container's PID 1.
    #[serde(default)]
    pub init: bool,
    /// Size of `/dev/shm`.
    #[serde(default = "default_shm_size")]
    pub shm_size: ByteSize,
    /// Limit of the container's cgroup in the guest; `None` leaves all guest memory to it.
    #[serde(default)]
    pub memory_limit: Option<ByteSize>,
    /// Limit of the container's cgroup in the guest, in billionths of a virtual CPU's time; 0 leaves all of them to it.
    #[serde(default)]
    pub cpu_limit_nanos: u64,
    /// The main process.
    pub process: ProcessSpec,
    /// The container's directory is removed when it ends.
    #[serde(default)]
    pub auto_remove: bool,
    /// The main process gets a stdin that clients can attach to; otherwise it reads `/dev/null`.
    #[serde(default)]
    pub open_stdin: bool,
    /// Stdin is closed for good when the first attached client's input ends or the client leaves.
    #[serde(default)]
    pub stdin_once: bool,
    /// Where the output is kept.
    #[serde(default)]
    pub log: LogSpec,
    /// How far the compartment is walled in.
    #[serde(default)]
    pub jail: JailSpec,
}

fn default_shm_size() -> ByteSize {
    ByteSize(64 << 20)
}

/// A writable disk mounted into the container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VolumeDisk {
    /// The ext4 disk's file.
    pub path: PathBuf,
    /// Absolute path in the container.
    pub target: String,
    /// Mounted read-only.
    #[serde(default)]
    pub read_only: bool,
}

/// A tmpfs mounted into the container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TmpfsMount {
    /// Absolute path in the container.
    pub target: String,
    /// Options as in mount(8): `size=64m,mode=1770,noexec`.
    #[serde(default)]
    pub options: TmpfsOptions,
}

/// A device of the guest that the container sees beside those that every container has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GuestDevice {
    /// Path below the guest's `/dev`, without that prefix: `net/tun`.
    pub node: String,
    /// Absolute path in the container.
    pub target: String,
}

/// Which output is kept, and how much.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, tag = "driver", rename_all = "kebab-case")]
pub enum LogSpec {
    /// Two files of at most `max_file_size` each; the older one is overwritten when the newer is full.
    Files {
        /// Bytes per file, records' headers included; at least 64 KiB.
        max_file_size: ByteSize,
    },
    /// Output goes to attached clients only (`--log-driver none`).
    None,
}

impl Default for LogSpec {
    fn default() -> Self {
        Self::Files {
            max_file_size: ByteSize(16 << 20),
        }
    }
}

/// Which walls to build around the compartment's processes.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JailSpec {
    /// Leaves out Landlock and seccomp around the sandbox process: for debugging it with other tools.
    #[serde(default)]
    pub disabled: bool,
    /// Starts even where the host refuses walls that separate compartments from each other (`--weakened-jail`).
    #[serde(default)]
    pub weakened: bool,
}
