//! The device's side: kicks, the mailbox, and the device's own descriptors.

use std::fmt;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bulkhead_types::chain;
use nix::sys::eventfd::{EfdFlags, EventFd};

use super::interrupt::Interrupt;
use super::mailbox::Mailbox;
use super::registers::{Registers, Shared};
use super::setup::Setup;
use crate::device::{Device, DeviceError, Work};
use crate::log_gate::LogGate;
use crate::memory::GuestMemory;
use crate::poll::{Poller, Readiness, TRANSPORT_TOKENS};
use crate::transport::TransportError;
use crate::transport::served::Served;
use crate::transport::thread::{EDGE, Server, Turn, step};

const DOORBELL: u64 = TRANSPORT_TOKENS | 1;
/// Kick descriptors have the tokens from here on, by queue.
const KICKS: u64 = TRANSPORT_TOKENS | 1 << 32;

/// Serves a device behind its [`Registers`].
pub struct Worker {
    served: Served,
    shared: Arc<Shared>,
    mail: bool,
    guest_ended: bool,
    /// Why the device is broken, until it is reset.
    failure: Option<DeviceError>,
    log: LogGate,
}

impl fmt::Debug for Worker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Worker")
            .field("id", &self.shared.id)
            .field("failure", &self.failure)
            .finish_non_exhaustive()
    }
}

/// A device's two sides. `threaded` says whether the worker will run in a thread of its own.
pub(super) fn build(
    device: Box<dyn Device>,
    memory: GuestMemory,
    interrupt: OwnedFd,
    threaded: bool,
) -> io::Result<(Registers, Worker, Poller)> {
    let poller = Poller::new()?;
    let mailbox = Mailbox::new()?;
    poller.add_any(mailbox.doorbell(), DOORBELL, EDGE)?;
    let limits = device.queue_sizes();
    let flags = EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK;
    let mut kicks: Vec<OwnedFd> = Vec::with_capacity(limits.len());
    for (token, _) in (KICKS..).zip(limits) {
        let kick = EventFd::from_value_and_flags(0, flags)?;
        poller.add_any(kick.as_fd(), token, EDGE)?;
        kicks.push(kick.into());
    }
    let setup = Setup::new(device.features(), limits);
    let shared = Arc::new(Shared {
        id: device.id(),
        config: device.config().to_vec(),
        memory,
        interrupt: Arc::new(Interrupt::new(interrupt)),
        mailbox,
        kicks,
        broken: AtomicBool::new(false),
    });
    let worker = Worker {
        served: Served::new(device, poller.clone()),
        shared: Arc::clone(&shared),
        mail: false,
        guest_ended: false,
        failure: None,
        log: LogGate::default(),
    };
    Ok((Registers::new(shared, setup, threaded), worker, poller))
}

impl Worker {
    /// One wake-up, without waiting for anything. [`Work::More`] asks to be called again.
    ///
    /// # Errors
    /// The host's; what a guest does never is one. Only when the guest has ended is the last
    /// breakage of a device that was not reset since reported.
    pub fn turn(&mut self) -> Result<Work, TransportError> {
        let poller = self.served.poller().clone();
        match step(&poller, self, false)? {
            Some(Turn::Again) => Ok(Work::More),
            _ => Ok(Work::Done),
        }
    }

    /// Whether everything the guest handed over has reached the host.
    pub fn drained(&self) -> bool {
        self.served.drained()
    }

    fn read_mail(&mut self) {
        let mail = self.shared.mailbox.take();
        if mail.stop {
            self.served.stop();
            self.failure = None;
            self.shared.mailbox.stopped(&mail);
        }
        if let Some(start) = mail.start {
            let memory = self.shared.memory.clone();
            let started = self.served.activate(memory, start.queues, start.features);
            if let Err(error) = started {
                self.broke(error);
            }
        }
        if mail.guest_ended {
            self.guest_ended = true;
            self.served.look_everywhere();
        }
    }

    /// The guest broke the device: it stops, and asks to be reset.
    fn broke(&mut self, error: DeviceError) {
        self.served.stop();
        self.shared.broken.store(true, Ordering::SeqCst);
        let _ = self.shared.interrupt.configuration_changed();
        if let Some(suppressed) = self.log.pass() {
            tracing::warn!(
                device = ?self.shared.id,
                error = %chain(&error),
                suppressed,
                "the guest broke a device; it needs a reset"
            );
        }
        self.failure = Some(error);
    }
}

impl Server for Worker {
    fn event(&mut self, token: u64, ready: Readiness) -> Result<(), TransportError> {
        match token {
            DOORBELL => self.mail = true,
            kick if kick >= KICKS => self.served.kicked((kick - KICKS) as usize),
            source => {
                if let Err(error) = self.served.source(source, ready) {
                    self.broke(error);
                }
            }
        }
        Ok(())
    }

    fn serve(&mut self) -> Result<Turn, TransportError> {
        if std::mem::take(&mut self.mail) {
            self.read_mail();
        }
        match self.served.serve() {
            Ok(Work::More) => return Ok(Turn::Again),
            Ok(Work::Done) => (),
            Err(error) => self.broke(error),
        }
        if !self.guest_ended || !self.served.drained() {
            return Ok(Turn::Wait);
        }
        match self.failure.take() {
            None => Ok(Turn::End),
            Some(error) => Err(TransportError::Device(error)),
        }
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        // A guest that is still there must not wait for answers.
        self.shared.broken.store(true, Ordering::SeqCst);
        self.shared.mailbox.close();
    }
}
