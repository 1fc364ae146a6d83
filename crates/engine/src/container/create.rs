//! `create`: an image and flags become a directory with a record and disks.

use std::fs::{self, DirBuilder};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use bulkhead_image::Image;
use bulkhead_image::disk::Found;
use bulkhead_sandbox::{JailSpec, LogSpec, SandboxSpec, VolumeDisk};
use bulkhead_types::{ByteSize, ContainerId, ContainerName, Digest, chain};
use jiff::Timestamp;
use oci_spec::image::Config as ImageConfig;

use super::merge::{HostOptions, merge, workdir};
use super::remove::discard;
use super::{Container, ContainerError, CreateOptions, OptionError, Record, limits, mounts};
use crate::Engine;
use crate::disk::{copy_sparse, template};
use crate::error::Error;
use crate::guest::Guest;
use crate::kind::FileError;
use crate::names::{self, Names, Reservation};
use crate::root::Root;
use crate::settings::JailStrength;

/// What creation needs of an image.
#[derive(Debug, Clone)]
pub(crate) struct CreateImage {
    pub id: Digest,
    pub config: ImageConfig,
    /// Parts of its read-only disk.
    pub disk: Vec<PathBuf>,
}

/// Random names to try before giving up.
const NAME_ATTEMPTS: u32 = 32;

impl Engine {
    /// Creates a container. A missing image, and one for another platform than the one asked for, is an error of kind
    /// `NotFound`; pulling is the caller's.
    pub fn create(&self, options: &CreateOptions) -> Result<Container, Error> {
        // Until the record names the image, the lease keeps it from being removed.
        let _lease = self.store()?.lease()?;
        // Before the image, which may have to be pulled first: a host that can run nothing is told so at once.
        let guest = self.guest(options.isolation)?;
        let (image, warning) = self.image_for(&options.image, options.platform.as_ref())?;
        let disk = self.store()?.disk(&image)?;
        let config = image.config.config().clone().unwrap_or_default();
        self.check_directories(options, &image, &config)?;
        let mut container = self.create_from(
            options,
            &CreateImage {
                id: image.id,
                config,
                disk: disk.parts,
            },
            &guest,
        )?;
        container.warnings.extend(warning);
        Ok(container)
    }

    /// Refuses a volume, and a working directory, where the image has a file.
    fn check_directories(
        &self,
        options: &CreateOptions,
        image: &Image,
        config: &ImageConfig,
    ) -> Result<(), Error> {
        let tmpfs = mounts::tmpfs(&options.tmpfs).map_err(ContainerError::from)?;
        let volumes = config.volumes().as_deref().unwrap_or_default();
        let mut paths =
            mounts::volume_targets(volumes, &tmpfs, usize::MAX).map_err(ContainerError::from)?;
        let volumes = paths.len();
        let workdir = workdir(options, config).map_err(ContainerError::from)?;
        // Most images name none or the root, and to look costs reading the list of the image's files.
        if !matches!(workdir.as_str(), "" | "/") {
            paths.push(workdir);
        }
        if paths.is_empty() {
            return Ok(());
        }
        let found = self.store()?.look(image, &paths)?;
        let mut refused = paths.into_iter().zip(found).enumerate();
        match refused.find(|(_, (_, found))| *found == Found::Other) {
            Some((index, (path, _))) => Err(ContainerError::from(if index < volumes {
                OptionError::VolumeOnFile(path.into())
            } else {
                OptionError::WorkdirOnFile(path.into())
            })
            .into()),
            None => Ok(()),
        }
    }

