//! An image of a Debian suite, made by mmdebstrap from Debian's archive: no registry needed.

use std::io::{self, BufRead, BufReader, Read};
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStderr, Command, ExitStatus, Stdio};

use nix::sys::signal::SigSet;

use crate::archive::{Change, CopyError, Recipe, RecipeLayer, gzip_to_blob};
use crate::kind::ErrorKind;
use crate::platform::Platform;
use crate::progress::{Outcome, Phase, Progress};
use crate::reference::{Reference, ReferenceError};
use crate::store::{Image, Store, StoreError};

const PROGRAM: &str = "mmdebstrap";
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// Lines of the program's output that an error repeats.
const TAIL: usize = 15;

/// What to make.
#[derive(Debug, Clone)]
pub struct BootstrapOptions {
    /// The suite, for example `bookworm`.
    pub suite: String,
    /// Mirrors or lines for sources.list, in mmdebstrap's syntax; Debian's own by default.
    pub mirrors: Vec<String>,
    /// Packages besides the minimum.
    pub include: Vec<String>,
    /// mmdebstrap's variant; the smallest with apt by default.
    pub variant: String,
    /// mmdebstrap's mode; by default it finds out what this user may do.
    pub mode: String,
    /// The image's name; `debian:SUITE` by default.
    pub reference: Option<Reference>,
}

impl BootstrapOptions {
    /// A minimal image of `suite`.
    pub fn new(suite: impl Into<String>) -> Self {
        Self {
            suite: suite.into(),
            mirrors: Vec::new(),
            include: Vec::new(),
            variant: "minbase".into(),
            mode: "auto".into(),
            reference: None,
        }
    }
}

/// A failed bootstrap.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BootstrapError {
    /// The program is not installed or cannot be started.
    #[error("cannot start {PROGRAM}")]
    Start {
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The program failed.
    #[error("{PROGRAM} failed ({status}):\n{output}")]
    Failed {
        /// How it ended.
        status: ExitStatus,
        /// The last lines that it wrote.
        output: String,
    },
    /// Its output could not be taken.
    #[error("cannot take the root file system that {PROGRAM} makes")]
    Copy {
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A suite, package or mirror that could be taken for an option.
    #[error("invalid argument for {PROGRAM}: '{0}'")]
    Argument(String),
    /// The suite makes no valid image name.
    #[error(transparent)]
    Reference(#[from] ReferenceError),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl BootstrapError {
    /// The class of the failure.
    pub fn kind(&self) -> ErrorKind {
        if let Some(kind) = ErrorKind::no_space_in(self) {
            return kind;
        }
        match self {
            Self::Start { source } if source.kind() == io::ErrorKind::NotFound => {
                ErrorKind::Unsupported
            }
            Self::Start { .. } | Self::Copy { .. } => ErrorKind::Internal,
            Self::Failed { .. } => ErrorKind::Unavailable,
            Self::Argument(_) | Self::Reference(_) => ErrorKind::InvalidInput,
            Self::Store(error) => error.kind(),
        }
    }

    /// What the user can do about it, where there is something.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Start { .. } => Some("install it with `apt-get install mmdebstrap`"),
            Self::Failed { output, .. }
                if output.contains("newuidmap") || output.contains("subuid") =>
            {
                Some(
                    "for an ordinary user mmdebstrap needs the uidmap package, or the fakechroot package and --mode fakechroot",
                )
            }
            Self::Store(error) => error.hint(),
            _ => None,
        }
    }
}

/// Makes an image of a Debian suite.
///
/// # Errors
/// [`BootstrapError`]; nothing is left then.
pub fn bootstrap(
    store: &Store,
    options: &BootstrapOptions,
    progress: &dyn Progress,
) -> Result<Image, BootstrapError> {
    let result = {
        let _content = store.using_content()?;
        bootstrap_with(store, options, progress)
    };
    if result.is_err() {
        store.tidy();
    } else {
        store.tidy_if_due();
    }
    result
}

