//! Reading, also while the sandbox writes. A file can be overwritten under a slow reader: after each
//! read the file's sequence number is looked at again, and what was read is thrown away if it changed.

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::Timestamp;

use super::format::{
    FILE_HEADER, LOG_FILES, LogStream, Parsed, RECORD_HEADER, parse_record_header,
};
use super::writer::sequence_of;
use crate::lock;

/// How often a follower looks for more.
const LOOK_EVERY: Duration = Duration::from_millis(20);
const CHUNK: usize = 64 << 10;

/// One line of output, or a piece of one that was written without its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogEntry {
    /// Where it came from.
    pub stream: LogStream,
    /// When the sandbox received it; of a line that came in pieces, when its first piece came.
    pub time: Timestamp,
    /// The bytes, line feed included where there is one.
    pub bytes: Vec<u8>,
    /// Whether this begins a line of its stream (a timestamp belongs before it).
    pub starts_line: bool,
}

/// Which entries are wanted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LogFilter {
    /// Only the last so many lines of what is there when reading begins.
    pub tail: Option<usize>,
    /// Only lines that began at or after this time.
    pub since: Option<Timestamp>,
    /// Only lines that began at or before this time.
    pub until: Option<Timestamp>,
    /// Goes on until the container ends.
    pub follow: bool,
}

/// The log cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// A file cannot be opened or read.
    #[error("read log '{path}'", path = .path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The lock cannot be asked whether the container runs.
    #[error("look whether the container runs")]
    Lock(#[source] io::Error),
}

/// Iterates over a container's output, oldest first. With `follow`, `next` blocks.
#[derive(Debug)]
pub struct LogReader {
    dir: PathBuf,
    filter: LogFilter,
    files: [Option<File>; 2],
    position: Option<Position>,
    buffer: Vec<u8>,
    /// Where in `buffer` the unread part begins.
    consumed: usize,
    pending: VecDeque<LogEntry>,
    /// When the line began that each stream is in the middle of, by [`LogStream`].
    in_line: [Option<Timestamp>; 3],
    skip_lines: usize,
    /// Whether the line that each stream is in is being skipped.
    skipping: [bool; 3],
    finished: bool,
}

#[derive(Debug, Clone, Copy)]
struct Position {
    file: usize,
    sequence: u64,
    /// File offset of the end of `buffer`.
    offset: u64,
}

struct Record {
    stream: LogStream,
    time_ns: u64,
    body: Vec<u8>,
}

enum Step {
    Record(Record),
    /// The writer has overwritten what was to be read next.
    Overtaken,
    /// Nothing more at the moment.
    End,
}

impl LogReader {
    /// The log of the container in `dir`. A container that never wrote has an empty one.
    ///
    /// # Errors
    /// When a file exists but cannot be read.
    pub fn open(dir: &Path, filter: LogFilter) -> Result<Self, LogError> {
        let mut reader = Self::new(dir, filter);
        if let Some(tail) = filter.tail {
            let whole = Self::new(
                dir,
                LogFilter {
                    tail: None,
                    follow: false,
                    ..filter
                },
            );
            let mut lines = 0usize;
            for entry in whole {
                lines += usize::from(entry?.starts_line);
            }
            reader.skip_lines = lines.saturating_sub(tail);
        }
        Ok(reader)
    }

    fn new(dir: &Path, filter: LogFilter) -> Self {
        Self {
            dir: dir.to_owned(),
            filter,
            files: [None, None],
            position: None,
            buffer: Vec::new(),
            consumed: 0,
            pending: VecDeque::new(),
            in_line: [None; 3],
            skip_lines: 0,
            skipping: [false; 3],
            finished: false,
        }
    }

    fn advance(&mut self) -> Result<Option<LogEntry>, LogError> {
        loop {
            while let Some(entry) = self.pending.pop_front() {
                if self.wanted(&entry) {
                    return Ok(Some(entry));
                }
            }
            if self.finished {
                return Ok(None);
            }
            // Asked before reading: what the last writer wrote before it let go is then seen.
            let alive =
                self.filter.follow && lock::is_running(&self.dir).map_err(LogError::Lock)?;
            match self.step()? {
                Step::Record(record) => self.split(&record),
                Step::Overtaken => self.pending.push_back(LogEntry {
                    stream: LogStream::Notice,
                    time: Timestamp::now(),
                    bytes: b"bulkhead: output was overwritten before it could be read\n".to_vec(),
                    starts_line: true,
                }),
                Step::End if alive => std::thread::sleep(LOOK_EVERY),
                Step::End => self.finished = true,
            }
        }
    }

    fn wanted(&mut self, entry: &LogEntry) -> bool {
        if self.filter.since.is_some_and(|since| entry.time < since) {
            return false;
        }
        if self.filter.until.is_some_and(|until| entry.time > until) {
            self.finished |= self.filter.follow || !self.is_in_wanted_line();
            return false;
        }
        let slot = usize::from(entry.stream.to_byte() - 1);
        let Some(skipping) = self.skipping.get_mut(slot) else {
            return true;
        };
        if entry.starts_line {
            *skipping = self.skip_lines > 0;
            self.skip_lines = self.skip_lines.saturating_sub(1);
        }
        !*skipping
    }

    /// Whether a line that began in time has not ended yet: another stream's later output must not cut it off.
    fn is_in_wanted_line(&self) -> bool {
        let began_in_time = |began| self.filter.until.is_none_or(|until| began <= until);
        self.in_line.into_iter().flatten().any(began_in_time)
            || self.pending.iter().any(|entry| began_in_time(entry.time))
    }

