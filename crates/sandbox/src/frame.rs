//! Frames on the unix sockets between launcher, monitor, sandbox and clients: a little-endian `u32`
//! length, then that many bytes of JSON. Descriptors (`SCM_RIGHTS`) travel with a frame's first byte.

use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use nix::cmsg_space;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{ControlMessage, ControlMessageOwned, MsgFlags, recvmsg, sendmsg};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Most descriptors with one frame.
pub(crate) const MAX_FDS: usize = 4;
const HEADER: usize = 4;
/// How long the rest of a frame may take once its beginning is there. A frame is written with one call: later is a peer that
/// is suspended, or one that means to hold up whoever reads.
const COMPLETE_WITHIN: Duration = Duration::from_secs(60);

/// What a frame's body is.
pub(crate) trait Message {
    /// Longest body in bytes. A longer one is neither sent nor read: who announces it is not believed.
    const MOST: usize;
}

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
    #[error("frame of {length} bytes is too long: a valid one has {most} at most")]
    TooLong {
        /// Its length in bytes.
        length: usize,
        /// The bound of its kind.
        most: usize,
    },
    /// The frame came with more descriptors than any valid one.
    #[error("frame came with more than {MAX_FDS} descriptors")]
    Descriptors,
    /// The peer began a frame and stopped.
    #[error("frame was begun and not finished within {} seconds", .0.as_secs())]
    Unfinished(Duration),
    /// The body is not what was expected.
    #[error("decode frame")]
    Decode(#[source] serde_json::Error),
    /// The value cannot be written as JSON.
    #[error("encode frame")]
    Encode(#[source] serde_json::Error),
}

/// A value as a frame, ready to be written.
pub(crate) fn encode<T: Serialize + Message>(value: &T) -> Result<Vec<u8>, FrameError> {
    let mut bytes = vec![0; HEADER];
    serde_json::to_writer(&mut bytes, value).map_err(FrameError::Encode)?;
    let length = bytes.len() - HEADER;
    let most = T::MOST;
    let word = u32::try_from(length)
        .ok()
        .filter(|_| length <= most)
        .ok_or(FrameError::TooLong { length, most })?;
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
pub(crate) fn body_length<T: Message>(header: [u8; HEADER]) -> Result<usize, FrameError> {
    let length = u32::from_le_bytes(header) as usize;
    let most = T::MOST;
    if length > most {
        Err(FrameError::TooLong { length, most })
    } else {
        Ok(length)
    }
}

/// Sends a frame, and `fds` with it.
pub(crate) fn send<T: Serialize + Message>(
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

/// Waits for a frame, and receives it and the descriptors that came with it.
pub(crate) fn receive<T: DeserializeOwned + Message>(
    socket: &UnixStream,
) -> Result<(T, Vec<OwnedFd>), FrameError> {
    receive_within(socket, COMPLETE_WITHIN)
}

/// As [`receive`], with another time for what follows the frame's beginning.
pub(crate) fn receive_within<T: DeserializeOwned + Message>(
    socket: &UnixStream,
    within: Duration,
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
    let until = Instant::now() + within;
    let late = |filled: bool| {
        if filled {
            Ok(())
        } else {
            Err(FrameError::Unfinished(within))
        }
    };
    late(fill(
        socket,
        header.get_mut(got..).unwrap_or_default(),
        until,
    )?)?;
    let mut body = vec![0; body_length::<T>(header)?];
    late(fill(socket, &mut body, until)?)?;
    Ok((decode(&body)?, fds))
}

/// Reads until the buffer is full; `false` when it is not at that time.
fn fill(mut socket: &UnixStream, mut buffer: &mut [u8], until: Instant) -> io::Result<bool> {
    while !buffer.is_empty() {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() || !readable(socket, left)? {
            return Ok(false);
        }
        match socket.read(buffer) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(got) => buffer = buffer.get_mut(got..).unwrap_or_default(),
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(true)
}

/// Waits until there is something to read, or the connection's end.
pub(crate) fn readable(socket: &UnixStream, within: Duration) -> io::Result<bool> {
    // Rounded up, lest the last millisecond be a busy one.
    let timeout = PollTimeout::try_from(within + Duration::from_millis(1));
    let timeout = timeout.unwrap_or(PollTimeout::MAX);
    loop {
        let mut fds = [PollFd::new(socket.as_fd(), PollFlags::POLLIN)];
        match poll(&mut fds, timeout) {
            Ok(ready) => return Ok(ready > 0),
            Err(nix::errno::Errno::EINTR) => {}
            Err(e) => return Err(e.into()),
        }
    }
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

    impl Message for String {
        const MOST: usize = 1 << 20;
    }

    impl Message for &str {
        const MOST: usize = 1 << 20;
    }

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

    /// A sandbox that was broken into made a client take 16 MiB for an answer of a word, and held it for ever by half of one.
    #[test]
    fn a_hostile_peer_neither_fills_nor_holds_whoever_reads() {
        use crate::message::Reply;
        // One byte more than any reply has: refused before a byte of it is read.
        let (mut a, b) = UnixStream::pair().unwrap();
        let length = u32::try_from(Reply::MOST + 1).unwrap();
        a.write_all(&length.to_le_bytes()).unwrap();
        let refused = receive::<Reply>(&b).unwrap_err().to_string();
        assert_eq!(
            refused,
            format!(
                "frame of {length} bytes is too long: a valid one has {} at most",
                Reply::MOST
            )
        );

        // Half a header, and half a body: both ends stay open.
        let soon = Duration::from_millis(50);
        for half in [&[9, 0][..], &[9, 0, 0, 0, b'"'][..]] {
            let (mut a, b) = UnixStream::pair().unwrap();
            a.write_all(half).unwrap();
            let refused = receive_within::<Reply>(&b, soon);
            assert!(
                matches!(refused, Err(FrameError::Unfinished(_))),
                "{refused:?}"
            );
        }

        // One that never ends: each byte comes in time, the frame does not.
        let (mut a, b) = UnixStream::pair().unwrap();
        let drip = std::thread::spawn(move || {
            a.write_all(&[255, 0, 0, 0])?;
            loop {
                a.write_all(b" ")?;
                std::thread::sleep(Duration::from_millis(5));
            }
            #[allow(unreachable_code)]
            io::Result::Ok(())
        });
        let refused = receive_within::<Reply>(&b, soon);
        assert!(
            matches!(refused, Err(FrameError::Unfinished(_))),
            "{refused:?}"
        );
        drop(b);
        drip.join().unwrap().unwrap_err();
    }

    #[test]
    fn garbage_is_an_error_and_never_an_allocation() {
        let (mut a, b) = UnixStream::pair().unwrap();
        a.write_all(&[0xff; 64]).unwrap();
        assert!(matches!(
            receive::<String>(&b),
            Err(FrameError::TooLong { .. })
        ));

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