fn bootstrap_with(
    store: &Store,
    options: &BootstrapOptions,
    progress: &dyn Progress,
) -> Result<Image, BootstrapError> {
    let name = match &options.reference {
        Some(name) => name.clone(),
        None => format!("debian:{}", options.suite).parse()?,
    };
    let mut command = command(options)?;
    progress.start(&options.suite, Phase::Bootstrapping, None);
    let mut child = spawn(&mut command).map_err(|source| BootstrapError::Start { source })?;
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    let mut tail = Vec::new();
    let copied = std::thread::scope(|scope| {
        let tail = &mut tail;
        scope.spawn(move || *tail = narrate(stderr, progress));
        copy(store, stdout, &|n| progress.advance(&options.suite, n))
    });
    if copied.is_err() {
        // It would wait for ever to get rid of the rest; an error only means that it is gone.
        let _ = child.kill();
    }
    let status = child
        .wait()
        .map_err(|source| BootstrapError::Start { source })?;
    // When the program failed, that is why its output is no good, unless it failed because of us.
    let layer = match copied {
        Err(error)
            if ErrorKind::no_space_in(&error).is_some()
                || matches!(error, BootstrapError::Store(_)) =>
        {
            return Err(error);
        }
        _ if !status.success() => {
            return Err(BootstrapError::Failed {
                status,
                output: tail.join("\n"),
            });
        }
        other => other?,
    };
    progress.finish(&options.suite, Outcome::Done);
    let diff_id = store.add_layer(&layer.digest, progress)?;
    let recipe = Recipe {
        layer,
        diff_id,
        changes: vec![
            Change::Env(vec![("PATH".into(), PATH.into())]),
            Change::Cmd(vec!["bash".into()]),
        ],
        platform: Platform::host(),
        created_by: format!("{PROGRAM} --variant={} {}", options.variant, options.suite),
        comment: "bulkhead bootstrap".into(),
    };
    Ok(recipe.make(store, Some(&name))?)
}

/// Starts the program with no signal blocked, whatever the caller keeps waiting: it cleans up when it is told to end.
/// The mask is cleared in the child alone. If the caller's were cleared for that moment, a signal in it would end the caller.
fn spawn(command: &mut Command) -> io::Result<Child> {
    // SAFETY: between fork and exec only pthread_sigmask(3) is called, which is async-signal-safe; nothing is allocated.
    unsafe { command.pre_exec(|| Ok(SigSet::empty().thread_set_mask()?)) };
    command.spawn()
}

fn command(options: &BootstrapOptions) -> Result<Command, BootstrapError> {
    let sound =
        |text: &String| !text.is_empty() && !text.starts_with('-') && !text.contains(['\n', '\0']);
    let mut given = [&options.suite]
        .into_iter()
        .chain(&options.mirrors)
        .chain(&options.include);
    if let Some(bad) = given.find(|text| !sound(text)) {
        return Err(BootstrapError::Argument(bad.chars().take(200).collect()));
    }
    let mut command = Command::new(PROGRAM);
    command
        .arg(format!("--variant={}", options.variant))
        .arg(format!("--mode={}", options.mode))
        .arg("--format=tar");
    if !options.include.is_empty() {
        command.arg(format!("--include={}", options.include.join(",")));
    }
    command.arg(&options.suite).arg("-").args(&options.mirrors);
    // Messages are looked into for advice, and packages' scripts must not ask.
    command
        .env("LC_ALL", "C")
        .env("DEBIAN_FRONTEND", "noninteractive");
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    Ok(command)
}

/// Tells what the program says, and keeps its last lines.
fn narrate(stderr: Option<ChildStderr>, progress: &dyn Progress) -> Vec<String> {
    let mut tail: Vec<String> = Vec::new();
    let Some(stderr) = stderr else { return tail };
    for line in BufReader::new(stderr).split(b'\n').map_while(Result::ok) {
        // A progress bar redraws its line.
        let last = line
            .rsplit(|byte| *byte == b'\r')
            .find(|part| !part.is_empty())
            .unwrap_or_default();
        let text: String = String::from_utf8_lossy(last)
            .chars()
            .filter(|c| !c.is_control())
            .take(500)
            .collect();
        if let Some(message) = text.strip_prefix("I: ") {
            progress.message(message);
        }
        if !text.trim().is_empty() {
            if tail.len() == TAIL {
                tail.remove(0);
            }
            tail.push(text);
        }
    }
    tail
}

fn copy(
    store: &Store,
    stdout: Option<impl Read>,
    advance: &dyn Fn(u64),
) -> Result<RecipeLayer, BootstrapError> {
    let Some(stdout) = stdout else {
        return Err(BootstrapError::Copy {
            source: io::ErrorKind::BrokenPipe.into(),
        });
    };
    gzip_to_blob(store, stdout, advance).map_err(|error| match error {
        CopyError::Read(source) => BootstrapError::Copy { source },
        CopyError::Store(error) => error.into(),
    })
}
