//! From the kernel's first process to a served connection, and to the machine's end.

use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use nix::errno::Errno;
use nix::mount::{MsFlags, mount};
use nix::sys::reboot::{RebootMode, reboot};
use nix::sys::stat::{Mode, umask};
use nix::unistd::{chdir, chroot};

use bulkhead_protocol::CONTROL_PORT;

use crate::cgroup;
use crate::container::Layout;
use crate::machine;
use crate::modules::{self, ModuleError};
use crate::serve::serve;
use crate::service::Guest;
use crate::syscalls;
use crate::transport::{Dial, VsockDialer};

/// Why the guest is of no use.
#[derive(Debug, thiserror::Error)]
enum BootError {
    #[error("cannot mount {kind} at {target}")]
    Mount {
        kind: &'static str,
        target: &'static str,
        #[source]
        source: io::Error,
    },
    #[error("cannot make the initial root a mount of its own")]
    Root(#[source] io::Error),
    #[error(transparent)]
    Module(#[from] ModuleError),
    #[error("cannot start the event loop")]
    Runtime(#[source] io::Error),
    #[error("cannot connect to vsock port {CONTROL_PORT} of the host")]
    Connect(#[source] io::Error),
    #[error("cannot serve the host's calls")]
    Serve(#[source] ttrpc::Error),
}

/// Starts of exec'd processes that a container may hold up at a time; further ones wait for one of them to end. A thread
/// costs the guest some 30 KiB.
const MAX_HELD_UP: usize = 64;

/// Runs the guest and powers it off. `program` is the path of the agent itself.
pub fn run(program: PathBuf) -> ! {
    if let Err(error) = live(program) {
        report(&error);
    }
    nix::unistd::sync();
    // Does not return; should it all the same, the kernel panics for want of its first process, which
    // ends the machine as well.
    reboot(RebootMode::RB_POWER_OFF).ok();
    std::process::exit(1);
}

/// The one place where a fatal error is printed: standard error is the console.
fn report(error: &dyn std::error::Error) {
    eprintln!("bulkhead-agent: {}", bulkhead_types::chain(error));
}

fn live(program: PathBuf) -> Result<(), BootError> {
    let started_at = machine::since_boot();
    // Modes of device nodes and generated files are meant literally.
    umask(Mode::empty());
    syscalls::set_undumpable().ok();
    own_root().map_err(|errno| BootError::Root(errno.into()))?;
    attach("devtmpfs", "/dev", "mode=755")?;
    hold_standard_descriptors();
    modules::load_all(Path::new("/modules"))?;

    // The host answers while the rest is being mounted.
    let dialer = VsockDialer;
    let control = dialer.dial(CONTROL_PORT);
    attach("sysfs", "/sys", "")?;
    let cgroups = attach("cgroup2", cgroup::ROOT, "")
        .is_ok()
        .then(|| PathBuf::from(cgroup::ROOT));
    create("/run").ok();

    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(MAX_HELD_UP)
        .build()
        .map_err(BootError::Runtime)?;
    let result = runtime.block_on(async {
        let control = control.await.map_err(BootError::Connect)?;
        let layout = Layout {
            run: PathBuf::from("/run"),
            dev: PathBuf::from("/dev"),
            blocks: PathBuf::from("/sys/block"),
            cgroups,
            program,
            owns_machine: true,
        };
        let guest = Arc::new(Guest::new(layout, Box::new(VsockDialer), started_at));
        serve(Arc::clone(&guest), control)
            .await
            .map_err(BootError::Serve)?;
        // After a lost connection the disks are worth as much as after a shutdown.
        guest.stop().await;
        Ok(())
    });
    // A thread that a container holds up does not hold up the end.
    runtime.shutdown_background();
    result
}

/// Stacks the initial root on itself: containers leave it with pivot_root, which needs a root that is
/// mounted on something.
fn own_root() -> nix::Result<()> {
    let none = None::<&str>;
    mount(Some("/"), "/", none, MsFlags::MS_BIND, none)?;
    chdir("/..")?;
    chroot(".")
}

fn create(directory: &str) -> nix::Result<()> {
    match nix::unistd::mkdir(directory, Mode::from_bits_truncate(0o755)) {
        Ok(()) | Err(Errno::EEXIST) => Ok(()),
        Err(errno) => Err(errno),
    }
}

fn attach(kind: &'static str, target: &'static str, options: &str) -> Result<(), BootError> {
    let flags = MsFlags::MS_NOSUID;
    let attempt = || mount(Some(kind), target, Some(kind), flags, Some(options));
    let result = match attempt() {
        Err(Errno::ENOENT) => create(target).and_then(|()| attempt()),
        // The kernel may have mounted it itself.
        Err(Errno::EBUSY) => Ok(()),
        other => other,
    };
    result.map_err(|errno| BootError::Mount {
        kind,
        target,
        source: errno.into(),
    })
}

/// Without a console the kernel starts its first process with no descriptors at all; those of sockets
/// must not become the standard ones.
fn hold_standard_descriptors() {
    while let Ok(file) = std::fs::OpenOptions::new()
        .read(true)
        .write(true)
        .open("/dev/null")
    {
        use std::os::fd::{AsRawFd, IntoRawFd};
        if file.as_fd().as_raw_fd() > 2 {
            break;
        }
        let _ = file.into_raw_fd();
    }
}
