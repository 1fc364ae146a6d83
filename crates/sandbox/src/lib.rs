//! One compartment: lifecycle, devices, agent client, streams, logs, control socket.
//!
//! [`launch()`] starts a process that becomes a *monitor* (records the state, holds the lock that means
//! "running", never touches what the guest says) and its child, the *jailed sandbox* (devices, streams,
//! control socket). [`Client`] talks to the latter; [`read_state`] tells the truth about both.

mod boot;
mod client;
mod compartment;
mod event;
mod failure;
mod frame;
mod launch;
mod lock;
mod logs;
mod message;
mod monitor;
mod replace;
mod spec;
mod state;
mod streams;
mod timings;
mod warning;

pub use boot::FIXED_DEVICES;
pub use client::{AttachEnd, Attachment, CONTROL_SOCKET, Client, ClientError, Exec, ExecEnd};
pub use failure::StartFailure;
pub use frame::FrameError;
pub use launch::{LaunchError, LaunchOptions, Launched, is_monitor, launch};
pub use lock::{LOCK_FILE, is_running, wait_free};
pub use logs::{LogEntry, LogError, LogFilter, LogReader, LogStream};
pub use message::{AttachOptions, ControlError, Exit, Pong, Started, Stdio};
pub use monitor::{CONSOLE_LOG, KEEP_FILE, REMOVED_SUFFIX, SANDBOX_LOG, main};
pub use replace::replace_file;
pub use spec::{GuestDevice, JailSpec, LogSpec, SandboxSpec, TmpfsMount, VolumeDisk};
pub use state::{STATE_FILE, State, StateError, Status, mend_state, read_state};
pub use timings::{Phase, Timings};
pub use warning::{DiskFault, WarnedDisk, Warning};
