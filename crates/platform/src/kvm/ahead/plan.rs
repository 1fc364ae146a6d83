//! What to map ahead of the guest: a decision from which pages are mapped already, and nothing else.
//!
//! Memory is divided into chunks, and each is mapped as a whole at most once. A chunk of which a good part was used is
//! mapped, and so is one into which a reader came from the chunk before: then together with those that follow, twice as
//! many as were mapped before it. A reader that goes on and on so meets a fault only where such a window ends; a few
//! pages here and there cause nothing.

use std::ops::Range;
use std::time::Duration;

/// Bytes of a chunk: what one page of page tables maps.
pub(super) const CHUNK: u64 = 2 << 20;

/// Pages of a chunk that are mapped when it is worth mapping the others: a quarter. The host maps up to 16 pages
/// around the one that is touched (`fault_around_bytes` in Linux's mm/memory.c), so these are at least eight touches.
const MANY: u64 = 128;
/// Mapped pages at the beginning of a chunk by which it is told that a reader came from the one before: more than one
/// touch makes.
const BEGUN: u64 = 32;
/// Most chunks that are mapped at once.
const LONGEST: u8 = 16;

/// Processor time of the machine between two looks while there is work.
const SHORTEST_PAUSE: Duration = Duration::from_millis(4);
/// Between two looks of which the first found nothing new.
const LONGEST_PAUSE: Duration = Duration::from_millis(32);
/// A look that leads to nothing may cost this part of the machine's processor time.
const SHARE: u32 = 32;

#[derive(Debug, Clone, Copy, Default)]
struct Chunk {
    /// Mapped pages when it was looked at before, and now.
    before: u16,
    now: u16,
    /// How many of these are at its beginning, without a gap.
    leading: u16,
    /// Chunks that were mapped together with it; zero if it was not mapped.
    window: u8,
}

/// What is known of a range of memory.
#[derive(Debug)]
pub(super) struct Plan {
    chunks: Vec<Chunk>,
}

impl Plan {
    /// For this many bytes; what is no whole chunk at their end is left alone.
    pub(super) fn new(bytes: u64) -> Self {
        let count = usize::try_from(bytes / CHUNK).unwrap_or(0);
        Self {
            chunks: vec![Chunk::default(); count],
        }
    }

    /// The first stretch of bytes from `offset` on that is worth looking at.
    pub(super) fn unmapped(&self, offset: u64) -> Option<Range<u64>> {
        let from = usize::try_from(offset.div_ceil(CHUNK)).ok()?;
        let rest = self.chunks.get(from..)?;
        let start = from + rest.iter().position(|chunk| chunk.window == 0)?;
        let rest = self.chunks.get(start..)?;
        let length = rest.iter().take_while(|chunk| chunk.window == 0).count();
        Some(start as u64 * CHUNK..(start + length) as u64 * CHUNK)
    }

    /// A look begins.
    pub(super) fn look(&mut self) {
        for chunk in &mut self.chunks {
            chunk.before = chunk.now;
            chunk.now = 0;
            chunk.leading = 0;
        }
    }

    /// The pages in these bytes are mapped. To be told in ascending order.
    pub(super) fn mapped(&mut self, bytes: Range<u64>) {
        const PAGE: u64 = super::PAGE;
        let mut start = bytes.start;
        while start < bytes.end {
            let end = bytes.end.min((start / CHUNK + 1) * CHUNK);
            let chunk = usize::try_from(start / CHUNK).ok();
            if let Some(chunk) = chunk.and_then(|index| self.chunks.get_mut(index)) {
                let pages = ((end - start) / PAGE) as u16;
                if u64::from(chunk.leading) == start % CHUNK / PAGE {
                    chunk.leading += pages;
                }
                chunk.now += pages;
            }
            start = end;
        }
    }

    /// After a look: the next bytes to map, until there are none.
    pub(super) fn next(&mut self) -> Option<Range<u64>> {
        let mut previous = 0_u8;
        for index in 0..self.chunks.len() {
            let chunk = *self.chunks.get(index)?;
            if chunk.window == 0 && chunk.now > chunk.before {
                let window = if previous > 0 && u64::from(chunk.leading) >= BEGUN {
                    previous.saturating_mul(2).min(LONGEST)
                } else {
                    u8::from(u64::from(chunk.now) >= MANY)
                };
                if window > 0 {
                    return Some(self.take(index, window));
                }
            }
            previous = chunk.window;
        }
        None
    }

    fn take(&mut self, first: usize, window: u8) -> Range<u64> {
        let unmapped = self.chunks.iter_mut().skip(first).take(window.into());
        let mut count = 0;
        for chunk in unmapped.take_while(|chunk| chunk.window == 0) {
            chunk.window = window;
            count += 1;
        }
        first as u64 * CHUNK..(first as u64 + count) * CHUNK
    }
}

