//! Guest kernels on this host: which there are, which is taken, what they need.
//!
//! ```text
//! search    the places, best first     file      what a file is: program, ELF, bzImage, or no kernel at all
//! version   newest release first       elf, bzimage   the two formats' headers
//! processor can it carry the processor's extended state
//! ```

mod bzimage;
mod elf;
mod file;
mod processor;
mod search;
mod version;

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use bulkhead_types::Isolation;
use serde::{Deserialize, Serialize};

pub use file::FileError;
pub use search::{KernelSearch, find_kernel};

use elf::Elf;
pub(crate) use file::KernelFile;

/// What sort of kernel a file holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum KernelKind {
    /// Built with our configuration: one file, everything built in.
    Tuned,
    /// A distribution's, with modules; as a user-mode kernel dynamically linked, for a machine a bzImage.
    Distribution,
}

/// A kernel that was found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KernelImage {
    /// The platform that can run it.
    pub isolation: Isolation,
    /// The file: a program for the user-mode platform, for KVM an ELF file ([`KernelKind::Tuned`]) or a bzImage
    /// ([`KernelKind::Distribution`]).
    pub path: PathBuf,
    /// What sort it is.
    pub kind: KernelKind,
    /// Where its modules lie, for [`KernelKind::Distribution`].
    pub modules: Option<PathBuf>,
    /// Loader and shared libraries that it needs; none but on the user-mode platform.
    pub libraries: Vec<PathBuf>,
    /// It can use a disk that is memory (virtio-pmem). An ELF file for KVM is taken to have all drivers built in.
    #[serde(default)]
    pub dax: bool,
}

/// A kernel cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum KernelError {
    /// None was found anywhere.
    #[error(
        "no guest kernel for the {isolation} platform found (looked for {})",
        list(looked)
    )]
    NotFound {
        /// The platform.
        isolation: Isolation,
        /// Where it was looked for.
        looked: Vec<PathBuf>,
    },
    /// The file cannot be read.
    #[error("cannot read the guest kernel {path}")]
    Read {
        /// Its path.
        path: PathBuf,
        /// The host's answer.
        #[source]
        source: io::Error,
    },
    /// The file is no kernel for this machine and platform.
    #[error("cannot use {path} as the {isolation} platform's guest kernel")]
    Format {
        /// The platform.
        isolation: Isolation,
        /// Its path.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: FileError,
    },
    /// A library that it needs is missing.
    #[error("the guest kernel {path} needs {library}, which is not installed")]
    Library {
        /// The kernel.
        path: PathBuf,
        /// The library's name.
        library: String,
    },
    /// Its modules are missing.
    #[error("the guest kernel {path} needs modules, and there are none in {modules}")]
    Modules {
        /// The kernel.
        path: PathBuf,
        /// Where they were looked for.
        modules: PathBuf,
    },
    /// It cannot run programs on this host's processor.
    #[error(
        "the guest kernel {path} cannot run programs on this processor: their extended state is {state} bytes here \
         (AMX), and a user-mode kernel before Linux 6.13 keeps 2696"
    )]
    Processor {
        /// The kernel.
        path: PathBuf,
        /// Bytes of the processor's extended state.
        state: u32,
    },
}

