//! What can go wrong while a jail is built.

use std::io;
use std::time::Duration;

use crate::report::{JailReport, Wall};

/// A jail could not be built. Walls that the *host* forbids are an error where compartments would not be separated
/// without them and the caller did not give them up; the others are in the [`JailReport`] only.
#[derive(Debug, thiserror::Error)]
pub enum JailError {
    /// The process has more threads than one, so the jailed copy would inherit locked locks.
    #[error("cannot start a jail from a process with {0} threads")]
    Threads(usize),
    /// The threads of this process could not be counted.
    #[error("cannot count the threads of this process")]
    CountThreads(#[source] io::Error),
    /// No process could be made.
    #[error("cannot start the jailed process")]
    Clone(#[source] io::Error),
    /// A pipe between the two processes could not be made.
    #[error("cannot make a pipe to the jailed process")]
    Pipe(#[source] io::Error),
    /// The id maps of the new user namespace could not be written.
    #[error("cannot map ids into the jail's user namespace")]
    IdMap(#[source] io::Error),
    /// The jailed process ended before its jail was complete.
    #[error("the jailed process ended before its jail was complete")]
    Died,
    /// The jailed process neither completed its jail nor ended.
    #[error("the jailed process did not complete its jail within {} seconds, and was killed", .0.as_secs())]
    Silent(Duration),
    /// The jailed process reported more than any jail has to report.
    #[error("the jailed process reported more than {0} bytes, and was killed")]
    Flood(usize),
    /// The jailed process said what it could not do.
    #[error("the jailed process could not {step}")]
    Inside {
        /// What it attempted.
        step: String,
        /// The host's answer.
        #[source]
        source: io::Error,
    },
    /// A step inside the jailed process failed.
    #[error("cannot {step}")]
    Step {
        /// What was attempted.
        step: &'static str,
        /// The host's answer.
        #[source]
        source: io::Error,
    },
    /// The private directory of a kernel process could not be filled.
    #[error("cannot place '{name}' in the kernel's root")]
    Place {
        /// Name inside that root.
        name: String,
        /// The host's answer.
        #[source]
        source: io::Error,
    },
    /// A name inside a kernel's root is not a plain relative path.
    #[error("'{0}' is not a name inside the kernel's root")]
    Name(String),
    /// An argument holds a zero byte.
    #[error("an argument of the kernel holds a zero byte")]
    Argument,
    /// The host refuses walls that separate compartments, and nobody gave them up.
    #[error("this host refuses walls that separate compartments: {}", .0.describe_weaknesses())]
    Weak(JailReport),
    /// The host refuses even what a weakened jail stands on.
    #[error(
        "this host has neither namespaces nor the Landlock of Linux 6.12, so nothing would keep a compartment from its user's other processes"
    )]
    Nothing,
    /// A wall that must stand was refused.
    #[error("cannot raise the wall: {wall}")]
    Wall {
        /// Which one.
        wall: Wall,
        /// The host's answer.
        #[source]
        source: io::Error,
    },
}

impl JailError {
    pub(crate) fn step(step: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Step { step, source }
    }
}
