//! Messages of a front end: first the parser alone, then whole sessions with descriptors.

#![no_main]

use std::io::IoSlice;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
use std::sync::atomic::{AtomicU64, Ordering};

use bulkhead_devices::Rng;
use bulkhead_devices::vhost_user::{Request, spawn};
use libfuzzer_sys::fuzz_target;
use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};

static SESSION: AtomicU64 = AtomicU64::new(0);

fn memory() -> OwnedFd {
    // SAFETY: the name is a valid C string and the descriptor is ours alone.
    let memory = unsafe { OwnedFd::from_raw_fd(libc::memfd_create(c"guest".as_ptr(), 0)) };
    let _ = nix::unistd::ftruncate(&memory, 1 << 20);
    memory
}

/// Cut the input into messages: request, flags, number of descriptors, length, payload.
fn session(mut data: &[u8]) {
    let name = format!(
        "bulkhead-fuzz-{}-{}",
        std::process::id(),
        SESSION.fetch_add(1, Ordering::Relaxed)
    );
    let address = SocketAddr::from_abstract_name(name).unwrap();
    let listener = UnixListener::bind_addr(&address).unwrap();
    let stream = UnixStream::connect_addr(&address).unwrap();
    let handle = spawn(listener, Box::new(Rng::new()), "fuzz", || Ok(())).unwrap();
    let memory = memory();
    while let [request, flags, descriptors, length, rest @ ..] = data {
        let (payload, rest) = rest.split_at(rest.len().min(usize::from(*length)));
        data = rest;
        let mut message = Vec::new();
        message.extend(u32::from(*request % 40).to_ne_bytes());
        message.extend(u32::from(flags & 9 | 1).to_ne_bytes());
        message.extend((payload.len() as u32).to_ne_bytes());
        message.extend(payload);
        let copies = vec![memory.as_raw_fd(); usize::from(descriptors % 4)];
        let rights = [ControlMessage::ScmRights(&copies)];
        let control = if copies.is_empty() {
            &[][..]
        } else {
            &rights[..]
        };
        let flags = MsgFlags::MSG_NOSIGNAL | MsgFlags::MSG_DONTWAIT;
        let part = [IoSlice::new(&message)];
        if sendmsg::<()>(stream.as_raw_fd(), &part, control, flags, None).is_err() {
            break;
        }
    }
    drop(stream);
    let _ = handle.join();
}

fuzz_target!(|data: &[u8]| {
    if let Ok((request, _)) = Request::parse_message(data) {
        assert!(data.len() >= 12);
        if let Request::SetMemTable(regions) = request {
            assert!((1..=8).contains(&regions.len()));
        }
    }
    session(data);
});