    pub(crate) fn create_from(
        &self,
        options: &CreateOptions,
        image: &CreateImage,
        guest: &Guest,
    ) -> Result<Container, Error> {
        let id = options.id.clone().map_or_else(random_id, Ok)?;
        // Everything that the user could have got wrong, before anything is made.
        let merged = merge(&id, options, &image.config).map_err(ContainerError::from)?;
        let plan = self.plan(options, guest, &merged.config.volumes)?;
        let warnings = limits::cpu_warning(plan.nano_cpus, plan.vcpus);
        let template = template(&self.root.cache(), plan.disk)?;

        if let Some(name) = &options.name {
            self.clear_name(name)?;
        }
        let _not_swept = self.root.creating()?;
        let (name, unfinished) = self.reserve(options.name.as_ref(), &id)?;
        let dir = self.root.container(&id);
        // Of a container with `--rm` nothing is to survive a power cut, and a sync costs milliseconds.
        let durable = !options.auto_remove;
        let scratch = (!options.read_only).then(|| dir.join("scratch.ext4"));
        if let Some(path) = &scratch {
            copy_sparse(&template, path, durable)?;
        }
        let volumes = make_volumes(&dir, &template, &plan.volumes, durable)?;

        let sandbox = SandboxSpec {
            id: id.clone(),
            hostname: merged.config.hostname.clone(),
            isolation: guest.isolation,
            memory: ByteSize(plan.guest_memory),
            cpus: plan.vcpus,
            kernel: guest.kernel.clone(),
            initramfs: guest.initramfs.clone(),
            image: image.disk.clone(),
            scratch,
            volumes,
            read_only: options.read_only,
            tmpfs: plan.tmpfs,
            masked_paths: merged.security.masked_paths,
            readonly_paths: merged.security.readonly_paths,
            devices: merged.security.devices.iter().map(Into::into).collect(),
            privileged: options.privileged,
            init: options.init,
            shm_size: limits::shm_size(options.shm_size),
            memory_limit: limits::memory_limit(options.memory),
            cpu_limit_nanos: limits::cpu_limit(plan.nano_cpus, plan.vcpus),
            process: merged.process,
            auto_remove: options.auto_remove,
            open_stdin: options.interactive,
            // A terminal outlives whoever types at it: the next client goes on where the last left off.
            stdin_once: merged.config.attach_stdin && !merged.config.tty,
            log: LogSpec::Files {
                max_file_size: ByteSize(self.settings.log.max_size.0 / 2),
            },
            jail: JailSpec {
                weakened: options.weakened_jail || self.settings.jail == JailStrength::Weakened,
                ..JailSpec::default()
            },
        };
        let record = Record {
            version: Record::VERSION,
            id,
            name,
            created: Timestamp::now(),
            image: options.image.clone(),
            image_id: image.id.clone(),
            config: merged.config,
            host: HostOptions {
                security_opt: merged.security.options,
                devices: merged.security.devices,
                ..host_options(options, plan.nano_cpus, plan.disk)
            },
            sandbox,
        };
        record.write(&dir, durable)?;
        unfinished.keep();
        Ok(Container {
            dir,
            record,
            warnings: warnings.into_iter().collect(),
            guest_is_current: true,
        })
    }

    fn plan(
        &self,
        options: &CreateOptions,
        guest: &Guest,
        image_volumes: &[String],
    ) -> Result<Plan, ContainerError> {
        let tmpfs = mounts::tmpfs(&options.tmpfs)?;
        let host_cpus = std::thread::available_parallelism().map_or(1, usize::from);
        let nano_cpus = limits::nano_cpus(options.cpus, host_cpus)?;
        // A host that does not tell refuses by itself, when the machine starts.
        let host_memory = bulkhead_platform::host_memory().unwrap_or(u64::MAX);
        let platform = bulkhead_platform::platform(guest.isolation);
        let devices = platform.map_or(usize::MAX, |platform| platform.most_devices());
        Ok(Plan {
            guest_memory: limits::guest_memory(
                options.memory,
                self.settings.memory,
                limits::guest_fixed(guest),
                host_memory,
            )?,
            disk: limits::disk_size(options.disk, self.settings.disk_size)?,
            nano_cpus,
            vcpus: limits::vcpus(guest.isolation, nano_cpus, self.settings.cpus, host_cpus),
            volumes: mounts::volume_targets(image_volumes, &tmpfs, mounts::room(devices))?,
            tmpfs,
        })
    }

    /// Makes the container's directory and takes its name, in this order, so that a name never
    /// belongs to a container of which there is no trace.
    fn reserve(
        &self,
        wanted: Option<&ContainerName>,
        id: &ContainerId,
    ) -> Result<(ContainerName, Unfinished<'_>), Error> {
        let dir = self.root.container(id);
        DirBuilder::new()
            .mode(0o700)
            .create(&dir)
            .map_err(FileError::at("create directory", &dir))?;
        let mut unfinished = Unfinished {
            root: &self.root,
            names: &self.names,
            id: id.clone(),
            name: None,
            keep: false,
        };
        let name = match wanted {
            Some(name) => self.reserve_wanted(name, id)?,
            None => self.reserve_random(id)?,
        };
        unfinished.name = Some(name.clone());
        Ok((name, unfinished))
    }

