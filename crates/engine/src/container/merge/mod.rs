//! An image's configuration and a user's flags become one container: Docker's rules of precedence
//! (moby `daemon/commit.go: merge`, `container/env.go`, and the command line's `opts.go`).

use std::collections::BTreeMap;

use bulkhead_types::{ByteSize, ContainerId, ProcessSpec, Signal};
use oci_spec::image::Config as ImageConfig;
use serde::{Deserialize, Serialize};

use super::mounts::clean_path;
use super::security::{self, DeviceMapping, Security};
use super::{CreateOptions, OptionError, capabilities, rlimits};

/// `PATH` of a container whose image sets none.
const DEFAULT_PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// Longest host name that Linux takes (`HOST_NAME_MAX`).
const HOST_NAME_MAX: usize = 64;

/// What Docker calls a container's `Config`: the portable part, flags merged over the image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerConfig {
    /// Host name.
    pub hostname: String,
    /// `user[:group]`, empty for root.
    pub user: String,
    /// Flags' entries first, then the image's that they do not replace; `KEY` alone removes.
    pub env: Vec<String>,
    /// Program, before `cmd`.
    pub entrypoint: Option<Vec<String>>,
    /// Arguments, or program and arguments without an entrypoint.
    pub cmd: Option<Vec<String>>,
    /// Absolute working directory; empty means `/`.
    pub workdir: String,
    /// The image's labels, the flags' winning.
    pub labels: BTreeMap<String, String>,
    /// Mount points of the image's anonymous volumes, as the image writes them.
    pub volumes: Vec<String>,
    /// Ports the image says it listens on, for display.
    pub exposed_ports: Vec<String>,
    /// `--stop-signal`, else the image's; `None` means `SIGTERM`.
    pub stop_signal: Option<Signal>,
    /// `--stop-timeout` in seconds; negative waits for ever.
    pub stop_timeout: Option<i64>,
    /// `-t`.
    pub tty: bool,
    /// `-i`.
    pub open_stdin: bool,
    /// Stdin is attached at start and closes with the first client.
    pub attach_stdin: bool,
    /// Output is attached at start.
    pub attach_output: bool,
}

/// The result of merging.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Merged {
    pub config: ContainerConfig,
    pub process: ProcessSpec,
    pub security: Security,
}

/// Merges `options` over `image`.
pub(super) fn merge(
    id: &ContainerId,
    options: &CreateOptions,
    image: &ImageConfig,
) -> Result<Merged, OptionError> {
    let hostname = hostname(options.hostname.as_deref(), id)?;
    let (entrypoint, cmd) = command(options, image);
    let args: Vec<String> = entrypoint
        .iter()
        .flatten()
        .chain(cmd.iter().flatten())
        .cloned()
        .collect();
    if args.is_empty() {
        return Err(OptionError::NoCommand);
    }
    if args.iter().any(|arg| arg.contains('\0')) {
        return Err(OptionError::NulInCommand);
    }
    let env = config_env(&options.env, image.env().as_deref().unwrap_or_default())?;
    let user = options
        .user
        .clone()
        .or_else(|| image.user().clone())
        .unwrap_or_default();
    let workdir = workdir(options, image)?;
    let stop_signal = match (options.stop_signal, image.stop_signal()) {
        (Some(signal), _) => Some(signal),
        (None, Some(text)) if !text.is_empty() => Some(
            text.parse()
                .map_err(|_| OptionError::StopSignal(text.as_str().into()))?,
        ),
        _ => None,
    };
    let mut labels: BTreeMap<String, String> = image
        .labels()
        .iter()
        .flatten()
        .map(|(k, v)| (k.clone(), v.clone()))
        .collect();
    labels.extend(options.labels.clone());
    let mut volumes: Vec<String> = image.volumes().clone().unwrap_or_default();
    volumes.sort();
    let mut exposed_ports = image.exposed_ports().clone().unwrap_or_default();
    exposed_ports.sort();
    let security = security::resolve(options)?;
    let process = ProcessSpec {
        args,
        env: process_env(&hostname, options.tty, &env),
        cwd: if workdir.is_empty() {
            "/".to_owned()
        } else {
            workdir.clone()
        },
        user: user.clone(),
        capabilities: capabilities::resolve(
            options.privileged,
            &options.cap_add,
            &options.cap_drop,
        )?,
        rlimits: rlimits::resolve(&options.ulimits)?,
        no_new_privileges: security.no_new_privileges,
        terminal: options.tty,
        terminal_size: None,
    };
    let attach = !options.detach;
    let config = ContainerConfig {
        hostname,
        user,
        env,
        entrypoint,
        cmd,
        workdir,
        labels,
        volumes,
        exposed_ports,
        stop_signal,
        stop_timeout: options.stop_timeout,
        tty: options.tty,
        open_stdin: options.interactive,
        attach_stdin: options.interactive && attach,
        attach_output: attach,
    };
    Ok(Merged {
        config,
        process,
        security,
    })
}

