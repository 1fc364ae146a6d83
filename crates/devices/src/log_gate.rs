//! A bound on what a guest can make us log.
//!
//! A guest that can trigger a log line at will can fill the host's disk with it.

use std::time::{Duration, Instant};

/// Lines allowed in one [`WINDOW`].
const BURST: u32 = 5;
const WINDOW: Duration = Duration::from_secs(10);

/// Lets [`BURST`] lines through every [`WINDOW`] and counts the rest.
#[derive(Debug, Default)]
pub(crate) struct LogGate {
    started: Option<Instant>,
    passed: u32,
    suppressed: u64,
}

impl LogGate {
    /// `Some(suppressed)` if a line may be written now, with the number swallowed since the last one.
    pub(crate) fn pass(&mut self) -> Option<u64> {
        self.pass_at(Instant::now())
    }

    fn pass_at(&mut self, now: Instant) -> Option<u64> {
        let fresh = match self.started {
            None => true,
            Some(started) => now.duration_since(started) >= WINDOW,
        };
        if fresh {
            self.started = Some(now);
            self.passed = 0;
        }
        if self.passed >= BURST {
            self.suppressed = self.suppressed.saturating_add(1);
            return None;
        }
        self.passed += 1;
        Some(std::mem::take(&mut self.suppressed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_cut_to_a_burst_and_counted() {
        let mut gate = LogGate::default();
        let start = Instant::now();
        let passed = (0..1000).filter(|_| gate.pass_at(start).is_some()).count();
        assert_eq!(passed, BURST as usize);
        assert_eq!(gate.pass_at(start + WINDOW), Some(1000 - u64::from(BURST)));
    }
}
