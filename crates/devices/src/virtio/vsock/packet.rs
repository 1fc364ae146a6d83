//! The packet header (section 5.10.6).

/// The host's address in every guest.
pub const HOST_CID: u64 = 2;

/// Length of a header.
pub(super) const HEADER_LENGTH: usize = 44;

/// Stream sockets, the one type that is served.
pub(super) const TYPE_STREAM: u16 = 1;

/// In a shutdown: the sender will receive no more.
pub(super) const SHUTDOWN_RECEIVE: u32 = 1;
/// In a shutdown: the sender will send no more.
pub(super) const SHUTDOWN_SEND: u32 = 2;
pub(super) const SHUTDOWN_BOTH: u32 = SHUTDOWN_RECEIVE | SHUTDOWN_SEND;

/// What a packet is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u16)]
pub enum Operation {
    /// Open a connection.
    Request = 1,
    /// The connection is open.
    Response = 2,
    /// The connection does not exist (any more).
    Reset = 3,
    /// The sender ends one or both directions.
    Shutdown = 4,
    /// Data.
    ReadWrite = 5,
    /// The sender has room again.
    CreditUpdate = 6,
    /// The sender wants to know how much room there is.
    CreditRequest = 7,
}

impl Operation {
    fn from_wire(value: u16) -> Option<Self> {
        Some(match value {
            1 => Self::Request,
            2 => Self::Response,
            3 => Self::Reset,
            4 => Self::Shutdown,
            5 => Self::ReadWrite,
            6 => Self::CreditUpdate,
            7 => Self::CreditRequest,
            _ => return None,
        })
    }
}

/// A packet header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// Sender's address.
    pub source_cid: u64,
    /// Receiver's address.
    pub destination_cid: u64,
    /// Sender's port.
    pub source_port: u32,
    /// Receiver's port.
    pub destination_port: u32,
    /// Bytes of data that follow.
    pub length: u32,
    /// Socket type; 1 is a stream.
    pub kind: u16,
    /// What the packet is for; `None` if it is unknown.
    pub operation: Option<Operation>,
    /// Depends on the operation.
    pub flags: u32,
    /// Size of the sender's receive buffer for this connection.
    pub buffer_size: u32,
    /// Bytes that left that buffer since the connection began, modulo 2³².
    pub forwarded: u32,
}

impl Header {
    /// Parse the little-endian form. Every bit pattern is a header.
    pub fn parse(raw: &[u8; HEADER_LENGTH]) -> Self {
        let mut fields = Fields(raw);
        Self {
            source_cid: u64::from_le_bytes(fields.take()),
            destination_cid: u64::from_le_bytes(fields.take()),
            source_port: u32::from_le_bytes(fields.take()),
            destination_port: u32::from_le_bytes(fields.take()),
            length: u32::from_le_bytes(fields.take()),
            kind: u16::from_le_bytes(fields.take()),
            operation: Operation::from_wire(u16::from_le_bytes(fields.take())),
            flags: u32::from_le_bytes(fields.take()),
            buffer_size: u32::from_le_bytes(fields.take()),
            forwarded: u32::from_le_bytes(fields.take()),
        }
    }

    /// The little-endian form.
    pub fn encode(&self) -> [u8; HEADER_LENGTH] {
        let mut raw = [0; HEADER_LENGTH];
        let mut rest = raw.as_mut_slice();
        let mut put = |bytes: &[u8]| {
            if let Some((field, tail)) = std::mem::take(&mut rest).split_at_mut_checked(bytes.len())
            {
                field.copy_from_slice(bytes);
                rest = tail;
            }
        };
        put(&self.source_cid.to_le_bytes());
        put(&self.destination_cid.to_le_bytes());
        put(&self.source_port.to_le_bytes());
        put(&self.destination_port.to_le_bytes());
        put(&self.length.to_le_bytes());
        put(&self.kind.to_le_bytes());
        put(&self.operation.map_or(0, |op| op as u16).to_le_bytes());
        put(&self.flags.to_le_bytes());
        put(&self.buffer_size.to_le_bytes());
        put(&self.forwarded.to_le_bytes());
        raw
    }
}

/// Takes fields off the front; the header's length is the sum of its fields', so none is missing.
struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn take<const N: usize>(&mut self) -> [u8; N] {
        match self.0.split_first_chunk() {
            Some((field, rest)) => {
                self.0 = rest;
                *field
            }
            None => [0; N],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_survives_its_wire_form() {
        let header = Header {
            source_cid: 3,
            destination_cid: HOST_CID,
            source_port: 0xdead_beef,
            destination_port: 1024,
            length: 65536,
            kind: TYPE_STREAM,
            operation: Some(Operation::ReadWrite),
            flags: 7,
            buffer_size: 262_144,
            forwarded: u32::MAX,
        };
        assert_eq!(Header::parse(&header.encode()), header);
    }

    #[test]
    fn fields_lie_where_the_specification_puts_them() {
        let raw: [u8; HEADER_LENGTH] = std::array::from_fn(|index| index as u8);
        let header = Header::parse(&raw);
        assert_eq!(
            header.destination_cid,
            u64::from_le_bytes(raw[8..16].try_into().unwrap())
        );
        assert_eq!(
            header.length,
            u32::from_le_bytes(raw[24..28].try_into().unwrap())
        );
        assert_eq!(header.kind, u16::from_le_bytes([28, 29]));
        assert_eq!(header.operation, None);
        assert_eq!(header.forwarded, u32::from_le_bytes([40, 41, 42, 43]));
    }
}
