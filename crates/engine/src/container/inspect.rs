//! `inspect`: a container in the shape of Docker's API (`GET /containers/{id}/json`, v1.47).
//!
//! Keys that describe what Bulkhead does not have (networks, storage drivers, cgroup parents) are
//! absent rather than filled with inventions. What is Bulkhead's own is under `Bulkhead`.

use bulkhead_sandbox::{State, Status};
use bulkhead_types::{Rlimit, Signal};
use jiff::Timestamp;
use serde_json::{Map, Value, json};

use super::filter::status_word;
use super::{Container, ContainerError, DeviceMapping, rlimits};
use crate::Engine;
use crate::error::Error;

/// Docker's "never".
const NEVER: &str = "0001-01-01T00:00:00Z";

impl Engine {
    /// The container as `docker inspect` shows it.
    pub fn inspect(&self, container: &Container) -> Result<Value, Error> {
        let state = container.state()?;
        let restart = json!({ "Name": "no", "MaximumRetryCount": 0 });
        let record = &container.record;
        let spec = &record.sandbox;
        let (path, args) = spec
            .process
            .args
            .split_first()
            .map_or(("", [].as_slice()), |(p, a)| (p.as_str(), a));
        let mut host = host_config(container)?;
        host.insert("RestartPolicy".to_owned(), restart);
        Ok(json!({
            "Id": record.id,
            "Created": record.created.to_string(),
            "Path": path,
            "Args": args,
            "State": state_json(&state),
            "Image": record.image_id,
            "HostnamePath": "",
            "LogPath": container.dir.join("log.0"),
            "Name": format!("/{}", record.name),
            "RestartCount": 0,
            "Driver": "bulkhead",
            "Platform": "linux",
            "HostConfig": host,
            "Mounts": mounts(container),
            "Config": config(container),
            "SizeRw": container.disk_usage(),
            "Bulkhead": {
                "Isolation": spec.isolation,
                "Kernel": spec.kernel.path,
                "KernelRelease": state.kernel_release,
                "Initramfs": spec.initramfs,
                "GuestMemory": spec.memory,
                "Cpus": spec.cpus,
                "DiskSize": record.host.disk,
                "Capabilities": spec.process.capabilities,
                "Directory": container.dir,
                "MonitorPid": state.monitor_pid,
                "LogBytesLost": state.log_bytes_lost,
                "Warnings": container.state_warnings(&state),
                "Jail": {
                    "Weakened": spec.jail.weakened,
                    "Standing": state.jail.standing,
                    "Missing": state.jail.missing,
                },
            },
        }))
    }
}

fn state_json(state: &State) -> Value {
    let time = |at: Option<Timestamp>| at.map_or_else(|| NEVER.to_owned(), |at| at.to_string());
    json!({
        "Status": status_word(state.status),
        "Running": state.status == Status::Running,
        "Paused": false,
        "Restarting": false,
        "OOMKilled": state.oom_killed(),
        "Dead": false,
        "Pid": state.pid,
        "ExitCode": state.exit.map_or(0, |exit| exit.code),
        "Error": state.error.as_deref().unwrap_or_default(),
        "StartedAt": time(state.started_at),
        "FinishedAt": time(state.finished_at.filter(|_| state.status != Status::Running)),
    })
}

