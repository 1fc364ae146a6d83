//! Layers and archives may be gzip, zstd, xz, bzip2 or plain; the first bytes decide, as they do in Docker,
//! because media types and file names are often wrong.

use std::io::{self, BufRead, Read};

use bzip2::bufread::MultiBzDecoder;
use flate2::bufread::MultiGzDecoder;
use lzma_rust2::XzReader;

/// Memory that the decoder of an xz stream may take, in KiB: the stream's header says how much it wants. 128 MiB of
/// dictionary, twice what `xz -9` asks for, and what the decoder needs besides. A stream that wants more is refused.
const XZ_MEMORY_MAX: u32 = (128 << 10) + 1024;

/// How a stream is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    Plain,
    Gzip,
    Zstd,
    Xz,
    Bzip2,
}

impl Format {
    /// By the first bytes of a stream; six are enough.
    pub(crate) fn of(magic: &[u8]) -> Self {
        if magic.starts_with(&[0x1f, 0x8b]) {
            Self::Gzip
        } else if magic.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]) || is_skippable_frame(magic) {
            Self::Zstd
        } else if magic.starts_with(b"\xfd7zXZ\0") {
            Self::Xz
        } else if magic.starts_with(b"BZh") {
            Self::Bzip2
        } else {
            Self::Plain
        }
    }
}

/// Reads the uncompressed bytes of a stream.
pub(crate) enum Decoder<'a, R: BufRead> {
    Plain(R),
    Gzip(Box<MultiGzDecoder<R>>),
    /// With the logarithm of the largest window that its frames may have.
    Zstd(Box<zstd::stream::read::Decoder<'a, R>>, u32),
    Xz(Box<XzReader<R>>),
    Bzip2(Box<MultiBzDecoder<R>>),
}

impl<R: BufRead> Decoder<'_, R> {
    /// Looks at the beginning of `reader` and chooses.
    pub(crate) fn new(mut reader: R) -> io::Result<Self> {
        let magic = reader.fill_buf()?;
        Ok(match Format::of(magic) {
            Format::Plain => Self::Plain(reader),
            Format::Gzip => Self::Gzip(Box::new(MultiGzDecoder::new(reader))),
            Format::Zstd => {
                let window = window_log(magic);
                let mut decoder = zstd::stream::read::Decoder::with_buffer(reader)?;
                decoder.window_log_max(window)?;
                Self::Zstd(Box::new(decoder), window)
            }
            Format::Xz => Self::Xz(Box::new(XzReader::new_mem_limit(
                reader,
                true,
                XZ_MEMORY_MAX,
            ))),
            Format::Bzip2 => Self::Bzip2(Box::new(MultiBzDecoder::new(reader))),
        })
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
            // The dictionary is named in each block and not before.
            Self::Xz(_) => u64::from(XZ_MEMORY_MAX) << 10,
            // Fixed by the format: a block has at most 900,000 bytes, each of which takes four.
            Self::Bzip2(_) => 4 << 20,
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
            Self::Xz(reader) => reader.read(buffer),
            Self::Bzip2(reader) => reader.read(buffer),
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

    /// What the program of this name makes of `bytes`.
    fn packed(program: &str, flags: &[&str], bytes: &[u8]) -> Vec<u8> {
        use std::process::{Command, Stdio};
        let mut child = Command::new(program)
            .arg("-c")
            .args(flags)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap_or_else(|e| panic!("{program} IS MISSING: this test needs it ({e})"));
        child.stdin.take().unwrap().write_all(bytes).unwrap();
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success());
        output.stdout
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
        assert_eq!(read(&packed("xz", &[], &text)).unwrap(), text);
        assert_eq!(read(&packed("bzip2", &[], &text)).unwrap(), text);
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
        for format in ["xz", "bzip2"] {
            let both = [packed(format, &[], b"one "), packed(format, &[], b"two")].concat();
            assert_eq!(read(&both).unwrap(), b"one two", "{format}");
        }
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
    fn truncation_is_an_error() {
        let whole = gzip(&b"x".repeat(10_000));
        assert!(read(&whole[..whole.len() - 5]).is_err());
        let whole = zstd::encode_all(&b"some text that is long enough"[..], 1).unwrap();
        assert!(read(&whole[..whole.len() - 5]).is_err());
        for format in ["xz", "bzip2"] {
            let whole = packed(format, &[], &b"x".repeat(10_000));
            assert!(read(&whole[..whole.len() - 5]).is_err(), "{format}");
        }
        assert!(read(b"BZh91AY&SY").is_err());
        assert!(read(b"\xfd7zXZ\0").is_err());
    }

    #[test]
    fn an_xz_stream_that_wants_a_huge_dictionary_is_refused() {
        let small = packed("xz", &["--lzma2=dict=128MiB"], b"text");
        assert_eq!(read(&small).unwrap(), b"text");
        let huge = packed("xz", &["--lzma2=dict=192MiB"], b"text");
        assert_eq!(read(&huge).unwrap_err().kind(), io::ErrorKind::OutOfMemory);
    }
}
