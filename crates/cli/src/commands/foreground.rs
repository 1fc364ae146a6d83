//! A process in a container as if it ran here: streams, terminal, signals, exit code.

use std::io;
use std::sync::Arc;

use bulkhead_engine::{
    Container, Engine, ErrorKind, ExecOptions, StartOptions, StartedContainer, parse_detach_keys,
};
use bulkhead_sandbox::{AttachEnd, AttachOptions, Client, Exec, ExecEnd, Exit, Timings};
use bulkhead_types::{ExitStatus, Signal, TerminalSize};

use crate::error::CliError;
use crate::output::align;
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

/// Signals kept waiting and streams made ready, before the process exists.
struct Prepared {
    caught: terminal::Caught,
    streams: Streams,
    raw: bool,
    proxy: bool,
}

impl Prepared {
    fn new(wanted: Wanted, tty: bool, proxy: bool) -> Result<Self, CliError> {
        let raw = tty && wanted.stdin && terminal::is_terminal();
        let caught = terminal::block(proxy, tty).map_err(CliError::stream("block signals"))?;
        let streams = terminal::streams(wanted, tty)
            .map_err(CliError::stream("duplicate standard streams"))?;
        Ok(Self {
            caught,
            streams,
            raw,
            proxy,
        })
    }

    /// The process is there: keys, signals and sizes go to it until the result is dropped.
    fn connect(self, target: Arc<dyn Target>, redraw: bool) -> Result<Option<RawMode>, CliError> {
        let Self {
            caught,
            streams,
            raw,
            proxy,
        } = self;
        let go = || -> io::Result<Option<RawMode>> {
            let mode = if raw { Some(RawMode::enter()?) } else { None };
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
            terminal::forward(caught, target, proxy)?;
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
        let terminal_size = terminal::size().filter(|_| ready.raw);
        let launched = match self.engine.start(
            self.container,
            StartOptions {
                attach,
                terminal_size,
            },
        )? {
            StartedContainer::Launched(launched) => launched,
            StartedContainer::AlreadyRunning => return self.attach(),
        };
        let mode = ready.connect(process, false)?;
        let end = launched.wait();
        drop(mode);
        match end.map_err(CliError::from)? {
            AttachEnd::Exited(exit) => self.ended(&exit),
            AttachEnd::Detached | AttachEnd::OutputGone => Ok(End::default()),
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
        let redraw = ready.raw;
        let mode = ready.connect(process, redraw)?;
        let end = attachment.wait();
        drop(mode);
        match end? {
            AttachEnd::Exited(exit) => {
                // Its directory may be on its way out; the next command must not find it half gone.
                self.engine.wait(self.container).ok();
                self.ended(&exit)
            }
            AttachEnd::Detached | AttachEnd::OutputGone => Ok(End::default()),
            AttachEnd::Lost => self.lost(),
        }
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

    fn ended(&self, exit: &Exit) -> Result<End, CliError> {
        self.engine.settle(self.container)?;
        if let Some(error) = &exit.error {
            eprintln!("bulkhead: {error}");
        }
        Ok(End {
            code: exit.status.code,
            timings: Some(exit.timings),
        })
    }

    /// The sandbox died with our connection; with --rm nothing may be left that says how.
    fn lost(&self) -> Result<End, CliError> {
        let code = match self.engine.wait(self.container) {
            Ok(status) => status.code,
            Err(error) if error.kind() == ErrorKind::NotFound => ExitStatus::signaled(9).code,
            Err(error) => return Err(error.into()),
        };
        self.engine.settle(self.container)?;
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
    match end? {
        ExecEnd::Exited(status) => Ok(status.code),
        ExecEnd::Detached | ExecEnd::OutputGone => Ok(0),
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
