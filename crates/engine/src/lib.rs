//! What a user knows: containers and images, their state on disk, garbage collection.
//!
//! [`Engine::open`] gives a handle on one state directory; everything else is a method of it. The
//! API blocks and needs no runtime. Nothing runs between commands: what is true is on disk, and what
//! is running says so with a lock.
//!
//! | module | what it is for |
//! |---|---|
//! | `settings`, `root` | which directory, which defaults |
//! | `container` | create, start, stop, remove, list, inspect… |
//! | `names` | which container has which name |
//! | `disk` | writable disks: sparse copies of an ext4 template |
//! | `images` | images where containers come in |
//! | `guest` | kernel, agent, initramfs |
//! | `system` | info, version, doctor |

mod container;
mod disk;
mod engine;
mod error;
mod guest;
mod image_inspect;
mod images;
mod kind;
mod names;
mod root;
mod settings;
mod system;
mod time;

pub use container::{
    Container, ContainerConfig, ContainerError, CreateOptions, DeviceMapping, ExecOptions, Filters,
    HostOptions, ListOptions, OptionError, PruneReport, Record, RecordError, RemoveOptions,
    StartOptions, StartedContainer, StopOptions, Summary, check_ulimit, random_id, status_text,
};
pub use disk::DiskError;
pub use engine::Engine;
pub use error::Error;
pub use guest::GuestError;
pub use kind::{ErrorKind, FileError};
pub use settings::{
    EngineConfig, Environment, JailStrength, LogLimits, Settings, SettingsError, parse_detach_keys,
};
pub use system::{Check, CheckStatus, Component, SystemInfo, VersionInfo};
pub use time::{human_duration, parse_time};
