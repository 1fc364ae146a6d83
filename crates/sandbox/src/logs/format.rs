//! The files' form. A file begins with a magic number and its sequence number (little-endian `u64`);
//! of two files the one with the higher number is being written. Records follow: stream (`u8`), time
//! (`u64`, nanoseconds since the epoch), length (`u32`), bytes.

/// Names of the two files in a container's directory.
pub(crate) const LOG_FILES: [&str; 2] = ["log.0", "log.1"];
/// Length of a file's header.
pub(super) const FILE_HEADER: usize = 16;
/// Length of a record's header.
pub(super) const RECORD_HEADER: usize = 13;
/// Longest record body a reader believes.
pub(super) const MAX_RECORD: usize = 1 << 20;
const MAGIC: [u8; 8] = *b"BHLOG\0\0\x01";

/// Where a piece of output came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum LogStream {
    /// The main process's standard output, or its terminal.
    Stdout,
    /// Its standard error.
    Stderr,
    /// The sandbox itself: says that output was lost.
    Notice,
}

impl LogStream {
    pub(super) fn to_byte(self) -> u8 {
        match self {
            Self::Stdout => 1,
            Self::Stderr => 2,
            Self::Notice => 3,
        }
    }

    fn from_byte(byte: u8) -> Option<Self> {
        match byte {
            1 => Some(Self::Stdout),
            2 => Some(Self::Stderr),
            3 => Some(Self::Notice),
            _ => None,
        }
    }
}

pub(super) fn file_header(sequence: u64) -> [u8; FILE_HEADER] {
    let mut bytes = [0; FILE_HEADER];
    let (magic, number) = bytes.split_at_mut(MAGIC.len());
    magic.copy_from_slice(&MAGIC);
    number.copy_from_slice(&sequence.to_le_bytes());
    bytes
}

/// The sequence number of a file, `None` when it is empty or no log.
pub(super) fn parse_file_header(bytes: &[u8]) -> Option<u64> {
    let rest = bytes.strip_prefix(&MAGIC)?;
    Some(u64::from_le_bytes(*rest.first_chunk()?)).filter(|n| *n != 0)
}

/// A record's header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct RecordHeader {
    pub stream: LogStream,
    pub time_ns: u64,
    pub length: u32,
}

impl RecordHeader {
    pub fn to_bytes(self) -> [u8; RECORD_HEADER] {
        let mut bytes = [0; RECORD_HEADER];
        let (stream, rest) = bytes.split_at_mut(1);
        let (time, length) = rest.split_at_mut(8);
        stream.copy_from_slice(&[self.stream.to_byte()]);
        time.copy_from_slice(&self.time_ns.to_le_bytes());
        length.copy_from_slice(&self.length.to_le_bytes());
        bytes
    }
}

/// What the bytes at a record's place are.
pub(super) enum Parsed {
    /// A header; its body follows and may be incomplete.
    Header(RecordHeader),
    /// Too few bytes yet.
    Short,
    /// No record: the file is damaged from here on.
    Garbage,
}

pub(super) fn parse_record_header(bytes: &[u8]) -> Parsed {
    let Some(header) = bytes.first_chunk::<RECORD_HEADER>() else {
        return Parsed::Short;
    };
    let [stream, t0, t1, t2, t3, t4, t5, t6, t7, l0, l1, l2, l3] = *header;
    let length = u32::from_le_bytes([l0, l1, l2, l3]);
    match LogStream::from_byte(stream) {
        Some(stream) if length as usize <= MAX_RECORD => Parsed::Header(RecordHeader {
            stream,
            time_ns: u64::from_le_bytes([t0, t1, t2, t3, t4, t5, t6, t7]),
            length,
        }),
        _ => Parsed::Garbage,
    }
}
