//! Moves bytes between a process's standard streams and the host, with flow control end to end: what
//! the host does not take stays in the pipe, and a full pipe stops the writer.
//!
//! Pipes are spliced, so bytes go from the writer's pages to the socket's packets without passing
//! through the agent. All pumps are tasks of the agent's only thread: a thread costs milliseconds to
//! start in a user-mode kernel.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, SpliceFFlags, fcntl, splice};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use tokio::io::Interest;
use tokio::io::unix::{AsyncFd, AsyncFdReadyGuard};
use tokio::sync::watch;

use crate::transport::Stream;

/// Size that a pipe gets once it has been full: one splice then carries a mebibyte instead of 64 KiB.
const LARGE_PIPE: i32 = 1 << 20;
/// A pipe's size at birth (pipe(7)).
const SMALL_PIPE: usize = 64 << 10;
/// Moves between looks at other tasks, so that a busy stream delays no signal.
const TURN: usize = 16;
/// Bytes per read where splice does not work: terminals, and kernels that send spliced pages one by one.
const COPY_BUFFER: usize = 32 << 10;

/// Whether this kernel sends spliced pages in large packets (Linux 6.5 and later).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Method {
    Splice,
    Copy,
}

impl Method {
    /// Decides by the kernel's release, `6.12.57` or the like.
    pub(crate) fn for_kernel(release: &str) -> Self {
        let mut numbers = release
            .split(|c: char| !c.is_ascii_digit())
            .map(str::parse::<u32>);
        match (numbers.next(), numbers.next()) {
            (Some(Ok(major)), Some(Ok(minor))) if (major, minor) >= (6, 5) => Self::Splice,
            _ => Self::Copy,
        }
    }
}

/// Set when the process has ended and only what it left behind is still to be sent.
pub(crate) type Ending = watch::Receiver<bool>;

/// Sends all that arrives at `source` until its end, then half-closes the stream.
pub(crate) async fn send(
    source: AsyncFd<OwnedFd>,
    stream: Stream,
    method: Method,
    mut ending: Ending,
) -> io::Result<()> {
    let result = match method {
        Method::Splice => splice_out(&source, &stream, &mut ending).await,
        Method::Copy => copy_out(&source, &stream, &mut ending).await,
    };
    // The host reads an end of file in any case, so it never waits for a stream that failed.
    stream.finish().ok();
    result
}

/// Delivers all that the host sends to `sink`, until the host's end of file; the caller then closes
/// the sink. When the process has closed its end, the rest is read and dropped, so that the host's
/// writer is not held up.
pub(crate) async fn deliver(
    stream: &Stream,
    sink: &AsyncFd<OwnedFd>,
    method: Method,
) -> io::Result<()> {
    let result = match method {
        Method::Splice => splice_in(stream, sink).await,
        Method::Copy => copy_in(stream, sink).await,
    };
    match result {
        Err(error) if matches!(error.raw_os_error(), Some(libc::EPIPE | libc::EIO)) => {
            discard(stream).await
        }
        other => other,
    }
}

/// Readable, or told to end: then what is there is still sent, and nothing is waited for.
async fn readable<'a>(
    source: &'a AsyncFd<OwnedFd>,
    ending: &mut Ending,
) -> io::Result<Option<AsyncFdReadyGuard<'a, OwnedFd>>> {
    tokio::select! {
        biased;
        guard = source.readable() => guard.map(Some),
        // An error means that the sender is gone, which happens only when nobody waits any more.
        _ = ending.wait_for(|ending| *ending) => Ok(None),
    }
}

