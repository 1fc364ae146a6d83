//! The whole agent inside the test's process: served over a socket pair, in a mount namespace of the
//! test's thread, on an image made by `mkfs.erofs` and mounted from its file.

use std::collections::HashMap;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex};

use bulkhead_agent::{Dial, Dialing, Guest, Layout, Served, Stream, serve};
use bulkhead_protocol::api::{
    CreateContainerRequest, Process, RootFs, StartProcessRequest, StartProcessResponse,
    WaitProcessRequest, WaitProcessResponse,
};
use bulkhead_protocol::service::AgentClient;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::stat::{Mode, SFlag, makedev, mknod, umask};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use ttrpc::r#async::Client;
use ttrpc::r#async::transport::Socket;
use ttrpc::context::Context;

pub const ID: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

/// Hands out connections that the test has promised.
#[derive(Default, Clone)]
struct Exchange(Arc<Mutex<HashMap<u32, OwnedFd>>>);

impl Dial for Exchange {
    fn dial(&self, port: u32) -> Dialing<'_> {
        let end = self.0.lock().unwrap().remove(&port);
        Box::pin(async move {
            Stream::new(end.ok_or_else(|| io::Error::from_raw_os_error(libc::ECONNRESET))?)
        })
    }
}

pub struct Rig {
    pub client: AgentClient,
    pub served: tokio::task::JoinHandle<Served>,
    exchange: Exchange,
    next_port: std::cell::Cell<u32>,
}

/// A started process's streams; the stdin stream is absent where the process has /dev/null.
pub struct Streams {
    pub stdin: Option<UnixStream>,
    pub stdout: UnixStream,
    pub stderr: UnixStream,
}

/// Runs a test against an agent with one created container, whose request the test may change.
pub fn with_container<T, F: Future<Output = T>>(
    change: impl FnOnce(&mut CreateContainerRequest),
    test: impl FnOnce(Rig) -> F,
) -> T {
    assert!(
        nix::unistd::geteuid().is_root(),
        "these tests mount file systems: run them as root"
    );
    // As the agent has it at boot.
    umask(Mode::empty());
    let place = tempfile::tempdir().unwrap();
    let layout = prepare(place.path());
    // Only this thread gets the namespace: what the test mounts goes with it.
    unshare(CloneFlags::CLONE_NEWNS).unwrap();
    mount(
        None::<&str>,
        "/",
        None::<&str>,
        MsFlags::MS_REC | MsFlags::MS_PRIVATE,
        None::<&str>,
    )
    .unwrap();

    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let exchange = Exchange::default();
        let (ours, theirs) = UnixStream::pair().unwrap();
        let control = Stream::new(theirs.into_std().unwrap().into()).unwrap();
        let guest = Arc::new(Guest::new(layout, Box::new(exchange.clone()), 1));
        let served = tokio::spawn(async move { serve(guest, control).await.unwrap() });
        let client = AgentClient::new(Client::new(Socket::new(ours)));
        let mut request = CreateContainerRequest::new();
        request.container_id = ID.to_owned();
        request.hostname = "box".to_owned();
        let mut root = RootFs::new();
        root.image_serial = "image".to_owned();
        request.root = Some(root).into();
        change(&mut request);
        client
            .create_container(Context::default(), &request)
            .await
            .unwrap();
        test(Rig {
            client,
            served,
            exchange,
            next_port: 70_000.into(),
        })
        .await
    })
}

fn prepare(place: &Path) -> Layout {
    for directory in ["run", "dev", "sys/vda"] {
        std::fs::create_dir_all(place.join(directory)).unwrap();
    }
    std::fs::write(place.join("sys/vda/serial"), "image\n").unwrap();
    symlink("/dev/null", place.join("dev/null")).unwrap();
    let mode = Mode::from_bits_truncate(0o666);
    mknod(&place.join("dev/full"), SFlag::S_IFCHR, mode, makedev(1, 7)).unwrap();
    make_image(&place.join("image"), &place.join("dev/vda"));
    Layout {
        run: place.join("run"),
        dev: place.join("dev"),
        blocks: place.join("sys"),
        cgroups: None,
        program: PathBuf::from(env!("CARGO_BIN_EXE_bulkhead-agent")),
        owns_machine: false,
    }
}

