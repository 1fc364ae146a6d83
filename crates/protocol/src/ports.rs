/// Version of the protocol, compared in the first call. See the crate's documentation for when it rises.
pub const PROTOCOL_VERSION: u32 = 2;

/// vsock port of the host on which the agent serves ttRPC.
pub const CONTROL_PORT: u32 = 1024;

/// First vsock port of the host that the host allocates to streams; ports are never used twice in
/// the life of a compartment.
pub const FIRST_STREAM_PORT: u32 = 65536;

/// The host's context identifier (vsock(7), `VMADDR_CID_HOST`).
pub const HOST_CID: u32 = 2;

/// The guest's context identifier. Every compartment may use the same one, since each has a vsock
/// device of its own.
pub const GUEST_CID: u32 = 3;
