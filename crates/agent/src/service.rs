//! The agent service: one method per call of the protocol, each a few lines over the modules that do
//! the work.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};

use async_trait::async_trait;
use tokio::sync::Notify;
use ttrpc::r#async::TtrpcContext;
use ttrpc::{Code, get_status};

use bulkhead_protocol::PROTOCOL_VERSION;
use bulkhead_protocol::api::{
    CreateContainerRequest, CreateContainerResponse, Empty, HelloRequest, HelloResponse,
    ResizeTerminalRequest, ShutdownRequest, SignalProcessRequest, StartProcessRequest,
    StartProcessResponse, WaitProcessRequest, WaitProcessResponse,
};
use bulkhead_protocol::service::Agent;
use bulkhead_types::chain;

use crate::container::{Container, CreateError, Layout};
use crate::disks::Disks;
use crate::machine;
use crate::process::Process;
use crate::pump::Method;
use crate::starter::{self, Context};
use crate::streams::Ports;
use crate::thrash;
use crate::transport::Dial;

/// The guest: its containers and their processes.
pub struct Guest {
    layout: Layout,
    disks: Arc<Disks>,
    dialer: Box<dyn Dial>,
    kernel_release: String,
    started_at_ns: u64,
    state: Mutex<State>,
    stopping: Notify,
}

#[derive(Default)]
struct State {
    /// What cgroup and directory of a container are called, by its identifier; also of one that is being created.
    names: HashMap<String, String>,
    containers: HashMap<String, Arc<Container>>,
    processes: HashMap<String, Arc<Process>>,
}

impl Guest {
    /// A guest without containers. `started_at_ns` is when the agent began, since boot.
    pub fn new(layout: Layout, dialer: Box<dyn Dial>, started_at_ns: u64) -> Self {
        let kernel_release = nix::sys::utsname::uname()
            .map(|names| names.release().to_string_lossy().into_owned())
            .unwrap_or_default();
        Self {
            disks: Arc::new(Disks::new(&layout.blocks, &layout.dev)),
            layout,
            dialer,
            kernel_release,
            started_at_ns,
            state: Mutex::default(),
            stopping: Notify::new(),
        }
    }

    /// Returns when the host has asked for a shutdown and every writable disk is clean.
    pub async fn stopped(&self) {
        self.stopping.notified().await;
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nobody panics while holding it, so a poisoned lock is still right.
        self.state
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    fn process(&self, id: &str) -> ttrpc::Result<Arc<Process>> {
        self.state()
            .processes
            .get(id)
            .cloned()
            .ok_or_else(|| status(Code::NOT_FOUND, format!("the guest has no process {id}")))
    }

    /// Ends every process, and unmounts what can be written.
    pub async fn stop(&self) {
        let (containers, processes): (Vec<_>, Vec<_>) = {
            let state = self.state();
            (
                state.containers.values().cloned().collect(),
                state.processes.values().cloned().collect(),
            )
        };
        for process in &processes {
            process.signal(libc::SIGKILL).ok();
        }
        for process in processes.iter().filter(|process| process.main) {
            process.reaped().await;
        }
        for container in containers {
            // What is still busy is made safe by the sync.
            if container.unmount().is_err() {
                nix::unistd::sync();
            }
        }
    }
}

fn status(code: Code, message: impl ToString) -> ttrpc::Error {
    ttrpc::Error::RpcStatus(get_status(code, message))
}

/// A name for a container's cgroup and directory: short, free of what a path must not hold, and nobody else's.
fn free_name<'a>(id: &str, taken: impl Iterator<Item = &'a String> + Clone) -> String {
    let letters = id.chars().filter(char::is_ascii_alphanumeric);
    let mut name: String = letters.take(12).collect();
    if name.is_empty() {
        name.push('c');
    }
    let short = name.len();
    let mut number = 1;
    while taken.clone().any(|other| *other == name) {
        number += 1;
        name.truncate(short);
        name.push_str(&format!("-{number}"));
    }
    name
}

#[async_trait]
impl Agent for Guest {
    async fn hello(&self, _: &TtrpcContext, _: HelloRequest) -> ttrpc::Result<HelloResponse> {
        let mut response = HelloResponse::new();
        response.protocol_version = PROTOCOL_VERSION;
        response.agent_version = env!("CARGO_PKG_VERSION").to_owned();
        response.kernel_release = self.kernel_release.clone();
        response.started_at_ns = self.started_at_ns;
        Ok(response)
    }

