//! The lifecycle: boot, create, start, run, drain, tear down. One task walks it from top to bottom;
//! clients look at it through [`Compartment`].
//!
//! ```text
//! Starting ──start──▶ Running ──process or guest ended──▶ Ended ──drained, torn down, recorded──▶ gone
//!     └── failed, or a client said stop ──▶ gone
//! ```

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bulkhead_jail::JailReport;
use bulkhead_protocol::CONTROL_PORT;
use bulkhead_types::{ExitStatus, GuestText, Signal, TerminalSize, chain};
use jiff::Timestamp;
use tokio::io::unix::AsyncFd;
use tokio::sync::{oneshot, watch};

use super::agent::{Agent, AgentError};
use super::connection::Connection;
use super::console::{self, Tail};
use super::control;
use super::guest::{Boot, Guest};
use super::walls::{StreamLock, Walls};
use crate::event::{Event, EventSender};
use crate::failure::StartFailure;
use crate::logs::LogWriter;
use crate::message::{ControlError, Exit, Started};
use crate::spec::{LogSpec, SandboxSpec};
use crate::streams::{Log, Ports, ProcessIo, Wanted, install_handler};
use crate::timings::Timings;

/// How long an orderly shutdown may take before the guest is ended.
const SHUTDOWN_WITHIN: Duration = Duration::from_secs(2);
/// A guest that is gone needs no time; this bounds a host that hangs.
const GONE_WITHIN: Duration = Duration::from_secs(5);
/// Silence after which a stream that should have ended is ended.
const SILENCE: Duration = Duration::from_secs(5);
/// How often a stream that does not end is looked at.
const LOOK: Duration = Duration::from_millis(50);
/// After a kill signal the guest's processes end at once, unless its kernel hangs: then the guest is ended.
const KILL_WITHIN: Duration = Duration::from_secs(10);
/// Clients that wait for the end get this long to take the answer.
const LINGER: Duration = Duration::from_millis(500);

/// What the monitor opened for the sandbox.
pub(crate) struct Parts {
    pub spec: Box<SandboxSpec>,
    pub listener: UnixListener,
    /// The launcher's attachment.
    pub early: Option<UnixStream>,
    /// Where events go, and the acknowledgement of the last comes from.
    pub monitor: EventSender,
    pub log: Option<[File; 2]>,
    pub console_log: File,
    pub timings: Timings,
}

/// What clients see of the running compartment.
pub(super) struct Compartment {
    spec: Box<SandboxSpec>,
    agent: Agent,
    ports: Ports,
    main: ProcessIo,
    stream_lock: StreamLock,
    stage: watch::Sender<Stage>,
    start_refused: watch::Sender<bool>,
    timings: Mutex<Timings>,
    ended: watch::Sender<Option<Exit>>,
    guest_gone: watch::Receiver<bool>,
    guest: Mutex<Box<dyn Guest>>,
    patience: Patience,
    keep_disks: AtomicBool,
    insisted: AtomicBool,
    killed: AtomicBool,
    execs: AtomicU64,
    visits: AtomicUsize,
}

/// How far the main process is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// The guest boots, or the process is about to be executed.
    Starting,
    /// It was executed and has not ended.
    Running,
    /// It has ended; its output may still be on its way.
    Ended,
}

/// How long a client that takes no output may hold up what comes after a process's end. Only ever shrinks.
#[derive(Debug, Default)]
pub(super) struct Patience(AtomicU8);

/// What an operator asked for, as far as it concerns clients that do not read.
#[derive(Debug, Clone, Copy)]
enum Hurry {
    /// An orderly stop.
    Stop = 1,
    /// A kill.
    Kill = 2,
}

impl Patience {
    fn shrink(&self, hurry: Hurry) {
        self.0.fetch_max(hurry as u8, Ordering::SeqCst);
    }

    /// With every byte that a client takes the time begins anew, so that one who reads, however slowly, gets all.
    /// Docker gives every client two seconds; a person who looks at a screen full of output needs longer, and as long
    /// as nobody asked for the end nobody is kept waiting.
    fn limit(&self) -> Duration {
        match self.0.load(Ordering::SeqCst) {
            0 => Duration::from_secs(10),
            1 => Duration::from_secs(2),
            // "At once", but a client that is just reading must have the chance to be seen doing it.
            _ => Duration::from_millis(200),
        }
    }
}

