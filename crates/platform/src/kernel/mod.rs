//! Guest kernels on this host: which there are, which is taken, what they need.

mod elf;
mod search;

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

pub use elf::ElfError;
pub use search::{KernelSearch, find_kernel};

use elf::Elf;

/// What sort of kernel a file holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum KernelKind {
    /// Built with our configuration: one static file, everything built in.
    Tuned,
    /// A distribution's user-mode Linux: dynamically linked, with modules.
    Distribution,
}

impl KernelKind {
    /// What its command line needs beyond what every kernel gets.
    pub(crate) fn arguments(self) -> &'static [&'static str] {
        match self {
            Self::Tuned => &[],
            // Three self-tests and benchmarks of drivers that no compartment uses: a second of start time.
            Self::Distribution => {
                &["initcall_blacklist=raid6_select_algo,calibrate_xor_blocks,init_btrfs_fs"]
            }
        }
    }
}

/// A user-mode kernel that was found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KernelImage {
    /// The executable.
    pub path: PathBuf,
    /// What sort it is.
    pub kind: KernelKind,
    /// Where its modules lie, for [`KernelKind::Distribution`].
    pub modules: Option<PathBuf>,
    /// Loader and shared libraries that it needs.
    pub libraries: Vec<PathBuf>,
}

/// A kernel cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum KernelError {
    /// None was found anywhere.
    #[error(
        "no guest kernel found (looked for {}); build one with 'make kernel' or install Debian's package user-mode-linux",
        list(looked)
    )]
    NotFound {
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
    /// The file is no executable for this machine.
    #[error("{path} is not a user-mode kernel for this machine")]
    Format {
        /// Its path.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: ElfError,
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
    /// The platform has no kernel lookup in this build.
    #[error("this build has no kernels for the {0} platform yet")]
    Platform(bulkhead_types::Isolation),
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

impl KernelImage {
    /// Judges the file at `path`. Modules of a distribution's kernel are looked for in `modules`.
    pub(crate) fn inspect(path: &Path, modules: &Path) -> Result<Self, KernelError> {
        let read = |source| KernelError::Read {
            path: path.to_owned(),
            source,
        };
        let format = |source| KernelError::Format {
            path: path.to_owned(),
            source,
        };
        let mut file = File::open(path).map_err(read)?;
        let mut head = vec![0_u8; 4096];
        let length = file.read(&mut head).map_err(read)?;
        head.truncate(length);
        let static_file = Elf::parse(&head).map_err(format)?.interpreter().is_none();
        if static_file {
            return Ok(Self {
                path: path.to_owned(),
                kind: KernelKind::Tuned,
                modules: None,
                libraries: Vec::new(),
            });
        }
        file.take(HEAD_BYTES).read_to_end(&mut head).map_err(read)?;
        let elf = Elf::parse(&head).map_err(format)?;
        Ok(Self {
            path: path.to_owned(),
            kind: KernelKind::Distribution,
            modules: Some(newest_modules(modules).ok_or_else(|| KernelError::Modules {
                path: path.to_owned(),
                modules: modules.to_owned(),
            })?),
            libraries: libraries(path, &elf)?,
        })
    }
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
