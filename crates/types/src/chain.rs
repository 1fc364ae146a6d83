//! An error and its causes as one line, for people and for the other side of a process border.

use std::error::Error;

/// `error: cause: cause of the cause`. A cause whose words end the line already is not said twice: some
/// errors of other crates have their source's text in their own.
pub fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let words = cause.to_string();
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
}
