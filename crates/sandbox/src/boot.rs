//! Placeholder while the platform lands.
use crate::compartment::{Boot, BootError, Guest, Walls};
use crate::monitor::Opened;
use crate::spec::SandboxSpec;
use crate::streams::Ports;
use bulkhead_jail::VmRootSpec;
use std::fs::File;
use std::os::fd::OwnedFd;
pub(crate) struct MachineBoot {
    pub spec: Box<SandboxSpec>,
    pub kernel: OwnedFd,
    pub initramfs: OwnedFd,
    pub image: Vec<File>,
    pub scratch: Option<File>,
    pub volumes: Vec<File>,
}
impl MachineBoot {
    pub fn root(_spec: &SandboxSpec, _opened: &Opened) -> Option<VmRootSpec> {
        None
    }
}
impl Boot for MachineBoot {
    fn boot(
        self: Box<Self>,
        _ports: Ports,
        _console: OwnedFd,
        _walls: &mut Walls,
    ) -> Result<Box<dyn Guest>, BootError> {
        Err(BootError("no platform".to_owned()))
    }
}
