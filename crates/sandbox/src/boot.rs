//! Starting the real guest: devices from the files that the monitor opened, the machine from the platform.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;

use bulkhead_devices::{Acceptor, Balloon, Block, BlockError, Device, Pmem, Rng, Vsock};
use bulkhead_platform::{Machine, PlatformError, VmConfig, VmDevice, platform};
use bulkhead_protocol::GUEST_CID;
use bulkhead_types::chain;

use crate::compartment::agent::{IMAGE_SERIAL, SCRATCH_SERIAL, volume_serial};
use crate::compartment::{Boot, BootError, Guest, Walls};
use crate::event::EventSender;
use crate::spec::SandboxSpec;
use crate::streams::Ports;
use crate::warning::{self, WarnedDisk};

/// Everything for one start.
pub(crate) struct MachineBoot {
    pub spec: Box<SandboxSpec>,
    pub boot: bulkhead_platform::Boot,
    pub image: Vec<File>,
    pub scratch: Option<File>,
    pub volumes: Vec<File>,
    /// Where the host's failures under a disk are told; `None` where no descriptor was left for it.
    pub events: Option<EventSender>,
}

#[derive(Debug, thiserror::Error)]
enum StartError {
    #[error("make disk '{serial}'")]
    Disk { serial: String, source: BlockError },
    #[error(transparent)]
    Platform(#[from] PlatformError),
}

impl Boot for MachineBoot {
    fn boot(
        self: Box<Self>,
        ports: Ports,
        console: OwnedFd,
        walls: &mut Walls,
    ) -> Result<Box<dyn Guest>, BootError> {
        let machine = self
            .start(ports, console, walls)
            .map_err(|e| BootError(chain(&e)))?;
        Ok(Box::new(MachineGuest { machine }))
    }
}

impl MachineBoot {
    fn start(
        self,
        ports: Ports,
        console: OwnedFd,
        walls: &mut Walls,
    ) -> Result<Box<dyn Machine>, StartError> {
        let Self {
            spec,
            boot,
            image,
            scratch,
            volumes,
            events,
        } = self;
        let watched = |block: Block, disk| match events.as_ref().map(EventSender::try_clone) {
            Some(Ok(events)) => block.on_fault(warning::teller(events, disk)),
            _ => block,
        };
        let mut devices = vec![
            device(
                "vsock",
                Vsock::new(GUEST_CID.into(), Box::new(PortAcceptor(ports))),
            ),
            device("rng", Rng::new()),
        ];
        let platform = platform(spec.isolation)?;
        if !image.is_empty() {
            let shared = platform.shares_memory() && spec.kernel.dax;
            devices.push(image_disk(image, shared, |block| {
                watched(block, WarnedDisk::Image)
            })?);
        }
        if platform.shares_memory() {
            devices.push(device("balloon", Balloon::new()));
        }
        if let Some(file) = scratch {
            devices.push(disk(SCRATCH_SERIAL, |serial| {
                Ok(watched(Block::writable(file, serial)?, WarnedDisk::Scratch))
            })?);
        }
        debug_assert!(devices.len() <= FIXED_DEVICES);
        for (index, file) in volumes.into_iter().enumerate() {
            let number = u16::try_from(index).unwrap_or(u16::MAX);
            devices.push(disk(&volume_serial(index), |serial| {
                let block = Block::writable(file, serial)?;
                Ok(watched(block, WarnedDisk::Volume(number)))
            })?);
        }
        let config = VmConfig {
            memory_bytes: spec.memory.0,
            vcpus: spec.cpus,
            boot,
            root: walls.take_vm_root(),
            console,
            devices,
            arguments: Vec::new(),
            thread_lock: walls.thread_lock(),
            page_map: walls.take_page_map(),
        };
        Ok(platform.start(config)?)
    }
}

/// The most devices that a compartment has beside its volumes: vsock, random numbers, image, balloon and scratch disk.
pub const FIXED_DEVICES: usize = 5;

fn device(name: &str, device: impl Device + 'static) -> VmDevice {
    VmDevice {
        name: name.to_owned(),
        device: Box::new(device),
    }
}

/// The image's disk: `shared`, pages of its files are shown to the guest as they lie in the host's memory, so that all
/// containers of an image share them. Where files cannot be mapped, and otherwise, it is a block device.
fn image_disk(
    files: Vec<File>,
    shared: bool,
    watched: impl FnOnce(Block) -> Block,
) -> Result<VmDevice, StartError> {
    let copies = shared.then(|| files.iter().map(File::try_clone).collect::<io::Result<_>>());
    if let Some(Ok(copies)) = copies
        && let Ok(pmem) = Pmem::read_only(copies)
    {
        return Ok(device(IMAGE_SERIAL, pmem));
    }
    disk(IMAGE_SERIAL, |serial| {
        Block::read_only(files, serial).map(watched)
    })
}

fn disk(
    serial: &str,
    make: impl FnOnce(&str) -> Result<Block, BlockError>,
) -> Result<VmDevice, StartError> {
    let block = make(serial).map_err(|source| StartError::Disk {
        serial: serial.to_owned(),
        source,
    })?;
    Ok(device(serial, block))
}

/// Connects what the guest asks for to the streams that were opened for it; everything else is refused.
struct PortAcceptor(Ports);

impl Acceptor for PortAcceptor {
    fn accept(&mut self, port: u32) -> Option<UnixStream> {
        self.0.connect(port)
    }
}

struct MachineGuest {
    machine: Box<dyn Machine>,
}

impl Guest for MachineGuest {
    fn exit_fd(&self) -> io::Result<OwnedFd> {
        self.machine.exit_fd().try_clone_to_owned()
    }

    fn stop(&mut self) {
        // It fails only when the guest is gone already; this process's end takes the rest along.
        let _ = self.machine.stop();
    }

    fn describe_exit(&mut self) -> String {
        match self.machine.wait() {
            Ok(exit) => exit.to_string(),
            Err(e) => chain(&e),
        }
    }
}
