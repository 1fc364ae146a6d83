//! The flags that `create` and `run` share.

use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::io::Write;
use std::path::{Path, PathBuf};

use bulkhead_engine::{Container, CreateOptions, Engine, Error as EngineError};
use bulkhead_image::Platform;
use bulkhead_types::{ByteSize, ContainerName, Isolation, Signal};
use clap::{Args, ValueEnum};

use crate::args::{KeyValue, env_file, label_file, parse_cpus, seconds, ulimit_text};
use crate::error::CliError;
use crate::output::say;
use crate::progress::{self, Work};
use crate::terminal;

/// When an image is pulled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum PullPolicy {
    /// Before every creation.
    Always,
    /// When the store has none.
    Missing,
    /// Not at all.
    Never,
}

/// A stream that `-a` names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum StreamName {
    /// Standard input.
    Stdin,
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// What a container is to be.
#[derive(Debug, Args)]
pub struct CreateFlags {
    /// Attach to STDIN, STDOUT or STDERR
    #[arg(
        short,
        long,
        value_name = "list",
        value_enum,
        ignore_case = true,
        hide_possible_values = true
    )]
    pub attach: Vec<StreamName>,
    /// Add Linux capabilities
    #[arg(long, value_name = "list")]
    cap_add: Vec<String>,
    /// Drop Linux capabilities
    #[arg(long, value_name = "list")]
    cap_drop: Vec<String>,
    /// Write the container ID to the file
    #[arg(long, value_name = "file")]
    cidfile: Option<PathBuf>,
    /// Number of CPUs
    #[arg(long, value_name = "decimal", value_parser = parse_cpus)]
    cpus: Option<f64>,
    /// Add a device of the container's own kernel ("/dev/fuse", "/dev/net/tun", "/dev/loop0")
    #[arg(long, value_name = "list")]
    device: Vec<String>,
    /// Size of the container's writable disk (and of each anonymous volume)
    #[arg(long, value_name = "bytes")]
    disk: Option<ByteSize>,
    /// Overwrite the default ENTRYPOINT of the image
    #[arg(long, value_name = "string")]
    entrypoint: Option<String>,
    /// Set environment variables
    #[arg(short, long, value_name = "list", value_parser = KeyValue::env)]
    env: Vec<String>,
    /// Read in a file of environment variables
    #[arg(long, value_name = "list")]
    env_file: Vec<PathBuf>,
    /// Container host name
    #[arg(short = 'h', long, value_name = "string")]
    hostname: Option<String>,
    /// Run an init inside the container that forwards signals and reaps processes
    #[arg(long)]
    init: bool,
    /// Keep STDIN open even if not attached
    #[arg(short, long)]
    pub interactive: bool,
    /// How the container's kernel is run ("kvm", "user-mode")
    #[arg(long, value_name = "string")]
    isolation: Option<Isolation>,
    /// Set meta data on a container
    #[arg(short, long, value_name = "list", value_parser = KeyValue::label)]
    label: Vec<KeyValue>,
    /// Read in a line delimited file of labels
    #[arg(long, value_name = "list")]
    label_file: Vec<PathBuf>,
    /// Memory limit
    #[arg(short, long, value_name = "bytes")]
    memory: Option<ByteSize>,
    /// Assign a name to the container
    #[arg(long, value_name = "string")]
    name: Option<String>,
    /// Use the image for this platform, pulling it if the local one is for another ("linux/amd64")
    #[arg(long, value_name = "string")]
    platform: Option<Platform>,
    /// Give extended privileges to this container, in its own kernel (none on the host)
    #[arg(long)]
    privileged: bool,
    /// Pull image before creating ("always", "missing", "never") (default "missing")
    #[arg(long, value_name = "string", value_enum, hide_possible_values = true)]
    pull: Option<PullPolicy>,
    /// Suppress the pull output
    #[arg(short, long)]
    quiet: bool,
    /// Mount the container's root filesystem as read only
    #[arg(long)]
    read_only: bool,
    /// Automatically remove the container and its associated anonymous volumes when it exits
    #[arg(long)]
    rm: bool,
    /// Security options ("no-new-privileges", "systempaths=unconfined")
    #[arg(long, value_name = "list")]
    security_opt: Vec<String>,
    /// Size of /dev/shm
    #[arg(long, value_name = "bytes")]
    shm_size: Option<ByteSize>,
    /// Signal to stop the container
    #[arg(long, value_name = "string")]
    stop_signal: Option<String>,
    /// Timeout (in seconds) to stop a container
    #[arg(long, value_name = "int", value_parser = seconds)]
    stop_timeout: Option<i64>,
    /// Mount a tmpfs directory
    #[arg(long, value_name = "list")]
    tmpfs: Vec<String>,
    /// Allocate a pseudo-TTY
    #[arg(short, long)]
    pub tty: bool,
    /// Ulimit options
    #[arg(long, value_name = "ulimit", value_parser = ulimit_text)]
    ulimit: Vec<String>,
    /// Username or UID (format: <name|uid>[:<group|gid>])
    #[arg(short, long, value_name = "string")]
    user: Option<String>,
    /// Start even where the host refuses walls that separate containers from each other and from their user
    #[arg(long)]
    weakened_jail: bool,
    /// Working directory inside the container
    #[arg(short, long, value_name = "string")]
    workdir: Option<String>,
    /// Image, command, arguments
    #[arg(value_name = "IMAGE", required = true, num_args = 1.., trailing_var_arg = true, hide = true)]
    words: Vec<String>,
}

