//! `logs`: what a container wrote.

use std::io::{self, IsTerminal, Write};

use bulkhead_engine::parse_time;
use bulkhead_sandbox::{LogFilter, LogStream};
use bulkhead_types::GuestText;
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
    /// Show what the container's kernel wrote to its console, instead of what the container wrote
    #[arg(long)]
    kernel: bool,
    /// Show logs since timestamp (e.g. "2013-01-02T13:23:37Z") or relative (e.g. "42m" for 42 minutes)
    #[arg(long, value_name = "string")]
    since: Option<String>,
    /// Number of lines to show from the end of the logs (default "all")
    #[arg(short = 'n', long, value_name = "string")]
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
        if self.kernel {
            return self.kernel_log(context);
        }
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
            tail: self.lines(),
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

impl Logs {
    /// As Docker: whatever is no number of lines means all of them.
    fn lines<N: std::str::FromStr>(&self) -> Option<N> {
        self.tail.as_deref().and_then(|text| text.parse().ok())
    }

    fn kernel_log(&self, context: &Context) -> Result<u8, CliError> {
        // A console has no times, and its end is not told.
        if self.follow || self.timestamps || self.since.is_some() || self.until.is_some() {
            return Err(CliError::Conflict(
                "--kernel goes with --tail only, not with --follow, --since, --timestamps, --until",
            ));
        }
        let engine = context.engine()?;
        let text = engine.kernel_log(&engine.container(&self.container)?)?;
        let text = last_lines(&text, self.lines());
        let mut out = io::stdout().lock();
        // To a file or a program it goes as it is; a terminal would obey it.
        let shown = if out.is_terminal() {
            out.write_all(GuestText::clean(&String::from_utf8_lossy(text)).as_bytes())
        } else {
            out.write_all(text)
        };
        shown
            .and_then(|()| out.flush())
            .map_err(CliError::stream(WRITE_OUTPUT))?;
        Ok(0)
    }
}

/// The last `count` lines of `text`, or all of it.
fn last_lines(text: &[u8], count: Option<usize>) -> &[u8] {
    let Some(count) = count else { return text };
    let mut from = text.len();
    for line in text
        .split_inclusive(|byte| *byte == b'\n')
        .rev()
        .take(count)
    {
        from -= line.len();
    }
    text.get(from..).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_lines_are_counted_from_the_end_whether_or_not_the_last_is_complete() {
        let text = b"one\ntwo\nthree";
        assert_eq!(last_lines(text, None), text);
        assert_eq!(last_lines(text, Some(2)), b"two\nthree");
        assert_eq!(last_lines(b"one\ntwo\n", Some(1)), b"two\n");
        assert_eq!(last_lines(text, Some(9)), text);
        assert_eq!(last_lines(text, Some(0)), b"");
        assert_eq!(last_lines(b"", Some(1)), b"");
    }
}
