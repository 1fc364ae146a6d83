//! Calls to the agent, with bounds on how long each may take.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bulkhead_protocol::PROTOCOL_VERSION;
use bulkhead_protocol::api::{
    CreateContainerRequest, Device, HelloRequest, HelloResponse, Process, ResizeTerminalRequest,
    RootFs, ShutdownRequest, SignalProcessRequest, StartProcessRequest, Tmpfs, Volume,
    WaitProcessRequest, start_failure,
};
use bulkhead_protocol::service::AgentClient;
use bulkhead_types::{ExitStatus, GuestText, ProcessSpec, Signal, TerminalSize};
use ttrpc::context::{Context, with_duration};

use crate::failure::StartFailure;
use crate::spec::SandboxSpec;
use crate::streams::ProcessIo;

/// A guest that has not answered by then is broken; a loaded host needs some seconds.
const BOOT_WITHIN: Duration = Duration::from_secs(30);
/// Mounting and filling new volumes may copy much.
const CREATE_WITHIN: Duration = Duration::from_secs(120);
const START_WITHIN: Duration = Duration::from_secs(30);
const ANSWER_WITHIN: Duration = Duration::from_secs(5);
const SEED: usize = 64;

/// The agent's answer to a call could not be had.
#[derive(Debug, thiserror::Error)]
pub(super) enum AgentError {
    #[error("{call}: {}", words(.source))]
    Call {
        call: &'static str,
        source: ttrpc::Error,
    },
    #[error("agent speaks protocol version {0}, this sandbox {PROTOCOL_VERSION}")]
    Version(u32),
    #[error("get random bytes: {0}")]
    Random(getrandom::Error),
}

/// The agent is a guest's; of whatever it says, nothing is taken as it is.
fn words(error: &ttrpc::Error) -> GuestText {
    match error {
        ttrpc::Error::RpcStatus(status) => GuestText::line(&status.message),
        other => GuestText::from(other.to_string()),
    }
}

/// The agent in the guest.
#[derive(Clone)]
pub(super) struct Agent {
    client: AgentClient,
}