    fn split(&mut self, record: &Record) {
        let time = i64::try_from(record.time_ns)
            .ok()
            .and_then(|ns| Timestamp::from_nanosecond(i128::from(ns)).ok())
            .unwrap_or(Timestamp::UNIX_EPOCH);
        let slot = usize::from(record.stream.to_byte() - 1);
        for line in record.body.split_inclusive(|b| *b == b'\n') {
            let mut began = time;
            let mut starts_line = true;
            if let Some(inside) = self.in_line.get_mut(slot) {
                starts_line = inside.is_none();
                began = inside.unwrap_or(time);
                *inside = (line.last() != Some(&b'\n')).then_some(began);
            }
            self.pending.push_back(LogEntry {
                stream: record.stream,
                time: began,
                bytes: line.to_vec(),
                starts_line,
            });
        }
    }

    fn step(&mut self) -> Result<Step, LogError> {
        let mut other_was_next = false;
        loop {
            let Some(position) = self.position else {
                match self.oldest(0)? {
                    Some(found) => self.go_to(found),
                    None => return Ok(Step::End),
                }
                continue;
            };
            if let Some(record) = self.take_record() {
                return Ok(Step::Record(record));
            }
            if self.fill(position)? {
                continue;
            }
            if self.sequence(position.file)? != Some(position.sequence) {
                match self.oldest(position.sequence + 1)? {
                    Some(found) => self.go_to(found),
                    None => return Ok(Step::End),
                }
                return Ok(Step::Overtaken);
            }
            if self.sequence(1 - position.file)? == Some(position.sequence + 1) {
                // The writer had finished this file before it began the other: one more look is enough.
                if other_was_next {
                    self.go_to(Position {
                        file: 1 - position.file,
                        sequence: position.sequence + 1,
                        offset: FILE_HEADER as u64,
                    });
                    other_was_next = false;
                } else {
                    other_was_next = true;
                }
                continue;
            }
            return Ok(Step::End);
        }
    }

    fn go_to(&mut self, position: Position) {
        self.position = Some(position);
        self.buffer.clear();
        self.consumed = 0;
    }

    /// A complete record from the buffer.
    fn take_record(&mut self) -> Option<Record> {
        let unread = self.buffer.get(self.consumed..)?;
        let Parsed::Header(header) = parse_record_header(unread) else {
            return None;
        };
        let end = RECORD_HEADER + header.length as usize;
        let body = unread.get(RECORD_HEADER..end)?.to_vec();
        self.consumed += end;
        Some(Record {
            stream: header.stream,
            time_ns: header.time_ns,
            body,
        })
    }

    /// Reads on; `false` when there was nothing or it cannot be trusted.
    fn fill(&mut self, position: Position) -> Result<bool, LogError> {
        self.buffer.drain(..self.consumed.min(self.buffer.len()));
        self.consumed = 0;
        if matches!(parse_record_header(&self.buffer), Parsed::Garbage) {
            return Ok(false);
        }
        let Some(file) = self.file(position.file)? else {
            return Ok(false);
        };
        let mut chunk = vec![0; CHUNK];
        let got = file
            .read_at(&mut chunk, position.offset)
            .map_err(|e| self.error(position.file, e))?;
        if got == 0 || self.sequence(position.file)? != Some(position.sequence) {
            return Ok(false);
        }
        self.buffer
            .extend_from_slice(chunk.get(..got).unwrap_or_default());
        self.position = Some(Position {
            offset: position.offset + got as u64,
            ..position
        });
        Ok(true)
    }

    /// The start of the file with the lowest sequence number that is at least `least`.
    fn oldest(&mut self, least: u64) -> Result<Option<Position>, LogError> {
        let mut found: Option<Position> = None;
        for file in 0..LOG_FILES.len() {
            if let Some(sequence) = self.sequence(file)?.filter(|s| *s >= least)
                && found.is_none_or(|best| sequence < best.sequence)
            {
                found = Some(Position {
                    file,
                    sequence,
                    offset: FILE_HEADER as u64,
                });
            }
        }
        Ok(found)
    }

    fn sequence(&mut self, index: usize) -> Result<Option<u64>, LogError> {
        let Some(file) = self.file(index)? else {
            return Ok(None);
        };
        sequence_of(file).map_err(|e| self.error(index, e))
    }

    fn file(&mut self, index: usize) -> Result<Option<&File>, LogError> {
        let path = self.path(index);
        let Some(slot) = self.files.get_mut(index) else {
            return Ok(None);
        };
        if slot.is_none() {
            match File::open(&path) {
                Ok(file) => *slot = Some(file),
                Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                Err(source) => return Err(LogError::Read { path, source }),
            }
        }
        Ok(slot.as_ref())
    }

    fn path(&self, index: usize) -> PathBuf {
        self.dir.join(LOG_FILES.get(index).unwrap_or(&""))
    }

    fn error(&self, index: usize, source: io::Error) -> LogError {
        LogError::Read {
            path: self.path(index),
            source,
        }
    }
}

impl Iterator for LogReader {
    type Item = Result<LogEntry, LogError>;

    fn next(&mut self) -> Option<Self::Item> {
        let next = self.advance();
        if next.is_err() {
            self.finished = true;
            self.pending.clear();
        }
        next.transpose()
    }
}
