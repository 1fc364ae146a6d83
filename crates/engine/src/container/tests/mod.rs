//! Containers on disk, end to end but for the guest: a run is acted by a lock and a state file, which
//! is all that the engine believes in.

mod creation;
mod leftovers;
mod listing;
mod names;
mod removal;
mod warnings;

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use bulkhead_platform::{KernelImage, KernelKind};
use bulkhead_sandbox::{LOCK_FILE, STATE_FILE, State, Status, is_running};
use bulkhead_types::{ByteSize, Digest, ExitStatus, Isolation, Signal};
use jiff::{SignedDuration, Timestamp};
use nix::fcntl::{FcntlArg, fcntl};
use oci_spec::image::{Config as ImageConfig, ConfigBuilder};
use tempfile::TempDir;

use super::create::CreateImage;
use super::*;
use crate::guest::Guest;
use crate::{Engine, EngineConfig, Environment, Error, ErrorKind};

struct Bench {
    dir: TempDir,
    engine: Engine,
}

impl Bench {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let engine = open(dir.path());
        Self { dir, engine }
    }

    fn create(&self, options: CreateOptions) -> Result<Container, Error> {
        create(&self.engine, &options, ImageConfig::default())
    }

    fn named(&self, name: &str) -> Container {
        self.create(CreateOptions {
            name: Some(name.parse().unwrap()),
            ..options()
        })
        .unwrap()
    }

    fn entries(&self, dir: &str) -> Vec<String> {
        let entries = fs::read_dir(self.dir.path().join(dir)).unwrap();
        entries
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect()
    }

    fn list(&self, filters: &[&str]) -> Vec<String> {
        self.list_with(true, filters)
    }

    fn list_with(&self, all: bool, filters: &[&str]) -> Vec<String> {
        let options = ListOptions {
            all,
            filters: Filters::parse(filters).unwrap(),
            ..Default::default()
        };
        self.engine
            .list(&options)
            .unwrap()
            .into_iter()
            .map(|c| c.name.to_string())
            .collect()
    }
}

fn open(root: &Path) -> Engine {
    let environment = Environment {
        uid: 1000,
        ..Default::default()
    };
    Engine::open(EngineConfig {
        create_root: true,
        root: Some(root.to_owned()),
        config_file: None,
        environment,
    })
    .unwrap()
}

fn options() -> CreateOptions {
    CreateOptions {
        image: "debian".to_owned(),
        command: vec!["sh".to_owned(), "-c".to_owned(), "true".to_owned()],
        disk: Some(ByteSize(32 << 20)),
        ..Default::default()
    }
}

fn create(
    engine: &Engine,
    options: &CreateOptions,
    config: ImageConfig,
) -> Result<Container, Error> {
    let image = CreateImage {
        id: Digest::from_bytes([7; 32]),
        config,
        disk: vec!["/image".into()],
    };
    engine.create_from(options, &image, &guest())
}

fn guest() -> Guest {
    Guest {
        isolation: Isolation::UserMode,
        kernel: kernel(),
        initramfs: "/initramfs".into(),
    }
}

fn kernel() -> KernelImage {
    KernelImage {
        isolation: bulkhead_types::Isolation::UserMode,
        path: "/kernel".into(),
        kind: KernelKind::Tuned,
        modules: None,
        libraries: Vec::new(),
        dax: false,
    }
}

/// A run: the lock is held as long as this lives.
struct Run {
    file: Option<File>,
    dir: PathBuf,
}

impl Drop for Run {
    fn drop(&mut self) {
        drop(self.file.take());
        // Another test's thread may be between fork and exec, with a copy of the descriptor.
        while self.dir.exists() && is_running(&self.dir).unwrap() {
            std::thread::yield_now();
        }
    }
}

fn run(container: &Container) -> Run {
    let file = File::create(container.dir().join(LOCK_FILE)).unwrap();
    let lock = libc::flock {
        l_type: libc::F_WRLCK as i16,
        l_whence: libc::SEEK_SET as i16,
        l_start: 0,
        l_len: 0,
        l_pid: 0,
    };
    fcntl(&file, FcntlArg::F_OFD_SETLK(&lock)).unwrap();
    record(container, Status::Running, None);
    Run {
        file: Some(file),
        dir: container.dir().to_owned(),
    }
}

fn record(container: &Container, status: Status, code: Option<u8>) {
    let ago = Timestamp::now() - SignedDuration::from_secs(300);
    let state = State {
        status,
        started_at: (status != Status::Created).then_some(ago),
        finished_at: (status == Status::Exited).then_some(ago),
        exit: code.map(ExitStatus::exited),
        ..State::created()
    };
    fs::write(
        container.dir().join(STATE_FILE),
        serde_json::to_vec(&state).unwrap(),
    )
    .unwrap();
}

fn message<T: std::fmt::Debug>(result: Result<T, Error>) -> String {
    result.unwrap_err().to_string()
}
