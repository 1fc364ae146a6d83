//! What one line of a terminal says about one item. It is never wider than the terminal: a line that wraps is counted as
//! one and leaves its rest behind when it is drawn again.

use std::time::Duration;

use bulkhead_image::Phase;

use crate::output::size;

/// Columns of the longest phase.
const PHASE: usize = 13;
/// Columns of `999.9MB/999.9MB`.
const AMOUNT: usize = 15;
/// Columns of `1.234MB/s`.
const RATE: usize = 9;
/// A bar of fewer columns tells nothing: other things are left out before.
const SHORTEST_BAR: usize = 10;
/// A longer bar tells nothing more.
const LONGEST_BAR: usize = 30;

/// How far an item is.
#[derive(Debug, Clone, Copy)]
pub struct Amount {
    /// Bytes.
    pub done: u64,
    /// Bytes, where known.
    pub total: Option<u64>,
    /// Bytes per second.
    pub rate: u64,
    /// Since the phase began.
    pub elapsed: Duration,
}

/// An item in a phase.
pub fn working(width: usize, item: &str, phase: Phase, amount: Amount) -> String {
    let head = format!("{item}: {:<PHASE$} ", phase.as_str());
    let done = size(amount.done);
    let Some(total) = amount.total else {
        // A line that stands still looks like a hang.
        let turn = usize::try_from(amount.elapsed.as_millis() / 200).unwrap_or_default() % 4;
        let turn = ["-", "\\", "|", "/"].get(turn).unwrap_or(&"-");
        let elapsed = amount.elapsed.as_secs();
        return fit(width, &format!("{head}{turn} {done:>7} {elapsed}s"));
    };
    let counted = format!("{:>AMOUNT$}", format!("{done}/{}", size(total)));
    let rate = format!("{:>RATE$}", format!("{}/s", size(amount.rate)));
    for tail in [format!("{counted} {rate}"), counted.clone()] {
        // Besides head and tail the bar has two brackets and a space.
        let taken = head.chars().count() + tail.chars().count() + 3;
        let bar = width.saturating_sub(taken).min(LONGEST_BAR);
        if bar >= SHORTEST_BAR {
            return fit(
                width,
                &format!("{head}[{}] {tail}", drawn(bar, amount.done, total)),
            );
        }
    }
    fit(width, &format!("{head}{counted}"))
}

/// An item that needs no more work.
pub fn ended(width: usize, item: &str, how: &str) -> String {
    fit(width, &format!("{item}: {how}"))
}

/// Text of others, harmless for a terminal and one column per character.
pub fn clean(text: &str) -> String {
    let plain = |c: char| {
        if c.is_ascii_graphic() || c == ' ' {
            c
        } else {
            '?'
        }
    };
    text.chars().map(plain).collect()
}

fn fit(width: usize, text: &str) -> String {
    clean(text).chars().take(width).collect()
}

fn drawn(columns: usize, done: u64, total: u64) -> String {
    let whole = u128::from(total.max(1));
    let filled = u128::from(done).min(whole) * columns as u128 / whole;
    let filled = usize::try_from(filled).unwrap_or(columns);
    let head = if filled < columns { ">" } else { "" };
    format!("{:<columns$}", format!("{}{head}", "=".repeat(filled)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const BIG: Amount = Amount {
        done: 61_540_000,
        total: Some(170_400_000),
        rate: 128_790_000,
        elapsed: Duration::from_secs(3),
    };

    #[test]
    fn a_line_fits_whatever_the_width() {
        let long = "0123456789abcdef".repeat(4);
        for item in ["805f946ffc7c", "rootfs", long.as_str()] {
            for width in 0..200 {
                for done in [0, 61_540_000, 999_999_999_999, u64::MAX] {
                    let amount = Amount { done, ..BIG };
                    for total in [None, Some(0), Some(170_400_000), Some(u64::MAX)] {
                        let amount = Amount { total, ..amount };
                        let line = working(width, item, Phase::Bootstrapping, amount);
                        assert!(line.chars().count() <= width, "{width}: {line}");
                    }
                }
                assert!(ended(width, item, "Pull complete").chars().count() <= width);
            }
        }
    }

    #[test]
    fn a_narrow_terminal_goes_without_the_rate_and_then_without_the_bar() {
        let at = |width| working(width, "805f946ffc7c", Phase::Downloading, BIG);
        assert_eq!(
            at(80),
            "805f946ffc7c: Downloading   [========>               ] 61.54MB/170.4MB 128.8MB/s"
        );
        assert_eq!(
            at(60),
            "805f946ffc7c: Downloading   [=====>        ] 61.54MB/170.4MB"
        );
        assert_eq!(at(50), "805f946ffc7c: Downloading   61.54MB/170.4MB");
        assert_eq!(at(100).find(']'), at(200).find(']'));
    }

    #[test]
    fn names_from_an_archive_move_no_cursor() {
        assert_eq!(ended(80, "a\u{1b}[2Jb\u{4e00}", "Done"), "a?[2Jb?: Done");
    }
}
