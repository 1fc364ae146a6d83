//! The first process of every Bulkhead guest.
//!
//! The agent mounts a container's file systems, starts its processes, moves their bytes, reports their
//! ends and powers the machine off. It connects to the host and serves the calls of
//! `bulkhead-protocol` on that connection; it listens nowhere.
//!
//! ```text
//! boot      mounts, modules, connection            serve     ttRPC on that connection
//! service   one method per call                    container disks, root, cgroup ─ created once
//! starter   user, limits, program, streams    ──▶  clone + child: the new process until its exec
//! process   watches a process to its end      ◀──  pump: bytes between pipes and the host
//! init      the second life of the program: PID 1 of a container that wants one
//! ```
//!
//! One thread for all that cannot be held up (a thread more starts an exec'd process or fills volumes), no
//! daemon, and few system calls: in a user-mode kernel each costs 18 µs, a thread or a fork a hundred times that. What an image or a container can influence (account files, links, device
//! nodes, output) is bounded or left to the kernel's own containment; what the host sends is trusted,
//! since the host made the guest.

mod boot;
mod cgroup;
mod child;
mod clone;
mod container;
mod devices;
mod disks;
mod init;
mod inside;
mod machine;
mod modules;
mod process;
mod program;
mod pump;
mod rootfs;
mod serve;
mod service;
mod starter;
mod streams;
mod syscalls;
mod terminal;
mod thrash;
mod transport;
mod user;
mod view;
mod volume;

pub use boot::run as boot;
pub use container::Layout;
pub use init::{is_wanted as is_init, run as init};
pub use serve::{Served, serve};
pub use service::Guest;
pub use transport::{Dial, Dialing, Stream, VsockDialer};
pub use user::{Identity, UserError, resolve as resolve_user};
