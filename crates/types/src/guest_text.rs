//! Text that a guest or the maker of an image wrote, or may have written a part of, made fit to be shown.

use std::fmt;
use std::ops::Deref;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Text of a guest or an image, cleaned: whoever holds one may print it to a terminal.
///
/// Both are hostile, and their words reach an administrator's terminal in error messages and records. Three kinds of
/// characters are replaced by U+FFFD:
///
/// * control characters: ESC and the C1 controls begin commands that set a terminal's title or clipboard;
/// * line and paragraph separators;
/// * characters that change the direction of writing: a line with one shows other words than it holds.
///
/// A tab stays.
///
/// It is cleaned wherever one is made, and again when it is read from a record or a socket, so that no way leads around.
#[derive(Clone, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct GuestText(String);

impl GuestText {
    /// Longest line in bytes. A path in a message has at most 4,096 (PATH_MAX), and a name or reason beside it little.
    /// What is longer is cut and ends with `…`.
    pub const MAX_LINE: usize = 5 << 10;
    /// Most lines of one text: an error with the last twenty lines of a console. Those that come after are left out.
    pub const MAX_LINES: usize = 32;

    /// One line. A line break in `text` is replaced too: what follows it would look like a line of ours.
    pub fn line(text: &str) -> Self {
        let mut out = String::with_capacity(text.len().min(Self::MAX_LINE));
        push_clean(&mut out, text);
        Self(out)
    }

    /// One line of bytes that should be UTF-8; those that are not are replaced.
    pub fn line_of_bytes(bytes: &[u8]) -> Self {
        // Four bytes make a character at most; what is beyond would be cut anyway.
        let most = bytes.len().min(Self::MAX_LINE + 4);
        Self::line(&String::from_utf8_lossy(
            bytes.get(..most).unwrap_or_default(),
        ))
    }

    /// Several lines, whose breaks are meant: a message of ours around lines of a guest that were cleaned before.
    pub fn lines(text: &str) -> Self {
        let mut out = String::new();
        for (index, line) in text.split('\n').take(Self::MAX_LINES).enumerate() {
            if index > 0 {
                out.push('\n');
            }
            push_clean(&mut out, line);
        }
        Self(out)
    }

    /// Text of any length, cleaned for a terminal: as [`GuestText::lines`], but nothing is cut. A carriage return before
    /// a line break, which every console writes, goes.
    pub fn clean(text: &str) -> String {
        text.replace("\r\n", "\n")
            .chars()
            .map(|c| {
                if c != '\n' && is_unsafe(c) {
                    char::REPLACEMENT_CHARACTER
                } else {
                    c
                }
            })
            .collect()
    }

    /// A cell of a table, cleaned and not cut: what would end its column or its line is a space, since commands of many
    /// lines are common in a history.
    pub fn cell(text: &str) -> String {
        text.chars()
            .map(|c| match c {
                '\t' | '\n' => ' ',
                c if is_unsafe(c) => char::REPLACEMENT_CHARACTER,
                c => c,
            })
            .collect()
    }

    /// The first `most` characters as one line.
    pub fn start(text: &str, most: usize) -> Self {
        Self::line(&text.chars().take(most).collect::<String>())
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

fn push_clean(out: &mut String, line: &str) {
    const CUT: char = '…';
    let most = out.len() + GuestText::MAX_LINE - CUT.len_utf8();
    for c in line.chars() {
        let c = if is_unsafe(c) {
            char::REPLACEMENT_CHARACTER
        } else {
            c
        };
        if out.len() + c.len_utf8() > most {
            out.push(CUT);
            return;
        }
        out.push(c);
    }
}

/// What a terminal or the eye does not take for text.
fn is_unsafe(c: char) -> bool {
    match c {
        '\t' => false,
        // Line and paragraph separator.
        '\u{2028}' | '\u{2029}' => true,
        // Marks, embeddings, overrides and isolates of the Unicode bidirectional algorithm (UAX #9).
        '\u{061c}'
        | '\u{200e}'
        | '\u{200f}'
        | '\u{202a}'..='\u{202e}'
        | '\u{2066}'..='\u{2069}' => true,
        c => c.is_control(),
    }
}

impl Deref for GuestText {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl From<&str> for GuestText {
    fn from(text: &str) -> Self {
        Self::line(text)
    }
}

impl From<String> for GuestText {
    fn from(text: String) -> Self {
        Self::line(&text)
    }
}

impl From<GuestText> for String {
    fn from(text: GuestText) -> Self {
        text.0
    }
}

impl fmt::Display for GuestText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl fmt::Debug for GuestText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl PartialEq<str> for GuestText {
    fn eq(&self, other: &str) -> bool {
        self.0 == other
    }
}

impl PartialEq<&str> for GuestText {
    fn eq(&self, other: &&str) -> bool {
        self.0 == *other
    }
}

impl Serialize for GuestText {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for GuestText {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Self::lines(&String::deserialize(deserializer)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_in_a_line_steers_a_terminal_or_forges_a_line() {
        let hostile = "a\x1b]0;title\x07b\u{9b}31mc\nWARNING: forged\rd\x00e\tf\x7f\u{2028}g";
        let text = GuestText::line(hostile);
        assert_eq!(
            text,
            "a\u{fffd}]0;title\u{fffd}b\u{fffd}31mc\u{fffd}WARNING: forged\u{fffd}d\u{fffd}e\tf\u{fffd}\u{fffd}g"
        );
        assert!(!text.chars().any(|c| c.is_control() && c != '\t'));
        // A word that is shown backwards.
        assert_eq!(GuestText::line("\u{202e}txt.exe"), "\u{fffd}txt.exe");
        assert_eq!(GuestText::line("grüße 你好 👩‍🚀"), "grüße 你好 👩‍🚀");
    }

    #[test]
    fn a_whole_console_keeps_its_lines_and_nothing_else() {
        let text = GuestText::clean("one\r\n\ttwo\x1b[2J\n\rthree");
        assert_eq!(text, "one\n\ttwo\u{fffd}[2J\n\u{fffd}three");
    }

    #[test]
    fn bytes_that_are_no_text_are_replaced() {
        assert_eq!(
            GuestText::line_of_bytes(b"a\xff\x1bb"),
            "a\u{fffd}\u{fffd}b"
        );
    }

    #[test]
    fn length_and_number_of_lines_are_bounded() {
        let line = GuestText::line(&"ä".repeat(100_000));
        assert!(
            line.len() <= GuestText::MAX_LINE && line.ends_with('…'),
            "{}",
            line.len()
        );
        let lines = GuestText::lines(&"\x1bx\n".repeat(100_000));
        assert_eq!(lines.split('\n').count(), GuestText::MAX_LINES);
        assert!(!lines.contains('\x1b'));
        assert!(GuestText::line_of_bytes(&[0xe4; 100_000]).len() <= GuestText::MAX_LINE);
    }

    #[test]
    fn a_cell_stays_in_its_column_and_its_line() {
        assert_eq!(
            GuestText::cell("a\tb\nc\u{1b}]0;x\u{7}\u{9b}2J\u{202e}"),
            "a b c\u{fffd}]0;x\u{fffd}\u{fffd}2J\u{fffd}"
        );
        let long = "x".repeat(GuestText::MAX_LINE * 2);
        assert_eq!(GuestText::cell(&long), long);
    }
}