fn config(container: &Container) -> Value {
    let config = &container.record.config;
    // Docker keeps sets as objects with empty values.
    let set = |keys: &[String]| -> Value {
        keys.iter()
            .map(|key| (key.clone(), json!({})))
            .collect::<Map<_, _>>()
            .into()
    };
    let mut out = json!({
        "Hostname": config.hostname,
        "Domainname": "",
        "User": config.user,
        "AttachStdin": config.attach_stdin,
        "AttachStdout": config.attach_output,
        "AttachStderr": config.attach_output,
        "Tty": config.tty,
        "OpenStdin": config.open_stdin,
        "StdinOnce": config.attach_stdin,
        "Env": config.env,
        "Cmd": config.cmd,
        "Image": container.record.image,
        "Volumes": if config.volumes.is_empty() { Value::Null } else { set(&config.volumes) },
        "WorkingDir": config.workdir,
        "Entrypoint": config.entrypoint,
        "Labels": config.labels,
    });
    if let Value::Object(map) = &mut out {
        if !config.exposed_ports.is_empty() {
            map.insert("ExposedPorts".to_owned(), set(&config.exposed_ports));
        }
        if let Some(signal) = config.stop_signal {
            map.insert("StopSignal".to_owned(), json!(Signal::to_string(&signal)));
        }
        if let Some(seconds) = config.stop_timeout {
            map.insert("StopTimeout".to_owned(), json!(seconds));
        }
    }
    out
}

fn host_config(container: &Container) -> Result<Map<String, Value>, ContainerError> {
    let host = &container.record.host;
    let limits = host
        .ulimits
        .iter()
        .map(|flag| rlimits::parse(flag))
        .collect::<Result<Vec<_>, _>>()?;
    // Docker writes "unlimited" as -1.
    let number = |n: u64| i64::try_from(n).unwrap_or(-1);
    let ulimit = |limit: &Rlimit| json!({ "Name": limit.resource.name(), "Soft": number(limit.soft), "Hard": number(limit.hard) });
    let tmpfs: Map<String, Value> = host
        .tmpfs
        .iter()
        .map(|flag| flag.split_once(':').unwrap_or((flag, "")))
        .map(|(path, options)| (path.to_owned(), json!(options)))
        .collect();
    let names = |list: &[String]| {
        if list.is_empty() {
            Value::Null
        } else {
            json!(list)
        }
    };
    let device = |device: &DeviceMapping| {
        json!({
            "PathOnHost": device.path_on_host,
            "PathInContainer": device.path_in_container,
            "CgroupPermissions": device.permissions,
        })
    };
    let spec = &container.record.sandbox;
    // Docker has no lists for a privileged container, and empty ones for `systempaths=unconfined`.
    let paths = |list: &[String]| match host.privileged {
        true => Value::Null,
        false => json!(list),
    };
    let out = json!({
        "AutoRemove": host.auto_remove,
        "CapAdd": names(&host.cap_add),
        "CapDrop": names(&host.cap_drop),
        "Init": host.init,
        "Isolation": spec.isolation,
        "LogConfig": { "Type": "bulkhead", "Config": {} },
        "Memory": host.memory.map_or(0, |size| size.0),
        "NanoCpus": host.nano_cpus,
        "NetworkMode": "none",
        "Privileged": host.privileged,
        "SecurityOpt": names(&host.security_opt),
        "Devices": host.devices.iter().map(device).collect::<Vec<_>>(),
        "MaskedPaths": paths(&spec.masked_paths),
        "ReadonlyPaths": paths(&spec.readonly_paths),
        "ReadonlyRootfs": host.read_only,
        "ShmSize": host.shm_size,
        "StorageOpt": { "size": host.disk.0.to_string() },
        "Tmpfs": tmpfs,
        "Ulimits": limits.iter().map(ulimit).collect::<Vec<_>>(),
    });
    match out {
        Value::Object(map) => Ok(map),
        _ => Ok(Map::new()),
    }
}

fn mounts(container: &Container) -> Value {
    let spec = &container.record.sandbox;
    let volumes = spec.volumes.iter().map(|volume| {
        json!({
            "Type": "volume",
            "Source": volume.path,
            "Destination": volume.target,
            "Driver": "local",
            "Mode": "",
            "RW": !volume.read_only,
        })
    });
    let tmpfs = spec.tmpfs.iter().map(|mount| {
        json!({
            "Type": "tmpfs",
            "Source": "",
            "Destination": mount.target,
            "Mode": mount.options,
            "RW": !mount.options.read_only(),
        })
    });
    volumes.chain(tmpfs).collect()
}
