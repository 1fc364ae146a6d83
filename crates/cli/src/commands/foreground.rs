//! A process in a container as if it ran here: streams, terminal, signals, exit code.

use std::io;
use std::sync::Arc;

use bulkhead_engine::{
    Container, Engine, ErrorKind, ExecOptions, RemoveOptions, StartOptions, StartedContainer,
    StopOptions, parse_detach_keys,
};
use bulkhead_sandbox::{
    AttachEnd, AttachOptions, Client, Exec, ExecEnd, Exit, LaunchError, Timings,
};
use bulkhead_types::{ExitStatus, Signal, TerminalSize};

use crate::error::{CliError, report};
use crate::output::{align, say};
use crate::terminal::{self, RawMode, Streams, Target, Wanted};

/// What to attach to, and how.
pub struct Attached<'a> {
    /// Where it lives.
    pub engine: &'a Engine,
    /// The container.
    pub container: &'a Container,
    /// Streams to connect.
    pub wanted: Wanted,
    /// The process has a terminal.
    pub tty: bool,
    /// Signals go to the process.
    pub sig_proxy: bool,
    /// Bytes that detach.
    pub detach_keys: Vec<u8>,
    /// This command made the container: when its start is given up it goes again.
    pub created: bool,
}

/// Said where a reader stood still for longer than an end may be held up.
const CUT: &str =
    "bulkhead: the end of the output is missing: the process had ended, and nobody read it";
/// What is done when signals cannot be taken.
const CATCH: &str = "take signals";

/// Starts a container without attaching to it. A signal that asks for the end gives the start up; `created` as in
/// [`Attached`].
pub fn start_detached(
    engine: &Engine,
    container: &Container,
    created: bool,
) -> Result<(), CliError> {
    let client = container.client().map_err(bulkhead_engine::Error::from)?;
    let starting = terminal::starting(client).map_err(CliError::stream(CATCH))?;
    let started = engine.start(container, StartOptions::default());
    if let Some(signal) = starting.given_up_for() {
        return Err(given_up(engine, container, created, signal));
    }
    warn(container, &started?);
    Ok(())
}

/// Ends a container and starts it again. A signal that asks for the end leaves the stop to itself, as with `stop`, and
/// gives the start up.
pub fn restart(
    engine: &Engine,
    container: &Container,
    options: StopOptions,
) -> Result<(), CliError> {
    let client = container.client().map_err(bulkhead_engine::Error::from)?;
    // Until the start: an end in between must not leave word that the container is to stay.
    terminal::take_back(engine.root()).map_err(CliError::stream(CATCH))?;
    let mut starting = None;
    let started = engine.restart(container, options, || {
        starting = Some(terminal::starting(client));
    });
    let starting = starting.transpose().map_err(CliError::stream(CATCH))?;
    if let Some(signal) = starting.and_then(|starting| starting.given_up_for()) {
        return Err(given_up(engine, container, false, signal));
    }
    warn(container, &started?);
    Ok(())
}

/// Sees to it that a start which was given up leaves nothing, also where the process ran a moment before.
fn given_up(
    engine: &Engine,
    container: &Container,
    created: bool,
    signal: nix::sys::signal::Signal,
) -> CliError {
    let kill = StopOptions {
        signal: Some(Signal::KILL),
        timeout: Some(0),
    };
    // That it is gone already is what was wanted; of anything else the next `ps` tells.
    let _ = engine.stop(container, kill);
    if created {
        let force = RemoveOptions { force: true };
        let _ = engine.remove(container.id().as_str(), force);
    }
    CliError::Interrupted(signal)
}

/// How it ended for us.
#[derive(Debug, Default)]
pub struct End {
    /// Our exit code; 0 when detached.
    pub code: u8,
    /// Of a run that this command started.
    pub timings: Option<Timings>,
}

/// `--detach-keys`, else the configured ones.
pub fn detach_keys(engine: &Engine, flag: Option<&str>) -> Result<Vec<u8>, CliError> {
    let text = flag.unwrap_or(&engine.settings().detach_keys);
    parse_detach_keys(text).map_err(|reason| CliError::DetachKeys {
        keys: text.to_owned(),
        reason,
    })
}

/// The main process, addressed through the control socket.
struct MainProcess(Client);

impl Target for MainProcess {
    fn signal(&self, signal: Signal) {
        // It may have ended meanwhile; then its exit code is on its way.
        let _ = self.0.signal(signal);
    }

    fn resize(&self, size: TerminalSize) {
        let _ = self.0.resize(size);
    }
}

impl Target for Exec {
    fn signal(&self, signal: Signal) {
        let _ = Exec::signal(self, signal);
    }

    fn resize(&self, size: TerminalSize) {
        let _ = Exec::resize(self, size);
    }
}

