//! Everything a start needs from the host's file system, opened before the jail closes.

use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bulkhead_jail::{Content, RootFile, VmRootSpec};

use crate::kernel::KernelImage;

/// Name of the initramfs in the kernel's root.
pub(crate) const INITRAMFS: &str = "initramfs";

/// Room in the kernel's root beside guest memory and copied files: its pid file, a test page, directories.
const ROOM: u64 = 4 << 20;

/// A file for the start could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum BootError {
    /// The kernel.
    #[error("cannot open the guest kernel {path}")]
    Kernel {
        /// Its path.
        path: PathBuf,
        /// The host's answer.
        #[source]
        source: io::Error,
    },
    /// A library that the kernel needs.
    #[error("cannot open {path}, which the guest kernel needs")]
    Library {
        /// Its path.
        path: PathBuf,
        /// The host's answer.
        #[source]
        source: io::Error,
    },
    /// The initramfs.
    #[error("cannot open the initramfs {path}")]
    Initramfs {
        /// Its path.
        path: PathBuf,
        /// The host's answer.
        #[source]
        source: io::Error,
    },
}

/// An opened kernel with its initramfs.
#[derive(Debug, Clone)]
pub struct Boot {
    kernel: Arc<OwnedFd>,
    arguments: &'static [&'static str],
    files: Vec<RootFile>,
}

impl Boot {
    /// Opens `kernel`, the libraries it needs, and `initramfs`.
    pub fn open(kernel: &KernelImage, initramfs: &Path) -> Result<Self, BootError> {
        let file = File::open(&kernel.path).map_err(|source| BootError::Kernel {
            path: kernel.path.clone(),
            source,
        })?;
        let mut files = vec![RootFile {
            name: INITRAMFS.to_owned(),
            content: Content::File(Arc::new(
                File::open(initramfs)
                    .map_err(|source| BootError::Initramfs {
                        path: initramfs.to_owned(),
                        source,
                    })?
                    .into(),
            )),
            executable: false,
        }];
        for path in &kernel.libraries {
            let library = File::open(path).map_err(|source| BootError::Library {
                path: path.clone(),
                source,
            })?;
            files.push(RootFile {
                name: path.to_string_lossy().trim_start_matches('/').to_owned(),
                content: Content::File(Arc::new(library.into())),
                executable: true,
            });
        }
        // A guest kernel that cannot learn the processor's flags still works; it only lists none.
        if let Some(flags) = File::open("/proc/cpuinfo")
            .ok()
            .and_then(|file| processor_flags(BufReader::new(file)))
        {
            files.push(RootFile {
                name: "proc/cpuinfo".to_owned(),
                content: Content::Bytes(flags),
                executable: false,
            });
        }
        Ok(Self {
            kernel: Arc::new(file.into()),
            arguments: kernel.kind.arguments(),
            files,
        })
    }

    /// What the kernel process's private root shall be, for a guest with `memory_bytes` of memory.
    pub fn root(&self, memory_bytes: u64) -> VmRootSpec {
        VmRootSpec {
            bytes: memory_bytes.saturating_add(ROOM),
            huge_pages: true,
            files: self.files.clone(),
        }
    }

    /// The descriptors that must stay open when a jail closes all others.
    pub fn descriptors(&self) -> Vec<RawFd> {
        let files = self.files.iter().filter_map(|file| match &file.content {
            Content::File(fd) => Some(fd.as_raw_fd()),
            Content::Bytes(_) => None,
        });
        files.chain([self.kernel.as_raw_fd()]).collect()
    }

    pub(crate) fn kernel(&self) -> BorrowedFd<'_> {
        self.kernel.as_fd()
    }

    /// Loader and libraries.
    pub(crate) fn libraries(&self) -> Vec<BorrowedFd<'_>> {
        let libraries = self.files.iter().filter(|file| file.executable);
        libraries
            .filter_map(|file| match &file.content {
                Content::File(fd) => Some(fd.as_fd()),
                Content::Bytes(_) => None,
            })
            .collect()
    }

    pub(crate) fn arguments(&self) -> &'static [&'static str] {
        self.arguments
    }
}

/// The two lines that the kernel looks for in the host's /proc/cpuinfo, and nothing else of it.
fn processor_flags(cpuinfo: impl BufRead) -> Option<Vec<u8>> {
    let mut found = Vec::new();
    for line in cpuinfo.lines() {
        let line = line.ok()?;
        // The first processor is enough; they end with an empty line.
        if line.is_empty() {
            break;
        }
        if line.starts_with("flags") || line.starts_with("cache_alignment") {
            found.extend_from_slice(line.as_bytes());
            found.push(b'\n');
        }
    }
    (!found.is_empty()).then_some(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_flags_and_alignment_of_the_first_processor_are_passed_on() {
        let host = "processor\t: 0\nserial\t: secret\nflags\t\t: fpu sse2\ncache_alignment\t: 64\n\nprocessor\t: 1\nflags : x\n";
        let passed = processor_flags(host.as_bytes()).expect("the flags are there");
        assert_eq!(passed, b"flags\t\t: fpu sse2\ncache_alignment\t: 64\n");
        assert_eq!(processor_flags("processor : 0\n".as_bytes()), None);
    }
}