/// `--entrypoint` replaces the image's entrypoint and forgets its command, even when it is empty.
fn command(
    options: &CreateOptions,
    image: &ImageConfig,
) -> (Option<Vec<String>>, Option<Vec<String>>) {
    let given = (!options.command.is_empty()).then(|| options.command.clone());
    let some = |list: &Option<Vec<String>>| list.clone().filter(|list| !list.is_empty());
    match options.entrypoint.as_deref() {
        Some("") => (None, given),
        Some(program) => (Some(vec![program.to_owned()]), given),
        None => (
            some(image.entrypoint()),
            given.or_else(|| some(image.cmd())),
        ),
    }
}

fn hostname(wanted: Option<&str>, id: &ContainerId) -> Result<String, OptionError> {
    let Some(name) = wanted.filter(|name| !name.is_empty()) else {
        return Ok(id.short().to_owned());
    };
    let label = |label: &str| {
        !label.is_empty()
            && label.len() <= 63
            && label
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    if name.len() <= HOST_NAME_MAX && name.split('.').all(label) {
        Ok(name.to_owned())
    } else {
        Err(OptionError::Hostname(name.chars().take(100).collect()))
    }
}

pub(super) fn workdir(options: &CreateOptions, image: &ImageConfig) -> Result<String, OptionError> {
    let chosen = options
        .workdir
        .as_ref()
        .filter(|w| !w.is_empty())
        .or(image.working_dir().as_ref());
    let Some(path) = chosen.filter(|path| !path.is_empty()) else {
        return Ok(String::new());
    };
    if !path.starts_with('/') || path.contains('\0') {
        return Err(OptionError::Workdir(path.as_str().into()));
    }
    Ok(clean_path(path))
}

/// The flags' entries, then those of the image whose name the flags do not mention.
fn config_env(flags: &[String], image: &[String]) -> Result<Vec<String>, OptionError> {
    for entry in flags {
        if entry.is_empty() || entry.starts_with('=') || entry.contains('\0') {
            return Err(OptionError::Env(entry.replace('\0', "\\0").into()));
        }
    }
    let mentioned = |name: &str| flags.iter().any(|entry| key(entry) == name);
    let kept = image
        .iter()
        .filter(|entry| !entry.contains('\0') && !mentioned(key(entry)));
    Ok(flags.iter().chain(kept).cloned().collect())
}

/// The defaults with `config` over them; an entry without `=` removes. A name occurs once, because
/// programs differ in which of two they take.
fn process_env(hostname: &str, tty: bool, config: &[String]) -> Vec<String> {
    let mut env = vec![DEFAULT_PATH.to_owned(), format!("HOSTNAME={hostname}")];
    if tty {
        env.push("TERM=xterm".to_owned());
    }
    for entry in config {
        set_env(&mut env, entry);
    }
    env
}

/// Applies one `KEY=value` or `KEY` (removal).
pub(super) fn set_env(env: &mut Vec<String>, entry: &str) {
    let place = env.iter().position(|known| key(known) == key(entry));
    match (place.and_then(|i| env.get_mut(i)), entry.contains('=')) {
        (Some(known), true) => entry.clone_into(known),
        (None, true) => env.push(entry.to_owned()),
        (_, false) => env.retain(|known| key(known) != entry),
    }
}

fn key(entry: &str) -> &str {
    entry.split_once('=').map_or(entry, |(key, _)| key)
}

/// Limits and switches of the host side: what Docker calls `HostConfig`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct HostOptions {
    /// `--memory`; `None` without a limit.
    pub memory: Option<ByteSize>,
    /// `--cpus` in billionths; 0 without a limit.
    pub nano_cpus: u64,
    /// Size of each writable disk in bytes.
    pub disk: ByteSize,
    /// `/dev/shm`.
    pub shm_size: ByteSize,
    /// `--rm`.
    pub auto_remove: bool,
    /// `--init`.
    pub init: bool,
    /// `--read-only`.
    pub read_only: bool,
    /// `--tmpfs`, as typed.
    pub tmpfs: Vec<String>,
    /// `--cap-add`, as typed.
    pub cap_add: Vec<String>,
    /// `--cap-drop`, as typed.
    pub cap_drop: Vec<String>,
    /// `--ulimit`, as typed.
    pub ulimits: Vec<String>,
    /// `--privileged`.
    #[serde(default)]
    pub privileged: bool,
    /// `--security-opt`, as typed, without `systempaths`.
    #[serde(default)]
    pub security_opt: Vec<String>,
    /// `--device`.
    #[serde(default)]
    pub devices: Vec<DeviceMapping>,
}

#[cfg(test)]
mod tests;
