//! Kernel and initramfs into guest memory.
//!
//! Both are read there. Mapping a kernel's file would be less work before the first entry (3 against 6 ms of processor
//! time for 14 MiB), but a kernel patches nearly every page of its code for the processor it finds, so nearly every page
//! would be copied all the same, one fault at a time, while the guest waits: it started half as fast again.
//!
//! It takes as long as all else that a start does in this process, and has nothing to do with it: a thread does it
//! meanwhile, and has ended before the guest begins.

use std::fs::File;
use std::io::{self, Seek};
use std::os::fd::BorrowedFd;
use std::os::unix::fs::FileExt;
use std::thread::JoinHandle;

use bulkhead_devices::GuestMemory;
use linux_loader::loader::bootparam::setup_header;
use linux_loader::loader::bzimage::BzImage;
use linux_loader::loader::elf::Elf;
use linux_loader::loader::{KernelLoader, KernelLoaderResult};
use vm_memory::{Bytes, GuestAddress};

use super::error::{KvmError, write};
use super::layout::{EXTENDED, PAGE};
use super::memory::low;
use crate::boot::Boot;
use crate::kernel::{FileError, KernelFile};

/// Entry point for a processor in 64-bit mode, from where a bzImage was loaded to (Documentation/arch/x86/boot.rst,
/// "64-bit Boot Protocol").
const BZIMAGE_ENTRY: u64 = 0x200;

/// Headers of a kernel's file lie within this.
const HEAD: usize = 4096;

/// Stack of the thread that loads: as for a device's.
const STACK_BYTES: usize = 128 << 10;

/// RAM that a kernel needs beside itself and its initramfs to come as far as the agent.
const ROOM: u64 = 16 << 20;

/// "HdrS": the header is there (boot.rst, field `header`).
const HEADER_MAGIC: u32 = 0x5372_6448;
/// The last word of a boot sector (boot.rst, field `boot_flag`).
const BOOT_FLAG: u16 = 0xAA55;
/// Version of the boot protocol that we speak: 2.15.
const PROTOCOL: u16 = 0x020f;
/// LOADED_HIGH (boot.rst, field `loadflags`).
const LOADED_HIGH: u8 = 1;

/// A kernel in guest memory.
#[derive(Debug)]
pub(super) struct Kernel {
    /// The first instruction.
    pub entry: u64,
    /// The header of the boot protocol, as far as the kernel's file gives it.
    pub header: setup_header,
    /// The first address that the kernel does not need while it starts.
    pub end: u64,
}

/// An initramfs in guest memory.
#[derive(Debug, Clone, Copy)]
pub(super) struct Initramfs {
    /// Its address.
    pub address: u64,
    /// Its length in bytes.
    pub bytes: u64,
}

/// A thread that loads a kernel and its initramfs. Dropping it waits for its end.
#[derive(Debug)]
pub(super) struct Loading {
    thread: Option<JoinHandle<Result<(Kernel, Initramfs), KvmError>>>,
}

impl Loading {
    /// Starts the thread. `memory` must stay mapped until it has ended.
    pub(super) fn begin(memory: GuestMemory, boot: Boot) -> io::Result<Self> {
        let load = move || {
            let kernel = kernel(&memory, boot.kernel())?;
            let initramfs = initramfs(&memory, boot.initramfs(), &kernel)?;
            Ok((kernel, initramfs))
        };
        let thread = std::thread::Builder::new()
            .name("load".to_owned())
            .stack_size(STACK_BYTES)
            .spawn(load)?;
        Ok(Self {
            thread: Some(thread),
        })
    }

    /// Waits until both are there.
    pub(super) fn finish(mut self) -> Result<(Kernel, Initramfs), KvmError> {
        let outcome = self.thread.take().map(JoinHandle::join);
        match outcome {
            Some(Ok(loaded)) => loaded,
            // It only panics where a programmer erred.
            _ => Err(KvmError::Layout("the loading thread panicked".to_owned())),
        }
    }
}