impl KernelError {
    /// What the user can do about it, as a sentence without an end.
    pub fn remedy(&self) -> String {
        let get = |isolation: &Isolation| match isolation {
            // Who built one as root looks for it as somebody else.
            Isolation::Kvm => {
                "build one with 'make kernel' (it is its builder's alone until 'make install' puts it where every user \
                 finds it), or install Debian's package linux-image-cloud-amd64"
            }
            Isolation::UserMode => {
                "build one with 'make kernel' (it is its builder's alone until 'make install' puts it where every user \
                 finds it), or install Debian's package user-mode-linux"
            }
        };
        match self {
            Self::NotFound { isolation, .. } => get(isolation).to_owned(),
            Self::Read { path, source } if source.kind() == io::ErrorKind::PermissionDenied => {
                let path = path.display();
                format!("let everybody read it ('chmod a+r {path}' as root), or build one with 'make kernel'")
            }
            Self::Read { .. } => "name another with BULKHEAD_KERNEL, or none: then one is searched for".to_owned(),
            Self::Format {
                isolation: Isolation::Kvm,
                source: FileError::Program,
                ..
            } => "run it with '--isolation user-mode', or name a kernel for KVM with BULKHEAD_KERNEL".to_owned(),
            Self::Format {
                isolation: Isolation::UserMode,
                source: FileError::Machine,
                ..
            } => "run it with '--isolation kvm', or name a user-mode kernel with BULKHEAD_KERNEL".to_owned(),
            Self::Format { isolation, .. } => {
                format!("name another with BULKHEAD_KERNEL, {}", get(isolation))
            }
            Self::Processor { .. } => "build one that can: 'make kernel'".to_owned(),
            Self::Library { .. } | Self::Modules { .. } => {
                "install what belongs to this kernel, or build one that needs nothing: 'make kernel'".to_owned()
            }
        }
    }
}

fn list(paths: &[PathBuf]) -> String {
    paths
        .iter()
        .map(|path| path.display().to_string())
        .collect::<Vec<_>>()
        .join(", ")
}

/// Headers, dynamic section and string table of every kernel we know lie well within this.
const HEAD_BYTES: u64 = 32 << 20;

/// Enough for the headers of an ELF file or a bzImage.
const FIRST_BYTES: usize = 4096;

/// The version's text in a bzImage is cut here.
const VERSION_BYTES: usize = 256;

impl KernelImage {
    /// Judges the file at `path` as a kernel for `isolation`. Modules of a distribution's kernel are looked for in
    /// `modules`, which has a directory for each release.
    pub(crate) fn inspect(
        isolation: Isolation,
        path: &Path,
        modules: &Path,
    ) -> Result<Self, KernelError> {
        let read = |source| KernelError::Read {
            path: path.to_owned(),
            source,
        };
        let format = |source| KernelError::Format {
            isolation,
            path: path.to_owned(),
            source,
        };
        let mut file = File::open(path).map_err(read)?;
        let length = file.metadata().map_err(read)?.len();
        let mut head = vec![0_u8; FIRST_BYTES];
        let first = file.read(&mut head).map_err(read)?;
        head.truncate(first);
        let image = Self {
            isolation,
            path: path.to_owned(),
            kind: KernelKind::Tuned,
            modules: None,
            libraries: Vec::new(),
            dax: isolation == Isolation::Kvm,
        };
        match (isolation, KernelFile::judge(&head, length).map_err(format)?) {
            (Isolation::Kvm, KernelFile::Elf) => Ok(image),
            (Isolation::Kvm, KernelFile::BzImage(header)) => {
                let mut text = vec![0; VERSION_BYTES];
                let at = header
                    .version_at()
                    .ok_or_else(|| format(FileError::Damaged))?;
                let bytes = file.read_at(&mut text, at).map_err(read)?;
                text.truncate(bytes);
                let release = bzimage::release(&text).ok_or_else(|| format(FileError::Damaged))?;
                let modules = modules.join(release);
                let dax = ["virtio_pmem", "nd_pmem"]
                    .iter()
                    .all(|module| has_module(&modules, module));
                if !modules.join("modules.dep").exists() {
                    return Err(KernelError::Modules {
                        path: path.to_owned(),
                        modules,
                    });
                }
                Ok(Self {
                    kind: KernelKind::Distribution,
                    modules: Some(modules),
                    dax,
                    ..image
                })
            }
            (Isolation::Kvm, KernelFile::Program(_)) => Err(format(FileError::Program)),
            (Isolation::UserMode, KernelFile::Elf | KernelFile::BzImage(_)) => {
                Err(format(FileError::Machine))
            }
            (Isolation::UserMode, KernelFile::Program(elf)) if !elf.is_user_mode_kernel() => {
                Err(format(FileError::OtherProgram))
            }
            (Isolation::UserMode, KernelFile::Program(elf)) if elf.interpreter().is_none() => {
                Ok(image)
            }
            (Isolation::UserMode, KernelFile::Program(_)) => {
                file.take(HEAD_BYTES).read_to_end(&mut head).map_err(read)?;
                let elf = Elf::parse(&head).map_err(format)?;
                Ok(Self {
                    kind: KernelKind::Distribution,
                    modules: Some(newest_modules(modules).ok_or_else(|| KernelError::Modules {
                        path: path.to_owned(),
                        modules: modules.to_owned(),
                    })?),
                    libraries: libraries(path, &elf)?,
                    ..image
                })
            }
        }
    }

