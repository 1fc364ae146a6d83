//! How items end, in Docker's words, which differ by what is done.

use bulkhead_image::Outcome;

/// What is done to an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Work {
    /// From a registry.
    Pull,
    /// To a registry.
    Push,
    /// Everything else, for which Docker has no words of its own.
    Other,
}

impl Work {
    pub(super) fn ended(self, outcome: Outcome) -> &'static str {
        match (outcome, self) {
            (Outcome::Exists, Self::Push) => "Layer already exists",
            (Outcome::Exists, _) => "Already exists",
            (Outcome::Mounted, _) => "Mounted from another repository",
            (_, Self::Pull) => "Pull complete",
            (_, Self::Push) => "Pushed",
            (_, Self::Other) => "Done",
        }
    }
}
