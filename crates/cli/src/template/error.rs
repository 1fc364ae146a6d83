//! Why a template cannot be parsed or rendered, in Go's words.

/// A template that cannot be parsed or rendered. Lines count from 1, columns are bytes from 0, as in Go.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TemplateError {
    /// The text is not a template.
    #[error("template: :{line}: {reason}")]
    Parse {
        /// Where the parser stood.
        line: usize,
        /// What it met.
        reason: String,
    },
    /// The template does not fit the data.
    #[error("template: :{line}:{column}: executing \"\" at <{node}>: {reason}")]
    Execute {
        /// Line of the node.
        line: usize,
        /// Byte within the line.
        column: usize,
        /// The node's source.
        node: String,
        /// What went wrong.
        reason: String,
        /// Whether it names a field that the data do not have: wrong whatever the data are.
        unknown_field: bool,
    },
}

impl TemplateError {
    /// A parse error at byte `at` of `source`.
    pub(super) fn parse(source: &str, at: usize, reason: impl Into<String>) -> Self {
        Self::Parse {
            line: position(source, at).0,
            reason: reason.into(),
        }
    }

    /// An error of the node that is `node` in the source, reported at byte `at`.
    pub(super) fn execute(source: &str, at: usize, node: &str, reason: impl Into<String>) -> Self {
        let (line, column) = position(source, at);
        // Go shortens a node's text to twenty bytes in messages.
        let node = if node.chars().count() > 20 {
            node.chars().take(20).chain("...".chars()).collect()
        } else {
            node.to_owned()
        };
        Self::Execute {
            line,
            column,
            node,
            reason: reason.into(),
            unknown_field: false,
        }
    }

    /// Whether it names a field that the data do not have.
    pub fn is_unknown_field(&self) -> bool {
        matches!(
            self,
            Self::Execute {
                unknown_field: true,
                ..
            }
        )
    }

    /// The same, as one that is wrong whatever the data are.
    pub(super) fn of_unknown_field(mut self) -> Self {
        if let Self::Execute { unknown_field, .. } = &mut self {
            *unknown_field = true;
        }
        self
    }
}

fn position(source: &str, at: usize) -> (usize, usize) {
    let before = source.as_bytes().get(..at).unwrap_or(source.as_bytes());
    let line = 1 + before.iter().filter(|b| **b == b'\n').count();
    let column = before.iter().rev().take_while(|b| **b != b'\n').count();
    (line, column)
}
