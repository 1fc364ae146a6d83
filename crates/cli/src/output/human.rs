//! Ages and sizes in the words of Docker's `go-units`.

use bulkhead_types::ByteSize;
use jiff::Timestamp;

/// How long ago, from `now`: `5 minutes ago`.
pub fn ago(then: Timestamp, now: Timestamp) -> String {
    format!(
        "{} ago",
        bulkhead_engine::human_duration(now.duration_since(then))
    )
}

/// Go's default form of a time, as Docker prints it.
pub fn created_at(time: Timestamp) -> String {
    time.to_zoned_datetime(jiff::tz::TimeZone::system())
        .strftime("%Y-%m-%d %H:%M:%S %z %Z")
        .to_string()
}

/// Bytes with four significant digits, as `docker ps -s` prints them: `1.234kB`.
pub fn size(bytes: u64) -> String {
    ByteSize(bytes).decimal()
}

/// Bytes in powers of 1024 with four significant digits, as `docker info` prints memory: `23.54GiB`.
pub fn binary_size(bytes: u64) -> String {
    ByteSize(bytes).binary()
}

/// Bytes with three significant digits, as `docker images` prints them: `124MB`.
pub fn image_size(bytes: u64) -> String {
    ByteSize(bytes).to_string()
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
    fn sizes_have_four_digits_and_image_sizes_three() {
        for (bytes, text) in [
            (0, "0B"),
            (999, "999B"),
            (1234, "1.234kB"),
            (124_000_000, "124MB"),
            (1_500, "1.5kB"),
        ] {
            assert_eq!(size(bytes), text);
        }
        assert_eq!(image_size(4_264_000), "4.26MB");
        assert_eq!(size(u64::MAX), "18.45EB");
        assert_eq!(binary_size(25_276_502_016), "23.54GiB");
        assert_eq!(binary_size(512 << 20), "512MiB");
        assert_eq!(binary_size(1023), "1023B");
    }

    #[test]
    fn what_is_cut_ends_in_an_ellipsis() {
        assert_eq!(
            ellipsis("sh -c 'echo hello world'", 20),
            "sh -c 'echo hello w…"
        );
        assert_eq!(ellipsis("short", 20), "short");
        assert_eq!(ellipsis("ééééé", 3), "éé…");
    }
}
