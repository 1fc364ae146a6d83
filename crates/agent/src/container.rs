//! A container as the agent knows it: made once, then the place where its processes run.

use std::ffi::CString;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

use nix::mount::{MntFlags, MsFlags, umount2};

use bulkhead_protocol::api::CreateContainerRequest;

use crate::cgroup::{Cgroup, CgroupError, Limits};
use crate::disks::{DiskError, Disks};
use crate::inside::Inside;
use crate::machine::{self, MachineError};
use crate::process::Process;
use crate::rootfs::{self, Root, RootError, Sources};
use crate::syscalls;
use crate::tmpfs::{self, InvalidOption};
use crate::view::{self, Step};
use crate::volume::{self, VolumeError};

/// Where things are; differs in tests.
#[derive(Debug, Clone)]
pub struct Layout {
    /// Directory for mount points; its parent must exist.
    pub run: PathBuf,
    /// Device nodes.
    pub dev: PathBuf,
    /// Block devices of the kernel, `/sys/block`.
    pub blocks: PathBuf,
    /// The mounted cgroup file system, where there is one.
    pub cgroups: Option<PathBuf>,
    /// The agent's own program, for containers that want an init.
    pub program: PathBuf,
    /// Whether host name, clock, entropy and interfaces are ours to set.
    pub owns_machine: bool,
}

