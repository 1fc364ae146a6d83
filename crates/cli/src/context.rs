//! What every command shares: the flags before the verb, and the engine, opened when first needed.

use std::cell::OnceCell;
use std::path::PathBuf;

use bulkhead_engine::{Engine, EngineConfig};
use clap::ArgMatches;
use tracing::level_filters::LevelFilter;
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

use crate::error::CliError;

/// Flags before the verb.
pub struct Context {
    root: Option<PathBuf>,
    config: Option<PathBuf>,
    engine: OnceCell<Engine>,
}

impl Context {
    /// From the parsed flags; starts the log.
    pub fn new(globals: &ArgMatches) -> Self {
        start_log(globals);
        Self {
            root: globals.get_one::<PathBuf>("root").cloned(),
            config: globals.get_one::<PathBuf>("config").cloned(),
            engine: OnceCell::new(),
        }
    }

    /// The engine, for what looks at things or changes them. A state directory that does not exist has nothing in
    /// it and is not made; who named it is told.
    ///
    /// # Errors
    /// An unusable configuration or state directory.
    pub fn engine(&self) -> Result<&Engine, CliError> {
        self.open(false)
    }

    /// The engine, for what makes a container or an image: the state directory is made where there is none. From now on
    /// a signal takes back what is half done, and ends us.
    ///
    /// # Errors
    /// As [`Context::engine`]; when the system refuses to let signals wait.
    pub fn engine_to_create(&self) -> Result<&Engine, CliError> {
        self.open(true).and_then(take_back)
    }

    /// As [`Context::engine_to_create`], for what makes a file outside of a state directory that must be there.
    ///
    /// # Errors
    /// As [`Context::engine_to_create`].
    pub fn engine_to_write(&self) -> Result<&Engine, CliError> {
        self.open(false).and_then(take_back)
    }

    fn open(&self, create_root: bool) -> Result<&Engine, CliError> {
        if let Some(engine) = self.engine.get() {
            return Ok(engine);
        }
        let config = EngineConfig {
            root: self.root.clone(),
            config_file: self.config.clone(),
            create_root,
            ..EngineConfig::from_process()
        };
        let named = config.root.is_some() || config.environment.root.is_some();
        let engine = Engine::open(config)?;
        if named && !engine.root().exists() {
            eprintln!(
                "WARNING: there is no state directory {}",
                engine.root().display()
            );
        }
        Ok(self.engine.get_or_init(|| engine))
    }
}

fn take_back(engine: &Engine) -> Result<&Engine, CliError> {
    crate::terminal::take_back(engine.root()).map_err(CliError::stream("take signals"))?;
    Ok(engine)
}

fn start_log(globals: &ArgMatches) {
    let asked = globals.get_one::<String>("log-level").map(String::as_str);
    let level = match asked {
        _ if globals.get_flag("debug") => LevelFilter::DEBUG,
        Some("trace") => LevelFilter::TRACE,
        Some("debug") => LevelFilter::DEBUG,
        Some("info") => LevelFilter::INFO,
        Some("error") => LevelFilter::ERROR,
        _ => LevelFilter::WARN,
    };
    let log = tracing_subscriber::fmt()
        .with_max_level(level)
        .with_writer(std::io::stderr)
        .without_time();
    // Module paths are for those who look into the program.
    if level > LevelFilter::INFO {
        log.init();
    } else {
        log.event_format(ForPeople).init();
    }
}

/// One line for a person: `WARNING: ` and the words.
struct ForPeople;

impl<S, N> FormatEvent<S, N> for ForPeople
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut out: Writer<'_>,
        event: &Event<'_>,
    ) -> std::fmt::Result {
        out.write_str(match *event.metadata().level() {
            Level::ERROR => "ERROR: ",
            Level::WARN => "WARNING: ",
            _ => "",
        })?;
        context.field_format().format_fields(out.by_ref(), event)?;
        writeln!(out)
    }
}
