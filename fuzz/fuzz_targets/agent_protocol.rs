//! What crosses between a sandbox and its guest, and what the agent reads from a container:
//! a guest's answers as messages, a guest's bytes on the control connection, account files of an image.

#![no_main]

use std::io::Write;
use std::os::unix::net::UnixStream;

use bulkhead_agent::resolve_user;
use bulkhead_protocol::api::{
    CreateContainerResponse, Empty, HelloRequest, HelloResponse, StartProcessResponse,
    WaitProcessResponse,
};
use bulkhead_protocol::service::AgentClient;
use bulkhead_types::ExitStatus;
use libfuzzer_sys::fuzz_target;
use protobuf::Message;
use ttrpc::r#async::Client;
use ttrpc::r#async::transport::Socket;

fuzz_target!(|data: &[u8]| {
    let Some((kind, data)) = data.split_first() else { return };
    match kind % 3 {
        0 => answers(data),
        1 => connection(data),
        _ => accounts(data),
    }
});

/// Every message that a guest can answer with survives a round trip through its own encoding.
fn answers(data: &[u8]) {
    fn round_trip<M: Message>(data: &[u8]) -> Option<M> {
        let message = M::parse_from_bytes(data).ok()?;
        let again = M::parse_from_bytes(&message.write_to_bytes().ok()?).ok()?;
        assert!(again == message);
        Some(message)
    }
    round_trip::<Empty>(data);
    round_trip::<HelloResponse>(data);
    round_trip::<CreateContainerResponse>(data);
    if let Some(started) = round_trip::<StartProcessResponse>(data)
        && let Some(failure) = started.failure.into_option()
    {
        let _ = failure.kind.enum_value_or_default();
    }
    if let Some(ended) = round_trip::<WaitProcessResponse>(data) {
        let status = ExitStatus::from(&ended);
        assert!(u32::from(status.code) <= ended.exit_code);
    }
}

/// Whatever a guest sends on the control connection, a call ends: with an answer or with an error.
fn connection(data: &[u8]) {
    let (ours, mut theirs) = UnixStream::pair().unwrap();
    // More than the socket takes would only be fuzzing the socket.
    theirs.write_all(data.get(..64 << 10).unwrap_or(data)).unwrap();
    theirs.shutdown(std::net::Shutdown::Write).unwrap();
    ours.set_nonblocking(true).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let stream = tokio::net::UnixStream::from_std(ours).unwrap();
        let client = AgentClient::new(Client::new(Socket::new(stream)));
        let context = ttrpc::context::with_timeout(1_000_000_000);
        let began = std::time::Instant::now();
        let _ = client.hello(context, &HelloRequest::new()).await;
        assert!(began.elapsed() < std::time::Duration::from_secs(5), "a call hung");
    });
}

/// Account files are the image's: whatever they hold, a user is found or refused, within bounds.
fn accounts(data: &[u8]) {
    let mut parts = data.splitn(3, |byte| *byte == 0);
    let spec = String::from_utf8_lossy(parts.next().unwrap_or(&[]));
    let passwd = parts.next().unwrap_or(&[]);
    let group = parts.next().unwrap_or(&[]);
    if let Ok(identity) = resolve_user(&spec, passwd, group) {
        assert!(i32::try_from(identity.uid).is_ok() && i32::try_from(identity.gid).is_ok());
        assert_eq!(identity.groups.first(), Some(&identity.gid));
        assert!(identity.groups.len() <= 65_536);
    }
}