/// Why a container could not be made.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CreateError {
    #[error("the container exists already")]
    Exists,
    #[error("the request names no root file system")]
    NoRoot,
    #[error(transparent)]
    Disk(#[from] DiskError),
    #[error(transparent)]
    Root(#[from] RootError),
    #[error(transparent)]
    Volume(#[from] VolumeError),
    #[error(transparent)]
    Cgroup(#[from] CgroupError),
    #[error("cannot limit memory: the guest's kernel has no cgroups")]
    NoCgroups,
    #[error(transparent)]
    Machine(#[from] MachineError),
    #[error("cannot mount {target}")]
    Tmpfs {
        target: String,
        #[source]
        source: InvalidOption,
    },
    #[error("{0} is not an absolute path without null bytes")]
    Target(String),
    #[error("cannot open {path}")]
    Open {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
}

/// A container that was created.
#[derive(Debug)]
pub(crate) struct Container {
    root: Root,
    pub(crate) cgroup: Option<Cgroup>,
    pub(crate) read_only: bool,
    /// The main process runs under the agent's init.
    pub(crate) init: bool,
    /// Time that mounting took.
    pub(crate) mount_ns: u64,
    pts: PathBuf,
    volumes: Vec<PathBuf>,
    stage: Mutex<Stage>,
}

/// created → starting → running; a main process that has ended stays.
#[derive(Debug)]
pub(crate) enum Stage {
    /// The steps that the first process takes to build its view.
    Created(Vec<Step>),
    Starting,
    Running(Arc<Process>),
}

impl Container {
    /// Mounts everything below `layout.run`, under a name of its own.
    pub(crate) fn create(
        layout: &Layout,
        disks: &Disks,
        name: &str,
        request: &CreateContainerRequest,
    ) -> Result<Self, CreateError> {
        if layout.owns_machine {
            machine::set_clock(request.clock_realtime_ns)?;
            machine::add_entropy(
                &layout.dev.join("urandom").to_string_lossy(),
                &request.entropy,
            )?;
            machine::set_hostname(&request.hostname)?;
            machine::loopback_up()?;
        }
        let wanted = request.root.as_ref().ok_or(CreateError::NoRoot)?;
        let image = disks.find_image(&wanted.image_serial)?;
        let scratch = match wanted.scratch_serial.as_str() {
            "" => None,
            serial => Some(disks.find(serial)?),
        };
        let run = layout.run.join(name);
        let began = machine::since_boot();
        let sources = Sources {
            image: &image,
            scratch: scratch.as_deref(),
            hostname: &request.hostname,
        };
        let root = Root::mount(&run, &sources)?;
        let pts = run.join("pts");
        rootfs::create(&pts)?;
        let flags = MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC;
        let options = "newinstance,ptmxmode=0666,mode=0620,gid=5";
        rootfs::attach(Path::new("devpts"), &pts, "devpts", flags, options)?;

        let mount_ns = machine::since_boot().saturating_sub(began);

        let limits = Limits {
            memory: request.memory_limit,
            cpu_nanos: request.cpu_limit_nanos,
        };
        let cgroup = match &layout.cgroups {
            Some(cgroups) => Some(Cgroup::create(cgroups, name, limits)?),
            None if limits.memory > 0 || limits.cpu_nanos > 0 => {
                return Err(CreateError::NoCgroups);
            }
            None => None,
        };

        let shm_size = if request.shm_size == 0 {
            64 << 20
        } else {
            request.shm_size
        };
        let mut steps = view::base(detach(&pts)?, shm_size, cgroup.is_some())
            .map_err(|_| CreateError::Target("/dev/shm".to_owned()))?;
        let mut mounts = Vec::new();
        let mut volumes = Vec::new();
        if layout.owns_machine && !request.volumes.is_empty() {
            // Filling a volume reads the image through /proc/self/fd.
            rootfs::attach(
                Path::new("proc"),
                Path::new("/proc"),
                "proc",
                MsFlags::empty(),
                "",
            )?;
        }
        for (index, wanted) in request.volumes.iter().enumerate() {
            check_target(&wanted.target)?;
            let place = run.join(format!("volume{index}"));
            rootfs::create(&place)?;
            let disk = disks.find(&wanted.serial)?;
            rootfs::attach(
                &disk,
                &place,
                "ext4",
                MsFlags::empty(),
                "discard,noinit_itable",
            )?;
            volumes.push(place.clone());
            let data = {
                let path = root.path();
                let inside =
                    Inside::open(&path).map_err(|source| CreateError::Open { path, source })?;
                volume::fill_once(&place, &inside, &wanted.target)?
            };
            let steps = view::volume(detach(&data)?, &wanted.target, wanted.read_only)
                .map_err(|_| CreateError::Target(wanted.target.clone()))?;
            mounts.push((wanted.target.as_str(), steps));
        }
        for wanted in &request.tmpfs {
            check_target(&wanted.target)?;
            let options = tmpfs::parse(&wanted.options).map_err(|source| CreateError::Tmpfs {
                target: wanted.target.clone(),
                source,
            })?;
            let step = view::tmpfs(&wanted.target, options)
                .map_err(|_| CreateError::Target(wanted.target.clone()))?;
            mounts.push((wanted.target.as_str(), vec![step]));
        }
        // A mount must not hide one below it.
        mounts.sort_by_key(|(target, _)| target.split('/').filter(|part| !part.is_empty()).count());
        steps.extend(mounts.into_iter().flat_map(|(_, steps)| steps));

        Ok(Self {
            root,
            cgroup,
            read_only: wanted.read_only,
            init: request.init,
            mount_ns,
            pts,
            volumes,
            stage: Mutex::new(Stage::Created(steps)),
        })
    }

    /// Where the root is mounted in the agent's view.
    pub(crate) fn root(&self) -> PathBuf {
        self.root.path()
    }

    /// For reading the container's own files. Not kept: an open directory would keep the root busy.
    pub(crate) fn inside(&self) -> std::io::Result<Inside> {
        Inside::open(&self.root.path())
    }

    /// The multiplexer of the container's own terminals.
    pub(crate) fn ptmx(&self) -> String {
        self.pts.join("ptmx").to_string_lossy().into_owned()
    }

    /// The state; held only for moments, never across an await.
    pub(crate) fn stage(&self) -> MutexGuard<'_, Stage> {
        // Nobody panics while holding it, so a poisoned lock is still right.
        self.stage
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// Unmounts all disks. To be called when all processes have ended.
    pub(crate) fn unmount(&self) -> nix::Result<()> {
        if let Stage::Created(steps) = &mut *self.stage() {
            // Detached mounts keep their disks busy.
            steps.clear();
        }
        for volume in &self.volumes {
            umount2(volume, MntFlags::empty())?;
        }
        self.root.unmount()
    }
}

fn check_target(target: &str) -> Result<(), CreateError> {
    if target.starts_with('/') && !target.contains('\0') {
        Ok(())
    } else {
        Err(CreateError::Target(target.to_owned()))
    }
}

fn detach(path: &Path) -> Result<std::os::fd::OwnedFd, CreateError> {
    let text = path.to_string_lossy();
    let failed = |source| CreateError::Open {
        path: path.to_owned(),
        source,
    };
    let target = CString::new(text.as_bytes()).map_err(|error| failed(error.into()))?;
    syscalls::open_tree(&target).map_err(failed)
}
