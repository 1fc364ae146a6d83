//! What a caller may ask for when it creates a container: one field for each flag of `docker create`.

use std::collections::BTreeMap;

use bulkhead_image::Platform;
use bulkhead_types::{
    ByteSize, ContainerId, ContainerName, GuestText, InvalidTmpfsOption, Isolation, Signal,
    UnknownResource,
};
use serde::{Deserialize, Serialize};

/// The flags of `create` and `run`, parsed but not yet merged with an image's configuration.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct CreateOptions {
    /// Identifier of the container; `None` chooses one. Who wants to take a creation back in the middle has to know it.
    pub id: Option<ContainerId>,
    /// Image reference or identifier, as typed.
    pub image: String,
    /// What follows the image: replaces the image's command.
    pub command: Vec<String>,
    /// `--name`; `None` chooses one.
    pub name: Option<ContainerName>,
    /// `--entrypoint`; an empty string clears the image's.
    pub entrypoint: Option<String>,
    /// `-e` and `--env-file`: `KEY=value`, or `KEY` alone to remove it.
    pub env: Vec<String>,
    /// `-u`: `user[:group]`.
    pub user: Option<String>,
    /// `-w`.
    pub workdir: Option<String>,
    /// `--hostname`; `None` is the short identifier.
    pub hostname: Option<String>,
    /// `--label`.
    pub labels: BTreeMap<String, String>,
    /// `-i`: keep stdin open.
    pub interactive: bool,
    /// `-t`.
    pub tty: bool,
    /// `-d`: nobody attaches at start. Kept for `inspect` (`AttachStdout` and friends).
    pub detach: bool,
    /// `--rm`.
    pub auto_remove: bool,
    /// `--memory`.
    pub memory: Option<ByteSize>,
    /// `--cpus`.
    pub cpus: Option<f64>,
    /// `--disk`: size of the writable layer and of each anonymous volume.
    pub disk: Option<ByteSize>,
    /// `--shm-size`.
    pub shm_size: Option<ByteSize>,
    /// `--init`.
    pub init: bool,
    /// `--read-only`.
    pub read_only: bool,
    /// `--tmpfs`: `path[:options]`.
    pub tmpfs: Vec<String>,
    /// `--cap-add`.
    pub cap_add: Vec<String>,
    /// `--cap-drop`.
    pub cap_drop: Vec<String>,
    /// `--privileged`: in the container's own kernel.
    pub privileged: bool,
    /// `--security-opt`.
    pub security_opt: Vec<String>,
    /// `--device`: `path[:path in the container][:permissions]`.
    pub devices: Vec<String>,
    /// `--ulimit`: `name=soft[:hard]`.
    pub ulimits: Vec<String>,
    /// `--stop-signal`.
    pub stop_signal: Option<Signal>,
    /// `--stop-timeout` in seconds; negative waits for ever.
    pub stop_timeout: Option<i64>,
    /// `--platform`: what the image must be for.
    pub platform: Option<Platform>,
    /// `--isolation`.
    pub isolation: Option<Isolation>,
    /// `--weakened-jail`: start even where the host refuses walls that separate compartments.
    pub weakened_jail: bool,
}

/// A flag or an image setting that cannot be honoured. Messages are Docker's where Docker has one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum OptionError {
    /// Neither flags nor image say what to run.
    #[error("no command specified")]
    NoCommand,
    /// A relative working directory.
    #[error("the working directory '{0}' is invalid, it needs to be an absolute path")]
    Workdir(GuestText),
    /// Not a host name.
    #[error("invalid hostname format: {0}")]
    Hostname(String),
    /// An entry without a name, or with a NUL byte.
    #[error("invalid environment variable: {0}")]
    Env(GuestText),
    /// Under Docker's minimum.
    #[error("minimum memory limit allowed is 6MB")]
    MemoryTooSmall,
    /// More than this host can give.
    #[error(
        "memory of {} (and what the guest's kernel needs) is more than the {} that this host has in memory and swap space",
        asked.binary(),
        host.binary()
    )]
    MemoryTooLarge {
        /// As asked.
        asked: ByteSize,
        /// What there is.
        host: ByteSize,
    },
    /// Outside of what the file system can be.
    #[error("invalid disk size of {0} bytes: the range is 32m to 16t")]
    DiskSize(u64),
    /// Outside of what the host has.
    #[error("range of CPUs is from 0.01 to {0}.00, as there are only {0} CPUs available")]
    Cpus(usize),
    /// Not a capability.
    #[error("invalid {flag}: unknown capability: \"{name}\"")]
    Capability {
        /// `CapAdd` or `CapDrop`.
        flag: &'static str,
        /// As typed.
        name: String,
    },
    /// Not a security option that means something here.
    #[error(
        "invalid security option \"{0}\": there are no-new-privileges[=true|false] and systempaths=unconfined"
    )]
    SecurityOption(String),
    /// Not `path[:path][:permissions]`.
    #[error("invalid device specification: {0}")]
    DeviceSyntax(String),
    /// Not a device that a guest's kernel has.
    #[error(
        "cannot give the container {0}: a container has a kernel of its own and gets devices of that kernel only \
         (/dev/fuse, /dev/net/tun, /dev/loop-control, /dev/loop0…), never one of the host"
    )]
    HostDevice(String),
    /// Access to a device that is less than reading and writing.
    #[error(
        "device {path} can only be given to be read and written (rw or rwm), not with \"{permissions}\""
    )]
    DevicePermissions {
        /// The device.
        path: String,
        /// As typed.
        permissions: String,
    },
    /// Not `name=soft[:hard]`.
    #[error("invalid ulimit argument: {0}")]
    UlimitSyntax(String),
    /// Not a resource.
    #[error(transparent)]
    UlimitName(#[from] UnknownResource),
    /// The soft limit is above the hard one.
    #[error("ulimit soft limit must be less than or equal to hard limit: {soft} > {hard}")]
    UlimitOrder {
        /// As typed.
        soft: i64,
        /// As typed.
        hard: i64,
    },
    /// A path that cannot be a mount point.
    #[error("invalid {what} destination '{path}': {reason}")]
    MountPoint {
        /// `tmpfs` or `volume`.
        what: &'static str,
        /// As written.
        path: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// An option that tmpfs does not know.
    #[error(transparent)]
    TmpfsOption(#[from] InvalidTmpfsOption),
    /// More anonymous volumes than disks fit in a guest.
    #[error("the image declares {0} volumes, at most {1} are supported")]
    TooManyVolumes(usize, usize),
    /// The image has a file where it declares a volume.
    #[error("cannot mount volume over existing file, file exists {0}")]
    VolumeOnFile(GuestText),
    /// The image has a file where the working directory is to be, or on the way there.
    #[error("cannot mkdir: {0} is not a directory")]
    WorkdirOnFile(GuestText),
    /// The image's own configuration names a signal that does not exist.
    #[error("invalid stop signal '{0}' in the image's configuration")]
    StopSignal(GuestText),
    /// A NUL byte in the command.
    #[error("invalid command: an argument contains a NUL byte")]
    NulInCommand,
}
