//! Which of two kernel releases is the newer.

use std::cmp::Ordering;

/// Compares releases part by part, runs of digits as numbers: 6.1.0-9 is older than 6.1.0-56.
pub(crate) fn compare(a: &str, b: &str) -> Ordering {
    let (mut a, mut b) = (a, b);
    loop {
        let (text_a, rest_a) = split(a, |byte| !byte.is_ascii_digit());
        let (text_b, rest_b) = split(b, |byte| !byte.is_ascii_digit());
        let (digits_a, rest_a) = split(rest_a, |byte| byte.is_ascii_digit());
        let (digits_b, rest_b) = split(rest_b, |byte| byte.is_ascii_digit());
        let order = text_a
            .cmp(text_b)
            .then_with(|| number(digits_a).cmp(&number(digits_b)));
        if order != Ordering::Equal || (rest_a.is_empty() && rest_b.is_empty()) {
            return order;
        }
        (a, b) = (rest_a, rest_b);
    }
}

fn split(text: &str, belongs: impl Fn(&u8) -> bool) -> (&str, &str) {
    let end = text.bytes().position(|byte| !belongs(&byte));
    text.split_at(end.unwrap_or(text.len()))
}

/// Without leading zeros a longer run of digits is the greater number.
fn number(digits: &str) -> (usize, &str) {
    let digits = digits.trim_start_matches('0');
    (digits.len(), digits)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_compared_as_numbers() {
        let mut releases = [
            "6.12.9-amd64",
            "6.1.0-9-amd64",
            "6.1.0-56-amd64",
            "6.1.0-056-amd64",
            "5.10.0-30-amd64",
        ];
        releases.sort_by(|a, b| compare(a, b));
        assert_eq!(
            releases,
            [
                "5.10.0-30-amd64",
                "6.1.0-9-amd64",
                "6.1.0-56-amd64",
                "6.1.0-056-amd64",
                "6.12.9-amd64"
            ]
        );
        assert_eq!(compare("é6", "é6"), Ordering::Equal);
        assert_eq!(compare("", ""), Ordering::Equal);
    }
}
