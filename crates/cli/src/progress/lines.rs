//! A line per change of phase, where standard error is no terminal.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use bulkhead_image::{Outcome, Phase, Progress};

use super::line::clean;
use super::{Shown, Work};
use crate::output::say;

pub struct Lines {
    work: Work,
    phases: Mutex<HashMap<String, Phase>>,
}

impl Lines {
    pub fn new(work: Work) -> Self {
        Self {
            work,
            phases: Mutex::default(),
        }
    }
}

impl Progress for Lines {
    fn start(&self, item: &str, phase: Phase, _: Option<u64>) {
        let mut phases = self.phases.lock().unwrap_or_else(PoisonError::into_inner);
        if phases.insert(item.to_owned(), phase) != Some(phase) {
            eprintln!("{}: {}", clean(item), phase.as_str());
        }
    }

    fn advance(&self, _: &str, _: u64) {}

    fn finish(&self, item: &str, outcome: Outcome) {
        eprintln!("{}: {}", clean(item), self.work.ended(outcome));
    }

    fn message(&self, text: &str) {
        say(text);
    }
}

impl Shown for Lines {
    fn aside(&self, say: &mut dyn FnMut()) {
        say();
    }
}
