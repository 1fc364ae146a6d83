//! A line per item on a terminal, drawn anew as it goes on.

use std::io::{self, Write as _};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bulkhead_image::{Outcome, Phase, Progress};
use bulkhead_types::GuestText;
use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle};

use super::line::{self, Amount};
use super::{Shown, Work};
use crate::terminal;

/// Frames a second: enough for eyes, and they cost nothing beside the work.
const FRAMES: u8 = 10;
/// How often an item of unknown size is drawn without news.
const TURN: Duration = Duration::from_millis(200);
/// Columns of a terminal that does not say how many it has.
const COLUMNS: usize = 80;

pub struct Bars {
    work: Work,
    all: MultiProgress,
    items: Mutex<Vec<Item>>,
}

struct Item {
    name: String,
    bar: ProgressBar,
    /// How it ended, once it has.
    ended: Option<&'static str>,
}

impl Bars {
    pub fn new(work: Work) -> Self {
        Self {
            work,
            all: MultiProgress::with_draw_target(ProgressDrawTarget::stderr_with_hz(FRAMES)),
            items: Mutex::default(),
        }
    }

    fn items(&self) -> MutexGuard<'_, Vec<Item>> {
        self.items.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The item of this name, drawn in `style` from its very first frame.
    fn styled<'a>(
        &self,
        items: &'a mut Vec<Item>,
        name: &str,
        style: ProgressStyle,
    ) -> &'a mut Item {
        let place = items.iter().position(|item| item.name == name);
        let place = place.unwrap_or_else(|| {
            let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::hidden());
            items.push(Item {
                name: name.to_owned(),
                bar: self.all.add(bar.with_style(style.clone())),
                ended: None,
            });
            items.len() - 1
        });
        let item = &mut items[place];
        item.bar.set_style(style);
        item
    }
}

impl Progress for Bars {
    fn start(&self, name: &str, phase: Phase, total: Option<u64>) {
        let mut items = self.items();
        let item = self.styled(&mut items, name, working(name, phase, total));
        item.ended = None;
        item.bar.reset();
        match total {
            Some(_) => item.bar.disable_steady_tick(),
            None => item.bar.enable_steady_tick(TURN),
        }
        item.bar.tick();
    }

    fn advance(&self, name: &str, bytes: u64) {
        if let Some(item) = self.items().iter().find(|item| item.name == name) {
            item.bar.inc(bytes);
        }
    }

    fn finish(&self, name: &str, outcome: Outcome) {
        let mut items = self.items();
        let how = self.work.ended(outcome);
        let item = self.styled(&mut items, name, ended(name, how));
        item.ended = Some(how);
        item.bar.disable_steady_tick();
        item.bar.finish();
    }

    fn message(&self, text: &str) {
        // Above the bars; a terminal that is gone has nobody to tell.
        let _ = self.all.println(GuestText::clean(text));
    }
}

impl Shown for Bars {
    fn aside(&self, say: &mut dyn FnMut()) {
        let mut items = self.items();
        let (done, open): (Vec<Item>, Vec<Item>) =
            items.drain(..).partition(|item| item.ended.is_some());
        *items = open;
        for item in &done {
            self.all.remove(&item.bar);
        }
        self.all.suspend(|| {
            for item in &done {
                let how = item.ended.unwrap_or_default();
                let _ = writeln!(io::stderr(), "{}", line::ended(columns(), &item.name, how));
            }
            say();
        });
    }
}

/// How an item in a phase is drawn. The width is asked for each time: a terminal may be resized.
fn working(name: &str, phase: Phase, total: Option<u64>) -> ProgressStyle {
    let name = name.to_owned();
    whole_line(move |state, out| {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a rate for eyes"
        )]
        let rate = state.per_sec() as u64;
        let amount = Amount {
            done: state.pos(),
            total,
            rate,
            elapsed: state.elapsed(),
        };
        let _ = out.write_str(&line::working(columns(), &name, phase, amount));
    })
}

/// How an item that has ended is drawn.
fn ended(name: &str, how: &'static str) -> ProgressStyle {
    let name = name.to_owned();
    whole_line(move |_, out| {
        let _ = out.write_str(&line::ended(columns(), &name, how));
    })
}

/// indicatif's own elements know no width but their own.
fn whole_line(
    draw: impl Fn(&ProgressState, &mut dyn std::fmt::Write) + Clone + Send + Sync + 'static,
) -> ProgressStyle {
    ProgressStyle::with_template("{line}")
        .unwrap_or_else(|_| ProgressStyle::default_bar())
        .with_key("line", draw)
}

fn columns() -> usize {
    terminal::size_of(io::stderr()).map_or(COLUMNS, |size| usize::from(size.columns))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bars_survive_items_in_any_order() {
        let bars = Bars::new(Work::Pull);
        bars.advance("unknown", 1);
        bars.finish("unknown", Outcome::Exists);
        bars.start("a", Phase::Downloading, Some(10));
        bars.advance("a", 20);
        bars.start("a", Phase::Converting, None);
        bars.finish("a", Outcome::Done);
        assert_eq!(bars.items().len(), 2);
        assert!(bars.items().iter().all(|item| item.bar.is_finished()));
        bars.start("b", Phase::Loading, None);
        let mut said = 0;
        bars.aside(&mut || said += 1);
        assert_eq!(said, 1);
        assert_eq!(bars.items().len(), 1, "what goes on is still there");
        bars.finish("a", Outcome::Done);
    }
}
