//! A guest made of threads. Its "programs" are chosen by the first argument.

use std::cell::RefCell;
use std::collections::HashMap;
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use async_trait::async_trait;
use bulkhead_protocol::CONTROL_PORT;
use bulkhead_protocol::api::*;
use bulkhead_protocol::service::{Agent, create_agent};
use bulkhead_types::{ByteSize, Isolation, ProcessSpec};
use tokio::sync::watch;
use ttrpc::r#async::TtrpcContext;

use crate::client::Client;
use crate::compartment::{Boot, BootError, Guest, Parts, Walls, run};
use crate::event::{self, Event, EventReceiver, Received};
use crate::lock::RunLock;
use crate::message::{AttachOptions, Exit, Started, Stdio};
use crate::spec::SandboxSpec;
use crate::streams::Ports;
use crate::timings::Timings;

/// A repeating but position-dependent megabyte.
pub fn pattern(megabyte: usize) -> Vec<u8> {
    (0..1 << 20)
        .map(|i: usize| (i.wrapping_mul(31) ^ (i >> 8) ^ megabyte.wrapping_mul(17)) as u8)
        .collect()
}

#[derive(Default)]
pub struct FakeBoot {
    /// The guest ends before its agent answers.
    pub dies_at_boot: bool,
    /// The kernel cannot be started.
    pub refuses: bool,
    /// The agent never says hello.
    pub mute: bool,
    /// The agent answers no signal, as if its kernel hung.
    pub wedged: bool,
    /// Whatever its agent and its console say tries to steer a terminal.
    pub hostile: bool,
}

/// Sets a terminal's title and clipboard, in the two ways there are, and forges a line.
pub const HOSTILE: &str = "a\x1b]0;title\x07\u{9b}31m\x1b]52;c;aGk=\x07\nWARNING: forged";

struct FakeGuest {
    alive: Arc<Mutex<Option<io::PipeWriter>>>,
    exit: io::PipeReader,
}

impl Boot for FakeBoot {
    fn boot(
        self: Box<Self>,
        ports: Ports,
        console: OwnedFd,
        _walls: &mut Walls,
    ) -> Result<Box<dyn Guest>, BootError> {
        if self.refuses {
            return Err(BootError("no such kernel".to_owned()));
        }
        let (exit, alive) = io::pipe().unwrap();
        let alive = Arc::new(Mutex::new(Some(alive)));
        let mut console = std::fs::File::from(console);
        console
            .write_all(b"Linux version fake\nKernel panic - not syncing: fake\n")
            .unwrap();
        if self.hostile {
            console.write_all(HOSTILE.as_bytes()).unwrap();
        }
        if self.dies_at_boot {
            alive.lock().unwrap().take();
            return Ok(Box::new(FakeGuest { alive, exit }));
        }
        let control = ports
            .connect(CONTROL_PORT)
            .expect("the control port is open before the boot");
        let service = FakeAgent {
            ports,
            alive: Arc::clone(&alive),
            processes: Arc::default(),
            console: Mutex::new(console),
            mute: self.mute,
            wedged: self.wedged,
            hostile: self.hostile,
        };
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            runtime.block_on(async move {
                control.set_nonblocking(true).unwrap();
                let stream = tokio::net::UnixStream::from_std(control).unwrap();
                let alive = Arc::clone(&service.alive);
                let once = futures_once(stream);
                let mut server = ttrpc::r#async::Server::new()
                    .add_listener(ttrpc::r#async::transport::Listener::new(once))
                    .register_service(create_agent(Arc::new(service)));
                server.start().await.unwrap();
                while alive.lock().unwrap().is_some() {
                    tokio::time::sleep(Duration::from_millis(2)).await;
                }
            });
        });
        Ok(Box::new(FakeGuest { alive, exit }))
    }
}

fn futures_once(
    stream: tokio::net::UnixStream,
) -> impl futures::Stream<Item = io::Result<tokio::net::UnixStream>> + Send {
    use futures::StreamExt;
    futures::stream::once(async move { Ok(stream) }).chain(futures::stream::pending())
}

impl Guest for FakeGuest {
    fn exit_fd(&self) -> io::Result<OwnedFd> {
        Ok(self.exit.try_clone()?.into())
    }

    fn stop(&mut self) {
        self.alive.lock().unwrap().take();
    }

    fn describe_exit(&mut self) -> String {
        "fake kernel ended".to_owned()
    }
}

