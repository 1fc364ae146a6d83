//! The control socket: one task per connection. The socket's mode lets only its owner connect; what
//! arrives is still checked, because a confused client must not take a container down.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::UnixListener;
use tokio::sync::{Semaphore, oneshot};

use super::attachment::{Target, follow};
use super::connection::Connection;
use super::life::Compartment;
use crate::frame::FrameError;
use crate::message::{Call, ControlError, Further, Pong, Reply, Request, Stdio, Streams, VERSION};

/// Connections served at once; each costs a task and at most three threads.
const MOST_CONNECTIONS: usize = 256;
const REQUEST_WITHIN: Duration = Duration::from_secs(10);

/// Accepts until dropped.
pub(super) async fn listen(listener: UnixListener, compartment: Arc<Compartment>) {
    let free = Arc::new(Semaphore::new(MOST_CONNECTIONS));
    loop {
        let Ok(permit) = Arc::clone(&free).acquire_owned().await else {
            return;
        };
        match listener.accept().await {
            Ok((stream, _)) => {
                let compartment = Arc::clone(&compartment);
                tokio::spawn(async move {
                    serve(Connection::new(stream), &compartment, None).await;
                    drop(permit);
                });
            }
            // Out of descriptors: some will come back.
            Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    }
}

/// Serves one connection to its end. `ready` hears when an attachment's descriptors are connected.
pub(super) async fn serve(
    mut connection: Connection,
    compartment: &Arc<Compartment>,
    ready: Option<oneshot::Sender<()>>,
) {
    let _visit = compartment.visit();
    let Ok(Ok((call, fds))) =
        tokio::time::timeout(REQUEST_WITHIN, connection.receive::<Call>()).await
    else {
        return;
    };
    if call.agreed().is_none() {
        let error = ControlError::Version {
            theirs: VERSION,
            ours: call.version,
        };
        let _ = connection.send(&Reply::Error(error)).await;
        return;
    }
    let reply = match call.request {
        Request::Attach {
            streams,
            detach_keys,
        } => {
            attach(
                &mut connection,
                compartment,
                streams,
                fds,
                detach_keys,
                ready,
            )
            .await
        }
        Request::Exec {
            process,
            streams,
            detach_keys,
        } => match descriptors(streams, fds) {
            Ok(stdio) => {
                super::execs::exec(&mut connection, compartment, &process, stdio, detach_keys).await
            }
            Err(e) => Ok(Reply::Error(e)),
        },
        // It may be long, and a client that has left must not keep its place.
        Request::Wait => tokio::select! {
            exit = compartment.ended() => Ok(Reply::Ended(exit)),
            left = connection.receive::<Further>() => match left {
                Ok(_) => Ok(Reply::Error(ControlError::Descriptors)),
                Err(e) => Err(e),
            },
        },
        other => Ok(simple(compartment, other).await),
    };
    if let Ok(reply) = reply {
        let _ = connection.send(&reply).await;
    }
}

/// The three streams out of the descriptors of a frame.
fn descriptors(streams: Streams, fds: Vec<OwnedFd>) -> Result<Stdio, ControlError> {
    Stdio::from_descriptors(streams, fds).ok_or(ControlError::Descriptors)
}

async fn simple(compartment: &Arc<Compartment>, request: Request) -> Reply {
    match request {
        Request::Ping => Reply::Pong(Pong {
            version: VERSION,
            running: compartment.is_running(),
            timings: compartment.timings(),
        }),
        Request::Signal(signal) => done(compartment.signal(signal).await),
        Request::Resize(size) => done(compartment.resize(size).await),
        Request::Stop {
            signal,
            timeout_ms,
            keep_disks,
        } => {
            let timeout = timeout_ms.map(Duration::from_millis);
            compartment.stop(signal, timeout, keep_disks).await;
            Reply::Ended(compartment.ended().await)
        }
        Request::Wait | Request::Attach { .. } | Request::Exec { .. } => {
            Reply::Error(ControlError::Descriptors)
        }
    }
}

fn done(result: Result<(), ControlError>) -> Reply {
    match result {
        Ok(()) => Reply::Done,
        Err(e) => Reply::Error(e),
    }
}

async fn attach(
    connection: &mut Connection,
    compartment: &Arc<Compartment>,
    streams: Streams,
    fds: Vec<OwnedFd>,
    detach_keys: Vec<u8>,
    ready: Option<oneshot::Sender<()>>,
) -> Result<Reply, FrameError> {
    let stdio = match descriptors(streams, fds) {
        Ok(stdio) => stdio,
        Err(e) => return Ok(Reply::Error(e)),
    };
    let io = compartment.main_io();
    let attached = match io.attach(stdio, detach_keys, compartment.stream_lock()) {
        Ok(attached) => attached,
        Err(e) => {
            return Ok(Reply::Error(ControlError::Resource {
                message: format!("attach streams: {e}").into(),
            }));
        }
    };
    if let Some(ready) = ready {
        let _ = ready.send(());
    }
    connection.send(&Reply::Attached).await?;
    let ended = async { Reply::Ended(compartment.ended().await) };
    follow(connection, attached, io, Target::Main(compartment), ended).await
}