    async fn create_container(
        &self,
        _: &TtrpcContext,
        request: CreateContainerRequest,
    ) -> ttrpc::Result<CreateContainerResponse> {
        let began = machine::since_boot();
        let failed = |error: &CreateError| status(Code::FAILED_PRECONDITION, chain(error));
        let id = request.container_id.clone();
        let name = {
            let mut state = self.state();
            if state.names.contains_key(&id) {
                return Err(failed(&CreateError::Exists));
            }
            let name = free_name(&id, state.names.values());
            state.names.insert(id.clone(), name.clone());
            name
        };
        let created = if request.volumes.is_empty() {
            Container::create(&self.layout, &self.disks, &name, &request)
        } else {
            // Filling a volume may take minutes, in which other containers want to be served.
            let (layout, disks) = (self.layout.clone(), Arc::clone(&self.disks));
            let work = move || Container::create(&layout, &disks, &name, &request);
            match tokio::task::spawn_blocking(work).await {
                Ok(created) => created,
                Err(error) => Err(CreateError::Thread(error)),
            }
        };
        let mut state = self.state();
        let container = match created {
            Ok(container) => container,
            Err(error) => {
                state.names.remove(&id);
                return Err(failed(&error));
            }
        };
        let mut response = CreateContainerResponse::new();
        response.total_ns = machine::since_boot().saturating_sub(began);
        response.mount_ns = container.mount_ns;
        let container = Arc::new(container);
        tokio::spawn(thrash::watch(Arc::downgrade(&container)));
        state.containers.insert(id, container);
        Ok(response)
    }

    async fn start_process(
        &self,
        _: &TtrpcContext,
        request: StartProcessRequest,
    ) -> ttrpc::Result<StartProcessResponse> {
        let container = {
            let state = self.state();
            if state.processes.contains_key(&request.process_id) {
                let text = format!("process {} exists already", request.process_id);
                return Err(status(Code::ALREADY_EXISTS, text));
            }
            state.containers.get(&request.container_id).cloned()
        };
        let container = container.ok_or_else(|| {
            status(
                Code::NOT_FOUND,
                format!("the guest has no container {}", request.container_id),
            )
        })?;
        let process = request
            .process
            .as_ref()
            .ok_or_else(|| status(Code::INVALID_ARGUMENT, "the request describes no process"))?;
        let context = Context {
            layout: &self.layout,
            dialer: self.dialer.as_ref(),
            method: Method::for_kernel(&self.kernel_release),
        };
        let ports = Ports {
            stdin: request.stdin_port,
            stdout: request.stdout_port,
            stderr: request.stderr_port,
        };
        let main = request.process_id == request.container_id;
        let mut response = StartProcessResponse::new();
        match starter::start(&context, &container, process, ports, main).await {
            Ok((process, pid)) => {
                response.pid = pid;
                self.state().processes.insert(request.process_id, process);
            }
            Err(failure) => response.failure = Some(failure).into(),
        }
        Ok(response)
    }

    async fn wait_process(
        &self,
        _: &TtrpcContext,
        request: WaitProcessRequest,
    ) -> ttrpc::Result<WaitProcessResponse> {
        let process = self.process(&request.process_id)?;
        let exit = process.wait().await;
        if !process.main {
            // A main process stays known as long as its guest; exec'd ones would pile up.
            self.state().processes.remove(&request.process_id);
        }
        let mut response = WaitProcessResponse::new();
        response.exit_code = exit.code.into();
        response.oom_killed = exit.oom_killed;
        response.exited_at_ns = exit.at_ns;
        Ok(response)
    }

    async fn signal_process(
        &self,
        _: &TtrpcContext,
        request: SignalProcessRequest,
    ) -> ttrpc::Result<Empty> {
        let process = self.process(&request.process_id)?;
        let number = i32::try_from(request.signal).unwrap_or(-1);
        process
            .signal(number)
            .map_err(|error| match error.raw_os_error() {
                Some(libc::ESRCH) => status(Code::NOT_FOUND, "the process has ended"),
                _ => status(
                    Code::INVALID_ARGUMENT,
                    format!("cannot send signal {number}: {error}"),
                ),
            })?;
        Ok(Empty::new())
    }

    async fn resize_terminal(
        &self,
        _: &TtrpcContext,
        request: ResizeTerminalRequest,
    ) -> ttrpc::Result<Empty> {
        let process = self.process(&request.process_id)?;
        process
            .resize(request.rows, request.columns)
            .map_err(|error| {
                status(
                    Code::FAILED_PRECONDITION,
                    format!("cannot resize the terminal: {error}"),
                )
            })?;
        Ok(Empty::new())
    }

    async fn shutdown(&self, _: &TtrpcContext, _: ShutdownRequest) -> ttrpc::Result<Empty> {
        self.stop().await;
        self.stopping.notify_one();
        Ok(Empty::new())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_container_identifier_makes_a_path() {
        let none = [].iter();
        assert_eq!(free_name("../../etc/passwd", none.clone()), "etcpasswd");
        assert_eq!(free_name(&"ab".repeat(32), none.clone()), "abababababab");
        assert_eq!(free_name("../..", none), "c");
    }

    #[test]
    fn identifiers_that_begin_alike_have_names_of_their_own() {
        let mut taken: Vec<String> = Vec::new();
        for id in [
            "nginx-container-a",
            "nginx-container-b",
            "nginx-container-c",
            "n.g.inxcontain",
        ] {
            let name = free_name(id, taken.iter());
            assert!(!taken.contains(&name), "{name}");
            assert!(!name.contains('/') && !name.contains('.'), "{name}");
            taken.push(name);
        }
        assert_eq!(taken[0], "nginxcontain");
    }
}