fn make_image(tree: &Path, image: &Path) {
    for directory in ["bin", "etc", "tmp", "scripts"] {
        std::fs::create_dir_all(tree.join(directory)).unwrap();
    }
    std::fs::copy("/usr/bin/busybox", tree.join("bin/busybox"))
        .expect("the tests need the package busybox-static");
    for applet in [
        "sh", "cat", "true", "id", "sleep", "ps", "stty", "readlink", "yes", "head", "ls",
    ] {
        symlink("busybox", tree.join("bin").join(applet)).unwrap();
    }
    // The init is the agent's program, which a test build links dynamically.
    let libraries = Command::new("ldd")
        .arg(env!("CARGO_BIN_EXE_bulkhead-agent"))
        .output()
        .unwrap();
    for path in String::from_utf8(libraries.stdout)
        .unwrap()
        .split_whitespace()
    {
        if let Some(relative) = path.strip_prefix('/') {
            let copy = tree.join(relative);
            std::fs::create_dir_all(copy.parent().unwrap()).unwrap();
            std::fs::copy(path, copy).unwrap();
        }
    }
    std::fs::write(
        tree.join("etc/passwd"),
        "root:x:0:0::/root:/bin/sh\nwww:x:33:34::/srv:/bin/sh\n",
    )
    .unwrap();
    std::fs::write(
        tree.join("etc/group"),
        "root:x:0:\nwww:x:34:\nadm:x:4:www\n",
    )
    .unwrap();
    for (name, text, mode) in [
        ("plain", "text", 0o644),
        ("foreign", "\x7fELF nonsense", 0o755),
        ("orphan", "#!/no/such/interpreter\n", 0o755),
    ] {
        let path = tree.join("scripts").join(name);
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
    }
    let made = Command::new("mkfs.erofs").arg(image).arg(tree).output();
    let made = made.expect("the tests need the package erofs-utils");
    assert!(made.status.success(), "{made:?}");
}

/// A process with Docker's habits.
pub fn process(args: &[&str]) -> Process {
    let mut process = Process::new();
    process.args = args.iter().map(|text| (*text).to_owned()).collect();
    process.env = vec!["PATH=/bin:/scripts".to_owned()];
    process.cwd = "/".to_owned();
    process
}

impl Rig {
    /// The container's root as the agent sees it.
    pub fn root(&self) -> PathBuf {
        let mounts = std::fs::read_to_string("/proc/thread-self/mounts").unwrap();
        let mut points = mounts.lines().filter_map(|line| line.split(' ').nth(1));
        let point = points.find(|point| point.ends_with("/0123456789ab/root"));
        PathBuf::from(point.expect("the root is mounted"))
    }

    fn promise(&self) -> (u32, UnixStream) {
        let port = self.next_port.get();
        self.next_port.set(port + 1);
        let (ours, theirs) = UnixStream::pair().unwrap();
        self.exchange
            .0
            .lock()
            .unwrap()
            .insert(port, theirs.into_std().unwrap().into());
        (port, ours)
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
        let terminal = process.terminal;
        request.process = Some(process).into();
        let stdin = stdin.then(|| self.promise());
        let (stdout_port, stdout) = self.promise();
        let (stderr_port, stderr) = self.promise();
        request.stdin_port = stdin.as_ref().map_or(0, |(port, _)| *port);
        request.stdout_port = stdout_port;
        request.stderr_port = if terminal { 0 } else { stderr_port };
        let response = self
            .client
            .start_process(Context::default(), &request)
            .await
            .unwrap();
        let stdin = stdin.map(|(_, stream)| stream);
        (
            response,
            Streams {
                stdin,
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
}

impl Streams {
    /// Writes all of the input and closes it.
    pub async fn feed(&mut self, bytes: &[u8]) {
        let mut stdin = self.stdin.take().unwrap();
        stdin.write_all(bytes).await.unwrap();
        stdin.shutdown().await.unwrap();
        self.stdin = Some(stdin);
    }
}