async fn splice_out(
    source: &AsyncFd<OwnedFd>,
    stream: &Stream,
    ending: &mut Ending,
) -> io::Result<()> {
    let mut grown = false;
    let mut turn = 0;
    loop {
        let from = readable(source, ending).await?;
        let to = stream.poller().writable().await?;
        match splice_once(source, stream) {
            Ok(0) => return Ok(()),
            Ok(moved) => {
                if !grown && moved >= SMALL_PIPE {
                    grown = true;
                    // Fails only for want of memory; the small pipe does the work as well.
                    fcntl(source.get_ref(), FcntlArg::F_SETPIPE_SZ(LARGE_PIPE)).ok();
                }
                turn += 1;
                if turn % TURN == 0 {
                    tokio::task::yield_now().await;
                }
            }
            Err(Errno::EAGAIN) => {
                let (can_read, _) = clear_readiness(from, Some(to), source, stream)?;
                if !can_read && *ending.borrow() {
                    return Ok(());
                }
            }
            Err(Errno::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

async fn splice_in(stream: &Stream, sink: &AsyncFd<OwnedFd>) -> io::Result<()> {
    let mut grown = false;
    let mut turn = 0;
    loop {
        let (from, to) = tokio::select! {
            biased;
            // Nothing else tells a waiting writer that the reader has closed its end.
            gone = closed(sink) => return gone,
            both = async { tokio::try_join!(stream.poller().readable(), sink.writable()) } => both?,
        };
        match splice_once(stream, sink.get_ref()) {
            Ok(0) => return Ok(()),
            Ok(moved) => {
                if !grown && moved >= SMALL_PIPE {
                    grown = true;
                    fcntl(sink.get_ref(), FcntlArg::F_SETPIPE_SZ(LARGE_PIPE)).ok();
                }
                turn += 1;
                if turn % TURN == 0 {
                    tokio::task::yield_now().await;
                }
            }
            Err(Errno::EAGAIN) => {
                clear_readiness(Some(from), Some(to), stream, sink.get_ref())?;
            }
            Err(Errno::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// Completes with `EPIPE` when nobody reads the pipe any more.
async fn closed(sink: &AsyncFd<OwnedFd>) -> io::Result<()> {
    let guard = sink.ready(Interest::ERROR).await?;
    drop(guard);
    Err(Errno::EPIPE.into())
}

fn splice_once(from: impl AsFd, to: impl AsFd) -> nix::Result<usize> {
    let flags = SpliceFFlags::SPLICE_F_NONBLOCK | SpliceFFlags::SPLICE_F_MOVE;
    splice(from, None, to, None, 1 << 20, flags)
}

/// `EAGAIN` of splice does not say which side was not ready, and forgetting the readiness of the other
/// would wait for an edge that never comes. So ask.
fn clear_readiness(
    from: Option<AsyncFdReadyGuard<'_, OwnedFd>>,
    to: Option<AsyncFdReadyGuard<'_, OwnedFd>>,
    source: impl AsFd,
    target: impl AsFd,
) -> io::Result<(bool, bool)> {
    let mut fds = [
        PollFd::new(source.as_fd(), PollFlags::POLLIN),
        PollFd::new(target.as_fd(), PollFlags::POLLOUT),
    ];
    poll(&mut fds, PollTimeout::ZERO)?;
    let ready = |fd: &PollFd<'_>| fd.revents().is_some_and(|events| !events.is_empty());
    let (can_read, can_write) = (ready(&fds[0]), ready(&fds[1]));
    if let (false, Some(mut guard)) = (can_read, from) {
        guard.clear_ready();
    }
    if let (false, Some(mut guard)) = (can_write, to) {
        guard.clear_ready();
    }
    Ok((can_read, can_write))
}

async fn copy_out(
    source: &AsyncFd<OwnedFd>,
    stream: &Stream,
    ending: &mut Ending,
) -> io::Result<()> {
    let mut buffer = vec![0; COPY_BUFFER];
    loop {
        let from = readable(source, ending).await?;
        let ended = from.is_none();
        match nix::unistd::read(source.get_ref(), &mut buffer) {
            // EIO: the last process has closed its side of the terminal.
            Ok(0) | Err(Errno::EIO) => return Ok(()),
            Ok(length) => write_all(stream.poller(), buffer.get(..length).unwrap_or(&[])).await?,
            Err(Errno::EAGAIN) if ended => return Ok(()),
            Err(Errno::EAGAIN) => {
                if let Some(mut guard) = from {
                    guard.clear_ready();
                }
            }
            Err(Errno::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

async fn copy_in(stream: &Stream, sink: &AsyncFd<OwnedFd>) -> io::Result<()> {
    let mut buffer = vec![0; COPY_BUFFER];
    loop {
        match read_some(stream, &mut buffer).await? {
            0 => return Ok(()),
            length => write_all(sink, buffer.get(..length).unwrap_or(&[])).await?,
        }
    }
}

async fn discard(stream: &Stream) -> io::Result<()> {
    let mut buffer = vec![0; COPY_BUFFER];
    while read_some(stream, &mut buffer).await? > 0 {}
    Ok(())
}

async fn read_some(stream: &Stream, buffer: &mut [u8]) -> io::Result<usize> {
    stream
        .poller()
        .async_io(Interest::READABLE, |fd| Ok(nix::unistd::read(fd, buffer)?))
        .await
}

async fn write_all(sink: &AsyncFd<OwnedFd>, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        let written = sink
            .async_io(Interest::WRITABLE, |fd| Ok(nix::unistd::write(fd, bytes)?))
            .await?;
        bytes = bytes.get(written..).unwrap_or(&[]);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_kernels_with_page_splicing_to_sockets_use_it() {
        assert_eq!(Method::for_kernel("6.12.57-um"), Method::Splice);
        assert_eq!(Method::for_kernel("6.5.0"), Method::Splice);
        assert_eq!(Method::for_kernel("7.0"), Method::Splice);
        assert_eq!(Method::for_kernel("6.1.0-41"), Method::Copy);
        assert_eq!(Method::for_kernel("garbage"), Method::Copy);
    }
}
