//! Frames on the unix sockets between launcher, monitor, sandbox and clients: a little-endian `u32`
//! length, then that many bytes of JSON. Descriptors (`SCM_RIGHTS`) travel with a frame's first byte.

use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;

use nix::cmsg_space;
use nix::sys::socket::{ControlMessage, ControlMessageOwned, MsgFlags, recvmsg, sendmsg};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Longest body of a frame: a process's arguments and environment (2 MiB, execve(2)), escaped.
pub(crate) const MAX_BODY: usize = 16 << 20;
/// Most descriptors with one frame.
pub(crate) const MAX_FDS: usize = 4;
const HEADER: usize = 4;

/// A frame cannot be sent or received.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// The peer closed the connection between two frames.
    #[error("connection closed")]
    Closed,
    /// The socket failed, or the peer closed it within a frame.
    #[error("transfer frame")]
    Io(#[from] io::Error),
    /// The frame is longer than any valid one.
    #[error("frame of {0} bytes is too long")]
    TooLong(usize),
    /// The body is not what was expected.
    #[error("decode frame")]
    Decode(#[source] serde_json::Error),
    /// The value cannot be written as JSON.
    #[error("encode frame")]
    Encode(#[source] serde_json::Error),
}

/// A value as a frame, ready to be written.
pub(crate) fn encode<T: Serialize>(value: &T) -> Result<Vec<u8>, FrameError> {
    let mut bytes = vec![0; HEADER];
    serde_json::to_writer(&mut bytes, value).map_err(FrameError::Encode)?;
    let length = bytes.len() - HEADER;
    let word = u32::try_from(length)
        .ok()
        .filter(|_| length <= MAX_BODY)
        .ok_or(FrameError::TooLong(length))?;
    if let Some(header) = bytes.first_chunk_mut::<HEADER>() {
        *header = word.to_le_bytes();
    }
    Ok(bytes)
}

/// A frame's body as a value.
pub(crate) fn decode<T: DeserializeOwned>(body: &[u8]) -> Result<T, FrameError> {
    serde_json::from_slice(body).map_err(FrameError::Decode)
}

/// The body length that a header announces.
pub(crate) fn body_length(header: [u8; HEADER]) -> Result<usize, FrameError> {
    let length = u32::from_le_bytes(header) as usize;
    if length > MAX_BODY {
        Err(FrameError::TooLong(length))
    } else {
        Ok(length)
    }
}

/// Sends a frame, and `fds` with it.
pub(crate) fn send<T: Serialize>(
    mut socket: &UnixStream,
    value: &T,
    fds: &[BorrowedFd<'_>],
) -> Result<(), FrameError> {
    let bytes = encode(value)?;
    if fds.is_empty() {
        socket.write_all(&bytes)?;
        return Ok(());
    }
    let raw: Vec<RawFd> = fds.iter().map(AsRawFd::as_raw_fd).collect();
    let rights = [ControlMessage::ScmRights(&raw)];
    let sent = loop {
        match sendmsg::<()>(
            socket.as_raw_fd(),
            &[IoSlice::new(&bytes)],
            &rights,
            MsgFlags::MSG_NOSIGNAL,
            None,
        ) {
            Ok(sent) => break sent,
            Err(nix::errno::Errno::EINTR) => {}
            Err(e) => return Err(io::Error::from(e).into()),
        }
    };
    socket.write_all(bytes.get(sent..).unwrap_or_default())?;
    Ok(())
}

/// Receives a frame and the descriptors that came with it.
pub(crate) fn receive<T: DeserializeOwned>(
    mut socket: &UnixStream,
) -> Result<(T, Vec<OwnedFd>), FrameError> {
    let mut header = [0; HEADER];
    let mut fds = Vec::new();
    let got = loop {
        match receive_with_fds(socket.as_raw_fd(), &mut header, &mut fds) {
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            other => break other?,
        }
    };
    if got == 0 {
        return Err(FrameError::Closed);
    }
    if let Some(rest) = header.get_mut(got..) {
        socket.read_exact(rest)?;
    }
    let mut body = vec![0; body_length(header)?];
    socket.read_exact(&mut body)?;
    Ok((decode(&body)?, fds))
}

/// One recvmsg(2): bytes into `buffer`, descriptors (close-on-exec) into `fds`.
pub(crate) fn receive_with_fds(
    socket: RawFd,
    buffer: &mut [u8],
    fds: &mut Vec<OwnedFd>,
) -> io::Result<usize> {
    let mut space = cmsg_space!([RawFd; MAX_FDS]);
    let mut slices = [IoSliceMut::new(buffer)];
    let message = recvmsg::<()>(
        socket,
        &mut slices,
        Some(&mut space),
        MsgFlags::MSG_CMSG_CLOEXEC,
    )?;
    if let Ok(parts) = message.cmsgs() {
        for part in parts {
            if let ControlMessageOwned::ScmRights(raw) = part {
                // SAFETY: the kernel has just installed these descriptors for us; nobody else owns them.
                fds.extend(
                    raw.into_iter()
                        .map(|fd| unsafe { OwnedFd::from_raw_fd(fd) }),
                );
            }
        }
    }
    Ok(message.bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;

    #[test]
    fn values_and_descriptors_arrive_together() {
        let (a, b) = UnixStream::pair().unwrap();
        let (mut reader, writer) = io::pipe().unwrap();
        send(&a, &"hello", &[writer.as_fd()]).unwrap();
        send(&a, &"x".repeat(100_000), &[]).unwrap_or_default();
        drop(writer);
        let (text, fds): (String, _) = receive(&b).unwrap();
        assert_eq!(text, "hello");
        let mut writer = std::fs::File::from(fds.into_iter().next().unwrap());
        writer.write_all(b"through").unwrap();
        drop(writer);
        let mut got = String::new();
        reader.read_to_string(&mut got).unwrap();
        assert_eq!(got, "through");
        let (long, fds): (String, _) = receive(&b).unwrap();
        assert_eq!((long.len(), fds.len()), (100_000, 0));
    }

    #[test]
    fn garbage_is_an_error_and_never_an_allocation() {
        let (mut a, b) = UnixStream::pair().unwrap();
        a.write_all(&[0xff; 64]).unwrap();
        assert!(matches!(receive::<String>(&b), Err(FrameError::TooLong(_))));

        let (mut a, b) = UnixStream::pair().unwrap();
        a.write_all(&[3, 0, 0, 0, b'{', b'{', b'{']).unwrap();
        assert!(matches!(receive::<String>(&b), Err(FrameError::Decode(_))));

        let (mut a, b) = UnixStream::pair().unwrap();
        a.write_all(&[200, 0, 0, 0, b'"']).unwrap();
        drop(a);
        assert!(matches!(receive::<String>(&b), Err(FrameError::Io(_))));

        let (a, b) = UnixStream::pair().unwrap();
        drop(a);
        assert!(matches!(receive::<String>(&b), Err(FrameError::Closed)));
    }
}
