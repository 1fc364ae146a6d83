//! Appending. Each piece of output is one pwritev(2): nothing is held back in memory, so a follower
//! sees it at once and a killed sandbox loses none of it.

use std::fs::File;
use std::io::{self, IoSlice, Seek, SeekFrom};
use std::os::unix::fs::FileExt;
use std::time::{SystemTime, UNIX_EPOCH};

use nix::sys::uio::pwritev;

use super::format::{
    FILE_HEADER, LogStream, MAX_RECORD, Parsed, RECORD_HEADER, RecordHeader, file_header,
    parse_file_header, parse_record_header,
};

/// Least size of a file that is accepted.
const LEAST: u64 = 64 << 10;

/// The writing end of a container's log.
#[derive(Debug)]
pub(crate) struct LogWriter {
    files: [File; 2],
    max: u64,
    place: Option<Place>,
    lost: u64,
    unreported: Option<Unreported>,
}

#[derive(Debug, Clone, Copy)]
struct Place {
    file: usize,
    sequence: u64,
    end: u64,
}

#[derive(Debug)]
struct Unreported {
    bytes: u64,
    reason: String,
}

impl LogWriter {
    /// Continues the log in `files`; each file grows to at most `max` bytes. Reads nothing yet.
    pub fn new(files: [File; 2], max: u64) -> Self {
        Self {
            files,
            max: max.max(LEAST),
            place: None,
            lost: 0,
            unreported: None,
        }
    }

    /// Bytes that could not be written so far.
    pub fn bytes_lost(&self) -> u64 {
        self.lost
    }

    /// Appends output. Never fails and never waits for space: what the disk refuses is counted, and
    /// said in the log itself as soon as there is room.
    pub fn append(&mut self, stream: LogStream, bytes: &[u8]) {
        let piece = MAX_RECORD.min(usize::try_from(self.max / 4).unwrap_or(MAX_RECORD));
        for part in bytes.chunks(piece) {
            if let Err(e) = self.report_loss().and_then(|()| self.write(stream, part)) {
                self.note_loss(part.len(), &e);
            }
        }
    }

    #[cfg(test)]
    pub(super) fn replace_first(&mut self, file: File) {
        let [first, _] = &mut self.files;
        *first = file;
    }

    fn note_loss(&mut self, bytes: usize, error: &io::Error) {
        self.lost += bytes as u64;
        let unreported = self.unreported.get_or_insert_with(|| Unreported {
            bytes: 0,
            reason: error.to_string(),
        });
        unreported.bytes += bytes as u64;
    }

    fn report_loss(&mut self) -> io::Result<()> {
        let Some(unreported) = &self.unreported else {
            return Ok(());
        };
        let text = format!(
            "bulkhead: {} bytes of output were not logged: {}\n",
            unreported.bytes, unreported.reason
        );
        self.write(LogStream::Notice, text.as_bytes())?;
        self.unreported = None;
        Ok(())
    }

    fn write(&mut self, stream: LogStream, bytes: &[u8]) -> io::Result<()> {
        let length = (RECORD_HEADER + bytes.len()) as u64;
        let place = match self.place {
            Some(place) => place,
            None => self.find_place()?,
        };
        let place = if place.end + length > self.max {
            self.rotate(place)?
        } else {
            place
        };
        let header = RecordHeader {
            stream,
            time_ns: now_ns(),
            length: u32::try_from(bytes.len()).unwrap_or(0),
        };
        let [first, second] = &self.files;
        let file = if place.file == 0 { first } else { second };
        if let Err(e) = write_both(file, &header.to_bytes(), bytes, place.end) {
            // A torn record would hide all that come after it.
            let _ = file.set_len(place.end);
            self.place = Some(place);
            return Err(e);
        }
        self.place = Some(Place {
            end: place.end + length,
            ..place
        });
        Ok(())
    }

    fn file(&self, index: usize) -> &File {
        let [first, second] = &self.files;
        if index == 0 { first } else { second }
    }

    fn rotate(&self, from: Place) -> io::Result<Place> {
        self.begin(1 - from.file, from.sequence + 1)
    }

    fn begin(&self, file: usize, sequence: u64) -> io::Result<Place> {
        self.file(file).set_len(0)?;
        self.file(file).write_all_at(&file_header(sequence), 0)?;
        Ok(Place {
            file,
            sequence,
            end: FILE_HEADER as u64,
        })
    }

    fn find_place(&self) -> io::Result<Place> {
        let sequences = [sequence_of(self.file(0))?, sequence_of(self.file(1))?];
        let (file, sequence) = match sequences {
            [None, None] => return self.begin(0, 1),
            [Some(first), second] if second.is_none_or(|second| first > second) => (0, first),
            [_, Some(second)] => (1, second),
            [Some(first), None] => (0, first),
        };
        let end = valid_end(self.file(file))?;
        self.file(file).set_len(end)?;
        Ok(Place {
            file,
            sequence,
            end,
        })
    }
}

pub(super) fn sequence_of(file: &File) -> io::Result<Option<u64>> {
    let mut header = [0; FILE_HEADER];
    match file.read_exact_at(&mut header, 0) {
        Ok(()) => Ok(parse_file_header(&header)),
        Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => Ok(None),
        Err(e) => Err(e),
    }
}

/// Where the last complete record ends.
fn valid_end(file: &File) -> io::Result<u64> {
    // Not fstat(2): the standard library's is statx(2), which a locked stream thread may not call.
    let size = (&*file).seek(SeekFrom::End(0))?;
    let mut buffer = vec![0; 64 << 10];
    let mut end = FILE_HEADER as u64;
    let (mut base, mut filled) = (0, 0);
    loop {
        let inside = end
            .checked_sub(base)
            .and_then(|o| usize::try_from(o).ok())
            .filter(|o| *o <= filled);
        let bytes = inside
            .and_then(|offset| buffer.get(offset..filled))
            .unwrap_or_default();
        match parse_record_header(bytes) {
            Parsed::Header(header) => {
                let next = end + (RECORD_HEADER as u64) + u64::from(header.length);
                if next > size {
                    return Ok(end);
                }
                end = next;
            }
            Parsed::Garbage => return Ok(end),
            Parsed::Short => {
                base = end;
                filled = file.read_at(&mut buffer, base)?;
                if filled < RECORD_HEADER {
                    return Ok(end);
                }
            }
        }
    }
}

fn write_both(file: &File, header: &[u8], body: &[u8], at: u64) -> io::Result<()> {
    let offset = i64::try_from(at).map_err(|_| io::ErrorKind::InvalidInput)?;
    let written = loop {
        match pwritev(file, &[IoSlice::new(header), IoSlice::new(body)], offset) {
            Ok(written) => break written,
            Err(nix::errno::Errno::EINTR) => {}
            Err(e) => return Err(e.into()),
        }
    };
    if written == 0 {
        return Err(io::ErrorKind::WriteZero.into());
    }
    if let Some(rest) = header.get(written..).filter(|rest| !rest.is_empty()) {
        file.write_all_at(rest, at + written as u64)?;
        return file.write_all_at(body, at + header.len() as u64);
    }
    let rest = body.get(written - header.len()..).unwrap_or_default();
    file.write_all_at(rest, at + written as u64)
}

fn now_ns() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .ok()
        .and_then(|d| u64::try_from(d.as_nanos()).ok())
        .unwrap_or(0)
}