impl Agent {
    /// Takes the control connection; may be called before the guest has connected to its other end.
    pub fn new(control: std::os::unix::net::UnixStream) -> std::io::Result<Self> {
        let socket = ttrpc::r#async::transport::Socket::try_from(control)?;
        Ok(Self {
            client: AgentClient::new(ttrpc::r#async::Client::new(socket)),
        })
    }

    pub async fn hello(&self) -> Result<HelloResponse, AgentError> {
        let mut request = HelloRequest::new();
        request.protocol_version = PROTOCOL_VERSION;
        let response = self
            .client
            .hello(with_duration(BOOT_WITHIN), &request)
            .await
            .map_err(call("wait for the agent"))?;
        if response.protocol_version != PROTOCOL_VERSION {
            return Err(AgentError::Version(response.protocol_version));
        }
        Ok(response)
    }

    pub async fn create(&self, spec: &SandboxSpec) -> Result<(), AgentError> {
        let request = create_request(spec)?;
        self.client
            .create_container(with_duration(CREATE_WITHIN), &request)
            .await
            .map_err(call("create container"))?;
        Ok(())
    }

    /// Starts a process; the inner result says whether it was executed, and gives its PID.
    pub async fn start(
        &self,
        container: &str,
        id: &str,
        spec: &ProcessSpec,
        io: &ProcessIo,
    ) -> Result<Result<u32, StartFailure>, AgentError> {
        let mut request = StartProcessRequest::new();
        request.container_id = container.to_owned();
        request.process_id = id.to_owned();
        request.process = Some(Process::from(spec)).into();
        request.stdin_port = io.ports.stdin;
        request.stdout_port = io.ports.stdout;
        request.stderr_port = io.ports.stderr;
        let response = self
            .client
            .start_process(with_duration(START_WITHIN), &request)
            .await
            .map_err(call("start process"))?;
        Ok(match response.failure.into_option() {
            Some(failure) => Err(start_failure(
                failure.kind.enum_value_or_default(),
                failure.message,
            )),
            None => Ok(response.pid),
        })
    }

    /// Waits for as long as the process lives.
    pub async fn wait(&self, id: &str) -> Result<ExitStatus, AgentError> {
        let mut request = WaitProcessRequest::new();
        request.process_id = id.to_owned();
        let response = self
            .client
            .wait_process(Context::default(), &request)
            .await
            .map_err(call("wait for process"))?;
        Ok(ExitStatus::from(&response))
    }

    pub async fn signal(&self, id: &str, signal: Signal) -> Result<(), AgentError> {
        let mut request = SignalProcessRequest::new();
        request.process_id = id.to_owned();
        request.signal = signal.number().into();
        self.client
            .signal_process(with_duration(ANSWER_WITHIN), &request)
            .await
            .map_err(call("signal process"))?;
        Ok(())
    }

    pub async fn resize(&self, id: &str, size: TerminalSize) -> Result<(), AgentError> {
        let mut request = ResizeTerminalRequest::new();
        request.process_id = id.to_owned();
        request.rows = size.rows.into();
        request.columns = size.columns.into();
        self.client
            .resize_terminal(with_duration(ANSWER_WITHIN), &request)
            .await
            .map_err(call("resize terminal"))?;
        Ok(())
    }

    /// Asks for an orderly end. The answer is that the guest goes.
    pub async fn shutdown(&self, within: Duration) {
        let _ = self
            .client
            .shutdown(with_duration(within), &ShutdownRequest::new())
            .await;
    }
}

fn call(call: &'static str) -> impl Fn(ttrpc::Error) -> AgentError {
    move |source| AgentError::Call { call, source }
}

fn start_failure(kind: start_failure::Kind, message: String) -> StartFailure {
    use start_failure::Kind;
    let message = GuestText::from(message);
    match kind {
        Kind::NOT_FOUND => StartFailure::CommandNotFound { message },
        Kind::NOT_EXECUTABLE => StartFailure::NotExecutable { message },
        Kind::UNKNOWN_USER => StartFailure::UnknownUser { message },
        Kind::NOT_RUNNING => StartFailure::NotRunning { message },
        Kind::SETUP | Kind::UNSPECIFIED => StartFailure::Setup { message },
    }
}

fn create_request(spec: &SandboxSpec) -> Result<CreateContainerRequest, AgentError> {
    let mut root = RootFs::new();
    root.image_serial = IMAGE_SERIAL.to_owned();
    if spec.scratch.is_some() {
        root.scratch_serial = SCRATCH_SERIAL.to_owned();
    }
    root.read_only = spec.read_only;
    let mut seed = vec![0; SEED];
    getrandom::fill(&mut seed).map_err(AgentError::Random)?;

    let mut request = CreateContainerRequest::new();
    request.container_id = spec.id.as_str().to_owned();
    request.hostname = spec.hostname.clone();
    request.root = Some(root).into();
    request.volumes = spec
        .volumes
        .iter()
        .enumerate()
        .map(|(index, disk)| {
            let mut volume = Volume::new();
            volume.serial = volume_serial(index);
            volume.target = disk.target.clone();
            volume.read_only = disk.read_only;
            volume
        })
        .collect();
    request.tmpfs = spec
        .tmpfs
        .iter()
        .map(|mount| Tmpfs::at(&mount.target, &mount.options))
        .collect();
    request.masked_paths = spec.masked_paths.clone();
    request.readonly_paths = spec.readonly_paths.clone();
    request.devices = spec
        .devices
        .iter()
        .map(|wanted| {
            let mut device = Device::new();
            device.node = wanted.node.clone();
            device.target = wanted.target.clone();
            device
        })
        .collect();
    request.privileged = spec.privileged;
    request.cpu_limit_nanos = spec.cpu_limit_nanos;
    request.memory_limit = spec.memory_limit.map_or(0, |limit| limit.0);
    request.clock_realtime_ns = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .ok()
        .and_then(|d| u64::try_from(d.as_nanos()).ok())
        .unwrap_or(0);
    request.entropy = seed;
    request.init = spec.init;
    request.shm_size = spec.shm_size.0;
    Ok(request)
}

/// Serial number of the image disk.
pub(crate) const IMAGE_SERIAL: &str = "image";
/// Serial number of the container's writable disk.
pub(crate) const SCRATCH_SERIAL: &str = "scratch";

/// Serial number of a volume's disk.
pub(crate) fn volume_serial(index: usize) -> String {
    format!("vol{index}")
}
