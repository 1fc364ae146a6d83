//! A real guest: the user-mode platform, our devices, the static agent in an initramfs.

use std::collections::HashMap;
use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bulkhead_devices::{Acceptor, Block, Rng, Vsock};
use bulkhead_harness::cannot_run;
use bulkhead_jail::{HostIds, VmRoot};
use bulkhead_platform::{
    Boot, KernelImage, KernelSearch, Machine, MachineExit, VmConfig, VmDevice, build_initramfs,
    find_kernel, platform,
};
use bulkhead_protocol::api::{
    CreateContainerRequest, CreateContainerResponse, HelloRequest, HelloResponse, Process, RootFs,
    ShutdownRequest, StartProcessRequest, StartProcessResponse, WaitProcessRequest,
    WaitProcessResponse,
};
use bulkhead_protocol::service::AgentClient;
use bulkhead_protocol::{CONTROL_PORT, GUEST_CID};
use bulkhead_types::{Capabilities, Isolation};
use tokio::io::AsyncReadExt;
use ttrpc::r#async::Client;
use ttrpc::r#async::transport::Socket;
use ttrpc::context::Context;

pub const ID: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
const MEMORY: u64 = 256 << 20;

/// What a guest needs from outside this crate, or why it is not here.
pub struct Parts {
    pub agent: PathBuf,
    pub kernel: KernelImage,
}

/// Finds a kernel and a static agent; says loudly which one is absent.
pub fn parts() -> Option<Parts> {
    let agent = std::env::var_os("BULKHEAD_AGENT")
        .map(PathBuf::from)
        .or_else(|| {
            let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent()?;
            Some(target.join("release/bulkhead-agent"))
        })?;
    if !agent.exists() {
        cannot_run!(
            "there is no static agent at {}: `make build` makes one, BULKHEAD_AGENT names another",
            agent.display()
        );
        return None;
    }
    match find_kernel(Isolation::UserMode, &KernelSearch::from_environment(None)) {
        Ok(kernel) => Some(Parts { agent, kernel }),
        Err(error) => {
            cannot_run!("{error} (BULKHEAD_KERNEL names one)");
            None
        }
    }
}

type Promises = Arc<Mutex<HashMap<u32, UnixStream>>>;

struct Ports(Promises);

impl Acceptor for Ports {
    fn accept(&mut self, port: u32) -> Option<UnixStream> {
        self.0.lock().unwrap().remove(&port)
    }
}

/// Files that outlive one boot.
pub struct Disks {
    place: tempfile::TempDir,
    image: PathBuf,
}

impl Disks {
    pub fn new() -> Self {
        let place = tempfile::tempdir().unwrap();
        let image = place.path().join("image");
        make_image(&place.path().join("tree"), &image);
        for (name, size) in [("scratch", "256M"), ("vol0", "64M")] {
            let path = place.path().join(name);
            let made = Command::new("mkfs.ext4")
                .args(["-q", "-E", "lazy_itable_init=0,lazy_journal_init=0"])
                .arg(&path)
                .arg(size)
                .status()
                .expect("the tests need the package e2fsprogs");
            assert!(made.success());
        }
        Self { place, image }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.place.path().join(name)
    }
}

fn make_image(tree: &Path, image: &Path) {
    for directory in ["bin", "etc", "srv/data/deep", "tmp"] {
        std::fs::create_dir_all(tree.join(directory)).unwrap();
    }
    std::fs::copy("/usr/bin/busybox", tree.join("bin/busybox"))
        .expect("the tests need the package busybox-static");
    let list = Command::new("/usr/bin/busybox")
        .arg("--list")
        .output()
        .unwrap();
    for applet in String::from_utf8(list.stdout)
        .unwrap()
        .lines()
        .filter(|a| *a != "busybox")
    {
        symlink("busybox", tree.join("bin").join(applet)).unwrap();
    }
    std::fs::write(
        tree.join("etc/passwd"),
        "root:x:0:0::/root:/bin/sh\nwww:x:33:34::/srv:/bin/sh\n",
    )
    .unwrap();
    std::fs::write(tree.join("etc/group"), "root:x:0:\nwww:x:34:\n").unwrap();
    std::fs::write(tree.join("srv/data/deep/file"), "from the image\n").unwrap();
    std::os::unix::fs::chown(tree.join("srv/data/deep/file"), Some(33), Some(34)).unwrap();
    let made = Command::new("mkfs.erofs").arg(image).arg(tree).output();
    let made = made.expect("the tests need the package erofs-utils");
    assert!(made.status.success(), "{made:?}");
}

