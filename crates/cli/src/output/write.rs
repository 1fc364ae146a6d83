//! Standard output. A reader that leaves (`bulkhead ps | head -1`) shows as a broken pipe, of which `main` ends
//! as every other program does.

use std::borrow::Cow;
use std::fmt;
use std::io::{self, IsTerminal, Write};

use bulkhead_types::GuestText;

/// Buffered standard output.
pub struct Out {
    inner: io::BufWriter<io::StdoutLock<'static>>,
    terminal: bool,
}

impl Out {
    /// Locks standard output.
    pub fn new() -> Self {
        Self {
            inner: io::BufWriter::new(io::stdout().lock()),
            terminal: io::stdout().is_terminal(),
        }
    }

    /// Writes `text`: as it is to a file or a pipe, for programs, and cleaned to a terminal. Labels, commands and the
    /// like are the words of an image.
    ///
    /// # Errors
    /// When nobody reads, or the disk behind it is full.
    pub fn text(&mut self, text: &str) -> io::Result<()> {
        self.inner.write_all(fit(text, self.terminal).as_bytes())
    }

    /// Writes `line` and a new line, and lets it go at once.
    ///
    /// # Errors
    /// As [`Out::text`].
    pub fn line(&mut self, line: &str) -> io::Result<()> {
        self.text(line)?;
        self.text("\n")?;
        self.flush()
    }

    /// Lets go what is buffered.
    ///
    /// # Errors
    /// As [`Out::text`].
    pub fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

/// Says something on standard error, with what the maker of an image, an archive or a guest put in it cleaned.
pub fn say(text: impl fmt::Display) {
    eprintln!("{}", GuestText::clean(&text.to_string()));
}

fn fit(text: &str, terminal: bool) -> Cow<'_, str> {
    if terminal {
        GuestText::clean(text).into()
    } else {
        text.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_of_an_image_steer_no_terminal() {
        let label = "{\"a\":\"\u{9b}2J\u{1b}]0;x\u{7}\u{202e}\"}\n";
        assert_eq!(fit(label, false), label);
        assert_eq!(
            fit(label, true),
            "{\"a\":\"\u{fffd}2J\u{fffd}]0;x\u{fffd}\u{fffd}\"}\n"
        );
    }
}
