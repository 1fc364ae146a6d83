/// Messages of the agent service, generated from `proto/agent.proto`.
#[allow(missing_docs, nonstandard_style, unused, clippy::all, clippy::pedantic)]
pub mod api {
    include!(concat!(env!("OUT_DIR"), "/agent.rs"));
}

// The generated service names its messages after the file, as `super::agent`.
use self::api as agent;

/// Client ([`AgentClient`](service::AgentClient)) and server trait ([`Agent`](service::Agent)) of the
/// agent service, generated from `proto/agent.proto`.
#[allow(missing_docs, nonstandard_style, unused, clippy::all, clippy::pedantic)]
pub mod service {
    include!(concat!(env!("OUT_DIR"), "/agent_ttrpc.rs"));
}
