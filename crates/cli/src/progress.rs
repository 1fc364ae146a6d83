//! Progress of operations that take long: bars on a terminal, lines elsewhere, nothing when quiet.

use std::collections::HashMap;
use std::io::IsTerminal;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bulkhead_image::{Outcome, Phase, Progress, Quiet};
use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

/// The progress that suits where standard error goes.
pub fn choose(quiet: bool) -> Box<dyn Progress> {
    if quiet {
        Box::new(Quiet)
    } else if std::io::stderr().is_terminal() {
        Box::new(Bars::new())
    } else {
        Box::new(Lines::default())
    }
}

/// A bar per item.
struct Bars {
    all: MultiProgress,
    items: Mutex<HashMap<String, ProgressBar>>,
}

impl Bars {
    fn new() -> Self {
        // Ten frames a second are enough for eyes and cost nothing beside the work.
        let all = MultiProgress::with_draw_target(ProgressDrawTarget::stderr_with_hz(10));
        Self {
            all,
            items: Mutex::new(HashMap::new()),
        }
    }

    fn items(&self) -> MutexGuard<'_, HashMap<String, ProgressBar>> {
        self.items.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template)
        .unwrap_or_else(|_| ProgressStyle::default_bar())
        .progress_chars("=> ")
}

const SIZED: &str = "{prefix}: {msg:<13} [{bar:30}] {decimal_bytes:>9}/{decimal_total_bytes:<9} {decimal_bytes_per_sec}";
const UNSIZED: &str = "{prefix}: {msg:<13} {spinner} {decimal_bytes:>9} {elapsed}";

impl Progress for Bars {
    fn start(&self, item: &str, phase: Phase, total: Option<u64>) {
        let mut items = self.items();
        let bar = items.entry(item.to_owned()).or_insert_with(|| {
            self.all
                .add(ProgressBar::no_length())
                .with_prefix(item.to_owned())
        });
        bar.set_position(0);
        bar.reset_eta();
        bar.set_message(phase.as_str());
        match total {
            Some(total) => {
                bar.set_style(style(SIZED));
                bar.set_length(total);
            }
            None => {
                bar.set_style(style(UNSIZED));
                // A spinner that stands still looks like a hang.
                bar.enable_steady_tick(Duration::from_millis(200));
            }
        }
    }

    fn advance(&self, item: &str, bytes: u64) {
        if let Some(bar) = self.items().get(item) {
            bar.inc(bytes);
        }
    }

    fn finish(&self, item: &str, outcome: Outcome) {
        let mut items = self.items();
        let bar = items.entry(item.to_owned()).or_insert_with(|| {
            self.all
                .add(ProgressBar::no_length())
                .with_prefix(item.to_owned())
        });
        bar.disable_steady_tick();
        bar.set_style(style("{prefix}: {msg}"));
        bar.finish_with_message(word(outcome));
    }

    fn message(&self, text: &str) {
        // Above the bars; a terminal that is gone has nobody to tell.
        let _ = self.all.println(text);
    }
}

/// A line per change of phase.
#[derive(Default)]
struct Lines {
    phases: Mutex<HashMap<String, Phase>>,
}

impl Progress for Lines {
    fn start(&self, item: &str, phase: Phase, _: Option<u64>) {
        let mut phases = self.phases.lock().unwrap_or_else(PoisonError::into_inner);
        if phases.insert(item.to_owned(), phase) != Some(phase) {
            eprintln!("{item}: {}", phase.as_str());
        }
    }

    fn advance(&self, _: &str, _: u64) {}

    fn finish(&self, item: &str, outcome: Outcome) {
        eprintln!("{item}: {}", word(outcome));
    }

    fn message(&self, text: &str) {
        eprintln!("{text}");
    }
}

fn word(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Done => "Done",
        Outcome::Exists => "Already exists",
        Outcome::Mounted => "Mounted from another repository",
        _ => "Done",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bars_survive_items_in_any_order() {
        let bars = Bars::new();
        bars.advance("unknown", 1);
        bars.finish("unknown", Outcome::Exists);
        bars.start("a", Phase::Downloading, Some(10));
        bars.advance("a", 20);
        bars.start("a", Phase::Converting, None);
        bars.finish("a", Outcome::Done);
        assert_eq!(bars.items().len(), 2);
        assert!(bars.items()["a"].is_finished());
    }
}
