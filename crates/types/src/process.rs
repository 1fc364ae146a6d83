//! What a process in a container is to be: the merged result of image configuration and flags.

use serde::{Deserialize, Serialize};

use crate::{Capabilities, Rlimit};

/// A process to start in a container. Names are resolved against the container's own
/// `/etc/passwd` and `/etc/group`, inside the guest, never on the host.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ProcessSpec {
    /// Program and arguments; the program is looked up in the environment's `PATH`.
    pub args: Vec<String>,
    /// `KEY=value` entries, later ones winning.
    pub env: Vec<String>,
    /// Absolute working directory. That of a main process is created when missing, as Docker does.
    pub cwd: String,
    /// `user[:group]`, each a name or a number; empty means root.
    pub user: String,
    /// Capability set.
    pub capabilities: Capabilities,
    /// Resource limits.
    pub rlimits: Vec<Rlimit>,
    /// Sets `PR_SET_NO_NEW_PRIVS`.
    pub no_new_privileges: bool,
    /// Gives the process a pseudo-terminal as its stdin, stdout and stderr.
    pub terminal: bool,
    /// Initial size of the terminal.
    pub terminal_size: Option<TerminalSize>,
}

/// Rows and columns of a terminal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct TerminalSize {
    /// Lines.
    pub rows: u16,
    /// Characters per line.
    pub columns: u16,
}
