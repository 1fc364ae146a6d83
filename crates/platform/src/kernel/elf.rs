//! The little of ELF that tells what a kernel needs: loader, libraries.

/// The file is not what it should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ElfError {
    /// No ELF file.
    #[error("it is not an ELF file")]
    Magic,
    /// Another machine, byte order or word size.
    #[error("it is not a 64-bit x86 executable")]
    Machine,
    /// A table lies outside the file.
    #[error("it is truncated or damaged")]
    Truncated,
}

/// A parsed executable; borrows the file's beginning.
#[derive(Debug)]
pub(crate) struct Elf<'a> {
    interpreter: Option<&'a str>,
    needed: Vec<&'a str>,
}

const LOAD: u32 = 1;
const DYNAMIC: u32 = 2;
const INTERPRETER: u32 = 3;
const TAG_NEEDED: u64 = 1;
const TAG_STRINGS: u64 = 5;

struct Segment {
    kind: u32,
    offset: u64,
    address: u64,
    size: u64,
}

impl<'a> Elf<'a> {
    /// Parses the file's headers. Libraries are known only if `file` reaches as far as the dynamic section and the
    /// string table; the loader's name only needs the first pages.
    pub(crate) fn parse(file: &'a [u8]) -> Result<Self, ElfError> {
        if file.get(..4) != Some(b"\x7fELF") {
            return Err(ElfError::Magic);
        }
        // Class 64, little endian; machine 62 is x86-64.
        if file.get(4..6) != Some(&[2, 1]) || half(file, 18)? != 62 {
            return Err(ElfError::Machine);
        }
        let table = double(file, 32)?;
        let entry = u64::from(half(file, 54)?);
        let mut segments = Vec::new();
        for index in 0..u64::from(half(file, 56)?) {
            let at = table
                .checked_add(index * entry)
                .ok_or(ElfError::Truncated)?;
            segments.push(Segment {
                kind: word(file, at)?,
                offset: double(file, at.saturating_add(8))?,
                address: double(file, at.saturating_add(16))?,
                size: double(file, at.saturating_add(32))?,
            });
        }
        let interpreter = segments
            .iter()
            .find(|segment| segment.kind == INTERPRETER)
            .map(|segment| text(file, segment.offset).ok_or(ElfError::Truncated))
            .transpose()?;
        let needed = needed(file, &segments).unwrap_or_default();
        Ok(Self {
            interpreter,
            needed,
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

fn bytes<const N: usize>(file: &[u8], at: u64) -> Result<[u8; N], ElfError> {
    let start = usize::try_from(at).map_err(|_| ElfError::Truncated)?;
    let end = start.checked_add(N).ok_or(ElfError::Truncated)?;
    file.get(start..end)
        .and_then(|slice| slice.try_into().ok())
        .ok_or(ElfError::Truncated)
}

fn half(file: &[u8], at: u64) -> Result<u16, ElfError> {
    bytes(file, at).map(u16::from_le_bytes)
}

fn word(file: &[u8], at: u64) -> Result<u32, ElfError> {
    bytes(file, at).map(u32::from_le_bytes)
}

fn double(file: &[u8], at: u64) -> Result<u64, ElfError> {
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
        assert_eq!(Elf::parse(b"#!/bin/sh").err(), Some(ElfError::Magic));
        let file = std::fs::read("/bin/sh").expect("there is a shell");
        for length in 0..512 {
            let _ = Elf::parse(file.get(..length).unwrap_or_default());
        }
        let mut other = file.clone();
        if let Some(machine) = other.get_mut(18) {
            *machine = 40;
        }
        assert_eq!(Elf::parse(&other).err(), Some(ElfError::Machine));
    }
}
