//! Standard output. A reader that leaves (`bulkhead ps | head -1`) shows as a broken pipe, of which `main` ends
//! as every other program does.

use std::io::{self, Write};

/// Buffered standard output.
pub struct Out {
    inner: io::BufWriter<io::StdoutLock<'static>>,
}

impl Out {
    /// Locks standard output.
    pub fn new() -> Self {
        Self {
            inner: io::BufWriter::new(io::stdout().lock()),
        }
    }

    /// Writes `text` as it is.
    ///
    /// # Errors
    /// When nobody reads, or the disk behind it is full.
    pub fn text(&mut self, text: &str) -> io::Result<()> {
        self.inner.write_all(text.as_bytes())
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
