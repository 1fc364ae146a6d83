//! The messages of a front end: bytes to requests, and replies to bytes.
//!
//! Pure: no descriptor is touched here, so that a fuzzer can run it. Numbers are in native byte
//! order, as the vhost-user specification says; all offsets are written out because the payloads
//! come unaligned.

/// Request, flags, size.
pub(super) const HEADER_LENGTH: usize = 12;
/// The longest payload that is accepted: a configuration space of 256 bytes, or a memory table.
pub const MAX_PAYLOAD: usize = 512;
/// The most configuration space a front end may ask for.
const MAX_CONFIG: u32 = 256;
/// Regions in a memory table; the specification allows eight.
const MAX_REGIONS: usize = 8;
/// Version 1 in the two low bits of the flags.
const VERSION: u32 = 1;
const VERSION_MASK: u32 = 3;
const FLAG_REPLY: u32 = 1 << 2;
const FLAG_NEED_REPLY: u32 = 1 << 3;
/// In a ring descriptor message: the low byte is the ring, this bit says that no descriptor came.
const NO_DESCRIPTOR: u64 = 1 << 8;

/// Feature bit 30: the two sides negotiate protocol features.
pub(super) const F_PROTOCOL_FEATURES: u64 = 1 << 30;

/// Protocol feature bits that we know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProtocolFeatures;

impl ProtocolFeatures {
    /// Every request may ask for an acknowledgement.
    pub const REPLY_ACK: u64 = 1 << 3;
    /// The back end may send requests on a socket of its own.
    pub const BACKEND_REQ: u64 = 1 << 5;
    /// The configuration space is read by message.
    pub const CONFIG: u64 = 1 << 9;
    /// What we offer; see the module documentation for why not more.
    pub const OFFERED: u64 = Self::BACKEND_REQ | Self::CONFIG;
}

/// A region of guest memory as announced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Region {
    /// Guest physical address.
    pub guest: u64,
    /// Length in bytes.
    pub size: u64,
    /// Address in the front end's own address space, by which it names rings.
    pub user: u64,
    /// Where it begins in the file.
    pub offset: u64,
}

/// Where a ring lies, in the front end's addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RingAddresses {
    /// Descriptor table.
    pub descriptors: u64,
    /// Used ring.
    pub used: u64,
    /// Available ring.
    pub available: u64,
}

/// A request of the front end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Request {
    /// Ask for the device's features.
    GetFeatures,
    /// Accept features.
    SetFeatures(u64),
    /// Claim the session.
    SetOwner,
    /// Obsolete; disables all rings.
    ResetOwner,
    /// Announce memory; as many descriptors as regions come with it.
    SetMemTable(Vec<Region>),
    /// Set a ring's size.
    SetVringNum {
        /// Ring index.
        ring: u32,
        /// Number of descriptors.
        size: u32,
    },
    /// Set a ring's addresses.
    SetVringAddr {
        /// Ring index.
        ring: u32,
        /// Where it lies.
        addresses: RingAddresses,
    },
    /// Set the index at which a ring begins.
    SetVringBase {
        /// Ring index.
        ring: u32,
        /// Index in the available ring.
        base: u32,
    },
    /// Stop a ring and ask for its index.
    GetVringBase {
        /// Ring index.
        ring: u32,
    },
    /// Set the descriptor by which the driver notifies; starts the ring.
    SetVringKick {
        /// Ring index.
        ring: u32,
        /// Whether a descriptor came with it.
        descriptor: bool,
    },
    /// Set the descriptor by which the driver is notified.
    SetVringCall {
        /// Ring index.
        ring: u32,
        /// Whether a descriptor came with it.
        descriptor: bool,
    },
    /// Set the descriptor for errors; unused.
    SetVringErr {
        /// Ring index.
        ring: u32,
    },
    /// Ask for protocol features.
    GetProtocolFeatures,
    /// Accept protocol features.
    SetProtocolFeatures(u64),
    /// Ask for the number of rings.
    GetQueueNum,
    /// Enable or disable a ring.
    SetVringEnable {
        /// Ring index.
        ring: u32,
        /// New state.
        enable: bool,
    },
    /// Set the descriptor for requests of ours.
    SetBackendReqFd,
    /// Read the configuration space.
    GetConfig {
        /// First byte.
        offset: u32,
        /// Number of bytes.
        size: u32,
    },
    /// Write the configuration space; no device here has a writable field.
    SetConfig,
}

