//! Everything a start needs from the host's file system, opened before the jail closes.

use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bulkhead_jail::{Content, RootFile, VmRootSpec};
use bulkhead_types::Isolation;

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
    /// The device that makes virtual machines.
    #[error("cannot open {DEVICE}{}", hint(source))]
    Kvm {
        /// The host's answer.
        #[source]
        source: io::Error,
    },
}

/// The device that makes virtual machines.
const DEVICE: &str = "/dev/kvm";

fn hint(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::PermissionDenied => " (membership in group kvm gives the permission)",
        io::ErrorKind::NotFound => " (this host offers no KVM)",
        _ => "",
    }
}

/// An opened kernel with its initramfs.
#[derive(Debug, Clone)]
pub struct Boot {
    kernel: Arc<OwnedFd>,
    initramfs: Arc<OwnedFd>,
    arguments: &'static [&'static str],
    platform: Prepared,
}

/// What only one platform needs.
#[derive(Debug, Clone)]
enum Prepared {
    /// The files of the kernel process's root.
    UserMode(Vec<RootFile>),
    /// The opened device.
    Kvm(Arc<OwnedFd>),
}

impl Boot {
    /// Opens `kernel` and `initramfs`, and what else a start on the platform needs: the kernel's libraries, or the
    /// device that makes virtual machines.
    pub fn open(
        isolation: Isolation,
        kernel: &KernelImage,
        initramfs: &Path,
    ) -> Result<Self, BootError> {
        let file = File::open(&kernel.path).map_err(|source| BootError::Kernel {
            path: kernel.path.clone(),
            source,
        })?;
        let initramfs: Arc<OwnedFd> = File::open(initramfs)
            .map(|file| Arc::new(file.into()))
            .map_err(|source| BootError::Initramfs {
                path: initramfs.to_owned(),
                source,
            })?;
        let platform = match isolation {
            Isolation::UserMode => Prepared::UserMode(root_files(kernel, &initramfs)?),
            Isolation::Kvm => {
                let device = OpenOptions::new().read(true).write(true).open(DEVICE);
                let device = device.map_err(|source| BootError::Kvm { source })?;
                Prepared::Kvm(Arc::new(device.into()))
            }
        };
        Ok(Self {
            kernel: Arc::new(file.into()),
            initramfs,
            arguments: kernel.arguments(),
            platform,
        })
    }

    /// What the kernel process's private root shall be, for a guest with `memory_bytes` of memory. `None` on a platform
    /// that runs the guest in the sandbox's own process.
    pub fn root(&self, memory_bytes: u64) -> Option<VmRootSpec> {
        match &self.platform {
            Prepared::UserMode(files) => Some(VmRootSpec {
                bytes: memory_bytes.saturating_add(ROOM),
                huge_pages: true,
                files: files.clone(),
            }),
            Prepared::Kvm(_) => None,
        }
    }

    /// The descriptors that must stay open when a jail closes all others.
    pub fn descriptors(&self) -> Vec<RawFd> {
        let mut descriptors = vec![self.kernel.as_raw_fd(), self.initramfs.as_raw_fd()];
        match &self.platform {
            Prepared::UserMode(files) => {
                descriptors.extend(files.iter().filter_map(|file| match &file.content {
                    Content::File(fd) => Some(fd.as_raw_fd()),
                    Content::Bytes(_) => None,
                }))
            }
            Prepared::Kvm(device) => descriptors.push(device.as_raw_fd()),
        }
        descriptors
    }

    pub(crate) fn kernel(&self) -> BorrowedFd<'_> {
        self.kernel.as_fd()
    }

    /// Loader and libraries; none on a platform whose kernels need none.
    pub(crate) fn libraries(&self) -> Vec<BorrowedFd<'_>> {
        let files = match &self.platform {
            Prepared::UserMode(files) => files.as_slice(),
            Prepared::Kvm(_) => &[],
        };
        let libraries = files.iter().filter(|file| file.executable);
        libraries
            .filter_map(|file| match &file.content {
                Content::File(fd) => Some(fd.as_fd()),
                Content::Bytes(_) => None,
            })
            .collect()
    }

    /// Words of the command line that this kernel needs beyond what every kernel of the platform gets.
    pub(crate) fn arguments(&self) -> &'static [&'static str] {
        self.arguments
    }

    pub(crate) fn initramfs(&self) -> BorrowedFd<'_> {
        self.initramfs.as_fd()
    }

    /// The opened device, where the start was prepared for KVM.
    pub(crate) fn kvm(&self) -> Option<BorrowedFd<'_>> {
        match &self.platform {
            Prepared::UserMode(_) => None,
            Prepared::Kvm(device) => Some(device.as_fd()),
        }
    }
}

/// What the user-mode kernel finds in its root.
fn root_files(kernel: &KernelImage, initramfs: &Arc<OwnedFd>) -> Result<Vec<RootFile>, BootError> {
    let mut files = vec![RootFile {
        name: INITRAMFS.to_owned(),
        content: Content::File(Arc::clone(initramfs)),
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
    Ok(files)
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