    /// What its command line needs beyond what every kernel gets.
    pub(crate) fn arguments(&self) -> &'static [&'static str] {
        match (self.isolation, self.kind) {
            // Three self-tests and benchmarks of drivers that no compartment uses: a second of start time.
            (Isolation::UserMode, KernelKind::Distribution) => {
                &["initcall_blacklist=raid6_select_algo,calibrate_xor_blocks,init_btrfs_fs"]
            }
            (Isolation::UserMode, KernelKind::Tuned) => &[],
            (Isolation::Kvm, KernelKind::Tuned) => &[
                NO_BOUNCE_BUFFERS,
                // Statistics of every slab and parameters of every driver as files, which nobody reads: a megabyte of
                // memory and a seventh of the kernel's start.
                "initcall_blacklist=slab_late_init,param_sysfs_builtin_init",
            ],
            // Self-tests of cryptography and tracing, certificates for modules that come with the kernel anyway: four
            // fifths of the kernel's start.
            (Isolation::Kvm, KernelKind::Distribution) => &[
                NO_BOUNCE_BUFFERS,
                // Its profiles are for a distribution's own services, which no compartment has.
                "apparmor=0",
                "cryptomgr.notests",
                "initcall_blacklist=load_system_certificate_list,trace_eval_init,init_kprobe_trace,init_blk_tracer,\
                 slab_sysfs_init,crypto_kdf108_init,blake2s_mod_init,snapshot_device_init,digsig_init",
            ],
        }
    }
}

/// All devices reach all memory. Without the word, memory above 4 GiB makes the kernel set 64 MiB aside, and fill them.
const NO_BOUNCE_BUFFERS: &str = "swiotlb=noforce";

/// Whether a kernel has a driver, as a module or built in.
fn has_module(modules: &Path, name: &str) -> bool {
    // What follows says how it is compressed, if it is.
    let file = format!("/{name}.ko");
    ["modules.dep", "modules.builtin"].iter().any(|list| {
        std::fs::read_to_string(modules.join(list)).is_ok_and(|list| {
            list.lines()
                .filter_map(|line| line.split(':').next())
                .any(|module| module.contains(&file))
        })
    })
}

/// Loader and libraries of a dynamically linked kernel, by the paths under which its loader will look for them.
fn libraries(path: &Path, elf: &Elf<'_>) -> Result<Vec<PathBuf>, KernelError> {
    const DIRECTORIES: [&str; 4] = [
        "/lib/x86_64-linux-gnu",
        "/usr/lib/x86_64-linux-gnu",
        "/lib64",
        "/usr/lib64",
    ];
    let loader = elf.interpreter().unwrap_or_default();
    let mut libraries = vec![PathBuf::from(loader)];
    for name in elf.needed() {
        let found = DIRECTORIES
            .iter()
            .map(|dir| Path::new(dir).join(name))
            .find(|path| path.exists());
        let library = found.ok_or_else(|| KernelError::Library {
            path: path.to_owned(),
            library: (*name).to_owned(),
        })?;
        libraries.push(library);
    }
    Ok(libraries)
}

/// The directory under `root` (one for each version) that holds a `modules.dep`; the last by name.
fn newest_modules(root: &Path) -> Option<PathBuf> {
    let versions = std::fs::read_dir(root).ok()?;
    versions
        .filter_map(Result::ok)
        .map(|entry| entry.path())
        .filter(|path| path.join("modules.dep").exists())
        .max()
}
