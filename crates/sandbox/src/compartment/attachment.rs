//! What a client that is attached to a process says and hears until either of them ends.

use std::sync::Arc;

use bulkhead_types::{Signal, TerminalSize};

use super::connection::Connection;
use super::life::Compartment;
use crate::frame::FrameError;
use crate::message::{Further, Reply};
use crate::streams::{Attached, InputEnd, ProcessIo};

/// The process that a client's signals and sizes go to. That it has just ended is no error: nothing is answered.
pub(super) enum Target<'a> {
    /// The container's main process.
    Main(&'a Arc<Compartment>),
    /// A further one, by its identifier.
    Exec(&'a Compartment, &'a str),
}

impl Target<'_> {
    async fn signal(&self, signal: Signal) {
        match self {
            Self::Main(compartment) => drop(compartment.signal(signal).await),
            Self::Exec(compartment, id) => drop(compartment.agent().signal(id, signal).await),
        }
    }

    async fn resize(&self, size: TerminalSize) {
        match self {
            Self::Main(compartment) => drop(compartment.resize(size).await),
            Self::Exec(compartment, id) => drop(compartment.agent().resize(id, size).await),
        }
    }
}

/// Serves an attached client until `ended`, which is the last reply then, or until it leaves.
pub(super) async fn follow(
    connection: &mut Connection,
    mut attached: Attached,
    io: &ProcessIo,
    target: Target<'_>,
    ended: impl Future<Output = Reply>,
) -> Result<Reply, FrameError> {
    tokio::pin!(ended);
    loop {
        tokio::select! {
            biased;
            reply = &mut ended => {
                if let Some(errno) = attached.output_gone.errno() {
                    connection.send(&Reply::OutputGone { errno }).await?;
                }
                if attached.was_cut() {
                    connection.send(&Reply::Cut).await?;
                }
                return Ok(reply);
            }
            end = input_end(&mut attached) => match end {
                InputEnd::DetachKeys => {
                    attached.detach().await;
                    return Ok(Reply::Detached);
                }
                InputEnd::OutputGone { errno } => {
                    attached.detach().await;
                    return Ok(Reply::OutputGone { errno });
                }
                InputEnd::EndOfFile => io.input_ended(),
                InputEnd::ProcessGone | InputEnd::Cancelled => {}
            },
            further = connection.receive::<Further>() => match further {
                Ok((Further::Signal(signal), _)) => target.signal(signal).await,
                Ok((Further::Resize(size), _)) => target.resize(size).await,
                Ok((Further::Detach, _)) => {
                    attached.detach().await;
                    return Ok(Reply::Detached);
                }
                // The client vanished: what it handed over may still be open elsewhere (a terminal), so let go of it.
                Err(e) => return Err(e),
            },
        }
    }
}

/// Resolves when the caller's input has ended (once), or when its output takes no more: with Docker too
/// `run … | head` gives the terminal back, and the container goes on.
async fn input_end(attached: &mut Attached) -> InputEnd {
    let input = async {
        match &mut attached.input {
            Some(receiver) => receiver.await.unwrap_or(InputEnd::Cancelled),
            None => std::future::pending().await,
        }
    };
    let end = tokio::select! {
        end = input => end,
        errno = attached.output_gone.told() => return InputEnd::OutputGone { errno },
    };
    attached.input = None;
    end
}
