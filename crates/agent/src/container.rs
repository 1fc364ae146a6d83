//! A container as the agent knows it: made once, then the place where its processes run.

use std::ffi::CString;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

use nix::mount::{MntFlags, MsFlags, umount2};

use bulkhead_protocol::api::{CreateContainerRequest, Tmpfs, Volume};

use crate::cgroup::{Cgroup, CgroupError, Limits};
use crate::devices::{self, DeviceError};
use crate::disks::{DiskError, Disks};
use crate::inside::Inside;
use crate::machine::{self, MachineError};
use crate::process::Process;
use crate::rootfs::{self, Root, RootError, Sources};
use crate::view::{Mount, MountKind, View};
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
    #[error("the thread that creates the container failed")]
    Thread(#[source] tokio::task::JoinError),
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
    #[error(transparent)]
    Device(#[from] DeviceError),
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
    /// Flags of the root's mount beside read-only.
    pub(crate) root_flags: MsFlags,
    /// The main process runs under the agent's init.
    pub(crate) init: bool,
    /// Time that mounting took.
    pub(crate) mount_ns: u64,
    /// What the first process builds for itself and all others.
    pub(crate) view: View,
    stage: Mutex<Stage>,
}

/// created ⇄ starting → running. A start that failed can be tried again; a main process that has ended stays.
#[derive(Debug)]
pub(crate) enum Stage {
    Created,
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
        // What an image calls a device is none, unless the container is privileged.
        let nodev = if request.privileged {
            MsFlags::empty()
        } else {
            MsFlags::MS_NODEV
        };
        let sources = Sources {
            image: &image,
            scratch: scratch.as_deref(),
            hostname: &request.hostname,
            flags: nodev,
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

        let nodes = devices::make(&run.join("nodes"), &layout.dev, &request.devices)?;
        let guest_nodes = if request.privileged {
            devices::all(&layout.dev)?
        } else {
            Vec::new()
        };
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
        let mut mounts = Vec::new();
        for (index, wanted) in request.volumes.iter().enumerate() {
            let place = run.join(format!("volume{index}"));
            mounts.push(make_volume(&root, disks, &place, wanted, nodev)?);
        }
        for wanted in &request.tmpfs {
            mounts.push(tmpfs(wanted, nodev)?);
        }
        // A mount must not hide one below it.
        mounts.sort_by_key(Mount::depth);
        let covered = mounts
            .iter()
            .any(|mount| mount.target.as_c_str() == c"/etc");
        let view = View {
            pts,
            shm_size: match request.shm_size {
                0 => 64 << 20,
                size => size,
            },
            cgroups: cgroup.is_some(),
            privileged: request.privileged,
            nodes,
            guest_nodes,
            mounts,
            files: root.files(covered),
            masked: targets(&request.masked_paths)?,
            readonly: targets(&request.readonly_paths)?,
        };

        Ok(Self {
            root,
            cgroup,
            read_only: wanted.read_only,
            root_flags: nodev,
            init: request.init,
            mount_ns,
            view,
            stage: Mutex::new(Stage::Created),
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
        self.view.pts.join("ptmx").to_string_lossy().into_owned()
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
        for mount in &self.view.mounts {
            if let MountKind::Volume { disk, .. } = &mount.kind {
                umount2(disk, MntFlags::empty())?;
            }
        }
        self.root.unmount()
    }
}

/// Mounts a volume's disk at `place`, fills it if it is new, and says where the container sees it.
fn make_volume(
    root: &Root,
    disks: &Disks,
    place: &Path,
    wanted: &Volume,
    flags: MsFlags,
) -> Result<Mount, CreateError> {
    let target = target(&wanted.target)?;
    rootfs::create(place)?;
    let disk = disks.find(&wanted.serial)?;
    rootfs::attach(&disk, place, "ext4", flags, "discard,noinit_itable")?;
    let path = root.path();
    let inside = Inside::open(&path).map_err(|source| CreateError::Open { path, source })?;
    Ok(Mount {
        target,
        kind: MountKind::Volume {
            disk: place.to_owned(),
            path: volume::fill_once(place, &inside, &wanted.target)?,
            read_only: wanted.read_only,
        },
    })
}

/// `forced` are flags that the mount has whatever its options say: a `dev` of the host's request must not open the guest's
/// raw disks to a container that is not privileged.
fn tmpfs(wanted: &Tmpfs, forced: MsFlags) -> Result<Mount, CreateError> {
    let data = CString::new(wanted.data.as_str());
    Ok(Mount {
        target: target(&wanted.target)?,
        kind: MountKind::Tmpfs {
            flags: MsFlags::from_bits_truncate(libc::c_ulong::from(wanted.flags)) | forced,
            data: data.map_err(|_| CreateError::Target(wanted.target.clone()))?,
            keep_mode: wanted.keep_mode,
        },
    })
}

fn targets(paths: &[String]) -> Result<Vec<CString>, CreateError> {
    paths.iter().map(|path| target(path)).collect()
}

fn target(path: &str) -> Result<CString, CreateError> {
    CString::new(path)
        .ok()
        .filter(|_| path.starts_with('/'))
        .ok_or_else(|| CreateError::Target(path.to_owned()))
}
