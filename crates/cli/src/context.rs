//! What every command shares: the flags before the verb, and the engine, opened when first needed.

use std::cell::OnceCell;
use std::path::PathBuf;

use bulkhead_engine::{Engine, EngineConfig};
use clap::ArgMatches;
use tracing::level_filters::LevelFilter;

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

    /// The engine.
    ///
    /// # Errors
    /// An unusable configuration or state directory.
    pub fn engine(&self) -> Result<&Engine, CliError> {
        if let Some(engine) = self.engine.get() {
            return Ok(engine);
        }
        let engine = Engine::open(EngineConfig {
            root: self.root.clone(),
            config_file: self.config.clone(),
            ..EngineConfig::from_process()
        })?;
        Ok(self.engine.get_or_init(|| engine))
    }
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
    tracing_subscriber::fmt()
        .with_max_level(level)
        .with_writer(std::io::stderr)
        .without_time()
        .init();
}