/// Runs the compartment to its end. Everything it has to say goes to the monitor.
pub(crate) fn run(parts: Parts, mut walls: Walls, boot: Box<dyn Boot>) {
    let Parts {
        spec,
        listener,
        early,
        monitor,
        log,
        console_log,
        mut timings,
    } = parts;
    let failed = |failure, timings| tell(&monitor, &Event::Failed { failure, timings });
    let setup = Setup::new(&spec, log, &walls.stream_lock());
    let setup = match setup {
        Ok(setup) => setup,
        Err(e) => {
            return failed(
                StartFailure::Platform {
                    reason: format!("set up streams: {e}").into(),
                },
                timings,
            );
        }
    };
    let guest = match boot.boot(setup.ports.clone(), setup.console_end, &mut walls) {
        Ok(guest) => guest,
        Err(e) => {
            return failed(
                StartFailure::Platform {
                    reason: e.to_string().into(),
                },
                timings,
            );
        }
    };
    timings.machine = Timings::now();
    let runtime = match tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .enable_time()
        .build()
    {
        Ok(runtime) => runtime,
        Err(e) => {
            return failed(
                StartFailure::Platform {
                    reason: format!("start event loop: {e}").into(),
                },
                timings,
            );
        }
    };
    let stream_lock = match walls.lock() {
        Ok(lock) => lock,
        Err(e) => {
            return failed(
                StartFailure::Jail {
                    reason: chain(&e).into(),
                },
                timings,
            );
        }
    };
    let tail = Tail::default();
    let outcome = runtime.block_on(async {
        let exit_fd = guest.exit_fd()?;
        let (gone, guest_gone) = watch::channel(false);
        tokio::spawn(watch_guest(exit_fd, gone));
        tokio::spawn(console::follow(setup.console, console_log, tail.clone()));
        let compartment = Arc::new(Compartment {
            spec,
            agent: Agent::new(setup.control)?,
            ports: setup.ports,
            main: setup.main,
            stream_lock,
            stage: watch::channel(Stage::Starting).0,
            start_refused: watch::channel(false).0,
            timings: Mutex::new(timings),
            ended: watch::channel(None).0,
            guest_gone,
            guest: Mutex::new(guest),
            patience: Patience::default(),
            keep_disks: AtomicBool::new(false),
            insisted: AtomicBool::new(false),
            killed: AtomicBool::new(false),
            execs: AtomicU64::new(0),
            visits: AtomicUsize::new(0),
        });
        listener.set_nonblocking(true)?;
        let listener = tokio::net::UnixListener::from_std(listener)?;
        tokio::spawn(control::listen(listener, Arc::clone(&compartment)));
        live(&compartment, early, &monitor, &tail, setup.log.as_ref()).await;
        Ok::<(), io::Error>(())
    });
    if let Err(e) = outcome {
        failed(
            StartFailure::Platform {
                reason: format!("set up event loop: {e}").into(),
            },
            timings,
        );
    }
    // Threads that still write to a caller die with the process; nothing waits for them.
    runtime.shutdown_background();
}

/// What exists before the kernel does.
struct Setup {
    ports: Ports,
    control: UnixStream,
    main: ProcessIo,
    log: Option<Log>,
    console: OwnedFd,
    console_end: OwnedFd,
}

impl Setup {
    fn new(spec: &SandboxSpec, log: Option<[File; 2]>, lock: &StreamLock) -> io::Result<Self> {
        install_handler()?;
        let ports = Ports::default();
        let control = ports.open(CONTROL_PORT)?;
        let log = match (log, &spec.log) {
            (Some(files), LogSpec::Files { max_file_size }) => {
                Some(Arc::new(Mutex::new(LogWriter::new(files, max_file_size.0))))
            }
            _ => None,
        };
        let wanted = Wanted {
            stdin: spec.open_stdin,
            stdout: true,
            stderr: !spec.process.terminal,
            stdin_once: spec.stdin_once,
        };
        let main = ProcessIo::open(&ports, wanted, log.as_ref(), lock)?;
        let (console, console_end) = io::pipe()?;
        Ok(Self {
            ports,
            control,
            main,
            log,
            console: console.into(),
            console_end: console_end.into(),
        })
    }
}