struct FakeAgent {
    ports: Ports,
    alive: Arc<Mutex<Option<io::PipeWriter>>>,
    processes: Arc<Mutex<HashMap<String, FakeProcess>>>,
    console: Mutex<std::fs::File>,
    mute: bool,
    wedged: bool,
    hostile: bool,
}

#[derive(Clone)]
struct FakeProcess {
    signals: Arc<watch::Sender<u32>>,
    exit: watch::Receiver<Option<u32>>,
}

#[async_trait]
impl Agent for FakeAgent {
    async fn hello(&self, _: &TtrpcContext, request: HelloRequest) -> ttrpc::Result<HelloResponse> {
        if self.mute {
            std::future::pending::<()>().await;
        }
        let mut response = HelloResponse::new();
        response.protocol_version = request.protocol_version;
        response.kernel_release = "6.12-fake".to_owned();
        if self.hostile {
            response.kernel_release.push_str(HOSTILE);
        }
        Ok(response)
    }

    async fn create_container(
        &self,
        _: &TtrpcContext,
        request: CreateContainerRequest,
    ) -> ttrpc::Result<CreateContainerResponse> {
        assert!(request.entropy.len() >= 32 && request.clock_realtime_ns > 0);
        if request.hostname == "hostile" {
            return Err(ttrpc::Error::RpcStatus(ttrpc::get_status(
                ttrpc::Code::INTERNAL,
                HOSTILE,
            )));
        }
        if request.hostname == "refuse" {
            return Err(ttrpc::Error::RpcStatus(ttrpc::get_status(
                ttrpc::Code::INTERNAL,
                "mount the image disk: bad superblock",
            )));
        }
        Ok(CreateContainerResponse::new())
    }

    async fn start_process(
        &self,
        _: &TtrpcContext,
        request: StartProcessRequest,
    ) -> ttrpc::Result<StartProcessResponse> {
        let process = request.process.clone().unwrap_or_default();
        let program = process.args.first().cloned().unwrap_or_default();
        let mut response = StartProcessResponse::new();
        let failure = match program.as_str() {
            "missing" => Some(start_failure::Kind::NOT_FOUND),
            "plain-file" => Some(start_failure::Kind::NOT_EXECUTABLE),
            "unkillable" if self.hostile => {
                return Err(ttrpc::Error::RpcStatus(ttrpc::get_status(
                    ttrpc::Code::INTERNAL,
                    HOSTILE,
                )));
            }
            _ => None,
        };
        if let Some(kind) = failure {
            let mut failure = StartFailure::new();
            failure.kind = kind.into();
            failure.message = format!("exec: \"{program}\": no");
            if self.hostile {
                failure.message = HOSTILE.to_owned();
            }
            response.failure = Some(failure).into();
            return Ok(response);
        }
        if program == "late" {
            self.start_late(request.process_id);
            return Err(ttrpc::Error::Others("too slow".to_owned()));
        }
        response.pid = 1;
        let connect = |port: u32| {
            if port == 0 {
                None
            } else {
                Some(
                    self.ports
                        .connect(port)
                        .expect("the host opens ports first"),
                )
            }
        };
        let io = (
            connect(request.stdin_port),
            connect(request.stdout_port),
            connect(request.stderr_port),
        );
        let (signals, heard) = watch::channel(0);
        let (exited, exit) = watch::channel(None);
        self.processes.lock().unwrap().insert(
            request.process_id,
            FakeProcess {
                signals: Arc::new(signals),
                exit,
            },
        );
        if program == "panic" {
            let (mut console, alive) = (
                self.console.lock().unwrap().try_clone().unwrap(),
                Arc::clone(&self.alive),
            );
            std::thread::spawn(move || {
                std::thread::sleep(Duration::from_millis(50));
                console
                    .write_all(b"Kernel panic - not syncing: on request\n")
                    .unwrap();
                alive.lock().unwrap().take();
            });
            return Ok(response);
        }
        std::thread::spawn(move || {
            let code = play(&process.args, io, heard);
            let _ = exited.send(Some(code));
        });
        Ok(response)
    }