/// A message that cannot be accepted; the session ends.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum MessageError {
    /// Wrong version, or flags only a reply has.
    #[error("parse vhost-user header: unexpected flags {flags:#x}")]
    Flags {
        /// The flags word.
        flags: u32,
    },
    /// The payload is longer than any that is accepted.
    #[error("parse vhost-user header: payload of {size} bytes")]
    PayloadTooLong {
        /// Announced size.
        size: u32,
    },
    /// A request we do not know.
    #[error("parse vhost-user message: unknown request {request}")]
    Unknown {
        /// Request number.
        request: u32,
    },
    /// The payload does not have the request's form.
    #[error("parse vhost-user request {request}: malformed payload of {size} bytes")]
    Payload {
        /// Request number.
        request: u32,
        /// Its size.
        size: usize,
    },
}

/// The fixed part of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Header {
    pub request: u32,
    pub need_reply: bool,
    pub size: usize,
}

impl Header {
    pub(super) fn parse(raw: &[u8; HEADER_LENGTH]) -> Result<Self, MessageError> {
        let [r0, r1, r2, r3, f0, f1, f2, f3, s0, s1, s2, s3] = *raw;
        let flags = u32::from_ne_bytes([f0, f1, f2, f3]);
        let size = u32::from_ne_bytes([s0, s1, s2, s3]);
        if flags & VERSION_MASK != VERSION || flags & FLAG_REPLY != 0 {
            return Err(MessageError::Flags { flags });
        }
        let bounded = usize::try_from(size).ok().filter(|s| *s <= MAX_PAYLOAD);
        Ok(Self {
            request: u32::from_ne_bytes([r0, r1, r2, r3]),
            need_reply: flags & FLAG_NEED_REPLY != 0,
            size: bounded.ok_or(MessageError::PayloadTooLong { size })?,
        })
    }
}

/// Reads numbers off the front of a payload.
struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn u32(&mut self) -> Option<u32> {
        let (head, rest) = self.0.split_first_chunk::<4>()?;
        self.0 = rest;
        Some(u32::from_ne_bytes(*head))
    }

    fn u64(&mut self) -> Option<u64> {
        let (head, rest) = self.0.split_first_chunk::<8>()?;
        self.0 = rest;
        Some(u64::from_ne_bytes(*head))
    }

    /// The value, if nothing is left over.
    fn end<T>(self, value: T) -> Option<T> {
        self.0.is_empty().then_some(value)
    }
}

impl Request {
    /// Parse a whole message, header and payload, as a fuzzer or a test has it.
    pub fn parse_message(bytes: &[u8]) -> Result<(Self, bool), MessageError> {
        let short = MessageError::Payload {
            request: 0,
            size: bytes.len(),
        };
        let (raw, payload) = bytes.split_first_chunk().ok_or(short)?;
        let header = Header::parse(raw)?;
        let payload = payload.get(..header.size).ok_or(MessageError::Payload {
            request: header.request,
            size: payload.len(),
        })?;
        Ok((Self::parse(header.request, payload)?, header.need_reply))
    }