async fn watch_guest(exit_fd: OwnedFd, gone: watch::Sender<bool>) {
    // SAFETY: an `OwnedFd` names one open descriptor for as long as it lives, and it lives in the `AsyncFd`.
    let registered =
        unsafe { AsyncFd::register_with_interest(exit_fd, tokio::io::Interest::READABLE) };
    if let Ok(fd) = registered {
        let _ = fd.readable().await;
    }
    let _ = gone.send(true);
}

async fn live(
    compartment: &Arc<Compartment>,
    early: Option<UnixStream>,
    monitor: &EventSender,
    tail: &Tail,
    log: Option<&Log>,
) {
    let started = tokio::select! {
        biased;
        () = compartment.start_refused() => Err(StartFailure::Stopped),
        started = start(compartment, early, tail) => started,
        () = compartment.guest_gone() => Err(StartFailure::Boot {
            reason: compartment.describe_guest().await.into(),
            console: tail.lines(),
        }),
    };
    match started {
        Ok(started) => tell(monitor, &Event::Started(started)),
        Err(failure) => {
            compartment.main.abandon();
            compartment.guest().stop();
            tell(
                monitor,
                &Event::Failed {
                    failure,
                    timings: compartment.timings(),
                },
            );
            return;
        }
    }
    let (status, error) = running(compartment, tail).await;
    let at = Timestamp::now();
    compartment.mark(|timings, now| timings.exited = now);
    let _ = compartment.stage.send_replace(Stage::Ended);

    compartment.main.end_input();
    drain(&compartment.main, &compartment.patience).await;
    compartment.mark(|timings, now| timings.drained = now);

    tear_down(compartment).await;
    let exit = Exit {
        status,
        error,
        at,
        timings: compartment.timings(),
        warnings: Vec::new(),
        unrecorded: None,
    };
    let log_bytes_lost = log.map_or(0, |log| {
        log.lock()
            .unwrap_or_else(PoisonError::into_inner)
            .bytes_lost()
    });
    tell(
        monitor,
        &Event::Ended {
            exit: exit.clone(),
            log_bytes_lost,
        },
    );
    monitor.acknowledged(GONE_WITHIN).await;
    let _ = compartment.ended.send_replace(Some(exit));
    let _ = tokio::time::timeout(LINGER, compartment.no_visits()).await;
}

/// From the guest's first instruction to the main process's.
async fn start(
    compartment: &Arc<Compartment>,
    early: Option<UnixStream>,
    tail: &Tail,
) -> Result<Started, StartFailure> {
    let boot = |e: AgentError| StartFailure::Boot {
        reason: e.to_string().into(),
        console: tail.lines(),
    };
    let create = |e: AgentError| StartFailure::Create {
        reason: e.to_string().into(),
        console: Vec::new(),
    };
    let attached = early.map(|stream| attach_early(compartment, stream));
    let hello = compartment.agent.hello().await.map_err(boot)?;
    compartment.mark(|timings, now| {
        timings.guest = timings.machine.saturating_add(hello.started_at_ns).min(now);
        timings.agent = now;
    });
    compartment
        .agent
        .create(&compartment.spec)
        .await
        .map_err(create)?;
    compartment.mark(|timings, now| timings.created = now);
    if let Some(attached) = attached {
        // An error means that the client is gone already; the container starts all the same.
        let _ = attached.await;
    }
    let spec = &compartment.spec;
    let guest_pid = compartment
        .agent
        .start(
            spec.id.as_str(),
            spec.id.as_str(),
            &spec.process,
            &compartment.main,
        )
        .await
        .map_err(create)??;
    compartment.mark(|timings, now| timings.started = now);
    let _ = compartment.stage.send_replace(Stage::Running);
    Ok(Started {
        guest_pid,
        kernel_release: hello.kernel_release.into(),
        at: Timestamp::now(),
        timings: compartment.timings(),
        jail: JailReport::default(),
        unrecorded: None,
    })
}

fn attach_early(compartment: &Arc<Compartment>, stream: UnixStream) -> oneshot::Receiver<()> {
    let (ready, attached) = oneshot::channel();
    let compartment = Arc::clone(compartment);
    tokio::spawn(async move {
        if stream.set_nonblocking(true).is_ok()
            && let Ok(stream) = tokio::net::UnixStream::from_std(stream)
        {
            control::serve(Connection::new(stream), &compartment, Some(ready)).await;
        }
    });
    attached
}

