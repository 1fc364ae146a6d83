//! Layers and archives may be gzip, zstd or plain; the first bytes decide, as they do in Docker,
//! because media types and file names are often wrong.

use std::io::{self, BufRead, Read};

use flate2::bufread::MultiGzDecoder;

/// Reads the uncompressed bytes of a stream.
pub(crate) enum Decoder<'a, R: BufRead> {
    Plain(R),
    Gzip(Box<MultiGzDecoder<R>>),
    /// With the logarithm of the largest window that its frames may have.
    Zstd(Box<zstd::stream::read::Decoder<'a, R>>, u32),
}

impl<R: BufRead> Decoder<'_, R> {
    /// Looks at the beginning of `reader` and chooses.
    pub(crate) fn new(mut reader: R) -> io::Result<Self> {
        let magic = reader.fill_buf()?;
        let unsupported = |what| {
            Err(io::Error::new(
                io::ErrorKind::InvalidData,
                format!("{what} compression is not supported"),
            ))
        };
        if magic.starts_with(&[0x1f, 0x8b]) {
            Ok(Self::Gzip(Box::new(MultiGzDecoder::new(reader))))
        } else if magic.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]) || is_skippable_frame(magic) {
            let window = window_log(magic);
            let mut decoder = zstd::stream::read::Decoder::with_buffer(reader)?;
            decoder.window_log_max(window)?;
            Ok(Self::Zstd(Box::new(decoder), window))
        } else if magic.starts_with(b"\xfd7zXZ\0") {
            unsupported("xz")
        } else if magic.starts_with(b"BZh") {
            unsupported("bzip2")
        } else {
            Ok(Self::Plain(reader))
        }
    }
}

/// The largest window that is taken, as the zstd program does without options: 128 MiB.
const WINDOW_LOG_MAX: u32 = 27;
/// What later frames may have though the first is small, as in zstd:chunked: 32 MiB, more than encoders take
/// unless they are told to.
const WINDOW_LOG_LEAST: u32 = 25;

/// The largest window that the frames of a zstd stream may have (RFC 8878, 3.1.1.1). The window is the decoder's memory,
/// and the first frame is where an honest stream says what it needs.
fn window_log(magic: &[u8]) -> u32 {
    let log = match magic {
        // In one segment: the window is as large as the content, whose size has one or two bytes.
        [0x28, 0xb5, 0x2f, 0xfd, descriptor, ..] if descriptor & 0xa0 == 0x20 => WINDOW_LOG_LEAST,
        [0x28, 0xb5, 0x2f, 0xfd, descriptor, window, ..] if descriptor & 0x20 == 0 => {
            10 + u32::from(window >> 3) + u32::from(window & 7 != 0)
        }
        _ => WINDOW_LOG_MAX,
    };
    log.clamp(WINDOW_LOG_LEAST, WINDOW_LOG_MAX)
}

impl<R: BufRead> Decoder<'_, R> {
    /// What decompressing may take in memory, in bytes.
    pub(crate) fn memory(&self) -> u64 {
        match self {
            Self::Plain(_) => 0,
            // A window of 32 KiB and tables.
            Self::Gzip(_) => 64 << 10,
            Self::Zstd(_, window) => 1 << window,
        }
    }
}

/// zstd:chunked and pzstd begin with such a frame (RFC 8878, 3.1.2).
fn is_skippable_frame(magic: &[u8]) -> bool {
    matches!(magic, [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..])
}

impl<R: BufRead> Read for Decoder<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(reader) => reader.read(buffer),
            Self::Gzip(reader) => reader.read(buffer),
            Self::Zstd(reader, _) => reader.read(buffer),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn read(bytes: &[u8]) -> io::Result<Vec<u8>> {
        let mut out = Vec::new();
        Decoder::new(bytes)?.read_to_end(&mut out)?;
        Ok(out)
    }

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn every_format_is_told_by_its_first_bytes() {
        let text = b"some layer".repeat(1000);
        assert_eq!(read(&text).unwrap(), text);
        assert_eq!(read(&gzip(&text)).unwrap(), text);
        assert_eq!(
            read(&zstd::encode_all(&text[..], 3).unwrap()).unwrap(),
            text
        );
        assert_eq!(read(b"").unwrap(), b"");
    }

    #[test]
    fn several_members_are_one_stream() {
        let both = [gzip(b"one "), gzip(b"two")].concat();
        assert_eq!(read(&both).unwrap(), b"one two");
        let both = [
            zstd::encode_all(&b"one "[..], 1).unwrap(),
            zstd::encode_all(&b"two"[..], 1).unwrap(),
        ]
        .concat();
        assert_eq!(read(&both).unwrap(), b"one two");
    }

    /// The window is the decoder's memory, and a stream says how large it is.
    #[test]
    fn the_window_of_zstd_is_bounded() {
        let frame = |log: u32, content: &[u8]| {
            let mut encoder = zstd::stream::Encoder::new(Vec::new(), 1).unwrap();
            encoder.window_log(log).unwrap();
            encoder.write_all(content).unwrap();
            encoder.finish().unwrap()
        };
        assert_eq!(window_log(&frame(20, b"x")), 25);
        assert_eq!(window_log(&frame(26, b"x")), 26);
        assert_eq!(window_log(&frame(28, b"x")), 27);
        assert_eq!(window_log(&zstd::encode_all(&b"x"[..], 3).unwrap()), 25);
        assert_eq!(window_log(b"\x50\x2a\x4d\x18"), 27);
        assert_eq!(
            Decoder::new(&frame(26, b"x")[..]).unwrap().memory(),
            64 << 20
        );
        assert_eq!(read(&frame(27, b"some text")).unwrap(), b"some text");
        assert!(read(&frame(28, b"some text")).is_err());
        // A later frame gets no more than the first asked for.
        let both = [frame(20, b"one"), frame(27, b"two")].concat();
        assert!(read(&both).is_err());
        let both = [frame(20, b"one"), frame(25, b"two")].concat();
        assert_eq!(read(&both).unwrap(), b"onetwo");
    }

    #[test]
    fn truncation_and_foreign_formats_are_errors() {
        let whole = gzip(&b"x".repeat(10_000));
        assert!(read(&whole[..whole.len() - 5]).is_err());
        let whole = zstd::encode_all(&b"some text that is long enough"[..], 1).unwrap();
        assert!(read(&whole[..whole.len() - 5]).is_err());
        assert!(read(b"BZh91AY&SY").is_err());
    }
}
