//! Opening everything the compartment needs, while paths still mean something.

use std::error::Error;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::time::Duration;

use bulkhead_platform::{Boot, BootError};
use bulkhead_types::chain;

use super::record::HERE;
use super::sys;
use crate::client::CONTROL_SOCKET;
use crate::failure::StartFailure;
use crate::lock::Alive;
use crate::logs::LOG_FILES;
use crate::spec::{LogSpec, SandboxSpec};

/// Name of the guest console's file in a container's directory: what the guest's kernel said in its last run, begun
/// anew when it is a mebibyte long.
pub const CONSOLE_LOG: &str = "console.log";

/// How long a start waits for another process to let go of a disk. A sandbox that was killed is gone in milliseconds,
/// unless the host's disk holds it up; who holds it for longer is somebody else, and the start fails.
const FREE_WITHIN: Duration = Duration::from_secs(10);
const LOOK_AGAIN: Duration = Duration::from_millis(5);

/// Every file of one compartment.
#[derive(Debug)]
pub(crate) struct Opened {
    pub boot: Boot,
    pub image: Vec<File>,
    pub scratch: Option<File>,
    pub volumes: Vec<File>,
    pub log: Option<[File; 2]>,
    pub console_log: File,
    pub listener: UnixListener,
    pub alive: Alive,
}

impl Opened {
    /// Opens all of it; the working directory is the container's, and its run lock is held.
    pub fn open(spec: &SandboxSpec) -> Result<Self, StartFailure> {
        let boot = Boot::open(spec.isolation, &spec.kernel, &spec.initramfs).map_err(|e| {
            let (what, path) = match &e {
                BootError::Kernel { path, .. } => ("kernel", path),
                BootError::Library { path, .. } => ("kernel's library", path),
                BootError::Initramfs { path, .. } => ("initramfs", path),
                BootError::Kvm { .. } => {
                    return StartFailure::Platform {
                        reason: chain(&e).into(),
                    };
                }
            };
            let reason = e.source().map(ToString::to_string).unwrap_or_default();
            StartFailure::File {
                what: what.to_owned(),
                path: path.display().to_string(),
                reason,
            }
        })?;
        let image = spec
            .image
            .iter()
            .map(|path| read("image disk", path))
            .collect::<Result<_, _>>()?;
        let scratch = spec
            .scratch
            .as_deref()
            .map(|path| disk("scratch disk", path))
            .transpose()?;
        let volumes = spec
            .volumes
            .iter()
            .map(|volume| disk("volume disk", &volume.path))
            .collect::<Result<_, _>>()?;
        let log = match spec.log {
            LogSpec::Files { .. } => Some(open_log()?),
            LogSpec::None => None,
        };
        let console_log = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .open(CONSOLE_LOG)
            .map_err(failure("console log", Path::new(CONSOLE_LOG)))?;
        Ok(Self {
            boot,
            image,
            scratch,
            volumes,
            log,
            console_log,
            listener: listen().map_err(failure("control socket", Path::new(CONTROL_SOCKET)))?,
            alive: Alive::hold(Path::new(HERE)).map_err(failure("lock", Path::new(HERE)))?,
        })
    }

    /// The descriptors, for a jail that closes all others.
    pub fn descriptors(&self) -> Vec<RawFd> {
        let mut fds = self.boot.descriptors();
        fds.extend([
            self.console_log.as_raw_fd(),
            self.listener.as_raw_fd(),
            self.alive.as_raw_fd(),
        ]);
        let files = self
            .image
            .iter()
            .chain(&self.scratch)
            .chain(&self.volumes)
            .chain(self.log.iter().flatten());
        fds.extend(files.map(AsRawFd::as_raw_fd));
        fds
    }
}

fn read(what: &'static str, path: &Path) -> Result<File, StartFailure> {
    File::open(path).map_err(failure(what, path))
}

/// Opens a writable disk that nobody else writes: two kernels on one disk would destroy its file system. A run that was
/// killed may need a moment to let go of it, and its word for that is not enough, see decision 0017.
fn disk(what: &'static str, path: &Path) -> Result<File, StartFailure> {
    let look = File::open(path).map_err(failure(what, path))?;
    let mut waited = Duration::ZERO;
    while sys::has_writer(&look) {
        if waited >= FREE_WITHIN {
            return Err(StartFailure::File {
                what: what.to_owned(),
                path: path.display().to_string(),
                reason: "another process has it open for writing".to_owned(),
            });
        }
        std::thread::sleep(LOOK_AGAIN);
        waited += LOOK_AGAIN;
    }
    OpenOptions::new()
        .read(true)
        .write(true)
        .open(path)
        .map_err(failure(what, path))
}

fn open_log() -> Result<[File; 2], StartFailure> {
    let open = |name: &str| {
        OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(name)
            .map_err(failure("log", Path::new(name)))
    };
    let [first, second] = LOG_FILES;
    Ok([open(first)?, open(second)?])
}

/// The lock is held, so a socket that is already there is a dead one's.
fn listen() -> io::Result<UnixListener> {
    match fs::remove_file(CONTROL_SOCKET) {
        Ok(()) => {}
        Err(e) if e.kind() == io::ErrorKind::NotFound => {}
        Err(e) => return Err(e),
    }
    UnixListener::bind(CONTROL_SOCKET)
}

fn failure(what: &'static str, path: &Path) -> impl Fn(io::Error) -> StartFailure {
    move |e| StartFailure::File {
        what: what.to_owned(),
        path: path.display().to_string(),
        reason: e.to_string(),
    }
}
