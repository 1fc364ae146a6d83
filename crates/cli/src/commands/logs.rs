//! `logs`: what a container wrote.

use std::io::{self, Write};

use bulkhead_engine::parse_time;
use bulkhead_sandbox::{LogFilter, LogStream};
use clap::Args;
use jiff::Timestamp;

use crate::args::{Arity, Execute};
use crate::context::Context;
use crate::error::{CliError, WRITE_OUTPUT};

/// Arguments of `logs`.
#[derive(Debug, Args)]
pub struct Logs {
    /// Follow log output
    #[arg(short, long)]
    follow: bool,
    /// Show logs since timestamp (e.g. "2013-01-02T13:23:37Z") or relative (e.g. "42m" for 42 minutes)
    #[arg(long, value_name = "string")]
    since: Option<String>,
    /// Number of lines to show from the end of the logs (default "all")
    #[arg(short = 'n', long, value_name = "string", allow_hyphen_values = true)]
    tail: Option<String>,
    /// Show timestamps
    #[arg(short, long)]
    timestamps: bool,
    /// Show logs before a timestamp (e.g. "2013-01-02T13:23:37Z") or relative (e.g. "42m" for 42 minutes)
    #[arg(long, value_name = "string")]
    until: Option<String>,
    #[arg(value_name = "CONTAINER", hide = true)]
    container: String,
}

impl Execute for Logs {
    const ABOUT: &'static str = "Fetch the logs of a container";
    const USAGE: &'static str = "[OPTIONS] CONTAINER";
    const ARITY: Arity = Arity::Exactly(1);

    fn execute(self, context: &Context) -> Result<u8, CliError> {
        let now = Timestamp::now();
        let moment = |flag: &'static str, text: &Option<String>| match text.as_deref() {
            None | Some("") => Ok(None),
            Some(text) => {
                let time = parse_time(text, now);
                time.map(Some).ok_or_else(|| CliError::Time {
                    flag,
                    text: text.to_owned(),
                })
            }
        };
        let filter = LogFilter {
            // As Docker: whatever is no number of lines means all of them.
            tail: self.tail.as_deref().and_then(|text| text.parse().ok()),
            since: moment("since", &self.since)?,
            until: moment("until", &self.until)?,
            follow: self.follow,
        };
        let engine = context.engine()?;
        let container = engine.container(&self.container)?;
        let mut out = io::BufWriter::new(io::stdout().lock());
        let mut err = io::stderr().lock();
        for entry in engine.logs(&container, filter)? {
            let entry = entry?;
            let mut line = Vec::with_capacity(entry.bytes.len() + 32);
            if self.timestamps && entry.starts_line {
                let stamp = entry.time.strftime("%Y-%m-%dT%H:%M:%S.%9fZ ").to_string();
                line.extend_from_slice(stamp.as_bytes());
            }
            line.extend_from_slice(&entry.bytes);
            let written = match entry.stream {
                LogStream::Stdout => out.write_all(&line),
                // In order with what went to the other stream before.
                LogStream::Stderr | LogStream::Notice => {
                    out.flush().and_then(|()| err.write_all(&line))
                }
            };
            let written = if self.follow {
                written.and_then(|()| out.flush())
            } else {
                written
            };
            written.map_err(CliError::stream(WRITE_OUTPUT))?;
        }
        out.flush().map_err(CliError::stream(WRITE_OUTPUT))?;
        Ok(0)
    }
}
