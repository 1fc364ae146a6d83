//! Layers and archives may be gzip, zstd or plain; the first bytes decide, as they do in Docker,
//! because media types and file names are often wrong.

use std::io::{self, BufRead, Read};

use flate2::bufread::MultiGzDecoder;

/// Reads the uncompressed bytes of a stream.
pub(crate) enum Decoder<'a, R: BufRead> {
    Plain(R),
    Gzip(Box<MultiGzDecoder<R>>),
    Zstd(Box<zstd::stream::read::Decoder<'a, R>>),
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
            let decoder = zstd::stream::read::Decoder::with_buffer(reader)?;
            Ok(Self::Zstd(Box::new(decoder)))
        } else if magic.starts_with(b"\xfd7zXZ\0") {
            unsupported("xz")
        } else if magic.starts_with(b"BZh") {
            unsupported("bzip2")
        } else {
            Ok(Self::Plain(reader))
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
            Self::Zstd(reader) => reader.read(buffer),
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

    #[test]
    fn truncation_and_foreign_formats_are_errors() {
        let whole = gzip(&b"x".repeat(10_000));
        assert!(read(&whole[..whole.len() - 5]).is_err());
        let whole = zstd::encode_all(&b"some text that is long enough"[..], 1).unwrap();
        assert!(read(&whole[..whole.len() - 5]).is_err());
        assert!(read(b"BZh91AY&SY").is_err());
    }
}
