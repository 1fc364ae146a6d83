//! On which platform the tests run, how long they wait there, and how much they repeat.
//!
//! | variable | meaning |
//! |---|---|
//! | `BULKHEAD_E2E_ISOLATION` | `kvm` or `user-mode`, given to every command; by default what Bulkhead chooses |
//! | `BULKHEAD_E2E_PATIENCE` | factor for every deadline, at least 1; the rig's emulated machine is slow (default 1) |
//! | `BULKHEAD_E2E_SCALE` | part of the repetitions and bytes that long tests do; 1, the default, is all of them |

use std::process::Command;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use crate::bulkhead::binary;

/// What separates a container from the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Isolation {
    /// A virtual machine on hardware virtualization.
    Kvm,
    /// A Linux kernel as an ordinary process.
    UserMode,
}

impl Isolation {
    /// As the command line spells it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Kvm => "kvm",
            Self::UserMode => "user-mode",
        }
    }

    fn named(name: &str) -> Self {
        match name {
            "kvm" => Self::Kvm,
            "user-mode" => Self::UserMode,
            other => panic!("there is no isolation '{other}': kvm or user-mode"),
        }
    }
}

/// The platform that the test run asks for; `None` when it is left to Bulkhead.
pub(crate) fn asked_for() -> Option<Isolation> {
    let name = std::env::var("BULKHEAD_E2E_ISOLATION").ok()?;
    (!name.is_empty()).then(|| Isolation::named(&name))
}

/// The platform on which this run's containers are.
pub fn isolation() -> Isolation {
    static ISOLATION: OnceLock<Isolation> = OnceLock::new();
    *ISOLATION.get_or_init(|| {
        asked_for().unwrap_or_else(|| {
            let root = tempfile::tempdir().expect("temporary directory");
            let out = Command::new(binary())
                .args(["info", "--format", "json"])
                .env("BULKHEAD_ROOT", root.path())
                .output()
                .expect("start bulkhead");
            let info: serde_json::Value =
                serde_json::from_slice(&out.stdout).expect("info prints JSON");
            Isolation::named(info["DefaultIsolation"].as_str().expect("DefaultIsolation"))
        })
    })
}

/// Whether this run is on `wanted`; when not, says what that leaves unproven here.
pub fn needs(wanted: Isolation) -> bool {
    let here = isolation() == wanted;
    if !here {
        crate::cannot_run!(
            "this is about {}, and the tests run on {}",
            wanted.name(),
            isolation().name()
        );
    }
    here
}

fn factor(variable: &str, default: f64) -> f64 {
    std::env::var(variable).map_or(default, |text| {
        text.parse()
            .unwrap_or_else(|e| panic!("{variable}={text}: {e}"))
    })
}

/// A deadline that was chosen for a machine of its own, for the machine that this is.
pub fn patience(deadline: Duration) -> Duration {
    deadline.mul_f64(factor("BULKHEAD_E2E_PATIENCE", 1.0).max(1.0))
}

/// How many repetitions or bytes of `full` to do here; at least `least`.
pub fn scaled(full: usize, least: usize) -> usize {
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss
    )]
    let part = (full as f64 * factor("BULKHEAD_E2E_SCALE", 1.0)) as usize;
    part.clamp(least.min(full), full)
}

/// Waits until `condition` holds, for at most [`patience`] of `deadline`; whether it does.
#[must_use = "a test that drops the answer goes on as if it had been yes"]
pub fn wait_until(deadline: Duration, mut condition: impl FnMut() -> bool) -> bool {
    let end = Instant::now() + patience(deadline);
    loop {
        if condition() {
            return true;
        }
        if Instant::now() > end {
            return false;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}
