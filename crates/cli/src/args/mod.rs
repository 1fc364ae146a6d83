//! The command line as Docker's users type it, on clap.
//!
//! clap parses; this module gives it Docker's conventions (`--flag=false`, last one wins, one message
//! format, exit codes) and builds only the verb that was typed, because a full tree costs as much as the
//! rest of the command's start.

mod absent;
mod complaint;
mod cursor;
mod empty;
mod parsers;
mod tree;
mod verb;

pub use cursor::{Cursor, Line, Suggestion};
pub use parsers::{
    KeyValue, ListFileError, boolean, env_file, filter_text, label_file, parse_cpus, seconds,
    ulimit_text,
};
pub use tree::{full_tree, globals, parse};
pub use verb::{Arity, Execute, Group, Heading, Verb};
