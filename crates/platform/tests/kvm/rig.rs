//! Machines for tests.

use std::fs::File;
use std::io::Read;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use bulkhead_harness::cannot_run;
use bulkhead_platform::{
    Boot, KernelImage, KernelKind, Machine, MachineExit, PlatformError, VmConfig, VmDevice,
    kvm_obstacles, platform,
};
use bulkhead_types::Isolation;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

/// Longer than any of these machines needs, even where processors are emulated: a test that waits for so long has
/// failed, and says so instead of hanging.
const PATIENCE: Duration = Duration::from_secs(300);

/// Whether machines can be made, if only to run a few instructions.
pub fn can_make_machines() -> bool {
    match File::options().read(true).write(true).open("/dev/kvm") {
        Ok(_) => true,
        Err(error) => {
            cannot_run!("/dev/kvm does not open: {error}");
            false
        }
    }
}

/// Whether whole kernels can be run.
pub fn can_run_kernels() -> bool {
    let obstacles = kvm_obstacles();
    let reasons: Vec<String> = obstacles.iter().map(ToString::to_string).collect();
    if !reasons.is_empty() {
        cannot_run!("{}", reasons.join("; "));
    }
    reasons.is_empty()
}

/// What a machine is made of.
pub struct Plan {
    pub kernel: KernelImage,
    pub initramfs: PathBuf,
    pub memory: u64,
    pub vcpus: u32,
    pub words: Vec<String>,
    pub devices: Vec<VmDevice>,
}

/// A directory with a kernel and an initramfs for it.
pub struct Files(tempfile::TempDir);

impl Files {
    pub fn new(kernel: &[u8]) -> Self {
        let place = tempfile::tempdir().expect("a directory");
        std::fs::write(place.path().join("kernel"), kernel).expect("written");
        std::fs::write(place.path().join("initramfs"), b"nothing").expect("written");
        Self(place)
    }

    pub fn path(&self) -> &Path {
        self.0.path()
    }

    pub fn plan(&self) -> Plan {
        Plan {
            kernel: image(self.path().join("kernel")),
            initramfs: self.path().join("initramfs"),
            memory: 64 << 20,
            vcpus: 1,
            words: Vec::new(),
            devices: Vec::new(),
        }
    }
}

/// A kernel's file without anything beside it.
pub fn image(path: PathBuf) -> KernelImage {
    KernelImage {
        isolation: Isolation::Kvm,
        path,
        kind: KernelKind::Tuned,
        modules: None,
        libraries: Vec::new(),
        dax: false,
    }
}

/// A machine that was started, and what it prints.
pub struct Started {
    pub machine: Box<dyn Machine>,
    console: std::io::PipeReader,
    printed: String,
}

impl Plan {
    pub fn start(self) -> Result<Started, PlatformError> {
        let (console, write) = std::io::pipe().expect("a pipe");
        let machine = platform(Isolation::Kvm)?.start(VmConfig {
            memory_bytes: self.memory,
            vcpus: self.vcpus,
            boot: Boot::open(Isolation::Kvm, &self.kernel, &self.initramfs).expect("files"),
            root: None,
            console: write.into(),
            devices: self.devices,
            arguments: self.words,
            thread_lock: None,
            page_map: File::open("/proc/self/pagemap").ok(),
        })?;
        Ok(Started {
            machine,
            console,
            printed: String::new(),
        })
    }

    /// Starts it and waits for its end.
    pub fn run(self) -> (MachineExit, String) {
        self.start().expect("a machine").end()
    }
}

impl Started {
    /// Reads the console until `text` was printed.
    pub fn wait_for(&mut self, text: &str) {
        while !self.printed.contains(text) {
            assert!(self.read(), "no '{text}' in:\n{}", self.printed);
        }
    }

    /// Whether something was printed that was not read yet.
    pub fn has_more(&self) -> bool {
        let mut fds = [PollFd::new(self.console.as_fd(), PollFlags::POLLIN)];
        poll(&mut fds, PollTimeout::ZERO).expect("a descriptor") == 1
    }

    /// Reads what there is, and forgets all that was printed.
    pub fn drain(&mut self) {
        while self.has_more() && self.read() {}
        self.printed.clear();
    }

    /// All of the console's bytes, after the machine's end.
    pub fn bytes(&mut self) -> Vec<u8> {
        let mut bytes = Vec::new();
        self.console.read_to_end(&mut bytes).expect("the console");
        bytes
    }

    /// Reads once; false at the console's end.
    fn read(&mut self) -> bool {
        let mut fds = [PollFd::new(self.console.as_fd(), PollFlags::POLLIN)];
        let patience = PollTimeout::try_from(PATIENCE).expect("short enough");
        let ready = poll(&mut fds, patience).expect("a descriptor");
        assert_eq!(ready, 1, "the guest is silent after:\n{}", self.printed);
        let mut buffer = [0; 4096];
        let count = self.console.read(&mut buffer).expect("the console");
        self.printed += &String::from_utf8_lossy(&buffer[..count]);
        count > 0
    }

    /// Waits for the machine's end; how it came, and all that was printed.
    pub fn end(mut self) -> (MachineExit, String) {
        while self.read() {}
        let exit = self.machine.wait().expect("an end");
        for device in self.machine.finish_devices() {
            assert!(device.outcome.is_ok(), "{device:?}");
        }
        (exit, self.printed)
    }
}

/// Waits until so many threads of this process have such a name: one that was started names itself when it comes to
/// run, and one that was joined is still listed for a moment.
pub fn wait_for_threads(name: &str, expected: usize) {
    let deadline = Instant::now() + PATIENCE;
    while threads_called(name) != expected {
        assert!(
            Instant::now() < deadline,
            "{} threads are called {name}, not {expected}",
            threads_called(name)
        );
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn threads_called(name: &str) -> usize {
    let tasks = std::fs::read_dir("/proc/self/task").expect("a proc file system");
    tasks
        .filter_map(Result::ok)
        .filter_map(|task| std::fs::read_to_string(task.path().join("comm")).ok())
        .filter(|comm| comm.trim() == name)
        .count()
}