    async fn wait_process(
        &self,
        _: &TtrpcContext,
        request: WaitProcessRequest,
    ) -> ttrpc::Result<WaitProcessResponse> {
        let process = self
            .processes
            .lock()
            .unwrap()
            .get(&request.process_id)
            .cloned();
        let mut exit = process
            .ok_or_else(|| ttrpc::Error::Others("no such process".to_owned()))?
            .exit;
        let code = exit
            .wait_for(Option::is_some)
            .await
            .map(|code| code.unwrap_or(0));
        let mut response = WaitProcessResponse::new();
        response.exit_code = code.map_err(|e| ttrpc::Error::Others(e.to_string()))?;
        Ok(response)
    }

    async fn signal_process(
        &self,
        _: &TtrpcContext,
        request: SignalProcessRequest,
    ) -> ttrpc::Result<Empty> {
        if self.wedged {
            std::future::pending::<()>().await;
        }
        match self.processes.lock().unwrap().get(&request.process_id) {
            Some(process) => drop(process.signals.send_replace(request.signal)),
            None => return Err(ttrpc::Error::Others("no such process".to_owned())),
        }
        Ok(Empty::new())
    }

    async fn resize_terminal(
        &self,
        _: &TtrpcContext,
        _: ResizeTerminalRequest,
    ) -> ttrpc::Result<Empty> {
        Ok(Empty::new())
    }

    async fn shutdown(&self, _: &TtrpcContext, _: ShutdownRequest) -> ttrpc::Result<Empty> {
        self.alive.lock().unwrap().take();
        Ok(Empty::new())
    }
}

impl FakeAgent {
    /// A process that appears after its start was reported as failed, and says on the console that it was killed.
    fn start_late(&self, id: String) {
        let processes = Arc::clone(&self.processes);
        let mut console = self.console.lock().unwrap().try_clone().unwrap();
        std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(500));
            let (signals, heard) = watch::channel(0);
            let (exited, exit) = watch::channel(None);
            let process = FakeProcess {
                signals: Arc::new(signals),
                exit,
            };
            processes.lock().unwrap().insert(id, process);
            let code = play(&["stubborn".to_owned()], (None, None, None), heard);
            console.write_all(b"late process killed\n").unwrap();
            let _ = exited.send(Some(code));
        });
    }
}

type FakeIo = (Option<UnixStream>, Option<UnixStream>, Option<UnixStream>);

/// One program, to its exit code.
fn play(
    args: &[String],
    (stdin, mut stdout, mut stderr): FakeIo,
    mut signals: watch::Receiver<u32>,
) -> u32 {
    let arg = |index: usize| args.get(index).map(String::as_str).unwrap_or_default();
    match arg(0) {
        "echo" => {
            if let Some(out) = &mut stdout {
                out.write_all(arg(1).as_bytes()).unwrap();
            }
            if let Some(err) = &mut stderr {
                err.write_all(arg(2).as_bytes()).unwrap();
            }
            arg(3).parse().unwrap_or(0)
        }
        "cat" => {
            let (mut input, mut output) = (stdin.unwrap(), stdout.unwrap());
            if io::copy(&mut input, &mut output).is_ok() {
                0
            } else {
                1
            }
        }
        "cat-quietly" => u32::from(io::copy(&mut stdin.unwrap(), &mut io::sink()).is_err()),
        "bulk" => {
            let out = stdout.as_mut().unwrap();
            for megabyte in 0..arg(1).parse().unwrap() {
                out.write_all(&pattern(megabyte % 4)).unwrap();
            }
            0
        }
        "sleep" | "stubborn" => {
            let stubborn = arg(0) == "stubborn";
            let runtime = tokio::runtime::Builder::new_current_thread()
                .build()
                .unwrap();
            let heard = runtime
                .block_on(signals.wait_for(|signal| *signal == 9 || (*signal > 0 && !stubborn)));
            heard.map_or(0, |signal| 128 + *signal)
        }
        "answer" => {
            // Puts one file beside another as soon as that is there, unless it is told to end.
            while !Path::new(arg(1)).exists() {
                if *signals.borrow() > 0 {
                    return 128 + *signals.borrow();
                }
                std::thread::sleep(Duration::from_millis(2));
            }
            std::fs::write(arg(2), "").unwrap();
            0
        }
        "linger" => {
            // Its exit is told although its output never ends.
            std::mem::forget(stdout);
            3
        }
        other => panic!("no program {other}"),
    }
}

/// A compartment in this process.
pub struct Running {
    pub dir: tempfile::TempDir,
    pub client: Client,
    events: RefCell<EventReceiver>,
    lock: Option<RunLock>,
    thread: Option<JoinHandle<()>>,
    pub early: Option<UnixStream>,
}

