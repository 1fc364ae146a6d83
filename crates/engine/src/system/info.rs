//! `info`: Docker's keys where they have a meaning here, and what is Bulkhead's own.

use bulkhead_jail::JailReport;
use bulkhead_platform::{KernelImage, KernelKind, PlatformReport};
use bulkhead_sandbox::Status;
use bulkhead_types::{Isolation, chain};
use jiff::Timestamp;
use serde::Serialize;

use super::host;
use crate::Engine;
use crate::error::Error;
use crate::guest::{GuestError, choose, find_agent};

type Choice = Result<(Isolation, KernelImage), GuestError>;

/// What `info` shows; serialises with Docker's names.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct SystemInfo {
    /// All containers.
    pub containers: usize,
    /// Those that run.
    pub containers_running: usize,
    /// Always 0: there is no pause yet.
    pub containers_paused: usize,
    /// Those that do not run.
    pub containers_stopped: usize,
    /// Images in the store.
    pub images: usize,
    /// How writable layers are kept.
    pub driver: &'static str,
    /// Now.
    pub system_time: String,
    /// The host's `uname -r`; guests have their own.
    pub kernel_version: String,
    /// The host's distribution.
    pub operating_system: String,
    /// `linux`.
    #[serde(rename = "OSType")]
    pub os_type: &'static str,
    /// The host's `uname -m`.
    pub architecture: String,
    /// Processors.
    #[serde(rename = "NCPU")]
    pub ncpu: usize,
    /// Bytes of memory.
    pub mem_total: u64,
    /// The host's name.
    pub name: String,
    /// The engine's version.
    pub server_version: &'static str,
    /// The state directory, under the name that Docker's scripts look for.
    pub docker_root_dir: String,
    /// The state directory.
    pub root: String,
    /// The image store: an OCI image layout that skopeo and umoci read.
    pub image_store: String,
    /// Registries spoken to over plain HTTP.
    pub insecure_registries: Vec<String>,
    /// Isolation for containers that name none.
    pub default_isolation: String,
    /// Virtual CPUs of containers that name none, on a platform that can have several.
    pub default_cpus: u32,
    /// Guest memory of containers that name none, in bytes.
    pub default_memory: u64,
    /// Disk of containers that name none, in bytes.
    pub default_disk: u64,
    /// The platforms, and why they do not work where they do not.
    pub isolations: Vec<PlatformReport>,
    /// The walls around a sandbox, and why they do not stand where they do not.
    pub jail: JailReport,
    /// The guest kernel that new containers boot.
    pub kernel: Component,
    /// The agent.
    pub agent: Component,
    /// What the user should know, one line each.
    pub warnings: Vec<String>,
}

/// A file that a compartment needs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Component {
    /// Where it is; `None` when it was not found.
    pub path: Option<String>,
    /// What it is, or why it was not found.
    pub detail: String,
}

impl Engine {
    /// Counts, paths, platforms. Starts a process to try the jail, so it is not for a hot path and
    /// wants a process with one thread.
    pub fn info(&self) -> Result<SystemInfo, Error> {
        let containers = self.containers()?;
        let running = containers
            .iter()
            .filter(|container| {
                container
                    .state()
                    .is_ok_and(|state| state.status == Status::Running)
            })
            .count();
        let store = self.store()?;
        let search = self.kernel_search();
        let isolations = bulkhead_platform::probe(&search);
        let jail = bulkhead_jail::probe();
        let kernel = host::kernel();
        let chosen = choose(self.settings.isolation, &search);
        Ok(SystemInfo {
            containers: containers.len(),
            containers_running: running,
            containers_paused: 0,
            containers_stopped: containers.len() - running,
            images: store.images()?.len(),
            driver: "bulkhead",
            system_time: Timestamp::now().to_string(),
            kernel_version: kernel.release,
            operating_system: host::operating_system(),
            os_type: "linux",
            architecture: kernel.machine,
            ncpu: host::cpus(),
            mem_total: host::memory(),
            name: kernel.node,
            server_version: env!("CARGO_PKG_VERSION"),
            docker_root_dir: self.root().display().to_string(),
            root: self.root().display().to_string(),
            image_store: store.layout_dir().display().to_string(),
            insecure_registries: self.settings.insecure_registries.clone(),
            default_isolation: default_isolation(&chosen, self.settings.isolation).to_string(),
            default_cpus: self.settings.cpus,
            default_memory: self.settings.memory.0,
            default_disk: self.settings.disk_size.0,
            warnings: warnings(&isolations, &jail),
            isolations,
            jail,
            kernel: kernel_component(chosen),
            agent: self.agent_component(),
        })
    }

    pub(super) fn agent_component(&self) -> Component {
        match find_agent(&self.environment, &self.settings) {
            Ok(path) => Component {
                path: Some(path.display().to_string()),
                detail: "installed".to_owned(),
            },
            Err(error) => Component {
                path: None,
                detail: chain(&error),
            },
        }
    }
}

/// What a container that names no isolation is run with; where nothing works, what it fails with.
fn default_isolation(chosen: &Choice, named: Option<Isolation>) -> Isolation {
    chosen.as_ref().map_or_else(
        |_| named.unwrap_or(Isolation::UserMode),
        |(isolation, _)| *isolation,
    )
}

/// The kernel that such a container boots.
fn kernel_component(chosen: Choice) -> Component {
    match chosen {
        Ok((_, kernel)) => Component {
            path: Some(kernel.path.display().to_string()),
            detail: match kernel.kind {
                KernelKind::Tuned => "built for compartments".to_owned(),
                KernelKind::Distribution => "a distribution's kernel, with modules".to_owned(),
            },
        },
        Err(error) => Component {
            path: None,
            detail: chain(&error),
        },
    }
}

fn warnings(platforms: &[PlatformReport], jail: &JailReport) -> Vec<String> {
    let mut warnings = Vec::new();
    if !platforms.iter().any(PlatformReport::works) {
        warnings.push("no isolation platform works here: see 'bulkhead doctor'".to_owned());
    }
    let missing = jail.missing.iter();
    warnings.extend(
        missing.map(|missing| format!("no {} around sandboxes: {}", missing.wall, missing.reason)),
    );
    warnings
}
