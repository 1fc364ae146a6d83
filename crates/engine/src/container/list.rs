//! `ps`: one summary per container.

use std::collections::BTreeMap;

use bulkhead_sandbox::{State, Status};
use bulkhead_types::{ContainerId, ContainerName, Digest, chain};
use jiff::Timestamp;

use super::filter::status_word;
use super::{Container, Filters};
use crate::Engine;
use crate::error::Error;
use crate::time::human_duration;

/// The flags of `ps`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ListOptions {
    /// `-a`: those that do not run too.
    pub all: bool,
    /// `-n`: only the newest so many, running or not (`-l` is 1).
    pub last: Option<usize>,
    /// `-s`: measure the disks, which costs a look at each file.
    pub size: bool,
    /// `--filter`.
    pub filters: Filters,
}

/// One container in a list.
#[derive(Debug, Clone, PartialEq)]
pub struct Summary {
    /// Identifier.
    pub id: ContainerId,
    /// Name.
    pub name: ContainerName,
    /// The image as the user named it; its identifier where that name means another image by now, or none.
    pub image: String,
    /// Image identifier.
    pub image_id: Digest,
    /// Program and arguments in one line, with Docker's quotes around arguments that hold a space.
    pub command: String,
    /// When it was created.
    pub created: Timestamp,
    /// Docker's word: `created`, `running`, `exited`.
    pub state: &'static str,
    /// Docker's sentence: `Up 5 minutes`, `Exited (0) 2 hours ago`.
    pub status: String,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Targets of volumes and tmpfs.
    pub mounts: Vec<String>,
    /// How many of them are anonymous volumes.
    pub local_volumes: usize,
    /// Bytes that the writable disks take on the host, with [`ListOptions::size`].
    pub size: Option<u64>,
}

impl Engine {
    /// The containers that match, newest first. Leftovers of killed processes are tidied up first.
    pub fn list(&self, options: &ListOptions) -> Result<Vec<Summary>, Error> {
        let containers = match self.swept() {
            Ok((_, containers)) => containers,
            Err(error) => {
                // What keeps everything from being read is told once, as the failure that it is.
                let containers = self.containers()?;
                tracing::warn!("cannot tidy up after killed processes: {}", chain(&error));
                containers
            }
        };
        let matcher = self.matcher(&options.filters)?;
        let all = options.all || options.last.is_some() || matcher.asks_for_status();
        let now = Timestamp::now();
        let mut summaries = Vec::new();
        // What each name means now, looked up once.
        let mut images: BTreeMap<String, Option<Digest>> = BTreeMap::new();
        for container in containers {
            // Removed since the directory was read.
            let Ok(state) = container.state() else {
                continue;
            };
            if (all || state.status == Status::Running) && matcher.matches(&container, &state) {
                let name = &container.record().image;
                let meant = match images.get(name) {
                    Some(meant) => meant,
                    None => images.entry(name.clone()).or_insert(self.image_id(name)),
                };
                let renamed = meant.as_ref() != Some(&container.record().image_id);
                summaries.push(summary(&container, &state, now, options.size, renamed));
            }
        }
        if let Some(last) = options.last {
            summaries.truncate(last);
        }
        Ok(summaries)
    }
}

fn summary(
    container: &Container,
    state: &State,
    now: Timestamp,
    size: bool,
    renamed: bool,
) -> Summary {
    let record = container.record();
    let volumes = record
        .sandbox
        .volumes
        .iter()
        .map(|volume| volume.target.clone());
    let tmpfs = record
        .sandbox
        .tmpfs
        .iter()
        .map(|mount| mount.target.clone());
    Summary {
        id: record.id.clone(),
        name: record.name.clone(),
        image: if renamed {
            record.image_id.to_string()
        } else {
            record.image.clone()
        },
        image_id: record.image_id.clone(),
        command: command_line(&record.sandbox.process.args),
        created: record.created,
        state: status_word(state.status),
        status: status_text(state, now),
        labels: record.config.labels.clone(),
        mounts: volumes.chain(tmpfs).collect(),
        local_volumes: record.sandbox.volumes.len(),
        size: size.then(|| container.disk_usage()),
    }
}

/// As moby's `daemon/list.go` makes it: an argument with a space stands between single quotes.
fn command_line(words: &[String]) -> String {
    let quoted = words.iter().enumerate().map(|(index, word)| {
        if index > 0 && word.contains(' ') {
            format!("'{word}'")
        } else {
            word.clone()
        }
    });
    quoted.collect::<Vec<_>>().join(" ")
}

impl Container {
    /// Bytes that the container's writable disks take on the host.
    pub fn disk_usage(&self) -> u64 {
        use std::os::unix::fs::MetadataExt;
        let spec = &self.record.sandbox;
        let disks = spec
            .scratch
            .iter()
            .chain(spec.volumes.iter().map(|volume| &volume.path));
        disks
            .filter_map(|path| std::fs::metadata(path).ok())
            .map(|meta| meta.blocks() * 512)
            .sum()
    }
}

/// The sentence in the STATUS column.
pub fn status_text(state: &State, now: Timestamp) -> String {
    let since = |at: Option<Timestamp>| at.map(|at| human_duration(now.duration_since(at)));
    match state.status {
        Status::Created => "Created".to_owned(),
        Status::Running => match since(state.started_at) {
            Some(ago) => format!("Up {ago}"),
            // Its record is damaged, and only the lock says that it runs.
            None => "Up".to_owned(),
        },
        Status::Exited => {
            let code = state.exit.map_or(0, |exit| exit.code);
            match since(state.finished_at) {
                Some(ago) => format!("Exited ({code}) {ago} ago"),
                None => format!("Exited ({code})"),
            }
        }
    }
}