pub fn spec(args: &[&str]) -> SandboxSpec {
    serde_json::from_value(serde_json::json!({
        "id": "ab".repeat(32),
        "hostname": "box",
        "isolation": Isolation::UserMode,
        "memory": ByteSize(1 << 26),
        "cpus": 1,
        "kernel": { "isolation": Isolation::UserMode, "path": "/k", "kind": "tuned", "modules": null, "libraries": [] },
        "initramfs": "/i",
        "image": [],
        "process": ProcessSpec { args: args.iter().map(|a| (*a).to_owned()).collect(), ..ProcessSpec::default() },
        "open_stdin": true,
        "stdin_once": true,
    }))
    .unwrap()
}

impl Running {
    pub fn start(spec: SandboxSpec, stdio: Option<(Stdio, AttachOptions)>) -> Self {
        Self::boot(spec, stdio, FakeBoot::default())
    }

    pub fn boot(spec: SandboxSpec, stdio: Option<(Stdio, AttachOptions)>, boot: FakeBoot) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let lock = RunLock::take(dir.path()).unwrap();
        let open = |name: &str| {
            let options = std::fs::OpenOptions::new()
                .read(true)
                .write(true)
                .create(true)
                .truncate(false)
                .clone();
            options.open(dir.path().join(name)).unwrap()
        };
        let (events, monitor) = event::channel().unwrap();
        let (mut early, mut theirs) = (None, None);
        if let Some((stdio, options)) = stdio {
            let (a, b) = UnixStream::pair().unwrap();
            crate::client::Attachment::request(a.try_clone().unwrap(), stdio, options).unwrap();
            (early, theirs) = (Some(a), Some(b));
        }
        let parts = Parts {
            spec: Box::new(spec),
            listener: UnixListener::bind(dir.path().join("ctl.sock")).unwrap(),
            early: theirs,
            monitor,
            log: Some([open("log.0"), open("log.1")]),
            console_log: open("console.log"),
            timings: Timings::default(),
        };
        let client = Client::open(dir.path()).unwrap();
        let thread = std::thread::spawn(move || run(parts, Walls::default(), Box::new(boot)));
        Self {
            dir,
            client,
            events: RefCell::new(events),
            lock: Some(lock),
            thread: Some(thread),
            early,
        }
    }

    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    pub fn event(&self) -> Event {
        loop {
            match self.events.borrow_mut().receive().unwrap() {
                Received::Event(event) => return *event,
                Received::Nothing => std::thread::sleep(Duration::from_millis(1)),
                Received::Closed => panic!("the sandbox is gone without a word"),
            }
        }
    }

    pub fn started(&self) -> Started {
        match self.event() {
            Event::Started(started) => started,
            other => panic!("{other:?}"),
        }
    }

    /// The end as the monitor hears it; acknowledges it and waits until the sandbox is gone.
    pub fn ended(&mut self) -> Exit {
        match self.event() {
            Event::Ended { exit, .. } => {
                self.recorded();
                exit
            }
            other => panic!("{other:?}"),
        }
    }

    /// Acknowledges the end as the monitor does, and waits until the sandbox is gone.
    pub fn recorded(&mut self) {
        self.events.borrow().acknowledge();
        self.let_go();
    }

    pub fn failed(&self) -> crate::StartFailure {
        match self.event() {
            Event::Failed { failure, .. } => failure,
            other => panic!("{other:?}"),
        }
    }

    /// Waits until the sandbox is gone, and lets go of the lock as the monitor would.
    pub fn let_go(&mut self) {
        self.thread.take().unwrap().join().unwrap();
        self.lock.take();
    }

    /// Nothing was said for this long.
    pub fn silent_for(&self, time: Duration) -> bool {
        std::thread::sleep(time);
        matches!(self.events.borrow_mut().receive(), Ok(Received::Nothing))
    }

    pub fn log_text(&self) -> Vec<u8> {
        crate::LogReader::open(self.path(), crate::LogFilter::default())
            .unwrap()
            .flat_map(|e| e.unwrap().bytes)
            .collect()
    }
}

/// Pipes as a caller's stdio: what it reads, what it writes.
pub fn stdout_pipe() -> (Stdio, io::PipeReader) {
    let (reader, writer) = io::pipe().unwrap();
    (
        Stdio {
            stdout: Some(writer.into()),
            ..Stdio::default()
        },
        reader,
    )
}