impl Drop for Loading {
    fn drop(&mut self) {
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Loads the kernel behind `descriptor`, an ELF file or a bzImage.
fn kernel(memory: &GuestMemory, descriptor: BorrowedFd<'_>) -> Result<Kernel, KvmError> {
    let read = |source| KvmError::Read {
        what: "guest kernel",
        source,
    };
    let mut file = File::from(descriptor.try_clone_to_owned().map_err(read)?);
    let length = file.metadata().map_err(read)?.len();
    let mut head = vec![0; HEAD];
    let count = read_up_to(&file, &mut head).map_err(read)?;
    head.truncate(count);
    let least = |end: u64| KvmError::TooLittleMemory {
        asked: low(memory),
        least: end.saturating_add(ROOM),
    };
    match KernelFile::judge(&head, length).map_err(KvmError::Kernel)? {
        KernelFile::Program(_) => Err(KvmError::Kernel(FileError::Program)),
        KernelFile::Elf => {
            let loaded = load::<Elf>(memory, &mut file).map_err(|error| match error {
                // The only way in which a file that was judged complete does not fit.
                KvmError::Load(_) if length > low(memory) => least(length),
                error => error,
            })?;
            let header = setup_header {
                boot_flag: BOOT_FLAG,
                header: HEADER_MAGIC,
                version: PROTOCOL,
                loadflags: LOADED_HIGH,
                ..setup_header::default()
            };
            let end = loaded.kernel_end;
            check(end, memory, least)?;
            Ok(Kernel {
                entry: loaded.kernel_load.0,
                header,
                end,
            })
        }
        KernelFile::BzImage(_) => {
            if length > low(memory) {
                return Err(least(length));
            }
            let loaded = load::<BzImage>(memory, &mut file)?;
            let header = loaded
                .setup_header
                .ok_or(KvmError::Kernel(FileError::NoKernel))?;
            // boot.rst, field `init_size`: what it needs, from where it runs.
            let unpacked = header.pref_address.saturating_add(header.init_size.into());
            let end = loaded.kernel_end.max(unpacked);
            check(end, memory, least)?;
            Ok(Kernel {
                entry: loaded.kernel_load.0 + BZIMAGE_ENTRY,
                header,
                end,
            })
        }
    }
}

fn check(end: u64, memory: &GuestMemory, least: impl Fn(u64) -> KvmError) -> Result<(), KvmError> {
    if end.saturating_add(ROOM) > low(memory) {
        return Err(least(end));
    }
    Ok(())
}

fn load<L: KernelLoader>(
    memory: &GuestMemory,
    file: &mut File,
) -> Result<KernelLoaderResult, KvmError> {
    L::load(memory, None, file, Some(GuestAddress(EXTENDED))).map_err(KvmError::Load)
}

/// Loads the initramfs behind `descriptor` to the end of RAM below the hole, where the kernel does not unpack itself
/// over it.
fn initramfs(
    memory: &GuestMemory,
    descriptor: BorrowedFd<'_>,
    kernel: &Kernel,
) -> Result<Initramfs, KvmError> {
    let read = |source| KvmError::Read {
        what: "initramfs",
        source,
    };
    let mut file = File::from(descriptor.try_clone_to_owned().map_err(read)?);
    let bytes = file.metadata().map_err(read)?.len();
    // boot.rst, field `initrd_addr_max`; an ELF kernel has no header that limits it, and takes any address.
    let highest = match kernel.header.initrd_addr_max {
        0 => u64::MAX,
        highest => u64::from(highest) + 1,
    };
    let address = low(memory)
        .min(highest)
        .checked_sub(bytes)
        .map(|address| address / PAGE * PAGE)
        .filter(|address| *address >= kernel.end.saturating_add(ROOM));
    let Some(address) = address else {
        return Err(KvmError::TooLittleMemory {
            asked: low(memory),
            least: kernel.end.saturating_add(ROOM).saturating_add(bytes),
        });
    };
    let count = usize::try_from(bytes).map_err(|error| read(io::Error::other(error)))?;
    // The descriptor's position is shared with whoever else has it open.
    file.rewind().map_err(read)?;
    memory
        .read_exact_volatile_from(GuestAddress(address), &mut file, count)
        .map_err(write("the initramfs"))?;
    Ok(Initramfs { address, bytes })
}

fn read_up_to(file: &File, buffer: &mut [u8]) -> io::Result<usize> {
    let mut count = 0;
    while let Some(rest) = buffer.get_mut(count..).filter(|rest| !rest.is_empty()) {
        match file.read_at(rest, count as u64) {
            Ok(0) => break,
            Ok(read) => count += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(count)
}
