//! How a process ended, and the exit codes that `docker run` made customary.

use serde::{Deserialize, Serialize};

/// How a container's process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExitStatus {
    /// 0–255; a process killed by signal *n* has 128 + *n*, as a shell and Docker report it.
    pub code: u8,
    /// The guest's kernel killed a process of the container for want of memory.
    #[serde(default)]
    pub oom_killed: bool,
}

impl ExitStatus {
    /// A process that called `exit(code)`.
    pub fn exited(code: u8) -> Self {
        Self {
            code,
            oom_killed: false,
        }
    }

    /// A process that signal `number` ended.
    pub fn signaled(number: u8) -> Self {
        Self {
            code: 128u8.saturating_add(number),
            oom_killed: false,
        }
    }

    /// Whether the process ended with code 0.
    pub fn success(self) -> bool {
        self.code == 0
    }
}

/// Exit codes of the command line itself (Docker CLI reference, "docker run: exit status").
pub mod exit_code {
    /// `--format` of `inspect`, `info` or `version` is no template.
    pub const NOT_A_TEMPLATE: u8 = 64;
    /// A command other than `run`, `exec` and `start -a` failed.
    pub const FAILURE: u8 = 1;
    /// Bulkhead itself failed: bad flag, missing image, no platform.
    pub const ENGINE: u8 = 125;
    /// The contained command was found but could not be executed.
    pub const NOT_EXECUTABLE: u8 = 126;
    /// The contained command was not found.
    pub const NOT_FOUND: u8 = 127;
}
