//! The little of ELF that tells what sort of kernel a file is and what it needs: segments, loader, libraries.

use super::file::FileError;

/// A parsed executable; borrows the file's beginning.
#[derive(Debug)]
pub(crate) struct Elf<'a> {
    entry: u64,
    segments: Vec<Segment>,
    interpreter: Option<&'a str>,
    needed: Vec<&'a str>,
}

/// The four bytes that every ELF file begins with.
pub(crate) const MAGIC: &[u8] = b"\x7fELF";

/// Where the kernel's half of the address space begins on x86-64.
const UPPER_HALF: u64 = 1 << 63;

/// Where user-mode kernels of x86-64 begin, and as much room as none of them needs.
const USER_MODE_START: std::ops::Range<u64> = 0x6000_0000..0x7000_0000;

/// The machine's number for x86-64.
const X86_64: u16 = 62;

const LOAD: u32 = 1;
const DYNAMIC: u32 = 2;
const INTERPRETER: u32 = 3;
const TAG_NEEDED: u64 = 1;
const TAG_STRINGS: u64 = 5;

#[derive(Debug)]
struct Segment {
    kind: u32,
    offset: u64,
    address: u64,
    physical: u64,
    /// Bytes in the file.
    size: u64,
}

impl<'a> Elf<'a> {
    /// Parses the file's headers. Libraries are known only if `file` reaches as far as the dynamic section and the
    /// string table; the loader's name only needs the first pages.
    pub(crate) fn parse(file: &'a [u8]) -> Result<Self, FileError> {
        if file.get(..4) != Some(MAGIC) {
            return Err(FileError::NoKernel);
        }
        // Class 64, little endian.
        let machine = half(file, 18)?;
        if file.get(4..6) != Some(&[2, 1]) || machine != X86_64 {
            return Err(FileError::Architecture(architecture(machine)));
        }
        let table = double(file, 32)?;
        let size = u64::from(half(file, 54)?);
        let mut segments = Vec::new();
        for index in 0..u64::from(half(file, 56)?) {
            let at = table.checked_add(index * size).ok_or(FileError::Damaged)?;
            segments.push(Segment {
                kind: word(file, at)?,
                offset: double(file, at.saturating_add(8))?,
                address: double(file, at.saturating_add(16))?,
                physical: double(file, at.saturating_add(24))?,
                size: double(file, at.saturating_add(32))?,
            });
        }
        let interpreter = segments
            .iter()
            .find(|segment| segment.kind == INTERPRETER)
            .map(|segment| text(file, segment.offset).ok_or(FileError::Damaged))
            .transpose()?;
        let needed = needed(file, &segments).unwrap_or_default();
        Ok(Self {
            entry: double(file, 24)?,
            segments,
            interpreter,
            needed,
        })
    }

    fn loads(&self) -> impl Iterator<Item = &Segment> {
        self.segments.iter().filter(|segment| segment.kind == LOAD)
    }

    /// How long the file must be to hold all that is loaded, in bytes.
    pub(crate) fn extent(&self) -> u64 {
        let ends = self
            .loads()
            .map(|load| load.offset.saturating_add(load.size));
        ends.max().unwrap_or(0)
    }

    /// Whether it is a kernel for a machine: linked to the upper half of the address space, which no process has.
    pub(crate) fn is_for_a_machine(&self) -> bool {
        self.loads().any(|load| load.address >= UPPER_HALF)
    }

    /// Whether it can be a user-mode kernel: those of x86-64 are linked to one address (`START` in arch/x86/Makefile.um),
    /// where no ordinary program is.
    pub(crate) fn is_user_mode_kernel(&self) -> bool {
        let mut loads = self.loads().peekable();
        loads.peek().is_none() || loads.any(|load| USER_MODE_START.contains(&load.address))
    }

    /// Whether the entry point is a physical address in what is loaded, as the 64-bit boot protocol needs it.
    pub(crate) fn has_physical_entry(&self) -> bool {
        self.loads().any(|load| {
            (load.physical..load.physical.saturating_add(load.size)).contains(&self.entry)
        })
    }

