//! What a user has to know about a run that goes on: the host's failures under its disks.
//!
//! The guest sees such a failure as an I/O error, and often hides it: writes that are buffered fail when nobody waits for
//! them any more. The device's thread tells the monitor, at most once for a disk and a kind of failure, so that a guest
//! which asks again and again neither floods the monitor nor the record.

use std::fmt;
use std::io;
use std::path::Path;

use bulkhead_devices::Fault;
use serde::{Deserialize, Serialize};

use crate::event::EventSender;
use crate::monitor::SANDBOX_LOG;
use crate::state::STATE_FILE;

/// Most warnings that a record keeps. Each takes less than 80 bytes of it, so that together they leave the page that is
/// set aside for a record (4096 bytes) enough room for the rest; what comes after them is in `sandbox.log` alone.
pub(crate) const MAX_WARNINGS: usize = 16;

/// Something that is wrong around a run and does not end it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Warning {
    /// The disk that the guest had an error of.
    pub disk: WarnedDisk,
    /// What the host answered.
    pub fault: DiskFault,
}

/// A disk of a compartment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum WarnedDisk {
    /// The image's, which is only read.
    Image,
    /// The container's own.
    Scratch,
    /// That of the volume with this index.
    Volume(u16),
}

/// How the host failed a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DiskFault {
    /// The file system that the disk's file is on, or a quota on it, is full.
    OutOfSpace,
    /// Another error, with its `errno`; 0 where there is none.
    Io(i32),
}

impl Warning {
    /// Whether both are about the same disk and the same kind of failure: the second says nothing new.
    pub(crate) fn is_like(&self, other: &Self) -> bool {
        self.disk == other.disk
            && std::mem::discriminant(&self.fault) == std::mem::discriminant(&other.fault)
    }
}

impl DiskFault {
    /// That the record of the container in `dir` could not be written for this reason, and what to do.
    pub fn of_record(&self, dir: &Path) -> String {
        let record = dir.join(STATE_FILE);
        let unwritten = format!(
            "the container's record {} could not be written: {self}",
            record.display()
        );
        let dir = dir.display();
        match self {
            Self::OutOfSpace => {
                format!("{unwritten}; free space in {dir}: it is written as soon as there is room")
            }
            Self::Io(_) => format!(
                "{unwritten}; see {dir}/{SANDBOX_LOG} and the host's kernel log: it is written as soon as that is mended"
            ),
        }
    }
}

impl From<&io::Error> for DiskFault {
    fn from(error: &io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::OutOfSpace,
            _ => Self::Io(error.raw_os_error().unwrap_or(0)),
        }
    }
}

impl fmt::Display for DiskFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OutOfSpace => f.write_str("No space left on device"),
            Self::Io(0) => f.write_str("I/O error"),
            Self::Io(code) => {
                let error = std::io::Error::from_raw_os_error(*code);
                f.write_str(&bulkhead_types::chain(&error))
            }
        }
    }
}

impl From<Fault> for DiskFault {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::OutOfSpace => Self::OutOfSpace,
            Fault::Io(code) => Self::Io(code.unwrap_or(0)),
            // A kind that a later device knows.
            _ => Self::Io(0),
        }
    }
}

/// What a disk's thread calls at each failure. It never blocks: where the monitor's queue is full, the next failure tries
/// again.
pub(crate) fn teller(events: EventSender, disk: WarnedDisk) -> impl FnMut(Fault) + Send + 'static {
    let mut told: Vec<Warning> = Vec::new();
    move |fault| {
        let warning = Warning {
            disk,
            fault: fault.into(),
        };
        // There are two kinds: so many are in it at most.
        if !told.iter().any(|earlier| earlier.is_like(&warning)) && events.warn(&warning).is_ok() {
            told.push(warning);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{self, Event, Received};

    #[test]
    fn a_flood_of_disk_faults_is_two_events() {
        let (mut receiver, sender) = event::channel().unwrap();
        let mut tell = teller(sender, WarnedDisk::Volume(3));
        for code in 0..10_000 {
            tell(Fault::OutOfSpace);
            tell(Fault::Io(Some(code % 100)));
        }
        let mut told = Vec::new();
        while let Received::Event(event) = receiver.receive().unwrap() {
            let Event::Warned(warning) = *event else {
                panic!("{event:?}")
            };
            told.push((warning.disk, warning.fault));
        }
        let volume = WarnedDisk::Volume(3);
        let expected = [(volume, DiskFault::OutOfSpace), (volume, DiskFault::Io(0))];
        assert_eq!(told, expected);
    }

    /// The device's thread would have waited for a monitor that does not read, and the guest's disk with it.
    #[test]
    fn a_monitor_that_does_not_read_holds_no_disk_up() {
        let (mut receiver, sender) = event::channel().unwrap();
        let filler = sender.try_clone().unwrap();
        while filler.packet_now(&[4, 3, b'x']).is_ok() {}
        let mut tell = teller(sender, WarnedDisk::Scratch);
        tell(Fault::OutOfSpace);
        for _ in 0..8 {
            receiver.receive().unwrap();
        }
        tell(Fault::OutOfSpace);
        let found = std::iter::from_fn(|| receiver.receive().ok())
            .take_while(|received| !matches!(received, Received::Closed))
            .take(500)
            .any(|received| matches!(received, Received::Event(event) if matches!(*event, Event::Warned(_))));
        assert!(found, "it was not told again");
    }
}