pub struct Guest {
    pub client: AgentClient,
    pub hello: HelloResponse,
    pub machine: Box<dyn Machine>,
    pub booted_in: Duration,
    console: Arc<Mutex<Vec<u8>>>,
    promises: Promises,
    next_port: std::cell::Cell<u32>,
}

/// Boots a guest with the image, the scratch disk and one volume, and says hello.
pub async fn boot(parts: &Parts, disks: &Disks) -> Guest {
    let began = Instant::now();
    let initramfs = build_initramfs(&parts.agent, &parts.kernel, disks.place.path()).unwrap();
    let boot = Boot::open(Isolation::UserMode, &parts.kernel, &initramfs).unwrap();
    let root = boot.root(MEMORY).unwrap();
    let root = VmRoot::unjailed(&root, Some(HostIds::default())).unwrap();
    let (console, write) = nix::unistd::pipe().unwrap();
    let promises = Promises::default();
    let (ours, theirs) = UnixStream::pair().unwrap();
    promises.lock().unwrap().insert(CONTROL_PORT, theirs);
    let writable = |name: &str| {
        let file = File::options()
            .read(true)
            .write(true)
            .open(disks.path(name))
            .unwrap();
        Block::writable(file, name).unwrap()
    };
    let image = Block::read_only(vec![File::open(&disks.image).unwrap()], "image").unwrap();
    let device = |name: &str, device| VmDevice {
        name: name.to_owned(),
        device,
    };
    let devices = vec![
        device(
            "vsock",
            Box::new(Vsock::new(
                GUEST_CID.into(),
                Box::new(Ports(promises.clone())),
            )),
        ),
        device("image", Box::new(image) as Box<_>),
        device("scratch", Box::new(writable("scratch"))),
        device("vol0", Box::new(writable("vol0"))),
        device("rng", Box::new(Rng::new())),
    ];
    let machine = platform(Isolation::UserMode)
        .unwrap()
        .start(VmConfig {
            memory_bytes: MEMORY,
            vcpus: 1,
            boot,
            root: Some(root),
            console: write,
            devices,
            arguments: Vec::new(),
            thread_lock: None,
            page_map: None,
        })
        .unwrap();
    let console = keep(console);
    ours.set_nonblocking(true).unwrap();
    let control = tokio::net::UnixStream::from_std(ours).unwrap();
    let client = AgentClient::new(Client::new(Socket::new(control)));
    let mut request = HelloRequest::new();
    request.protocol_version = bulkhead_protocol::PROTOCOL_VERSION;
    let hello = client
        .hello(ttrpc::context::with_timeout(20_000_000_000), &request)
        .await;
    let hello = hello.unwrap_or_else(|error| {
        panic!(
            "{error}: {}",
            String::from_utf8_lossy(&console.lock().unwrap())
        )
    });
    let booted_in = began.elapsed();
    Guest {
        client,
        hello,
        machine,
        booted_in,
        console,
        promises,
        next_port: 65_536.into(),
    }
}

fn keep(console: OwnedFd) -> Arc<Mutex<Vec<u8>>> {
    let text = Arc::new(Mutex::new(Vec::new()));
    let kept = Arc::clone(&text);
    std::thread::spawn(move || {
        let mut buffer = [0; 4096];
        while let Ok(length @ 1..) = nix::unistd::read(&console, &mut buffer) {
            kept.lock().unwrap().extend_from_slice(&buffer[..length]);
        }
    });
    text
}