    /// Parse the payload of request number `request`.
    pub(super) fn parse(request: u32, payload: &[u8]) -> Result<Self, MessageError> {
        let fields = Fields(payload);
        let parsed =
            match request {
                1 => fields.end(Self::GetFeatures),
                2 => number(fields).map(Self::SetFeatures),
                3 => fields.end(Self::SetOwner),
                4 => fields.end(Self::ResetOwner),
                5 => mem_table(fields).map(Self::SetMemTable),
                8 => pair(fields).map(|(ring, size)| Self::SetVringNum { ring, size }),
                9 => addresses(fields),
                10 => pair(fields).map(|(ring, base)| Self::SetVringBase { ring, base }),
                11 => pair(fields).map(|(ring, _)| Self::GetVringBase { ring }),
                12 => descriptor(fields)
                    .map(|(ring, descriptor)| Self::SetVringKick { ring, descriptor }),
                13 => descriptor(fields)
                    .map(|(ring, descriptor)| Self::SetVringCall { ring, descriptor }),
                14 => descriptor(fields).map(|(ring, _)| Self::SetVringErr { ring }),
                15 => fields.end(Self::GetProtocolFeatures),
                16 => number(fields).map(Self::SetProtocolFeatures),
                17 => fields.end(Self::GetQueueNum),
                18 => pair(fields).map(|(ring, enable)| Self::SetVringEnable {
                    ring,
                    enable: enable != 0,
                }),
                21 => fields.end(Self::SetBackendReqFd),
                24 => get_config(fields),
                25 => Some(Self::SetConfig),
                _ => return Err(MessageError::Unknown { request }),
            };
        parsed.ok_or(MessageError::Payload {
            request,
            size: payload.len(),
        })
    }

    /// Whether a reply is part of the request itself.
    pub(super) fn has_reply(&self) -> bool {
        matches!(
            self,
            Self::GetFeatures
                | Self::GetProtocolFeatures
                | Self::GetQueueNum
                | Self::GetVringBase { .. }
                | Self::GetConfig { .. }
        )
    }
}

fn number(mut fields: Fields<'_>) -> Option<u64> {
    let value = fields.u64()?;
    fields.end(value)
}

fn pair(mut fields: Fields<'_>) -> Option<(u32, u32)> {
    let value = (fields.u32()?, fields.u32()?);
    fields.end(value)
}

fn descriptor(fields: Fields<'_>) -> Option<(u32, bool)> {
    let value = number(fields)?;
    let ring = u32::try_from(value & 0xff).ok()?;
    (value & !(NO_DESCRIPTOR | 0xff) == 0).then_some((ring, value & NO_DESCRIPTOR == 0))
}

fn addresses(mut fields: Fields<'_>) -> Option<Request> {
    let ring = fields.u32()?;
    let _flags = fields.u32()?;
    let addresses = RingAddresses {
        descriptors: fields.u64()?,
        used: fields.u64()?,
        available: fields.u64()?,
    };
    let _log = fields.u64()?;
    fields.end(Request::SetVringAddr { ring, addresses })
}

/// Slots beyond the announced number are left unread: user-mode Linux sends them uninitialised.
fn mem_table(mut fields: Fields<'_>) -> Option<Vec<Region>> {
    let count = usize::try_from(fields.u32()?).ok()?;
    let _padding = fields.u32()?;
    if count == 0 || count > MAX_REGIONS {
        return None;
    }
    let mut regions = Vec::with_capacity(count);
    for _ in 0..count {
        regions.push(Region {
            guest: fields.u64()?,
            size: fields.u64()?,
            user: fields.u64()?,
            offset: fields.u64()?,
        });
    }
    Some(regions)
}

/// The payload carries room for the answer, which is ignored.
fn get_config(mut fields: Fields<'_>) -> Option<Request> {
    let offset = fields.u32()?;
    let size = fields.u32()?;
    let _flags = fields.u32()?;
    let end = offset.checked_add(size)?;
    (end <= MAX_CONFIG && fields.0.len() == size as usize)
        .then_some(Request::GetConfig { offset, size })
}

/// An answer to a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Reply {
    Number(u64),
    Ring { ring: u32, base: u32 },
    Config { offset: u32, data: Vec<u8> },
}

