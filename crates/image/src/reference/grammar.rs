//! The parts of a reference, and what each may be made of (distribution project, `reference/regexp.go`).

use super::{HUB, HUB_NAMESPACE};

const HUB_LEGACY: &str = "index.docker.io";
const TAG_MAX: usize = 128;

/// The first component is a registry when it looks like a host: has a dot, a colon or an
/// upper-case letter, or is `localhost`.
pub(super) fn split_registry(name: &str) -> (String, String) {
    let (registry, repository) = match name.split_once('/') {
        Some((first, rest))
            if first == "localhost"
                || first.contains(['.', ':'])
                || first.bytes().any(|b| b.is_ascii_uppercase()) =>
        {
            (if first == HUB_LEGACY { HUB } else { first }, rest)
        }
        _ => (HUB, name),
    };
    let repository = if registry == HUB && !repository.contains('/') {
        format!("{HUB_NAMESPACE}{repository}")
    } else {
        repository.to_owned()
    };
    (registry.to_owned(), repository)
}

pub(super) fn is_registry(text: &str) -> bool {
    let (host, port) = if let Some(v6) = text.strip_prefix('[') {
        let Some((address, rest)) = v6.split_once(']') else {
            return false;
        };
        if address.is_empty() || !address.bytes().all(|b| b.is_ascii_hexdigit() || b == b':') {
            return false;
        }
        match rest {
            "" => return true,
            rest => match rest.strip_prefix(':') {
                Some(port) => (None, Some(port)),
                None => return false,
            },
        }
    } else {
        match text.split_once(':') {
            Some((host, port)) => (Some(host), Some(port)),
            None => (Some(text), None),
        }
    };
    let label = |label: &str| {
        !label.is_empty()
            && label
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    host.is_none_or(|host| host.split('.').all(label))
        && port.is_none_or(|port| {
            port.parse::<u16>().is_ok() && port.bytes().all(|b| b.is_ascii_digit())
        })
}

/// `[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*`
pub(super) fn is_component(text: &str) -> bool {
    let alphanumeric = |b: &u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let mut rest = text.as_bytes();
    loop {
        let word = rest.iter().take_while(|b| alphanumeric(b)).count();
        if word == 0 {
            return false;
        }
        rest = rest.get(word..).unwrap_or_default();
        if rest.is_empty() {
            return true;
        }
        let gap = rest.iter().take_while(|b| !alphanumeric(b)).count();
        let (separator, after) = rest.split_at(gap);
        let valid =
            matches!(separator, b"." | b"_" | b"__") || separator.iter().all(|b| *b == b'-');
        if !valid {
            return false;
        }
        rest = after;
    }
}

pub(super) fn is_tag(tag: &str) -> bool {
    let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    tag.len() <= TAG_MAX
        && tag.bytes().next().is_some_and(word)
        && tag.bytes().all(|b| word(b) || matches!(b, b'.' | b'-'))
}
