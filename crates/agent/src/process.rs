//! A process of a container, from its start to the report of its end.
//!
//! ```text
//! started ──pidfd readable──▶ reaped ──output sent to its end──▶ reported
//! ```
//!
//! Every process that the agent starts is its own child, watched through a pidfd; orphans inside a
//! container go to the container's PID 1.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::watch;

use crate::container::Container;
use crate::machine;
use crate::streams::Flow;
use crate::syscalls;
use crate::terminal;

/// How long an exec'd process's streams are kept open for processes that inherited them (as Docker).
const INHERITED_STREAMS: Duration = Duration::from_secs(2);

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Exit {
    /// 0–255, 128 + n for signal n.
    pub(crate) code: u8,
    pub(crate) oom_killed: bool,
    /// Since boot.
    pub(crate) at_ns: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Progress {
    Started,
    Reaped,
    Reported(Exit),
}

/// A process that was started.
#[derive(Debug)]
pub(crate) struct Process {
    pidfd: Arc<OwnedFd>,
    terminal: Option<Arc<OwnedFd>>,
    /// It is a container's main process.
    pub(crate) main: bool,
    progress: watch::Receiver<Progress>,
}

impl Process {
    /// Watches a process that was started in `container` and reports its end once its output is sent.
    pub(crate) fn watch(
        pidfd: OwnedFd,
        main: bool,
        flow: Flow,
        container: Arc<Container>,
    ) -> std::io::Result<Arc<Self>> {
        let pidfd = Arc::new(pidfd);
        let watched = syscalls::watch(Arc::clone(&pidfd), Interest::READABLE)?;
        let (report, progress) = watch::channel(Progress::Started);
        let terminal = flow.terminal.clone();
        tokio::spawn(async move {
            let code = ended(&watched).await;
            let at_ns = machine::since_boot();
            report.send_replace(Progress::Reaped);
            flow.drain((!main).then_some(INHERITED_STREAMS)).await;
            let oom_killed = container
                .cgroup
                .as_ref()
                .is_some_and(|cgroup| cgroup.oom_killed());
            report.send_replace(Progress::Reported(Exit {
                code,
                oom_killed,
                at_ns,
            }));
        });
        Ok(Arc::new(Self {
            pidfd,
            terminal,
            main,
            progress,
        }))
    }

    /// Whether it has ended, reported or not.
    pub(crate) fn has_ended(&self) -> bool {
        *self.progress.borrow() != Progress::Started
    }

    /// Waits until it has ended, but not for its output to be sent.
    pub(crate) async fn reaped(&self) {
        let mut progress = self.progress.clone();
        // The watching task ends only with the agent.
        progress
            .wait_for(|progress| *progress != Progress::Started)
            .await
            .ok();
    }

    /// Waits for the report of its end.
    pub(crate) async fn wait(&self) -> Exit {
        let mut progress = self.progress.clone();
        loop {
            if let Progress::Reported(exit) = *progress.borrow_and_update() {
                return exit;
            }
            if progress.changed().await.is_err() {
                // The watching task ends only with the agent.
                return std::future::pending().await;
            }
        }
    }

    /// Sends a signal.
    pub(crate) fn signal(&self, number: i32) -> std::io::Result<()> {
        syscalls::pidfd_send_signal(self.pidfd.as_fd(), number)
    }

    /// Resizes its terminal, if it has one.
    pub(crate) fn resize(&self, rows: u32, columns: u32) -> std::io::Result<()> {
        match &self.terminal {
            Some(master) => terminal::resize(master.as_fd(), rows, columns),
            None => Err(std::io::Error::from_raw_os_error(libc::ENOTTY)),
        }
    }

    /// For joining its namespaces.
    pub(crate) fn pidfd(&self) -> &Arc<OwnedFd> {
        &self.pidfd
    }
}

/// Waits for the end of the process and reaps it.
async fn ended(pidfd: &AsyncFd<Arc<OwnedFd>>) -> u8 {
    loop {
        // A pidfd that cannot be polled leaves the blocking wait below.
        let guard = pidfd.readable().await;
        match syscalls::reap(pidfd.get_ref()) {
            Ok(code) => return code,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {
                if let Ok(mut guard) = guard {
                    guard.clear_ready();
                }
            }
            // Only a bug could have reaped it elsewhere; then its status is lost.
            Err(_) => return u8::MAX,
        }
    }
}
