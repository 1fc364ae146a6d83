//! Container output on disk: binary records in two files that the monitor opened and the jailed
//! sandbox writes, so that logging needs no path. When one file is full the other is overwritten.

mod format;
mod reader;
mod writer;

#[cfg(test)]
mod tests;

pub(crate) use format::LOG_FILES;
pub use format::LogStream;
pub use reader::{LogEntry, LogError, LogFilter, LogReader};
pub(crate) use writer::LogWriter;
