//! Progress of operations that take long: bars on a terminal, lines elsewhere, nothing when quiet.

mod bars;
mod line;
mod lines;
mod words;

use std::io::IsTerminal;

use bulkhead_image::{Outcome, Phase, Progress, Quiet};

use bars::Bars;
use lines::Lines;
pub use words::Work;

/// Progress that shares a terminal with what a command itself says.
pub trait Shown: Progress {
    /// Lets `say` write to standard output or standard error while nothing else is drawn there. What has ended stays
    /// above it.
    fn aside(&self, say: &mut dyn FnMut());
}

/// The progress that suits where standard error goes, in the words of `work`.
pub fn choose(quiet: bool, work: Work) -> Box<dyn Shown> {
    if quiet {
        Box::new(Hidden)
    } else if std::io::stderr().is_terminal() {
        Box::new(Bars::new(work))
    } else {
        Box::new(Lines::new(work))
    }
}

/// Nothing, for `--quiet`.
struct Hidden;

impl Progress for Hidden {
    fn start(&self, item: &str, phase: Phase, total: Option<u64>) {
        Quiet.start(item, phase, total);
    }

    fn advance(&self, item: &str, bytes: u64) {
        Quiet.advance(item, bytes);
    }

    fn finish(&self, item: &str, outcome: Outcome) {
        Quiet.finish(item, outcome);
    }

    fn message(&self, text: &str) {
        Quiet.message(text);
    }
}

impl Shown for Hidden {
    fn aside(&self, say: &mut dyn FnMut()) {
        say();
    }
}
