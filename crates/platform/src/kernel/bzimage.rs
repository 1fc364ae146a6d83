//! The header of a kernel that unpacks itself (Documentation/arch/x86/boot.rst, "The Real-Mode Kernel Header").

use super::file::FileError;

/// What the header of a bzImage says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct BzImage {
    extent: u64,
    version_at: Option<u64>,
}

const SETUP_SECTORS: usize = 0x1f1;
/// Size of the protected-mode part in units of 16 bytes.
const SYSTEM_SIZE: usize = 0x1f4;
const MAGIC: usize = 0x202;
const VERSION: usize = 0x206;
const VERSION_TEXT: usize = 0x20e;
const LOAD_FLAGS: usize = 0x211;
const EXTENDED_LOAD_FLAGS: usize = 0x236;

/// LOADED_HIGH: a bzImage, not a zImage.
const LOADED_HIGH: u8 = 1;
/// XLF_KERNEL_64: the 64-bit entry point at offset 0x200 of the protected-mode part is there.
const KERNEL_64: u8 = 1;
/// The first version of the protocol with `xloadflags`, of Linux 3.8.
const WITH_EXTENDED_FLAGS: u16 = 0x020c;

/// A raw ARM64 image has its magic at offset 56 (Documentation/arch/arm64/booting.rst).
const ARM64: (usize, &[u8]) = (56, b"ARM\x64");

impl BzImage {
    pub(crate) fn parse(head: &[u8]) -> Result<Self, FileError> {
        let (at, magic) = ARM64;
        if head.get(at..at + magic.len()) == Some(magic) {
            return Err(FileError::Architecture("64-bit ARM"));
        }
        if head.get(MAGIC..MAGIC + 4) != Some(b"HdrS") {
            // A boot sector without the rest of the header: what is left of a kernel.
            let sector = head.get(0x1fe..0x200) == Some(&[0x55, 0xaa]);
            return Err(if sector && head.len() < MAGIC + 4 {
                FileError::Damaged
            } else {
                FileError::NoKernel
            });
        }
        let byte = |at: usize| head.get(at).copied().ok_or(FileError::Damaged);
        let half = |at: usize| Ok(u16::from_le_bytes([byte(at)?, byte(at + 1)?]));
        if half(VERSION)? < WITH_EXTENDED_FLAGS
            || byte(LOAD_FLAGS)? & LOADED_HIGH == 0
            || byte(EXTENDED_LOAD_FLAGS)? & KERNEL_64 == 0
        {
            return Err(FileError::Entry);
        }
        let sectors = match byte(SETUP_SECTORS)? {
            // "If 0, the real value is 4", says the protocol.
            0 => 4,
            sectors => u64::from(sectors),
        };
        let size = u64::from(half(SYSTEM_SIZE)?) | u64::from(half(SYSTEM_SIZE + 2)?) << 16;
        let version = u64::from(half(VERSION_TEXT)?);
        Ok(Self {
            extent: (sectors + 1) * 512 + size * 16,
            version_at: (version != 0).then_some(version + 0x200),
        })
    }

    /// How long the file must be, in bytes; signatures may follow.
    pub(crate) fn extent(&self) -> u64 {
        self.extent
    }

    /// Where in the file the version lies as text.
    pub(crate) fn version_at(&self) -> Option<u64> {
        self.version_at
    }
}

/// The release, `uname -r`, is the first word of the version's text.
pub(crate) fn release(version: &[u8]) -> Option<&str> {
    let end = version.iter().position(|byte| matches!(byte, 0 | b' '))?;
    let release = std::str::from_utf8(version.get(..end)?).ok()?;
    // It becomes part of a path.
    (!release.is_empty() && !release.starts_with('.') && !release.contains('/')).then_some(release)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A bzImage of 8 KiB for the release.
    pub(crate) fn bzimage(release: &str) -> Vec<u8> {
        let mut file = vec![0_u8; 8192];
        let mut put = |at: usize, bytes: &[u8]| file[at..at + bytes.len()].copy_from_slice(bytes);
        put(SETUP_SECTORS, &[3]);
        put(SYSTEM_SIZE, &(6144_u32 / 16).to_le_bytes());
        put(0x1fe, &[0x55, 0xaa]);
        put(MAGIC, b"HdrS");
        put(VERSION, &0x020f_u16.to_le_bytes());
        put(VERSION_TEXT, &0x400_u16.to_le_bytes());
        put(LOAD_FLAGS, &[LOADED_HIGH]);
        put(EXTENDED_LOAD_FLAGS, &[0x3f]);
        put(
            0x600,
            format!("{release} (somebody@example) #1 SMP\0").as_bytes(),
        );
        file
    }

    #[test]
    fn a_header_tells_how_long_the_file_is_and_where_the_release_stands() {
        let file = bzimage("6.1.0-9-cloud-amd64");
        let image = BzImage::parse(&file).expect("a bzImage");
        assert_eq!(image.extent(), 8192);
        let at = usize::try_from(image.version_at().expect("a version")).expect("small");
        assert_eq!(release(&file[at..]), Some("6.1.0-9-cloud-amd64"));
    }

    #[test]
    fn a_kernel_without_64_bit_entry_is_told_from_no_kernel() {
        let mut file = bzimage("6.1.0");
        file[EXTENDED_LOAD_FLAGS] = 0;
        assert_eq!(BzImage::parse(&file), Err(FileError::Entry));
        let mut old = bzimage("2.6.18");
        old[VERSION] = 4;
        assert_eq!(BzImage::parse(&old), Err(FileError::Entry));
        file[MAGIC] = 0;
        assert_eq!(BzImage::parse(&file), Err(FileError::NoKernel));
    }

    #[test]
    fn a_header_cut_at_any_place_is_an_error() {
        let file = bzimage("6.1.0");
        for length in 0..=EXTENDED_LOAD_FLAGS {
            assert!(BzImage::parse(&file[..length]).is_err(), "{length}");
        }
    }

    #[test]
    fn only_what_can_name_a_directory_is_a_release() {
        assert_eq!(release(b"6.1.0 (x)\0"), Some("6.1.0"));
        assert_eq!(release(b"../6.1.0 \0"), None);
        assert_eq!(release(b"a/b \0"), None);
        assert_eq!(release(b" \0"), None);
        assert_eq!(release(b"6.1.0"), None);
    }
}
