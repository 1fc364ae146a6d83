//! Further processes in the container. An exec outlives the client that asked for it; its streams do not.

use std::sync::Arc;
use std::time::Duration;

use bulkhead_types::{ExitStatus, ProcessSpec, Signal};

use super::attachment::{Target, follow};
use super::connection::Connection;
use super::life::{Compartment, drain};
use crate::frame::FrameError;
use crate::message::{ControlError, Reply, Stdio};
use crate::streams::{ProcessIo, Wanted};

/// A start that was given up is looked for so often, and so long apart: five minutes, after which a guest that is that
/// slow is left to itself.
const LATE_LOOKS: u32 = 300;
const LATE_LOOK: Duration = Duration::from_secs(1);

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
            message: format!("open streams: {e}").into(),
        })
    };
    let io = match ProcessIo::open(compartment.ports(), wanted, None, compartment.stream_lock()) {
        Ok(io) => Arc::new(io),
        Err(e) => return Ok(resource(e)),
    };
    let attached = match io.attach(stdio, detach_keys, compartment.stream_lock()) {
        Ok(attached) => attached,
        Err(e) => return Ok(resource(e)),
    };
    let id = compartment.next_exec_id();
    let guest_pid = match compartment
        .agent()
        .start(compartment.id(), &id, process, &io)
        .await
    {
        Ok(Ok(pid)) => pid,
        Ok(Err(failure)) => return Ok(Reply::Failed(failure)),
        Err(e) => {
            tokio::spawn(end_late_start(Arc::clone(compartment), id));
            return Ok(Reply::Error(ControlError::Agent {
                message: e.to_string().into(),
            }));
        }
    };
    let status = tokio::spawn(wait(Arc::clone(compartment), Arc::clone(&io), id.clone()));
    connection.send(&Reply::ExecStarted { guest_pid }).await?;
    let ended = async { Reply::ExecEnded(status.await.unwrap_or(ExitStatus::signaled(9))) };
    let target = Target::Exec(compartment, &id);
    follow(connection, attached, &io, target, ended).await
}

async fn wait(compartment: Arc<Compartment>, io: Arc<ProcessIo>, id: String) -> ExitStatus {
    let status = tokio::select! {
        status = async { compartment.agent().wait(&id).await } => status.ok(),
        () = compartment.guest_gone() => None,
    };
    io.end_input();
    drain(&io, compartment.patience()).await;
    status.unwrap_or(ExitStatus::signaled(9))
}

/// Ends a process whose start was given up: a guest that was too slow to answer in time may still start it, and nobody
/// else would ever wait for it.
async fn end_late_start(compartment: Arc<Compartment>, id: String) {
    let gone = compartment.guest_gone();
    let ended = async {
        for _ in 0..LATE_LOOKS {
            if compartment.agent().signal(&id, Signal::KILL).await.is_ok() {
                // The agent forgets a process when its end was told.
                let _ = compartment.agent().wait(&id).await;
                return;
            }
            tokio::time::sleep(LATE_LOOK).await;
        }
    };
    tokio::select! {
        () = ended => {}
        () = gone => {}
    }
}
