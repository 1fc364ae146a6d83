//! Harness for the end-to-end tests: it runs the built binaries as a user would, each test in a
//! state directory of its own, and checks at the end that nothing was left behind.
//!
//! A test that cannot run here (not root, a client missing) says so on stderr with the word
//! `CANNOT RUN`, its name and the reason, so that a green run shows what it did not prove. The platform
//! on which the tests run is in [`isolation`].

mod bulkhead;
mod census;
mod command;
mod guest_program;
mod hostile;
mod image;
mod leftovers;
mod newer;
mod platform;
mod policy;
mod registry;
mod screen;
mod terminal;

pub use bulkhead_harness::{cannot_run, guard, say_cannot_run};

pub use bulkhead::{Bulkhead, User, binary, cache_home};
pub use census::{Calls, Census, Counting, Watched};
pub use command::{Finished, Running, run_tool, tool_exists};
pub use guest_program::guest_program;
pub use hostile::{HostileKernel, LINKED_AS_A_KERNEL};
pub use image::{Entry, busybox_tar, debian_archive, layer};
pub use leftovers::{Process, sandbox_processes};
pub use newer::Newer;
pub use platform::{Isolation, isolation, needs, patience, scaled, wait_until};
pub use policy::{Entry as PolicyEntry, Numbers, Policy};
pub use registry::{DockerRegistry, Fault, FaultyRegistry, TLS_NAME};
pub use screen::screen;
pub use terminal::Terminal;

/// Defines a test once and runs it both as root and as an ordinary user.
///
/// `each_user! { name(b) { … } }` becomes `name::as_root` and `name::as_user`, each with a fresh
/// [`Bulkhead`] in which the image `busybox` exists.
#[macro_export]
macro_rules! each_user {
    ($($(#[$meta:meta])* $name:ident($b:ident) $body:block)*) => {$(
        mod $name {
            #[allow(unused_imports)]
            use super::*;

            fn promise($b: &$crate::Bulkhead) $body

            $(#[$meta])*
            #[test]
            fn as_root() {
                if let Some(b) = $crate::Bulkhead::with_busybox($crate::User::Root) {
                    promise(&b);
                }
            }

            $(#[$meta])*
            #[test]
            fn as_user() {
                if let Some(b) = $crate::Bulkhead::with_busybox($crate::User::Ordinary) {
                    promise(&b);
                }
            }
        }
    )*};
}
