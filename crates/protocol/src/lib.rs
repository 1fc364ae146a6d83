//! The host-guest protocol: agent service (ttRPC), vsock ports, version.
