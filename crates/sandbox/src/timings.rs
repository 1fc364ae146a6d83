//! Where the time of a run went. Every mark is an absolute `CLOCK_MONOTONIC` time, so that marks set
//! by different processes of one host can be subtracted.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Number of marks.
pub(crate) const MARKS: usize = 12;

/// Marks of one run, in nanoseconds of `CLOCK_MONOTONIC`; 0 is "not reached".
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Timings {
    /// `launch` was called.
    pub launch: u64,
    /// The sandbox's monitor runs and has read its spec.
    pub monitor: u64,
    /// The jailed process runs, with every file open.
    pub jailed: u64,
    /// The platform has started the kernel.
    pub machine: u64,
    /// The agent began, by the guest's own uptime counted from `machine`: the kernel was done by then.
    pub guest: u64,
    /// The agent has answered its first call.
    pub agent: u64,
    /// The container's file systems are mounted.
    pub created: u64,
    /// The main process has been executed.
    pub started: u64,
    /// The main process's end became known.
    pub exited: u64,
    /// Every output stream was delivered to its end.
    pub drained: u64,
    /// The guest is gone.
    pub stopped: u64,
    /// The last state was recorded, or the directory removed.
    pub finished: u64,
}

/// A named stretch of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Phase {
    /// One word, for example `kernel`.
    pub name: &'static str,
    /// How long it took.
    pub took: Duration,
}

impl Timings {
    /// Every mark, in the order of the fields.
    pub(crate) fn to_marks(mut self) -> [u64; MARKS] {
        self.fields().map(|mark| *mark)
    }

    /// The reverse of [`Timings::to_marks`].
    pub(crate) fn from_marks(marks: [u64; MARKS]) -> Self {
        let mut timings = Self::default();
        for (field, mark) in timings.fields().into_iter().zip(marks) {
            *field = mark;
        }
        timings
    }

    fn fields(&mut self) -> [&mut u64; MARKS] {
        // Without the dots, so that a mark that is left out here does not compile.
        let Self {
            launch,
            monitor,
            jailed,
            machine,
            guest,
            agent,
            created,
            started,
            exited,
            drained,
            stopped,
            finished,
        } = self;
        [
            launch, monitor, jailed, machine, guest, agent, created, started, exited, drained,
            stopped, finished,
        ]
    }

    /// `CLOCK_MONOTONIC` now, in nanoseconds.
    pub fn now() -> u64 {
        let mut at = libc::timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        // SAFETY: the kernel writes one timespec through a valid pointer.
        if unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut at) } != 0 {
            return 0;
        }
        let part = |value: i64| u64::try_from(value).unwrap_or(0);
        part(at.tv_sec)
            .saturating_mul(1_000_000_000)
            .saturating_add(part(at.tv_nsec))
    }

    /// The phases that were completed, in order: spawn, jail, devices, kernel, agent, mount, exec, process,
    /// drain, teardown, record.
    pub fn phases(&self) -> Vec<Phase> {
        let marks = [
            ("spawn", self.launch, self.monitor),
            ("jail", self.monitor, self.jailed),
            ("devices", self.jailed, self.machine),
            ("kernel", self.machine, self.guest),
            ("agent", self.guest, self.agent),
            ("mount", self.agent, self.created),
            ("exec", self.created, self.started),
            ("process", self.started, self.exited),
            ("drain", self.exited, self.drained),
            ("teardown", self.drained, self.stopped),
            ("record", self.stopped, self.finished),
        ];
        marks
            .into_iter()
            .filter(|(_, from, to)| *from != 0 && *to != 0)
            .map(|(name, from, to)| Phase {
                name,
                took: Duration::from_nanos(to.saturating_sub(from)),
            })
            .collect()
    }

    /// From `launch` to the last mark that was reached.
    pub fn total(&self) -> Duration {
        // By the guest's own clock, which may be wrong.
        let ours = Self { guest: 0, ..*self };
        let last = ours.to_marks().into_iter().max().unwrap_or(0);
        Duration::from_nanos(last.saturating_sub(self.launch))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn phases_that_were_not_reached_are_left_out() {
        let timings = Timings {
            launch: 10,
            monitor: 15,
            jailed: 25,
            ..Timings::default()
        };
        let phases = timings.phases();
        assert_eq!(phases.len(), 2);
        assert_eq!(
            phases[1],
            Phase {
                name: "jail",
                took: Duration::from_nanos(10)
            }
        );
        assert_eq!(timings.total(), Duration::from_nanos(15));
    }

    #[test]
    fn a_mark_is_in_nanoseconds_of_the_clock_that_all_processes_of_the_host_share() {
        let nanoseconds = || {
            let now = nix::time::clock_gettime(nix::time::ClockId::CLOCK_MONOTONIC).unwrap();
            u64::try_from(Duration::from(now).as_nanos()).unwrap()
        };
        let (before, mark, after) = (nanoseconds(), Timings::now(), nanoseconds());
        assert!((before..=after).contains(&mark), "{before} {mark} {after}");
    }
}