/// Signals kept waiting, the terminal in raw mode and streams made ready, before the process exists: the first line that
/// it writes must find the terminal as every later one does, and a key that comes early must not be echoed.
struct Prepared {
    streams: Streams,
    mode: Option<RawMode>,
    proxy: bool,
}

impl Prepared {
    fn new(wanted: Wanted, tty: bool, proxy: bool) -> Result<Self, CliError> {
        terminal::catch().map_err(CliError::stream(CATCH))?;
        let streams = terminal::streams(wanted, tty)
            .map_err(CliError::stream("duplicate standard streams"))?;
        let raw = tty && wanted.stdin && terminal::is_terminal();
        let mode = raw
            .then(RawMode::enter)
            .transpose()
            .map_err(CliError::stream("set the terminal to raw mode"))?;
        Ok(Self {
            streams,
            mode,
            proxy,
        })
    }

    /// The process is there: keys, signals and sizes go to it. The terminal is raw until the result is dropped.
    fn connect(self, target: Arc<dyn Target>, redraw: bool) -> Result<Option<RawMode>, CliError> {
        let Self {
            streams,
            mode,
            proxy,
        } = self;
        let raw = mode.is_some();
        let go = || -> io::Result<Option<RawMode>> {
            if let Some(size) = terminal::size() {
                if redraw {
                    // A change makes a full-screen program draw itself again.
                    target.resize(TerminalSize {
                        rows: size.rows.saturating_add(1),
                        ..size
                    });
                }
                if raw {
                    target.resize(size);
                }
            }
            terminal::forward(target, proxy)?;
            if let Some(mode) = &mode {
                mode.complete()?;
            }
            if let Some(feeder) = streams.feeder {
                feeder.start()?;
            }
            Ok(mode)
        };
        go().map_err(CliError::stream("connect the terminal"))
    }
}

impl Attached<'_> {
    /// Starts the container with our streams and stays until it ends or is detached from.
    pub fn start(&self) -> Result<End, CliError> {
        // Opened now: a short run with --rm has no directory any more when it is over.
        let process = Arc::new(MainProcess(self.client()?));
        let mut ready = Prepared::new(self.wanted, self.tty, self.sig_proxy)?;
        let stdio = std::mem::take(&mut ready.streams.stdio);
        let attach = Some((stdio, self.options()));
        let terminal_size = terminal::size().filter(|_| ready.mode.is_some());
        let starting = terminal::starting(self.client()?).map_err(CliError::stream(CATCH))?;
        let started = self.engine.start(
            self.container,
            StartOptions {
                attach,
                terminal_size,
            },
        );
        if let Some(signal) = starting.given_up_for() {
            return Err(given_up(self.engine, self.container, self.created, signal));
        }
        let started = started?;
        warn(self.container, &started);
        let launched = match started {
            StartedContainer::Launched(launched) => launched,
            StartedContainer::AlreadyRunning => {
                drop(ready);
                return self.attach();
            }
        };
        let mode = ready.connect(process, false)?;
        let end = launched.wait();
        drop(mode);
        match end.map_err(|error| self.lost_touch(error))? {
            AttachEnd::Exited(exit) => {
                let cut = launched.attachment().is_some_and(|a| a.was_cut());
                Ok(self.ended(&exit, cut))
            }
            AttachEnd::Detached => Ok(End::default()),
            AttachEnd::OutputGone(errno) => Err(CliError::output(errno)),
            AttachEnd::Lost => self.lost(),
        }
    }

    /// Attaches to a container that runs.
    pub fn attach(&self) -> Result<End, CliError> {
        let process = Arc::new(MainProcess(self.client()?));
        let mut ready = Prepared::new(self.wanted, self.tty, self.sig_proxy)?;
        let stdio = std::mem::take(&mut ready.streams.stdio);
        let options = self.options();
        let attachment = self.engine.attach(self.container, stdio, options)?;
        let redraw = ready.mode.is_some();
        let mode = ready.connect(process, redraw)?;
        let end = attachment.wait();
        drop(mode);
        match end.map_err(|error| self.lost_touch(error.into()))? {
            AttachEnd::Exited(exit) => {
                // Its directory may be on its way out; the next command must not find it half gone.
                self.engine.wait(self.container).ok();
                Ok(self.ended(&exit, attachment.was_cut()))
            }
            AttachEnd::Detached => Ok(End::default()),
            AttachEnd::OutputGone(errno) => Err(CliError::output(errno)),
            AttachEnd::Lost => self.lost(),
        }
    }

    /// The sandbox talks nonsense, or cannot be watched: which one.
    fn lost_touch(&self, error: LaunchError) -> CliError {
        let source = match error {
            LaunchError::Client(source) => source,
            LaunchError::Frame(source) => source.into(),
            other => return other.into(),
        };
        bulkhead_engine::Error::from(self.container.sandbox_error(source)).into()
    }

    /// Keys are keys on a terminal only: elsewhere the same bytes are data.
    fn options(&self) -> AttachOptions {
        AttachOptions {
            detach_keys: if self.tty {
                self.detach_keys.clone()
            } else {
                Vec::new()
            },
        }
    }

    fn client(&self) -> Result<Client, CliError> {
        Ok(self
            .container
            .client()
            .map_err(bulkhead_engine::Error::from)?)
    }

    fn ended(&self, exit: &Exit, cut: bool) -> End {
        self.settle();
        if cut {
            eprintln!("{CUT}");
            if self.engine.container(self.container.id().as_str()).is_ok() {
                eprintln!(
                    "hint: 'bulkhead logs {}' has all of it",
                    self.container.name()
                );
            }
        }
        if let Some(error) = &exit.error {
            say(format_args!("bulkhead: {error}"));
        }
        // With --rm the record is gone; the monitor's own word of the end has them.
        tell(&self.container.exit_warnings(exit));
        End {
            code: exit.status.code,
            timings: Some(exit.timings),
        }
    }

    /// The exit code is the process's own, also where a container with `--rm` could not be removed: that is told beside it.
    fn settle(&self) {
        if let Err(error) = self.engine.settle(self.container) {
            report(&error.into());
        }
    }

    /// The sandbox died with our connection; with --rm nothing may be left that says how.
    fn lost(&self) -> Result<End, CliError> {
        let code = match self.engine.wait(self.container) {
            Ok(status) => status.code,
            Err(error) if error.kind() == ErrorKind::NotFound => ExitStatus::signaled(9).code,
            Err(error) => return Err(error.into()),
        };
        self.settle();
        Ok(End {
            code,
            timings: None,
        })
    }
}