/// A container on the image and the scratch disk.
pub fn container() -> CreateContainerRequest {
    let mut root = RootFs::new();
    root.image_serial = "image".to_owned();
    root.scratch_serial = "scratch".to_owned();
    let mut request = CreateContainerRequest::new();
    request.container_id = ID.to_owned();
    request.hostname = "box".to_owned();
    request.root = Some(root).into();
    request.entropy = vec![7; 32];
    let now = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap();
    request.clock_realtime_ns = u64::try_from(now.as_nanos()).unwrap();
    request
}

pub fn process(args: &[&str]) -> Process {
    let mut process = Process::new();
    process.args = args.iter().map(|text| (*text).to_owned()).collect();
    process.env = vec!["PATH=/bin".to_owned()];
    process.cwd = "/".to_owned();
    process.capabilities = [
        "CHOWN",
        "DAC_OVERRIDE",
        "FOWNER",
        "KILL",
        "SETGID",
        "SETUID",
        "SYS_CHROOT",
        "MKNOD",
    ]
    .map(|name| Capabilities::named(name).unwrap().bits())
    .into_iter()
    .sum();
    process
}

pub struct Streams {
    pub stdin: Option<tokio::net::UnixStream>,
    pub stdout: tokio::net::UnixStream,
    pub stderr: tokio::net::UnixStream,
}

impl Guest {
    pub fn console(&self) -> String {
        String::from_utf8_lossy(&self.console.lock().unwrap()).into_owned()
    }

    fn promise(&self) -> (u32, tokio::net::UnixStream) {
        let port = self.next_port.get();
        self.next_port.set(port + 1);
        let (ours, theirs) = UnixStream::pair().unwrap();
        self.promises.lock().unwrap().insert(port, theirs);
        ours.set_nonblocking(true).unwrap();
        (port, tokio::net::UnixStream::from_std(ours).unwrap())
    }

    pub async fn create(&self, request: &CreateContainerRequest) -> CreateContainerResponse {
        let created = self
            .client
            .create_container(Context::default(), request)
            .await;
        created.unwrap_or_else(|error| panic!("{error}: {}", self.console()))
    }

    pub async fn start(
        &self,
        id: &str,
        process: Process,
        stdin: bool,
    ) -> (StartProcessResponse, Streams) {
        let mut request = StartProcessRequest::new();
        request.container_id = ID.to_owned();
        request.process_id = id.to_owned();
        request.process = Some(process).into();
        let stdin = stdin.then(|| self.promise());
        let (stdout_port, stdout) = self.promise();
        let (stderr_port, stderr) = self.promise();
        request.stdin_port = stdin.as_ref().map_or(0, |(port, _)| *port);
        (request.stdout_port, request.stderr_port) = (stdout_port, stderr_port);
        let response = self
            .client
            .start_process(Context::default(), &request)
            .await
            .unwrap();
        (
            response,
            Streams {
                stdin: stdin.map(|(_, stream)| stream),
                stdout,
                stderr,
            },
        )
    }

    pub async fn wait(&self, id: &str) -> WaitProcessResponse {
        let mut request = WaitProcessRequest::new();
        request.process_id = id.to_owned();
        self.client
            .wait_process(Context::default(), &request)
            .await
            .unwrap()
    }

    /// Runs a process to its end: exit code, stdout, stderr.
    pub async fn run(&self, id: &str, process: Process) -> (u32, String, String) {
        let (response, mut streams) = self.start(id, process, false).await;
        assert!(response.failure.is_none(), "{:?}", response.failure);
        let (mut out, mut err) = (String::new(), String::new());
        let (a, b) = tokio::join!(
            streams.stdout.read_to_string(&mut out),
            streams.stderr.read_to_string(&mut err)
        );
        a.unwrap();
        b.unwrap();
        (self.wait(id).await.exit_code, out, err)
    }

    /// Asks for a shutdown and waits for the machine's end.
    pub async fn shut_down(mut self) -> (MachineExit, String) {
        let context = ttrpc::context::with_timeout(20_000_000_000);
        // The answer may or may not arrive before the machine is gone.
        self.client
            .shutdown(context, &ShutdownRequest::new())
            .await
            .ok();
        let exit = self.machine.wait().unwrap();
        (exit, self.console())
    }
}
