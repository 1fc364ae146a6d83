//! The archive format that the kernel unpacks: cpio "newc" (Documentation/driver-api/early-userspace/buffer-format).

use std::io::{self, Write};

/// Writes entries; [`Cpio::finish`] ends the archive.
pub(crate) struct Cpio<W: Write> {
    out: W,
    written: u64,
    inode: u32,
}

impl<W: Write> Cpio<W> {
    pub(crate) fn new(out: W) -> Self {
        Self {
            out,
            written: 0,
            inode: 1,
        }
    }

    /// A directory, mode 0755.
    pub(crate) fn directory(&mut self, name: &str) -> io::Result<()> {
        self.entry(name, 0o040_755, (0, 0), &[])
    }

    /// A regular file.
    pub(crate) fn file(&mut self, name: &str, mode: u32, content: &[u8]) -> io::Result<()> {
        self.entry(name, 0o100_000 | mode, (0, 0), content)
    }

    /// A character device, mode 0600.
    pub(crate) fn character_device(
        &mut self,
        name: &str,
        major: u32,
        minor: u32,
    ) -> io::Result<()> {
        self.entry(name, 0o020_600, (major, minor), &[])
    }

    pub(crate) fn finish(mut self) -> io::Result<W> {
        self.inode = 0;
        self.entry("TRAILER!!!", 0, (0, 0), &[])?;
        self.out.flush()?;
        Ok(self.out)
    }

    fn entry(
        &mut self,
        name: &str,
        mode: u32,
        device: (u32, u32),
        content: &[u8],
    ) -> io::Result<()> {
        let too_large = |_| io::Error::from(io::ErrorKind::FileTooLarge);
        let size = u32::try_from(content.len()).map_err(too_large)?;
        let name_size = u32::try_from(name.len() + 1).map_err(too_large)?;
        let links = if mode & 0o040_000 == 0 { 1 } else { 2 };
        // Magic, then inode, mode, uid, gid, links, mtime, size, device of the file, device it is, name size, check.
        let fields = [
            self.inode, mode, 0, 0, links, 0, size, 0, 0, device.0, device.1, name_size, 0,
        ];
        let mut header = String::from("070701");
        for field in fields {
            header.push_str(&format!("{field:08x}"));
        }
        self.inode += 1;
        self.write(header.as_bytes())?;
        self.write(name.as_bytes())?;
        self.write(&[0])?;
        self.pad()?;
        self.write(content)?;
        self.pad()
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.written += bytes.len() as u64;
        self.out.write_all(bytes)
    }

    fn pad(&mut self) -> io::Result<()> {
        let missing = self.written.wrapping_neg() % 4;
        self.write(&[0_u8; 3][..missing as usize])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_archive_reads_back_with_names_modes_and_contents() {
        let mut cpio = Cpio::new(Vec::new());
        cpio.directory("dev").expect("memory");
        cpio.character_device("dev/console", 5, 1).expect("memory");
        cpio.file("init", 0o755, b"hello").expect("memory");
        let archive = cpio.finish().expect("memory");
        assert_eq!(archive.len() % 4, 0);

        let mut at = 0;
        let mut seen = Vec::new();
        loop {
            let field = |index: usize| {
                let start = at + 6 + 8 * index;
                u32::from_str_radix(
                    std::str::from_utf8(&archive[start..start + 8]).expect("hex"),
                    16,
                )
                .expect("hex")
            };
            assert_eq!(&archive[at..at + 6], b"070701");
            let (mode, size, name_size) = (field(1), field(6) as usize, field(11) as usize);
            let name_at = at + 110;
            let name = String::from_utf8(archive[name_at..name_at + name_size - 1].to_vec())
                .expect("a name");
            let content_at = (name_at + name_size).next_multiple_of(4);
            if name == "TRAILER!!!" {
                break;
            }
            seen.push((
                name,
                mode,
                (field(9), field(10)),
                archive[content_at..content_at + size].to_vec(),
            ));
            at = (content_at + size).next_multiple_of(4);
        }
        assert_eq!(
            seen,
            [
                ("dev".to_owned(), 0o040_755, (0, 0), vec![]),
                ("dev/console".to_owned(), 0o020_600, (5, 1), vec![]),
                ("init".to_owned(), 0o100_755, (0, 0), b"hello".to_vec()),
            ]
        );
    }
}