/// Waits for the main process, or for the guest's end under it.
async fn running(compartment: &Compartment, tail: &Tail) -> (ExitStatus, Option<GuestText>) {
    let waited = tokio::select! {
        biased;
        waited = compartment.agent.wait(compartment.id()) => Some(waited),
        () = compartment.guest_gone() => None,
    };
    let reason = match waited {
        Some(Ok(status)) => return (status, None),
        // The connection usually breaks a moment before the guest's end is seen.
        Some(Err(e)) => {
            match tokio::time::timeout(Duration::from_secs(1), compartment.guest_gone()).await {
                Ok(()) => compartment.describe_guest().await,
                Err(_) => e.to_string(),
            }
        }
        None => compartment.describe_guest().await,
    };
    if compartment.killed.load(Ordering::SeqCst) {
        return (ExitStatus::signaled(9), None);
    }
    // The console's last words may still be in its pipe.
    tokio::time::sleep(Duration::from_millis(20)).await;
    let failure = StartFailure::Boot {
        reason: reason.into(),
        console: tail.lines(),
    };
    (
        ExitStatus::signaled(9),
        Some(GuestText::lines(&failure.to_string().replacen(
            "guest did not boot",
            "guest ended under the container",
            1,
        ))),
    )
}

/// Waits until every byte was delivered to the log and to every client that takes it. A client that takes nothing for as
/// long as `patience` says is let go; the log still gets everything. A stream that neither ends nor moves, while nobody's
/// slowness explains it, is ended.
pub(super) async fn drain(io: &ProcessIo, patience: &Patience) {
    let drained = io.drained();
    tokio::pin!(drained);
    let (mut moved, mut since) = (io.progress(), Instant::now());
    while tokio::time::timeout(LOOK, &mut drained).await.is_err() {
        io.let_go_of_stalled(patience.limit());
        let now = io.progress();
        if now != moved || io.is_delivering() {
            (moved, since) = (now, Instant::now());
        } else if since.elapsed() >= SILENCE {
            io.abandon();
        }
    }
}

/// Ends the guest: orderly where its disks are kept.
async fn tear_down(compartment: &Compartment) {
    let keep = !compartment.spec.auto_remove || compartment.keep_disks.load(Ordering::SeqCst);
    if keep && !*compartment.guest_gone.borrow() {
        let orderly = async {
            tokio::join!(
                compartment.agent.shutdown(SHUTDOWN_WITHIN),
                compartment.guest_gone()
            );
        };
        let _ = tokio::time::timeout(SHUTDOWN_WITHIN, orderly).await;
    }
    compartment.guest().stop();
    let _ = tokio::time::timeout(GONE_WITHIN, compartment.guest_gone()).await;
}

/// A monitor that is gone hears nothing, and this process dies with it.
fn tell(monitor: &EventSender, event: &Event) {
    let _ = monitor.send(event);
}

impl Compartment {
    pub fn id(&self) -> &str {
        self.spec.id.as_str()
    }

    pub fn agent(&self) -> &Agent {
        &self.agent
    }

    pub fn ports(&self) -> &Ports {
        &self.ports
    }

    /// What stream threads lock themselves with that are started from now on.
    pub fn stream_lock(&self) -> &StreamLock {
        &self.stream_lock
    }

    pub fn main_io(&self) -> &ProcessIo {
        &self.main
    }

    pub fn is_running(&self) -> bool {
        *self.stage.borrow() == Stage::Running
    }

    pub fn patience(&self) -> &Patience {
        &self.patience
    }