impl Reply {
    /// The whole reply message to request number `request`.
    pub(super) fn encode(&self, request: u32) -> Vec<u8> {
        let mut payload = Vec::with_capacity(16);
        match self {
            Self::Number(value) => payload.extend(value.to_ne_bytes()),
            Self::Ring { ring, base } => {
                payload.extend(ring.to_ne_bytes());
                payload.extend(base.to_ne_bytes());
            }
            Self::Config { offset, data } => {
                payload.extend(offset.to_ne_bytes());
                payload.extend((data.len() as u32).to_ne_bytes());
                payload.extend(0_u32.to_ne_bytes());
                payload.extend(data);
            }
        }
        let mut message = Vec::with_capacity(HEADER_LENGTH + payload.len());
        message.extend(request.to_ne_bytes());
        message.extend((VERSION | FLAG_REPLY).to_ne_bytes());
        message.extend((payload.len() as u32).to_ne_bytes());
        message.extend(payload);
        message
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(request: u32, flags: u32, payload: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        bytes.extend(request.to_ne_bytes());
        bytes.extend(flags.to_ne_bytes());
        bytes.extend((payload.len() as u32).to_ne_bytes());
        bytes.extend(payload);
        bytes
    }

    #[test]
    fn one_region_in_the_two_slots_of_user_mode_linux_is_one_region() {
        let mut payload = vec![0xee_u8; 72];
        payload[..4].copy_from_slice(&1_u32.to_ne_bytes());
        for (slot, value) in [0x1000_u64, 0x2000, 0x3000, 0x4000].into_iter().enumerate() {
            payload[8 + 8 * slot..16 + 8 * slot].copy_from_slice(&value.to_ne_bytes());
        }
        let region = Region {
            guest: 0x1000,
            size: 0x2000,
            user: 0x3000,
            offset: 0x4000,
        };
        assert_eq!(
            Request::parse_message(&message(5, 1, &payload)),
            Ok((Request::SetMemTable(vec![region]), false))
        );
    }

    #[test]
    fn a_table_that_announces_more_regions_than_it_carries_is_rejected() {
        let mut payload = vec![0_u8; 72];
        payload[..4].copy_from_slice(&3_u32.to_ne_bytes());
        assert!(Request::parse_message(&message(5, 1, &payload)).is_err());
        payload[..4].copy_from_slice(&0_u32.to_ne_bytes());
        assert!(Request::parse_message(&message(5, 1, &payload)).is_err());
    }

    #[test]
    fn a_reply_from_the_front_end_is_rejected() {
        assert_eq!(
            Request::parse_message(&message(1, 1 | FLAG_REPLY, &[])),
            Err(MessageError::Flags { flags: 5 })
        );
    }

    #[test]
    fn a_payload_longer_than_announced_forms_allow_is_rejected() {
        assert!(Request::parse_message(&message(1, 1, &[0])).is_err());
        assert!(Request::parse_message(&message(2, 1, &[0; 9])).is_err());
        assert!(Request::parse_message(&message(5, 1, &[0; MAX_PAYLOAD + 1])).is_err());
    }

    #[test]
    fn a_configuration_read_must_stay_inside_the_space() {
        let config = |offset: u32, size: u32, room: usize| {
            let mut payload = Vec::new();
            payload.extend(offset.to_ne_bytes());
            payload.extend(size.to_ne_bytes());
            payload.extend([0; 4]);
            payload.resize(12 + room, 0);
            Request::parse_message(&message(24, 1, &payload))
        };
        assert!(config(0, 60, 60).is_ok());
        assert!(config(250, 7, 7).is_err());
        assert!(config(u32::MAX, 2, 2).is_err());
        assert!(config(0, 60, 59).is_err());
    }

    #[test]
    fn a_ring_message_without_descriptor_says_so() {
        assert_eq!(
            Request::parse_message(&message(13, 1, &(NO_DESCRIPTOR | 2).to_ne_bytes())),
            Ok((
                Request::SetVringCall {
                    ring: 2,
                    descriptor: false
                },
                false
            ))
        );
        assert!(Request::parse_message(&message(13, 1, &(1_u64 << 9).to_ne_bytes())).is_err());
    }
}
