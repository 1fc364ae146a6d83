//! The session: what a front end has set up so far, and the device it has set up.
//!
//! ```text
//!   features ─ memory ─ rings (size, address, base, call, kick, enable) ─▶ all ready ─▶ active
//!                                      ▲                                                  │
//!                                      └────── any of these said again: reset ◀───────────┘
//! ```

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use super::channel::Incoming;
use super::message::{F_PROTOCOL_FEATURES, ProtocolFeatures, Reply, Request};
use super::notify::{Call, Kick};
use super::regions::{RegionError, Regions};
use super::vring::Vring;
use crate::device::{Device, DeviceError, Work};
use crate::poll::{Poller, Readiness, TRANSPORT_TOKENS};
use crate::transport::served::Served;
use crate::transport::thread::EDGE;
use crate::virtio::queue::{QueueError, VIRTIO_F_RING_EVENT_IDX, VirtQueue};

/// Kick descriptors have the tokens from here on, by ring.
pub(super) const KICK_TOKENS: u64 = TRANSPORT_TOKENS | 1 << 32;

/// What a front end can get wrong once its messages are well formed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SessionError {
    /// There is no such ring.
    #[error("set up ring {ring}: the device has {rings}")]
    NoRing {
        /// Index given.
        ring: u32,
        /// Number of rings.
        rings: usize,
    },
    /// A ring size or index beyond 16 bits.
    #[error("set up ring {ring}: value {value} is out of range")]
    RingValue {
        /// Index of the ring.
        ring: u32,
        /// The value.
        value: u32,
    },
    /// Features were accepted that were never offered.
    #[error("accept features {accepted:#x}: only {offered:#x} were offered")]
    Features {
        /// Bits the front end accepted.
        accepted: u64,
        /// Bits offered.
        offered: u64,
    },
    /// A message came without its descriptor, or with more than one.
    #[error("use descriptor of request {request}: {count} came")]
    Descriptors {
        /// Request number.
        request: u32,
        /// Descriptors received.
        count: usize,
    },
    /// A kick or call descriptor cannot be used.
    #[error("use notification descriptor of ring {ring}")]
    Notification {
        /// Index of the ring.
        ring: u32,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// Rings were enabled before memory was announced.
    #[error("activate device: no guest memory was announced")]
    NoMemory,
    /// The memory table cannot be used.
    #[error("take guest memory into use")]
    Memory(#[source] RegionError),
    /// A ring cannot be used.
    #[error("take ring {ring} into use")]
    Ring {
        /// Index of the ring.
        ring: usize,
        /// The cause.
        #[source]
        source: QueueError,
    },
    /// The device broke.
    #[error("serve the guest")]
    Device(#[source] DeviceError),
}

pub(super) struct Backend {
    served: Served,
    accepted: u64,
    regions: Option<Regions>,
    rings: Vec<Vring>,
    /// Never written to; closing it would make user-mode Linux remove the device.
    backend_requests: Option<OwnedFd>,
}

impl Backend {
    pub(super) fn new(device: Box<dyn Device>, poller: Poller) -> Self {
        let count = device.queue_sizes().len();
        Self {
            served: Served::new(device, poller),
            accepted: 0,
            regions: None,
            rings: (0..count).map(|_| Vring::default()).collect(),
            backend_requests: None,
        }
    }

    /// Carry out one request; the reply if it has one.
    pub(super) fn handle(&mut self, incoming: Incoming) -> Result<Option<Reply>, SessionError> {
        let Incoming {
            number,
            request,
            descriptors,
            ..
        } = incoming;
        let offered = self.served.device().features() | F_PROTOCOL_FEATURES;
        match request {
            Request::GetFeatures => return Ok(Some(Reply::Number(offered))),
            Request::SetFeatures(accepted) => {
                if accepted & !offered != 0 {
                    return Err(SessionError::Features { accepted, offered });
                }
                self.stop();
                self.accepted = accepted;
            }
            Request::GetProtocolFeatures => {
                return Ok(Some(Reply::Number(ProtocolFeatures::OFFERED)));
            }
            Request::SetProtocolFeatures(accepted) => {
                let offered = ProtocolFeatures::OFFERED;
                if accepted & !offered != 0 {
                    return Err(SessionError::Features { accepted, offered });
                }
            }
            Request::GetQueueNum => return Ok(Some(Reply::Number(self.rings.len() as u64))),
            Request::GetConfig { offset, size } => {
                return Ok(Some(self.config(offset, size)));
            }
            Request::SetOwner | Request::SetConfig => (),
            Request::ResetOwner => {
                self.stop();
                self.rings.iter_mut().for_each(|ring| ring.enabled = false);
            }
            Request::SetMemTable(announced) => {
                self.stop();
                self.regions = None;
                let regions = Regions::map(announced, descriptors);
                self.regions = Some(regions.map_err(SessionError::Memory)?);
            }
            Request::SetBackendReqFd => {
                self.backend_requests = Some(one(number, descriptors)?);
            }
            Request::GetVringBase { ring } => {
                self.stop();
                let slot = self.ring(ring)?;
                slot.kick = None;
                let base = u32::from(slot.base);
                return Ok(Some(Reply::Ring { ring, base }));
            }
            Request::SetVringNum { ring, size } => {
                let size = narrow(ring, size)?;
                self.change(ring)?.size = Some(size);
            }
            Request::SetVringBase { ring, base } => {
                let base = narrow(ring, base)?;
                self.change(ring)?.base = base;
            }
            Request::SetVringAddr { ring, addresses } => {
                self.change(ring)?.addresses = Some(addresses);
            }
            Request::SetVringCall { ring, descriptor } => {
                let call = match descriptor {
                    false => None,
                    true => Some(Arc::new(
                        Call::new(one(number, descriptors)?)
                            .map_err(|source| SessionError::Notification { ring, source })?,
                    )),
                };
                self.change(ring)?.call = call;
            }
            Request::SetVringKick { ring, descriptor } => self.set_kick(
                ring,
                match descriptor {
                    false => None,
                    true => Some(one(number, descriptors)?),
                },
            )?,
            Request::SetVringErr { ring } => {
                self.ring(ring)?;
            }
            Request::SetVringEnable { ring, enable } => {
                if self.ring(ring)?.enabled != enable {
                    self.change(ring)?.enabled = enable;
                }
            }
        }
        self.start_if_ready()?;
        Ok(None)
    }

    /// Bytes past the end are zeros: a driver reads fields of features it was not offered.
    fn config(&self, offset: u32, size: u32) -> Reply {
        let space = self.served.device().config().iter().copied();
        let data = space
            .chain(std::iter::repeat(0))
            .skip(offset as usize)
            .take(size as usize)
            .collect();
        Reply::Config { offset, data }
    }

    fn ring(&mut self, ring: u32) -> Result<&mut Vring, SessionError> {
        let rings = self.rings.len();
        self.rings
            .get_mut(ring as usize)
            .ok_or(SessionError::NoRing { ring, rings })
    }

    /// The ring, about to be changed: an active device is stopped first.
    fn change(&mut self, ring: u32) -> Result<&mut Vring, SessionError> {
        self.stop();
        self.ring(ring)
    }

    fn set_kick(&mut self, ring: u32, descriptor: Option<OwnedFd>) -> Result<(), SessionError> {
        let failed = |source| SessionError::Notification { ring, source };
        let poller = self.served.poller().clone();
        // Without protocol features there is no message to enable a ring (section "Ring states").
        let enabled = self.accepted & F_PROTOCOL_FEATURES == 0;
        let slot = self.change(ring)?;
        slot.kick = None;
        if let Some(descriptor) = descriptor {
            let kick = Kick::new(descriptor).map_err(failed)?;
            poller
                .add_any(kick.descriptor(), KICK_TOKENS | u64::from(ring), EDGE)
                .map_err(failed)?;
            slot.kick = Some(kick);
            slot.enabled |= enabled;
        }
        Ok(())
    }

    /// Take the rings back from the device, with the indexes it has come to.
    fn stop(&mut self) {
        let queues = self.served.stop();
        for (ring, queue) in self.rings.iter_mut().zip(queues) {
            ring.base = queue.position();
        }
    }

    fn start_if_ready(&mut self) -> Result<(), SessionError> {
        if self.served.is_active() || !self.rings.iter().all(Vring::is_ready) {
            return Ok(());
        }
        let regions = self.regions.as_ref().ok_or(SessionError::NoMemory)?;
        let event_idx = self.accepted & VIRTIO_F_RING_EVENT_IDX != 0;
        let limits = self.served.device().queue_sizes().iter();
        let queues: Result<Vec<VirtQueue>, SessionError> = self
            .rings
            .iter()
            .zip(limits)
            .enumerate()
            .map(|(index, (ring, limit))| {
                ring.start(regions, *limit, event_idx)
                    .map_err(|source| SessionError::Ring {
                        ring: index,
                        source,
                    })
            })
            .collect();
        let memory = regions.memory.clone();
        let features = self.accepted & !F_PROTOCOL_FEATURES;
        self.served
            .activate(memory, queues?, features)
            .map_err(SessionError::Device)
    }

    /// The driver kicked a ring.
    pub(super) fn kicked(&mut self, ring: usize) {
        if let Some(kick) = self.rings.get(ring).and_then(|ring| ring.kick.as_ref()) {
            kick.acknowledge();
            self.served.kicked(ring);
        }
    }

    /// A descriptor of the device is ready.
    pub(super) fn source(&mut self, token: u64, ready: Readiness) -> Result<(), SessionError> {
        self.served
            .source(token, ready)
            .map_err(SessionError::Device)
    }

    /// Serve the rings that were kicked, then let the device settle.
    pub(super) fn serve(&mut self) -> Result<Work, SessionError> {
        self.served.serve().map_err(SessionError::Device)
    }

    /// The front end is gone: look at every ring once more, kicks may have been lost with it.
    pub(super) fn look_everywhere(&mut self) {
        self.served.look_everywhere();
    }

    /// Whether everything the guest handed over has reached the host.
    pub(super) fn drained(&self) -> bool {
        self.served.drained()
    }
}

fn narrow(ring: u32, value: u32) -> Result<u16, SessionError> {
    u16::try_from(value).map_err(|_| SessionError::RingValue { ring, value })
}

/// The one descriptor that must have come with request number `request`.
fn one(request: u32, mut descriptors: Vec<OwnedFd>) -> Result<OwnedFd, SessionError> {
    let count = descriptors.len();
    match descriptors.pop() {
        Some(descriptor) if count == 1 => Ok(descriptor),
        _ => Err(SessionError::Descriptors { request, count }),
    }
}