    pub fn timings(&self) -> Timings {
        *self.timings.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn next_exec_id(&self) -> String {
        format!("exec-{}", self.execs.fetch_add(1, Ordering::Relaxed))
    }

    /// Sends a signal to the main process. `SIGKILL` is a promise: its end does not depend on the guest.
    pub async fn signal(self: &Arc<Self>, signal: Signal) -> Result<(), ControlError> {
        if !self.is_running() {
            if signal == Signal::KILL {
                self.patience.shrink(Hurry::Kill);
            }
            return Err(ControlError::NotRunning);
        }
        if signal == Signal::KILL {
            self.insist();
        }
        self.agent
            .signal(self.id(), signal)
            .await
            .map_err(|e| ControlError::Agent {
                message: e.to_string().into(),
            })
    }

    pub async fn resize(&self, size: TerminalSize) -> Result<(), ControlError> {
        if !self.spec.process.terminal {
            return Err(ControlError::NoTerminal);
        }
        if !self.is_running() {
            return Err(ControlError::NotRunning);
        }
        self.agent
            .resize(self.id(), size)
            .await
            .map_err(|e| ControlError::Agent {
                message: e.to_string().into(),
            })
    }

    /// Asks the main process to end with `signal`, and kills it when it has not after `timeout` (never, if `None`).
    /// Returns when it has ended. A start that is under way is given up at once. With `keep_disks` the guest is shut
    /// down in order even where its disks would be thrown away.
    pub async fn stop(
        self: &Arc<Self>,
        signal: Signal,
        timeout: Option<Duration>,
        keep_disks: bool,
    ) {
        if keep_disks {
            self.keep_disks.store(true, Ordering::SeqCst);
        }
        let _ = self.start_refused.send_replace(true);
        self.reached(|stage| stage != Stage::Starting).await;
        self.patience.shrink(Hurry::Stop);
        let asked = async {
            // An agent that does not answer is met by the kill below.
            let _ = self.signal(signal).await;
            self.process_ended().await;
        };
        match timeout {
            None => asked.await,
            Some(timeout) => {
                if tokio::time::timeout(timeout, asked).await.is_err() {
                    let _ = self.signal(Signal::KILL).await;
                    self.process_ended().await;
                }
            }
        }
    }

    /// Ends the guest, once, if the main process is still there [`KILL_WITHIN`] from now.
    fn insist(self: &Arc<Self>) {
        self.patience.shrink(Hurry::Kill);
        if self.insisted.swap(true, Ordering::SeqCst) {
            return;
        }
        let compartment = Arc::clone(self);
        tokio::spawn(async move {
            let ended = compartment.process_ended();
            if tokio::time::timeout(KILL_WITHIN, ended).await.is_err() {
                compartment.kill_guest();
            }
        });
    }

    /// Resolves when a client wants the start given up.
    async fn start_refused(&self) {
        let _ = self
            .start_refused
            .subscribe()
            .wait_for(|refused| *refused)
            .await;
    }

    async fn reached(&self, enough: impl Fn(Stage) -> bool) {
        let mut stage = self.stage.subscribe();
        let _ = stage.wait_for(|stage| enough(*stage)).await;
    }

    /// Resolves when the main process has ended.
    pub async fn process_ended(&self) {
        self.reached(|stage| stage == Stage::Ended).await;
    }

    /// Resolves when everything has ended and was recorded.
    pub async fn ended(&self) -> Exit {
        let mut ended = self.ended.subscribe();
        loop {
            if let Ok(exit) = ended.wait_for(Option::is_some).await
                && let Some(exit) = exit.as_ref()
            {
                return exit.clone();
            }
            std::future::pending::<()>().await;
        }
    }

    /// Resolves when the guest's kernel is no more.
    pub async fn guest_gone(&self) {
        let _ = self.guest_gone.clone().wait_for(|gone| *gone).await;
    }

    /// Ends the guest because its kernel does not react.
    fn kill_guest(&self) {
        self.killed.store(true, Ordering::SeqCst);
        self.guest().stop();
    }

    /// Counts a connection being served, until dropped.
    pub fn visit(self: &Arc<Self>) -> Visit {
        self.visits.fetch_add(1, Ordering::SeqCst);
        Visit(Arc::clone(self))
    }

    async fn no_visits(&self) {
        while self.visits.load(Ordering::SeqCst) > 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    async fn describe_guest(&self) -> String {
        self.guest().describe_exit()
    }

    fn guest(&self) -> std::sync::MutexGuard<'_, Box<dyn Guest>> {
        self.guest.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn mark(&self, set: impl FnOnce(&mut Timings, u64)) {
        set(
            &mut self.timings.lock().unwrap_or_else(PoisonError::into_inner),
            Timings::now(),
        );
    }
}

/// A connection being served.
pub(super) struct Visit(Arc<Compartment>);

impl Drop for Visit {
    fn drop(&mut self) {
        self.0.visits.fetch_sub(1, Ordering::SeqCst);
    }
}
