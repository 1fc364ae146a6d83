//! Modules as distributions store them: plain, or compressed in one of the ways that kmod knows
//! (`CONFIG_MODULE_COMPRESS_…`). Debian has them plain up to Linux 6.1 and as `.ko.xz` from 6.12 on.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::Path;

use super::InitramfsError;

/// More than any module has. The files are the host's own; the bound is for one that is damaged.
const LARGEST: u64 = 256 << 20;

/// A module's file name without the ending of its compression, and its content in the clear.
pub(super) fn read(path: &Path) -> Result<(String, Vec<u8>), InitramfsError> {
    let cannot_read = |source| InitramfsError::Read {
        path: path.to_owned(),
        source,
    };
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let (name, ending) = match name.rsplit_once(".ko.") {
        Some((stem, ending)) => (format!("{stem}.ko"), ending),
        None => (name.clone().into_owned(), ""),
    };
    let file = || File::open(path).map_err(cannot_read);
    let content = match ending {
        "" => fs::read(path),
        // Kernels check these with CRC32, which the reader does as well.
        "xz" => all(lzma_rust2::XzReader::new(file()?, true)),
        "zst" => all(zstd::Decoder::new(file()?).map_err(cannot_read)?),
        "gz" => all(flate2::read::MultiGzDecoder::new(file()?)),
        _ => return Err(InitramfsError::Compression(path.to_owned())),
    };
    Ok((name, content.map_err(cannot_read)?))
}

fn all(reader: impl Read) -> io::Result<Vec<u8>> {
    let mut content = Vec::new();
    if reader.take(LARGEST + 1).read_to_end(&mut content)? as u64 > LARGEST {
        return Err(io::Error::new(
            io::ErrorKind::FileTooLarge,
            "it unpacks to more than a module can be",
        ));
    }
    Ok(content)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    /// `printf 'a module' | xz --check=crc32`, as the kernel's build compresses.
    const XZ: &[u8] = &[
        0xfd, 0x37, 0x7a, 0x58, 0x5a, 0x00, 0x00, 0x01, 0x69, 0x22, 0xde, 0x36, 0x02, 0x00, 0x21,
        0x01, 0x16, 0x00, 0x00, 0x00, 0x74, 0x2f, 0xe5, 0xa3, 0x01, 0x00, 0x07, 0x61, 0x20, 0x6d,
        0x6f, 0x64, 0x75, 0x6c, 0x65, 0x00, 0x5b, 0xc1, 0x38, 0x0b, 0x00, 0x01, 0x1c, 0x08, 0x44,
        0x60, 0x2a, 0xc8, 0x90, 0x42, 0x99, 0x0d, 0x01, 0x00, 0x00, 0x00, 0x00, 0x01, 0x59, 0x5a,
    ];

    fn stored(name: &str, content: &[u8]) -> (tempfile::TempDir, std::path::PathBuf) {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join(name);
        fs::write(&path, content).expect("a file");
        (dir, path)
    }

    #[test]
    fn a_module_is_the_same_however_it_is_stored() {
        let plain = b"a module";
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(plain).expect("memory");
        let forms = [
            ("ext4.ko", plain.to_vec()),
            ("ext4.ko.xz", XZ.to_vec()),
            (
                "ext4.ko.zst",
                zstd::encode_all(&plain[..], 1).expect("memory"),
            ),
            ("ext4.ko.gz", gzip.finish().expect("memory")),
        ];
        for (name, content) in forms {
            let (_dir, path) = stored(name, &content);
            let (name, content) = read(&path).expect(name);
            assert_eq!((name.as_str(), &content[..]), ("ext4.ko", &plain[..]));
        }
    }

    #[test]
    fn a_damaged_or_unknown_one_is_named() {
        let mut flipped = XZ.to_vec();
        flipped[26] ^= 1;
        for content in [&XZ[..XZ.len() / 2], &flipped, b"not xz at all"] {
            let (_dir, path) = stored("ext4.ko.xz", content);
            let error = read(&path).expect_err("damaged");
            assert!(error.to_string().contains("ext4.ko.xz"), "{error}");
        }
        let (_dir, path) = stored("ext4.ko.lzo", b"");
        let error = read(&path).expect_err("unknown");
        assert!(
            matches!(&error, InitramfsError::Compression(named) if *named == path),
            "{error}"
        );
    }
}
