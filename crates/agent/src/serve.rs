//! Serves the agent's calls on the one connection that the agent opened.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures::StreamExt;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::Notify;
use ttrpc::r#async::Server;
use ttrpc::r#async::transport::Listener;

use bulkhead_protocol::service::create_agent;

use crate::service::Guest;
use crate::transport::Stream;

/// Why serving ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Served {
    /// The host asked for a shutdown, which is done.
    Shutdown,
    /// The host closed the connection, or it broke.
    Disconnected,
}

/// Serves until the host asks for a shutdown or is gone.
///
/// # Errors
///
/// The server could not be started.
pub async fn serve(guest: Arc<Guest>, control: Stream) -> ttrpc::Result<Served> {
    let gone = Arc::new(Notify::new());
    let control = Control {
        stream: control,
        gone: Arc::clone(&gone),
    };
    // One connection, and a listener that stays: its end would be the server's.
    let connections = futures::stream::once(async { Ok::<_, io::Error>(control) })
        .chain(futures::stream::pending());
    let mut server = Server::new()
        .add_listener(Listener::new(connections))
        .register_service(create_agent(Arc::clone(&guest) as Arc<_>));
    server.start().await?;
    Ok(tokio::select! {
        () = guest.stopped() => Served::Shutdown,
        () = gone.notified() => Served::Disconnected,
    })
}

/// The control connection, which tells when the host is gone: the server itself keeps that to itself.
struct Control {
    stream: Stream,
    gone: Arc<Notify>,
}

impl AsyncRead for Control {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let room = buffer.remaining();
        let result = Pin::new(&mut self.stream).poll_read(context, buffer);
        let ended = match &result {
            Poll::Ready(Ok(())) => room > 0 && buffer.filled().len() == before,
            Poll::Ready(Err(_)) => true,
            Poll::Pending => false,
        };
        if ended {
            self.gone.notify_one();
        }
        result
    }
}

impl AsyncWrite for Control {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
