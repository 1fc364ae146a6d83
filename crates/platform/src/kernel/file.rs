//! Judges files that are to be guest kernels: what a file is, and whether it is all there.

use super::bzimage::BzImage;
use super::elf::{self, Elf};

/// The file is not the kernel that it should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FileError {
    /// Nothing in it.
    #[error("the file is empty")]
    Empty,
    /// Neither format.
    #[error("it is not a kernel: neither an ELF file nor a bzImage")]
    NoKernel,
    /// Another machine, byte order or word size.
    #[error("it is built for {0}; this platform needs 64-bit x86")]
    Architecture(&'static str),
    /// Shorter than its headers say.
    #[error("it is truncated: the file has {bytes} bytes, and its headers speak of {needed}")]
    Truncated {
        /// Length of the file.
        bytes: u64,
        /// Length that its headers call for.
        needed: u64,
    },
    /// A table lies where no file has one.
    #[error("its headers are truncated or damaged")]
    Damaged,
    /// A process, where a kernel for a machine is needed.
    #[error("it is a user-mode kernel or another program: no virtual machine can boot it")]
    Program,
    /// A program that is no kernel.
    #[error("it is a program like any other, and no Linux kernel")]
    OtherProgram,
    /// A kernel for a machine, where one that is a process is needed.
    #[error("it is a kernel for a (virtual) machine, which cannot run as a process")]
    Machine,
    /// No entry point for a processor in 64-bit mode.
    #[error("it has no 64-bit entry point")]
    Entry,
}

/// What a file turned out to be; borrows its beginning.
#[derive(Debug)]
pub(crate) enum KernelFile<'a> {
    /// A process.
    Program(Elf<'a>),
    /// An uncompressed kernel for a machine.
    Elf,
    /// A kernel that unpacks itself.
    BzImage(BzImage),
}

impl<'a> KernelFile<'a> {
    /// Judges a file of `length` bytes by its beginning, `head`, of which a few pages are enough.
    pub(crate) fn judge(head: &'a [u8], length: u64) -> Result<Self, FileError> {
        if head.is_empty() {
            return Err(FileError::Empty);
        }
        if head.starts_with(elf::MAGIC) {
            let elf = Elf::parse(head)?;
            complete(length, elf.extent())?;
            return if !elf.is_for_a_machine() {
                Ok(Self::Program(elf))
            } else if elf.has_physical_entry() {
                Ok(Self::Elf)
            } else {
                Err(FileError::Entry)
            };
        }
        let image = BzImage::parse(head)?;
        complete(length, image.extent())?;
        Ok(Self::BzImage(image))
    }
}

fn complete(bytes: u64, needed: u64) -> Result<(), FileError> {
    if bytes < needed {
        return Err(FileError::Truncated { bytes, needed });
    }
    Ok(())
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// An ELF file with one segment at `address`, loaded and entered at 16 MiB.
    pub(crate) fn elf(address: u64) -> Vec<u8> {
        let mut file = vec![0_u8; 4096];
        let mut put = |at: usize, bytes: &[u8]| file[at..at + bytes.len()].copy_from_slice(bytes);
        put(0, b"\x7fELF\x02\x01\x01");
        put(16, &[2, 0, 62, 0]);
        put(24, &0x100_0000_u64.to_le_bytes());
        put(32, &64_u64.to_le_bytes());
        put(54, &[56, 0, 1, 0]);
        put(64, &1_u32.to_le_bytes());
        put(64 + 8, &1024_u64.to_le_bytes());
        put(64 + 16, &address.to_le_bytes());
        put(64 + 24, &0x100_0000_u64.to_le_bytes());
        put(64 + 32, &3072_u64.to_le_bytes());
        file
    }

    /// Where the kernel is linked to.
    pub(crate) const LINKED: u64 = 0xffff_ffff_8100_0000;

    fn judge(file: &[u8]) -> Result<KernelFile<'_>, FileError> {
        KernelFile::judge(file, file.len() as u64)
    }

    #[test]
    fn where_a_program_is_linked_to_tells_a_kernel_from_a_process() {
        assert!(matches!(judge(&elf(LINKED)), Ok(KernelFile::Elf)));
        assert!(matches!(
            judge(&elf(0x6000_0000)),
            Ok(KernelFile::Program(_))
        ));
        let shell = std::fs::read("/bin/sh").expect("there is a shell");
        assert!(matches!(judge(&shell), Ok(KernelFile::Program(_))));
    }

    /// It was taken for a distribution's kernel, and then found not to fit the processor.
    #[test]
    fn a_program_is_told_from_a_user_mode_kernel_by_where_it_is_linked_to() {
        let inspect = |path: &std::path::Path| {
            let isolation = bulkhead_types::Isolation::UserMode;
            super::super::KernelImage::inspect(
                isolation,
                path,
                std::path::Path::new("/nonexistent"),
            )
        };
        let error = inspect(std::path::Path::new("/bin/ls")).expect_err("no kernel");
        assert_eq!(
            bulkhead_types::chain(&error),
            "cannot use /bin/ls as the user-mode platform's guest kernel: it is a program like any other, and no Linux kernel"
        );
        let file = tempfile::NamedTempFile::new().expect("a file");
        for (address, fits) in [(0x6000_0000, true), (0x40_0000, false)] {
            std::fs::write(file.path(), elf(address)).expect("written");
            assert_eq!(inspect(file.path()).is_ok(), fits, "{address:x}");
        }
    }

    #[test]
    fn an_entry_point_outside_of_what_is_loaded_is_none() {
        let mut file = elf(LINKED);
        file[24..32].copy_from_slice(&LINKED.to_le_bytes());
        assert_eq!(judge(&file).err(), Some(FileError::Entry));
    }

    #[test]
    fn a_file_that_ends_too_early_says_how_much_is_missing() {
        let file = elf(LINKED);
        assert_eq!(
            judge(&file[..4000]).err(),
            Some(FileError::Truncated {
                bytes: 4000,
                needed: 4096
            })
        );
        assert_eq!(judge(&file[..70]).err(), Some(FileError::Damaged));
        assert_eq!(judge(&[]).err(), Some(FileError::Empty));
    }

    #[test]
    fn other_files_are_no_kernels() {
        assert_eq!(judge(b"#!/bin/sh\n").err(), Some(FileError::NoKernel));
        assert_eq!(judge(&[0; 4096]).err(), Some(FileError::NoKernel));
        let mut arm = elf(LINKED);
        arm[18] = 183;
        assert_eq!(
            judge(&arm).err(),
            Some(FileError::Architecture("64-bit ARM"))
        );
    }
}
