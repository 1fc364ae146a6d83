//! The configuration file as a person writes it.

use std::path::PathBuf;

use serde::Deserialize;

/// Every key of `config.toml`. All are optional; a later file's keys win over an earlier one's.
#[derive(Debug, Default, Clone, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub(super) struct Written {
    /// State directory.
    pub root: Option<PathBuf>,
    /// `host[:port]` of registries that are spoken to over plain HTTP.
    pub insecure_registries: Option<Vec<String>>,
    /// `kvm` or `user-mode`.
    pub isolation: Option<String>,
    /// `full` or `weakened`.
    pub jail: Option<String>,
    /// Guest memory of a container that asks for none, for example `512m`.
    pub memory: Option<String>,
    /// Virtual CPUs of a container that asks for none.
    pub cpus: Option<u32>,
    /// Writable disk of a container that asks for none, for example `10g`.
    pub disk_size: Option<String>,
    /// Guest kernel.
    pub kernel: Option<PathBuf>,
    /// The agent's binary.
    pub agent: Option<PathBuf>,
    /// Keys that detach a client, for example `ctrl-p,ctrl-q`.
    pub detach_keys: Option<String>,
    /// Seconds between the stop signal and the kill.
    pub stop_timeout: Option<u64>,
    /// Limits of container logs.
    pub log: WrittenLog,
    /// What one image may cost.
    pub images: WrittenImages,
}

/// The `[images]` table.
#[derive(Debug, Default, Clone, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub(super) struct WrittenImages {
    /// Memory for taking in one image, for example `256m`.
    pub memory: Option<String>,
    /// Per cent of the file system that stay free.
    pub keep_free: Option<u8>,
}

/// The `[log]` table.
#[derive(Debug, Default, Clone, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub(super) struct WrittenLog {
    /// Bytes one container's log may take, for example `32m`; the older half goes first.
    pub max_size: Option<String>,
}

impl Written {
    /// This file's keys over those of `earlier`.
    pub(super) fn over(self, earlier: Self) -> Self {
        Self {
            root: self.root.or(earlier.root),
            insecure_registries: self.insecure_registries.or(earlier.insecure_registries),
            isolation: self.isolation.or(earlier.isolation),
            jail: self.jail.or(earlier.jail),
            memory: self.memory.or(earlier.memory),
            cpus: self.cpus.or(earlier.cpus),
            disk_size: self.disk_size.or(earlier.disk_size),
            kernel: self.kernel.or(earlier.kernel),
            agent: self.agent.or(earlier.agent),
            detach_keys: self.detach_keys.or(earlier.detach_keys),
            stop_timeout: self.stop_timeout.or(earlier.stop_timeout),
            log: WrittenLog {
                max_size: self.log.max_size.or(earlier.log.max_size),
            },
            images: WrittenImages {
                memory: self.images.memory.or(earlier.images.memory),
                keep_free: self.images.keep_free.or(earlier.images.keep_free),
            },
        }
    }
}
