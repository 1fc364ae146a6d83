//! An error and its causes as one line, for people and for the other side of a process border.

use std::borrow::Cow;
use std::error::Error;

/// `text` without the numbers that Rust adds to the system's words: `No such file or directory (os error 2)`. They are for
/// who debugs a program, and the words say the same.
pub fn without_codes(text: &str) -> Cow<'_, str> {
    const CODE: &str = " (os error ";
    if !text.contains(CODE) {
        return Cow::Borrowed(text);
    }
    let mut parts = text.split(CODE);
    let mut out = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        match part.split_once(')') {
            Some((number, rest)) if number.bytes().all(|b| b.is_ascii_digit()) => {
                out.push_str(rest);
            }
            _ => {
                out.push_str(CODE);
                out.push_str(part);
            }
        }
    }
    Cow::Owned(out)
}

/// `error: cause: cause of the cause`. A cause whose words end the line already is not said twice: some
/// errors of other crates have their source's text in their own. System errors are told [`without_codes`].
pub fn chain(error: &dyn Error) -> String {
    let words = |error: &dyn Error| without_codes(&error.to_string()).into_owned();
    let mut text = words(error);
    let mut next = error.source();
    while let Some(cause) = next {
        let words = words(cause);
        if !text.ends_with(&words) {
            text.push_str(": ");
            text.push_str(&words);
        }
        next = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug)]
    struct Link(&'static str, Option<Box<Link>>);

    impl std::fmt::Display for Link {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str(self.0)
        }
    }

    impl Error for Link {
        fn source(&self) -> Option<&(dyn Error + 'static)> {
            self.1.as_deref().map(|next| next as _)
        }
    }

    #[test]
    fn causes_follow_in_order_and_once() {
        let denied = Link("permission denied", None);
        let open = Link("cannot open x: permission denied", Some(Box::new(denied)));
        let outer = Link("cannot start", Some(Box::new(open)));
        assert_eq!(
            chain(&outer),
            "cannot start: cannot open x: permission denied"
        );
    }

    #[test]
    fn the_systems_words_come_without_rusts_numbers() {
        let missing = std::io::Error::from_raw_os_error(2);
        assert_eq!(chain(&missing), "No such file or directory");
        let outer = Link(
            "open /x: No such file or directory (os error 2): give up",
            None,
        );
        assert_eq!(chain(&outer), "open /x: No such file or directory: give up");
        for other in ["a (os error x)", "a (os error 2", "a"] {
            assert_eq!(without_codes(other), other);
        }
    }
}
