//! Further processes in the container. An exec outlives the client that asked for it; its streams do not.

use std::sync::Arc;
use std::time::Duration;

use bulkhead_types::{ExitStatus, ProcessSpec};

use super::connection::Connection;
use super::control::attachment_end;
use super::life::{Compartment, drain};
use super::walls::StreamLock;
use crate::frame::FrameError;
use crate::message::{ControlError, Further, Reply, Stdio};
use crate::streams::{InputEnd, ProcessIo, Wanted};

pub(super) async fn exec(
    connection: &mut Connection,
    compartment: &Arc<Compartment>,
    process: &ProcessSpec,
    stdio: Stdio,
    detach_keys: Vec<u8>,
) -> Result<Reply, FrameError> {
    if !compartment.is_running() {
        return Ok(Reply::Error(ControlError::NotRunning));
    }
    let wanted = Wanted {
        stdin: stdio.stdin.is_some(),
        stdout: stdio.stdout.is_some(),
        stderr: stdio.stderr.is_some() && !process.terminal,
        stdin_once: true,
    };
    let resource = |e: std::io::Error| {
        Reply::Error(ControlError::Resource {
            message: format!("open streams: {e}"),
        })
    };
    let io = match ProcessIo::open(compartment.ports(), wanted, None, &StreamLock::default()) {
        Ok(io) => Arc::new(io),
        Err(e) => return Ok(resource(e)),
    };
    let mut attached = match io.attach(stdio, detach_keys) {
        Ok(attached) => attached,
        Err(e) => {
            io.abandon();
            return Ok(resource(e));
        }
    };
    let id = compartment.next_exec_id();
    let guest_pid = match compartment
        .agent()
        .start(compartment.id(), &id, process, &io)
        .await
    {
        Ok(Ok(pid)) => pid,
        Ok(Err(failure)) => {
            io.abandon();
            return Ok(Reply::Failed(failure));
        }
        Err(e) => {
            io.abandon();
            return Ok(Reply::Error(ControlError::Agent {
                message: e.to_string(),
            }));
        }
    };
    let mut ended = tokio::spawn(wait(Arc::clone(compartment), Arc::clone(&io), id.clone()));
    connection.send(&Reply::ExecStarted { guest_pid }).await?;
    loop {
        tokio::select! {
            biased;
            status = &mut ended => return Ok(Reply::ExecEnded(status.unwrap_or(ExitStatus::signaled(9)))),
            end = attachment_end(&mut attached) => match end {
                InputEnd::DetachKeys | InputEnd::OutputGone => {
                    io.detach(&attached).await;
                    return Ok(Reply::Detached);
                }
                InputEnd::EndOfFile => io.input_ended(),
                InputEnd::ProcessGone | InputEnd::Cancelled => {}
            },
            further = connection.receive::<Further>() => match further {
                // No answers here: that the process has just ended is no error.
                Ok((Further::Signal(signal), _)) => drop(compartment.agent().signal(&id, signal).await),
                Ok((Further::Resize(size), _)) => drop(compartment.agent().resize(&id, size).await),
                Ok((Further::Detach, _)) => {
                    io.detach(&attached).await;
                    return Ok(Reply::Detached);
                }
                Err(e) => {
                    io.detach(&attached).await;
                    return Err(e);
                }
            },
        }
    }
}

async fn wait(compartment: Arc<Compartment>, io: Arc<ProcessIo>, id: String) -> ExitStatus {
    let status = tokio::select! {
        status = async { compartment.agent().wait(&id).await } => status.ok(),
        () = compartment.guest_gone() => None,
    };
    io.end_input();
    drain(&io, Duration::from_secs(5)).await;
    status.unwrap_or(ExitStatus::signaled(9))
}