    fn reserve_wanted(
        &self,
        name: &ContainerName,
        id: &ContainerId,
    ) -> Result<ContainerName, Error> {
        match self.names.reserve(name, id, |owner| self.root.has(owner))? {
            Reservation::Ours => Ok(name.clone()),
            Reservation::Taken(owner) => Err(ContainerError::NameTaken {
                name: name.clone(),
                owner,
            }
            .into()),
        }
    }

    /// Clears the way where the holder of a name is only what a killed process left: a creation that
    /// was never finished, or a container with `--rm` that its monitor could not remove.
    fn clear_name(&self, name: &ContainerName) -> Result<(), Error> {
        let Some(owner) = self.names.lookup(name).filter(|owner| self.root.has(owner)) else {
            return Ok(());
        };
        match self.read(&owner) {
            Ok(Some(container)) => self.settle(&container),
            Ok(None) => self.sweep_unfinished().map(|_| ()),
            Err(_) => Ok(()),
        }
    }

    fn reserve_random(&self, id: &ContainerId) -> Result<ContainerName, Error> {
        for attempt in 0..NAME_ATTEMPTS {
            let mut bytes = [0; 4];
            getrandom::fill(&mut bytes).map_err(ContainerError::Random)?;
            let Some(name) = names::random(bytes, attempt) else {
                continue;
            };
            if let Reservation::Ours = self
                .names
                .reserve(&name, id, |owner| self.root.has(owner))?
            {
                return Ok(name);
            }
        }
        Err(ContainerError::NoFreeName.into())
    }
}

/// What the flags come to.
struct Plan {
    guest_memory: u64,
    disk: u64,
    nano_cpus: u64,
    vcpus: u32,
    volumes: Vec<String>,
    tmpfs: Vec<bulkhead_sandbox::TmpfsMount>,
}

/// Undoes a creation that does not reach its end.
struct Unfinished<'a> {
    root: &'a Root,
    names: &'a Names,
    id: ContainerId,
    name: Option<ContainerName>,
    keep: bool,
}

impl Unfinished<'_> {
    fn keep(mut self) {
        self.keep = true;
    }
}

impl Drop for Unfinished<'_> {
    fn drop(&mut self) {
        if self.keep {
            return;
        }
        if let Err(error) = discard::discard(&self.root.container(&self.id)) {
            tracing::warn!(
                "the half-made container {} stays until 'bulkhead ps' tidies up: {}",
                self.id.short(),
                chain(&error)
            );
        }
        if let Some(name) = &self.name
            && let Err(error) = self.names.release(name, &self.id)
        {
            tracing::warn!(
                "the name {name} stays taken until 'bulkhead ps' tidies up: {}",
                chain(&error)
            );
        }
    }
}

/// An identifier for a new container.
///
/// # Errors
/// [`ContainerError::Random`] when the system has no random bytes.
pub fn random_id() -> Result<ContainerId, ContainerError> {
    let mut bytes = [0; 32];
    loop {
        getrandom::fill(&mut bytes).map_err(ContainerError::Random)?;
        let id = ContainerId::from_bytes(bytes);
        // As Docker: a host name of digits alone confuses programs that expect a name.
        if id.short().bytes().any(|b| b.is_ascii_alphabetic()) {
            return Ok(id);
        }
    }
}

fn make_volumes(
    dir: &Path,
    template: &Path,
    targets: &[String],
    durable: bool,
) -> Result<Vec<VolumeDisk>, Error> {
    if targets.is_empty() {
        return Ok(Vec::new());
    }
    let volumes = dir.join("volumes");
    fs::create_dir(&volumes).map_err(FileError::at("create directory", &volumes))?;
    targets
        .iter()
        .enumerate()
        .map(|(index, target)| {
            let path = volumes.join(format!("{index}.ext4"));
            copy_sparse(template, &path, durable)?;
            Ok(VolumeDisk {
                path,
                target: target.clone(),
                read_only: false,
            })
        })
        .collect()
}

fn host_options(options: &CreateOptions, nano_cpus: u64, disk: u64) -> HostOptions {
    HostOptions {
        memory: limits::memory_limit(options.memory),
        nano_cpus,
        disk: ByteSize(disk),
        shm_size: limits::shm_size(options.shm_size),
        auto_remove: options.auto_remove,
        init: options.init,
        read_only: options.read_only,
        tmpfs: options.tmpfs.clone(),
        cap_add: options.cap_add.clone(),
        cap_drop: options.cap_drop.clone(),
        ulimits: options.ulimits.clone(),
        privileged: options.privileged,
        security_opt: Vec::new(),
        devices: Vec::new(),
    }
}