/// Starts a further process with our streams and stays until it ends.
pub fn exec(
    engine: &Engine,
    container: &Container,
    options: &ExecOptions,
    interactive: bool,
    detach_keys: Vec<u8>,
) -> Result<u8, CliError> {
    let wanted = Wanted {
        stdin: interactive,
        stdout: true,
        stderr: true,
    };
    let mut ready = Prepared::new(wanted, options.tty, true)?;
    let stdio = std::mem::take(&mut ready.streams.stdio);
    let keys = AttachOptions {
        detach_keys: if options.tty { detach_keys } else { Vec::new() },
    };
    let process = Arc::new(engine.exec(container, options, stdio, keys)?);
    let mode = ready.connect(process.clone(), false)?;
    let end = process.wait();
    drop(mode);
    let lost_touch = |error| bulkhead_engine::Error::from(container.sandbox_error(error));
    match end.map_err(lost_touch)? {
        ExecEnd::Exited(status) => {
            if process.was_cut() {
                eprintln!("{CUT}");
            }
            Ok(status.code)
        }
        ExecEnd::Detached => Ok(0),
        ExecEnd::OutputGone(errno) => Err(CliError::output(errno)),
    }
}

/// Names the walls that this run has to do without, if any that separates it from other containers, and says where its
/// record does not know of it.
pub fn warn(container: &Container, started: &StartedContainer) {
    if let StartedContainer::Launched(launched) = started {
        if let Some(fault) = launched.started().unrecorded {
            eprintln!("WARNING: {}", fault.of_record(container.dir()));
        }
        let weaknesses = launched.started().jail.describe_weaknesses();
        if !weaknesses.is_empty() {
            eprintln!("WARNING: the jail of this container is weakened: {weaknesses}");
        }
    }
}

/// Says that a container's record does not know how it ended, where that is so.
pub fn tell_unrecorded(container: &Container) {
    tell(container.record_warning().as_slice());
}

/// Says what went wrong around a run that went on.
pub fn tell(warnings: &[String]) {
    for warning in warnings {
        say(format_args!("WARNING: {warning}"));
    }
}

/// A line per phase, in milliseconds; `began` is when the command itself did (`CLOCK_MONOTONIC`, ns).
pub fn print_timings(timings: &Timings, began: u64) {
    let milliseconds = |time: std::time::Duration| format!("{:.2} ms", time.as_secs_f64() * 1000.0);
    let before = std::time::Duration::from_nanos(timings.launch.saturating_sub(began));
    let total = std::time::Duration::from_nanos(Timings::now().saturating_sub(began));
    let mut table = format!("PHASE\tTIME\ncreate\t{}\n", milliseconds(before));
    for phase in timings.phases() {
        table.push_str(&format!("{}\t{}\n", phase.name, milliseconds(phase.took)));
    }
    table.push_str(&format!("total\t{}\n", milliseconds(total)));
    eprint!("{}", align(&table));
}