    /// Path of the dynamic loader, `None` for a static executable.
    pub(crate) fn interpreter(&self) -> Option<&'a str> {
        self.interpreter
    }

    /// Names of the shared libraries.
    pub(crate) fn needed(&self) -> &[&'a str] {
        &self.needed
    }
}

fn needed<'a>(file: &'a [u8], segments: &[Segment]) -> Option<Vec<&'a str>> {
    let dynamic = segments.iter().find(|segment| segment.kind == DYNAMIC)?;
    let entries = (0..dynamic.size / 16).map_while(|index| {
        let at = dynamic.offset.checked_add(index.checked_mul(16)?)?;
        let tag = double(file, at).ok().filter(|tag| *tag != 0)?;
        Some((tag, double(file, at.checked_add(8)?).ok()?))
    });
    let entries: Vec<(u64, u64)> = entries.collect();
    let (_, address) = entries.iter().find(|(tag, _)| *tag == TAG_STRINGS)?;
    let load = segments.iter().find(|segment| {
        segment.kind == LOAD
            && (segment.address..segment.address.saturating_add(segment.size)).contains(address)
    })?;
    let strings = load.offset.checked_add(address - load.address)?;
    entries
        .iter()
        .filter(|(tag, _)| *tag == TAG_NEEDED)
        .map(|(_, offset)| text(file, strings.checked_add(*offset)?))
        .collect()
}

/// The machine's common name.
fn architecture(machine: u16) -> &'static str {
    match machine {
        3 => "32-bit x86",
        X86_64 => "32-bit or big-endian programs",
        20 | 21 => "PowerPC",
        22 => "s390",
        40 => "32-bit ARM",
        183 => "64-bit ARM",
        243 => "RISC-V",
        258 => "LoongArch",
        _ => "another machine",
    }
}

fn bytes<const N: usize>(file: &[u8], at: u64) -> Result<[u8; N], FileError> {
    let start = usize::try_from(at).map_err(|_| FileError::Damaged)?;
    let end = start.checked_add(N).ok_or(FileError::Damaged)?;
    file.get(start..end)
        .and_then(|slice| slice.try_into().ok())
        .ok_or(FileError::Damaged)
}

fn half(file: &[u8], at: u64) -> Result<u16, FileError> {
    bytes(file, at).map(u16::from_le_bytes)
}

fn word(file: &[u8], at: u64) -> Result<u32, FileError> {
    bytes(file, at).map(u32::from_le_bytes)
}

fn double(file: &[u8], at: u64) -> Result<u64, FileError> {
    bytes(file, at).map(u64::from_le_bytes)
}

fn text(file: &[u8], at: u64) -> Option<&str> {
    let rest = file.get(usize::try_from(at).ok()?..)?;
    let end = rest.iter().take(4096).position(|byte| *byte == 0)?;
    std::str::from_utf8(rest.get(..end)?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dynamic_executable_names_its_loader_and_libraries() {
        // Every Debian system has a dynamically linked /bin/sh.
        let file = std::fs::read("/bin/sh").expect("there is a shell");
        let elf = Elf::parse(&file).expect("the shell is an executable");
        assert!(
            elf.interpreter()
                .is_some_and(|loader| loader.starts_with("/lib"))
        );
        assert!(
            elf.needed().iter().any(|name| name.starts_with("libc.so")),
            "{elf:?}"
        );
    }

    #[test]
    fn damaged_files_are_errors_at_every_length() {
        assert_eq!(Elf::parse(b"#!/bin/sh").err(), Some(FileError::NoKernel));
        let file = std::fs::read("/bin/sh").expect("there is a shell");
        for length in 0..512 {
            let _ = Elf::parse(file.get(..length).unwrap_or_default());
        }
        let mut other = file.clone();
        if let Some(machine) = other.get_mut(18) {
            *machine = 40;
        }
        assert_eq!(
            Elf::parse(&other).err(),
            Some(FileError::Architecture("32-bit ARM"))
        );
    }
}