/// Processor time of the machine until the next look, after one that came `pause` after the one before, took `cost` and
/// led to `work` or not.
pub(super) fn pause(pause: Duration, work: bool, cost: Duration) -> Duration {
    if work {
        // However costly: there is work at most once for each chunk.
        return SHORTEST_PAUSE;
    }
    pause
        .saturating_mul(2)
        .clamp(SHORTEST_PAUSE, LONGEST_PAUSE)
        .max(cost.saturating_mul(SHARE))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: u64 = super::super::PAGE;

    fn pages(first: u64, count: u64) -> Range<u64> {
        first * PAGE..(first + count) * PAGE
    }

    /// What is mapped after a look that finds these pages, in chunks.
    fn look(plan: &mut Plan, found: &[Range<u64>]) -> Vec<Range<u64>> {
        plan.look();
        for bytes in found {
            plan.mapped(bytes.clone());
        }
        let all = std::iter::from_fn(|| plan.next());
        all.map(|bytes| bytes.start / CHUNK..bytes.end / CHUNK)
            .collect()
    }

    #[test]
    fn a_few_pages_of_a_chunk_cause_nothing_and_a_quarter_maps_it_once() {
        let mut plan = Plan::new(8 * CHUNK);
        assert!(look(&mut plan, &[pages(3, 16), pages(600, 127)]).is_empty());
        assert_eq!(look(&mut plan, &[pages(3, 16), pages(600, 128)]), [1..2; 1]);
        assert!(look(&mut plan, &[pages(3, 16), pages(512, 512)]).is_empty());
    }

    #[test]
    fn pages_that_were_there_before_are_no_reason() {
        let mut plan = Plan::new(8 * CHUNK);
        assert_eq!(
            look(&mut plan, &[pages(0, 128), pages(512, 32)]),
            [0..1, 1..3]
        );
        let mut plan = Plan::new(8 * CHUNK);
        assert!(look(&mut plan, &[pages(512, 32)]).is_empty());
        assert_eq!(look(&mut plan, &[pages(0, 128), pages(512, 32)]), [0..1; 1]);
    }

    #[test]
    fn a_reader_that_goes_on_is_ahead_of_twice_as_much_each_time() {
        let mut plan = Plan::new(100 * CHUNK);
        let mut end = 0;
        let mut windows = Vec::new();
        while end < 100 {
            // It read all that was mapped, and some pages more.
            let reader = end * CHUNK..end * CHUNK + MANY * PAGE;
            let found = look(&mut plan, &[reader]);
            assert_eq!(found.len(), 1, "{found:?}");
            let window = found[0].clone();
            assert_eq!(window.start, end);
            windows.push(window.end - window.start);
            end = window.end;
        }
        assert_eq!(windows, [1, 2, 4, 8, 16, 16, 16, 16, 16, 5]);
        assert!(plan.unmapped(0).is_none());
    }

    #[test]
    fn a_fast_reader_is_caught_up_with_in_one_look() {
        let mut plan = Plan::new(100 * CHUNK);
        let found = look(&mut plan, &[pages(0, 512 * 6 + 40)]);
        assert_eq!(found, [0..1, 1..3, 3..7]);
    }

    #[test]
    fn a_touch_behind_a_mapped_chunk_does_not_pass_for_a_reader() {
        let mut plan = Plan::new(8 * CHUNK);
        assert_eq!(look(&mut plan, &[pages(0, 200)]), [0..1; 1]);
        assert!(look(&mut plan, &[pages(512, 16), pages(700, 16), pages(900, 16)]).is_empty());
    }

    #[test]
    fn a_window_ends_where_something_is_mapped_already() {
        let mut plan = Plan::new(8 * CHUNK);
        assert_eq!(look(&mut plan, &[pages(512 * 2, 200)]), [2..3; 1]);
        assert_eq!(look(&mut plan, &[pages(0, 200)]), [0..1; 1]);
        assert_eq!(look(&mut plan, &[pages(512, 40)]), [1..2; 1]);
        assert_eq!(plan.unmapped(0), Some(3 * CHUNK..8 * CHUNK));
        assert_eq!(plan.unmapped(3 * CHUNK + 1), Some(4 * CHUNK..8 * CHUNK));
        assert_eq!(plan.unmapped(8 * CHUNK), None);
        assert_eq!(plan.unmapped(u64::MAX), None);
    }

    #[test]
    fn what_lies_beyond_the_memory_or_is_no_whole_chunk_is_no_concern() {
        let mut plan = Plan::new(CHUNK + PAGE);
        assert_eq!(look(&mut plan, &[pages(0, 2000)]), [0..1; 1]);
        assert_eq!(plan.unmapped(0), None);
    }

    #[test]
    fn looks_become_rare_without_work_and_then_cost_no_more_than_their_share() {
        let mut now = Duration::ZERO;
        let mut seen = Vec::new();
        for _ in 0..5 {
            now = pause(now, false, Duration::ZERO);
            seen.push(now.as_millis());
        }
        assert_eq!(seen, [4, 8, 16, 32, 32]);
        assert_eq!(pause(now, true, Duration::ZERO), SHORTEST_PAUSE);
        let costly = Duration::from_millis(10);
        assert_eq!(pause(now, false, costly), costly * SHARE);
        assert_eq!(pause(costly * SHARE, true, costly), SHORTEST_PAUSE);
    }
}
