//! Durations and sizes in the words of Docker's `go-units`.

use bulkhead_types::ByteSize;
use jiff::Timestamp;

/// A duration in words: `Less than a second`, `About a minute`, `3 days`.
pub fn duration(seconds: i64) -> String {
    let minutes = seconds / 60;
    let hours = (seconds + 1800) / 3600;
    match () {
        () if seconds < 1 => "Less than a second".to_owned(),
        () if seconds == 1 => "1 second".to_owned(),
        () if seconds < 60 => format!("{seconds} seconds"),
        () if minutes == 1 => "About a minute".to_owned(),
        () if minutes < 60 => format!("{minutes} minutes"),
        () if hours == 1 => "About an hour".to_owned(),
        () if hours < 48 => format!("{hours} hours"),
        () if hours < 24 * 7 * 2 => format!("{} days", hours / 24),
        () if hours < 24 * 30 * 2 => format!("{} weeks", hours / 24 / 7),
        () if hours < 24 * 365 * 2 => format!("{} months", hours / 24 / 30),
        () => format!("{} years", seconds / 3600 / 24 / 365),
    }
}

/// How long ago, from `now`: `5 minutes ago`.
pub fn ago(then: Timestamp, now: Timestamp) -> String {
    format!("{} ago", duration(now.as_second() - then.as_second()))
}

/// Bytes with four significant digits, as `docker ps -s` prints them: `1.234kB`.
pub fn size(bytes: u64) -> String {
    significant(bytes, 4)
}

/// Bytes with three significant digits, as `docker images` prints them: `124MB`.
pub fn image_size(bytes: u64) -> String {
    ByteSize(bytes).to_string()
}

fn significant(bytes: u64, digits: usize) -> String {
    const UNITS: [&str; 7] = ["B", "kB", "MB", "GB", "TB", "PB", "EB"];
    #[allow(clippy::cast_precision_loss)]
    let mut value = bytes as f64;
    let mut unit = 0;
    while value >= 1000.0 && unit + 1 < UNITS.len() {
        value /= 1000.0;
        unit += 1;
    }
    let whole = if value >= 100.0 { 3 } else if value >= 10.0 { 2 } else { 1 };
    let text = format!("{value:.*}", digits.saturating_sub(whole));
    let text = if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.') } else { &text };
    format!("{text}{}", UNITS.get(unit).unwrap_or(&""))
}

/// At most `length` characters, the last of them `…` where something was cut.
pub fn ellipsis(text: &str, length: usize) -> String {
    if text.chars().count() <= length {
        return text.to_owned();
    }
    let mut short: String = text.chars().take(length.saturating_sub(1)).collect();
    short.push('…');
    short
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_in_dockers_words() {
        const HOUR: i64 = 3600;
        const DAY: i64 = 24 * HOUR;
        for (seconds, text) in [
            (-5, "Less than a second"),
            (0, "Less than a second"),
            (1, "1 second"),
            (59, "59 seconds"),
            (60, "About a minute"),
            (119, "About a minute"),
            (120, "2 minutes"),
            (59 * 60, "59 minutes"),
            (HOUR, "About an hour"),
            (89 * 60, "About an hour"),
            (90 * 60, "2 hours"),
            (47 * HOUR, "47 hours"),
            (48 * HOUR, "2 days"),
            (13 * DAY, "13 days"),
            (14 * DAY, "2 weeks"),
            (59 * DAY, "8 weeks"),
            (60 * DAY, "2 months"),
            (729 * DAY, "24 months"),
            (730 * DAY, "2 years"),
        ] {
            assert_eq!(duration(seconds), text, "{seconds}");
        }
    }

    #[test]
    fn sizes_have_four_digits_and_image_sizes_three() {
        for (bytes, text) in [(0, "0B"), (999, "999B"), (1234, "1.234kB"), (124_000_000, "124MB"), (1_500, "1.5kB")] {
            assert_eq!(size(bytes), text);
        }
        assert_eq!(image_size(4_264_000), "4.26MB");
        assert_eq!(size(u64::MAX), "18.45EB");
    }

    #[test]
    fn what_is_cut_ends_in_an_ellipsis() {
        assert_eq!(ellipsis("sh -c 'echo hello world'", 20), "sh -c 'echo hello w…");
        assert_eq!(ellipsis("short", 20), "short");
        assert_eq!(ellipsis("ééééé", 3), "éé…");
    }
}