impl CreateFlags {
    fn options(&self, detach: bool) -> Result<CreateOptions, CliError> {
        let (image, command) = self
            .words
            .split_first()
            .map_or((String::new(), &[][..]), |(i, c)| (i.clone(), c));
        let mut env = Vec::new();
        for file in &self.env_file {
            env.extend(env_file(file, own_value)?);
        }
        env.extend(resolve_env(&self.env));
        let mut labels = BTreeMap::new();
        for file in &self.label_file {
            labels.extend(
                label_file(file)?
                    .into_iter()
                    .map(|label| (label.key, label.value)),
            );
        }
        labels.extend(
            self.label
                .iter()
                .map(|label| (label.key.clone(), label.value.clone())),
        );
        Ok(CreateOptions {
            id: None,
            image,
            command: command.to_vec(),
            name: self.name.as_deref().map(name).transpose()?,
            entrypoint: self.entrypoint.clone(),
            env,
            user: self.user.clone(),
            workdir: self.workdir.clone(),
            hostname: self.hostname.clone(),
            labels,
            interactive: self.interactive,
            tty: self.tty,
            detach,
            auto_remove: self.rm,
            memory: self.memory,
            cpus: self.cpus,
            disk: self.disk,
            shm_size: self.shm_size,
            init: self.init,
            read_only: self.read_only,
            tmpfs: self.tmpfs.clone(),
            cap_add: self.cap_add.clone(),
            cap_drop: self.cap_drop.clone(),
            privileged: self.privileged,
            security_opt: self.security_opt.clone(),
            devices: self.device.clone(),
            ulimits: self.ulimit.clone(),
            stop_signal: self
                .stop_signal
                .as_deref()
                .map(str::parse::<Signal>)
                .transpose()?,
            stop_timeout: self.stop_timeout,
            platform: self.platform.clone(),
            isolation: self.isolation,
            weakened_jail: self.weakened_jail,
        })
    }

    /// Creates the container, pulling its image first where that is wanted.
    pub fn create(&self, engine: &Engine, detach: bool) -> Result<Container, CliError> {
        let id = bulkhead_engine::random_id().map_err(EngineError::from)?;
        terminal::take_back_container(&id);
        let options = CreateOptions {
            id: Some(id),
            ..self.options(detach)?
        };
        let cidfile = self.cidfile.as_deref().map(CidFile::claim).transpose()?;
        let policy = self.pull.unwrap_or(PullPolicy::Missing);
        if policy == PullPolicy::Always {
            self.pull(engine, &options.image)?;
        }
        let container = match engine.create(&options) {
            Err(EngineError::NoSuchImage(name) | EngineError::OtherPlatform { name, .. })
                if policy == PullPolicy::Missing =>
            {
                if !self.quiet {
                    say(format_args!("Unable to find image '{name}' locally"));
                }
                self.pull(engine, &options.image)?;
                engine.create(&options)?
            }
            other => other?,
        };
        for warning in container.warnings() {
            say(format_args!("WARNING: {warning}"));
        }
        if let Some(cidfile) = cidfile {
            cidfile.write(container.id().as_str())?;
        }
        Ok(container)
    }

    fn pull(&self, engine: &Engine, image: &str) -> Result<(), CliError> {
        let progress = progress::choose(self.quiet, Work::Pull);
        super::pull::pull_one(engine, image, self.platform.clone(), progress.as_ref()).map(|_| ())
    }
}

fn name(text: &str) -> Result<ContainerName, CliError> {
    text.parse().map_err(|_| CliError::Name(text.to_owned()))
}

/// `KEY` alone takes our own value; where we have none it stays alone, which removes the image's.
pub fn resolve_env(entries: &[String]) -> Vec<String> {
    let resolve = |entry: &String| match own_value(entry) {
        Some(value) if !entry.contains('=') => format!("{entry}={value}"),
        _ => entry.clone(),
    };
    entries.iter().map(resolve).collect()
}

/// The value of a variable of ours. What in it is no UTF-8 is replaced, as Docker's client does when it makes
/// JSON of it: a variable that is set is never taken for one that is not.
fn own_value(name: &str) -> Option<String> {
    Some(std::env::var_os(name)?.to_string_lossy().into_owned())
}

/// `--cidfile`: made when the command starts, so that two commands cannot both write it, and taken away
/// again when there is no container.
struct CidFile {
    path: PathBuf,
    written: bool,
}

impl CidFile {
    fn claim(path: &Path) -> Result<Self, CliError> {
        match OpenOptions::new().write(true).create_new(true).open(path) {
            Ok(_) => {
                terminal::take_back_file(path);
                Ok(Self {
                    path: path.to_owned(),
                    written: false,
                })
            }
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
                Err(CliError::CidFileExists(path.display().to_string()))
            }
            Err(error) => Err(CliError::file("create", path)(error)),
        }
    }

    fn write(mut self, id: &str) -> Result<(), CliError> {
        let open = OpenOptions::new().write(true).open(&self.path);
        open.and_then(|mut file| file.write_all(id.as_bytes()))
            .map_err(CliError::file("write", &self.path))?;
        self.written = true;
        terminal::keep_file(&self.path);
        Ok(())
    }
}

impl Drop for CidFile {
    fn drop(&mut self) {
        if !self.written {
            // Best effort: the failure that brought us here is what the user has to hear about.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}
