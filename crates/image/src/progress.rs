//! How long operations tell their caller what they are doing.

/// What is happening to one item (a blob, a layer, a step).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Phase {
    /// Another process is working on the same item.
    Waiting,
    /// Bytes come from a registry.
    Downloading,
    /// Bytes that were already here are hashed.
    Verifying,
    /// A layer becomes a blob of the image disk.
    Converting,
    /// Bytes go to a registry.
    Uploading,
    /// Bytes come from an archive.
    Loading,
    /// Bytes go to an archive.
    Saving,
    /// The layers are merged into a disk.
    Merging,
    /// A root file system is being made.
    Bootstrapping,
}

impl Phase {
    /// The word a progress bar shows.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Waiting => "Waiting",
            Self::Downloading => "Downloading",
            Self::Verifying => "Verifying",
            Self::Converting => "Converting",
            Self::Uploading => "Pushing",
            Self::Loading => "Loading",
            Self::Saving => "Saving",
            Self::Merging => "Merging",
            Self::Bootstrapping => "Bootstrapping",
        }
    }
}

/// How an item ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Outcome {
    /// The work was done.
    Done,
    /// It was there already.
    Exists,
    /// The registry took it over from another repository.
    Mounted,
}

/// Receives progress; called from several threads at once. `item` is a digest's first twelve hex
/// digits or a short word, the same from start to finish.
pub trait Progress: Send + Sync {
    /// `item` enters `phase`; `total` is its size in bytes where known. Called again per phase.
    fn start(&self, item: &str, phase: Phase, total: Option<u64>);
    /// `bytes` more were done since the last call.
    fn advance(&self, item: &str, bytes: u64);
    /// `item` needs no more work.
    fn finish(&self, item: &str, outcome: Outcome);
    /// A line for the user, for example that an attempt failed and is repeated.
    fn message(&self, text: &str);
}

/// Progress that nobody watches.
#[derive(Debug, Clone, Copy, Default)]
pub struct Quiet;

impl Progress for Quiet {
    fn start(&self, _: &str, _: Phase, _: Option<u64>) {}
    fn advance(&self, _: &str, _: u64) {}
    fn finish(&self, _: &str, _: Outcome) {}
    fn message(&self, _: &str) {}
}
