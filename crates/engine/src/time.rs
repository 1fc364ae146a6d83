//! Times and durations as Docker's command line reads and prints them.

use jiff::{SignedDuration, Timestamp, civil, tz::TimeZone};

/// Docker's rough durations: `5 minutes`, `About an hour`.
pub fn human_duration(duration: SignedDuration) -> String {
    let seconds = duration.as_secs().max(0);
    let (minutes, hours) = (seconds / 60, (seconds + 1800) / 3600);
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

/// A point in time as `--since` and `--filter until=` take it: RFC 3339, a date or date and time in
/// the local time zone, seconds since the epoch with an optional fraction, or a duration before `now`
/// (`10m`, `1h30m`).
pub fn parse_time(text: &str, now: Timestamp) -> Option<Timestamp> {
    let text = text.trim();
    if let Some(time) = epoch(text) {
        return Some(time);
    }
    if let Ok(time) = text.parse::<Timestamp>() {
        return Some(time);
    }
    if let Ok(time) = text.parse::<civil::DateTime>() {
        return TimeZone::system().to_timestamp(time).ok();
    }
    let ago = text.parse::<SignedDuration>().ok()?;
    now.checked_sub(ago).ok()
}

fn epoch(text: &str) -> Option<Timestamp> {
    let (seconds, fraction) = text.split_once('.').unwrap_or((text, ""));
    let digits = |text: &str| text.bytes().all(|b| b.is_ascii_digit());
    if seconds.is_empty() || !digits(seconds) || !digits(fraction) || fraction.len() > 9 {
        return None;
    }
    let nanoseconds = format!("{fraction:0<9}").parse().ok()?;
    Timestamp::new(seconds.parse().ok()?, nanoseconds).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_as_dockers() {
        for (seconds, text) in [
            (-5, "Less than a second"),
            (0, "Less than a second"),
            (1, "1 second"),
            (59, "59 seconds"),
            (60, "About a minute"),
            (119, "About a minute"),
            (120, "2 minutes"),
            (3599, "59 minutes"),
            (3600, "About an hour"),
            (2 * 3600, "2 hours"),
            (47 * 3600, "47 hours"),
            (48 * 3600, "2 days"),
            (14 * 86400, "2 weeks"),
            (60 * 86400, "2 months"),
            (2 * 365 * 86400, "2 years"),
        ] {
            assert_eq!(
                human_duration(SignedDuration::from_secs(seconds)),
                text,
                "{seconds}"
            );
        }
    }

    #[test]
    fn times_are_read_in_every_form_that_docker_takes() {
        let now: Timestamp = "2024-05-06T12:00:00Z".parse().unwrap();
        let is = |text: &str, expected: &str| {
            assert_eq!(
                parse_time(text, now),
                Some(expected.parse().unwrap()),
                "{text}"
            );
        };
        is("2024-05-06T07:08:09.5Z", "2024-05-06T07:08:09.5Z");
        is("2024-05-06T07:08:09+02:00", "2024-05-06T05:08:09Z");
        is("1715000000", "2024-05-06T12:53:20Z");
        is("1715000000.25", "2024-05-06T12:53:20.25Z");
        is("10m", "2024-05-06T11:50:00Z");
        is("1h30m", "2024-05-06T10:30:00Z");
        is("0.5s", "2024-05-06T11:59:59.5Z");
        assert!(parse_time("2024-05-06", now).is_some());
        assert!(parse_time("2024-05-06T01:02:03", now).is_some());
        for bad in ["", "yesterday", "1.2.3", "12x", "2024-13-01"] {
            assert_eq!(parse_time(bad, now), None, "{bad}");
        }
    }
}
