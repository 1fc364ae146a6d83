//! What the jailed half tells the monitor: packets of fixed layout on a socket that keeps their borders
//! (`SOCK_SEQPACKET`). The monitor is not jailed, so what it reads must be as little as can be: numbers, and beside them
//! text in a field that nobody takes for more than a guest's words.
//!
//! | first byte | then, little-endian |
//! |---|---|
//! | 1, started | guest's PID `u32`, time, timings |
//! | 2, failed | [`FailureCode`] `u8`, timings |
//! | 3, ended | exit code `u8`, [flags](FLAG_OOM) `u8`, time, bytes of log lost `u64`, timings |
//! | 4, text | [`Field`] `u8`, at most [`MAX_TEXT`] bytes: precedes the event that it belongs to |
//! | 5, warned | disk `u16` (0 is the container's own, `0xffff` the image's, another one that of the volume before it), [fault](FAULT_SPACE) `u8`, `errno` `i32`; may come between texts |
//!
//! A time is seconds `i64` and nanoseconds `i32` since 1970, timings are twelve times `u64`. A packet of any other form, or
//! more of them than a run has use for, is a violation: the monitor kills the sandbox and records that.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use bulkhead_jail::JailReport;
use bulkhead_types::{ExitStatus, GuestText};
use jiff::Timestamp;
use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockType, recv, send, socketpair};

use crate::failure::StartFailure;
use crate::message::{Exit, Started};
use crate::timings::{MARKS, Timings};
use crate::warning::{DiskFault, WarnedDisk, Warning};

/// Longest packet in bytes; a longer one is a violation.
const MAX_PACKET: usize = 512;
/// Most bytes of text in one packet; longer text is several packets.
const MAX_TEXT: usize = 480;
/// Most packets of one run: a failed boot with twenty lines of console, each of a screen's width or several, takes fewer
/// than a hundred. More are a violation, so that the monitor's work for a run is bounded.
const MAX_PACKETS: u32 = 512;
/// An event whose text has come follows at once. A sandbox that leaves it out for this long is broken.
const COMPLETE_WITHIN: Duration = Duration::from_secs(5);

/// Flag of an end: the guest's kernel killed a process for want of memory.
const FLAG_OOM: u8 = 1;
/// Flag of an end: the text before it is the error of the compartment.
const FLAG_ERROR: u8 = 2;

/// Number of the container's own disk in a warning; volumes follow it.
const DISK_SCRATCH: u16 = 0;
/// Number of the image's disk in a warning.
const DISK_IMAGE: u16 = u16::MAX;
/// Fault of a warning: no space.
const FAULT_SPACE: u8 = 1;
/// Fault of a warning: the error that follows.
const FAULT_IO: u8 = 2;
/// Greatest error number of Linux.
const MAX_ERRNO: i32 = 4095;

/// Jailed half → monitor; the monitor acknowledges `Ended`.
#[derive(Debug)]
pub(crate) enum Event {
    Started(Started),
    Failed {
        failure: StartFailure,
        timings: Timings,
    },
    Ended {
        exit: Exit,
        log_bytes_lost: u64,
    },
    Warned(Warning),
}

/// Which failure it was; its words are text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
enum FailureCode {
    Jail = 1,
    Platform,
    Boot,
    Create,
    CommandNotFound,
    NotExecutable,
    UnknownUser,
    Setup,
    Stopped,
}

impl FailureCode {
    const ALL: [Self; 9] = [
        Self::Jail,
        Self::Platform,
        Self::Boot,
        Self::Create,
        Self::CommandNotFound,
        Self::NotExecutable,
        Self::UnknownUser,
        Self::Setup,
        Self::Stopped,
    ];
}

/// What a text is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
enum Field {
    /// The guest's `uname -r`.
    KernelRelease = 1,
    /// Words of a failure or an error; more of them are appended.
    Reason,
    /// A line of the guest's console.
    Console,
    /// More of the last line of the guest's console.
    ConsoleMore,
}

impl Field {
    const ALL: [Self; 4] = [
        Self::KernelRelease,
        Self::Reason,
        Self::Console,
        Self::ConsoleMore,
    ];
}

/// The jailed half did not keep to the layout.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("it broke the event protocol: {0}")]
pub(crate) struct Violation(&'static str);

/// A connected pair: the monitor's end and the jailed half's.
pub(crate) fn channel() -> io::Result<(EventReceiver, EventSender)> {
    let (ours, theirs) = socketpair(
        AddressFamily::Unix,
        SockType::SeqPacket,
        None,
        SockFlag::SOCK_CLOEXEC,
    )?;
    Ok((EventReceiver::new(ours), EventSender(theirs.into())))
}

/// The jailed half's end.
#[derive(Debug)]
pub(crate) struct EventSender(UnixStream);

impl EventSender {
    /// Sends an event with its texts.
    pub fn send(&self, event: &Event) -> io::Result<()> {
        let mut packet = Vec::with_capacity(MAX_PACKET);
        match event {
            Event::Started(started) => {
                self.text(Field::KernelRelease, &started.kernel_release)?;
                packet.push(1);
                packet.extend(started.guest_pid.to_le_bytes());
                push_time(&mut packet, started.at);
                push_timings(&mut packet, &started.timings);
            }
            Event::Failed { failure, timings } => {
                let (code, reason, console) = parts(failure);
                self.text(Field::Reason, &reason)?;
                for line in console {
                    self.text(Field::Console, line)?;
                }
                packet.extend([2, code as u8]);
                push_timings(&mut packet, timings);
            }
            Event::Ended {
                exit,
                log_bytes_lost,
            } => {
                let mut flags = 0;
                if exit.status.oom_killed {
                    flags |= FLAG_OOM;
                }
                if let Some(error) = &exit.error {
                    flags |= FLAG_ERROR;
                    self.text(Field::Reason, error)?;
                }
                packet.extend([3, exit.status.code, flags]);
                push_time(&mut packet, exit.at);
                packet.extend(log_bytes_lost.to_le_bytes());
                push_timings(&mut packet, &exit.timings);
            }
            Event::Warned(warning) => packet = warned(warning),
        }
        self.packet(&packet)
    }

    fn text(&self, field: Field, text: &str) -> io::Result<()> {
        for (index, chunk) in text.as_bytes().chunks(MAX_TEXT).enumerate() {
            let field = match field {
                Field::Console if index > 0 => Field::ConsoleMore,
                field => field,
            };
            let mut packet = vec![4, field as u8];
            packet.extend(chunk);
            self.packet(&packet)?;
        }
        Ok(())
    }

    /// Sends one packet, whatever is in it.
    pub fn packet(&self, bytes: &[u8]) -> io::Result<()> {
        loop {
            match send(self.0.as_raw_fd(), bytes, MsgFlags::MSG_NOSIGNAL) {
                Err(Errno::EINTR) => {}
                other => return Ok(other.map(drop)?),
            }
        }
    }

    /// Sends a warning, from a thread that must not wait.
    pub fn warn(&self, warning: &Warning) -> io::Result<()> {
        self.packet_now(&warned(warning))
    }

    /// Sends one packet, or fails where it would have to wait.
    pub fn packet_now(&self, bytes: &[u8]) -> io::Result<()> {
        let flags = MsgFlags::MSG_NOSIGNAL | MsgFlags::MSG_DONTWAIT;
        Ok(send(self.0.as_raw_fd(), bytes, flags).map(drop)?)
    }

    /// Another handle of the same end, for another thread.
    pub fn try_clone(&self) -> io::Result<Self> {
        self.0.try_clone().map(Self)
    }

    /// Resolves when the monitor has acknowledged, or after `limit`.
    pub async fn acknowledged(&self, limit: Duration) {
        let Ok(socket) = self.0.try_clone() else {
            return;
        };
        if socket.set_nonblocking(true).is_err() {
            return;
        }
        // Only readiness is asked for, which does not depend on the kind of socket.
        let Ok(socket) = tokio::net::UnixStream::from_std(socket) else {
            return;
        };
        let _ = tokio::time::timeout(limit, socket.readable()).await;
    }
}

impl AsRawFd for EventSender {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

/// The monitor's end. It never blocks, whatever the other end does.
#[derive(Debug)]
pub(crate) struct EventReceiver {
    socket: OwnedFd,
    packets: u32,
    kernel_release: Vec<u8>,
    reason: Vec<u8>,
    console: Vec<Vec<u8>>,
    /// When the first text of an event that is still to come was read.
    begun: Option<Instant>,
}

/// What one look at the socket gave.
#[derive(Debug)]
pub(crate) enum Received {
    Event(Box<Event>),
    /// Nothing yet, or a text whose event is still to come.
    Nothing,
    /// The other end is closed.
    Closed,
}

impl EventReceiver {
    fn new(socket: OwnedFd) -> Self {
        Self {
            socket,
            packets: 0,
            kernel_release: Vec::new(),
            reason: Vec::new(),
            console: Vec::new(),
            begun: None,
        }
    }

    /// Reads one packet, if there is one.
    pub fn receive(&mut self) -> Result<Received, Violation> {
        let mut buffer = [0; MAX_PACKET + 1];
        let got = match recv(self.socket.as_raw_fd(), &mut buffer, MsgFlags::MSG_DONTWAIT) {
            Ok(got) => got,
            Err(Errno::EAGAIN | Errno::EINTR) => return Ok(Received::Nothing),
            Err(_) => return Ok(Received::Closed),
        };
        if got == 0 {
            return Ok(Received::Closed);
        }
        self.packets += 1;
        if self.packets > MAX_PACKETS {
            return Err(Violation("too many packets"));
        }
        if got > MAX_PACKET {
            return Err(Violation("a packet is too long"));
        }
        let mut reader = Reader(buffer.get(..got).unwrap_or_default());
        let event = match reader.u8()? {
            1 => Event::Started(Started {
                guest_pid: reader.u32()?,
                kernel_release: GuestText::line_of_bytes(&std::mem::take(&mut self.kernel_release)),
                at: reader.time()?,
                timings: reader.timings()?,
                jail: JailReport::default(),
                unrecorded: None,
            }),
            2 => {
                let code = reader.u8()?;
                Event::Failed {
                    failure: self.failure(code)?,
                    timings: reader.timings()?,
                }
            }
            3 => self.ended(&mut reader)?,
            4 => {
                let field = reader.u8()?;
                self.add(field, std::mem::take(&mut reader.0))?;
                return Ok(Received::Nothing);
            }
            5 => Event::Warned(reader.warning()?),
            _ => return Err(Violation("unknown kind of packet")),
        };
        if !reader.0.is_empty() {
            return Err(Violation("a packet is longer than its kind"));
        }
        // A warning is another thread's: the event whose text has come is still to come.
        if !matches!(event, Event::Warned(_)) {
            self.begun = None;
        }
        Ok(Received::Event(Box::new(event)))
    }

    /// Time left for an event whose text has come; `None` where none is awaited.
    pub fn incomplete_for(&self) -> Option<Duration> {
        self.begun
            .map(|begun| COMPLETE_WITHIN.saturating_sub(begun.elapsed()))
    }

    /// Tells the jailed half that its end was recorded. One that does not listen dies all the same.
    pub fn acknowledge(&self) {
        let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
        let _ = send(self.socket.as_raw_fd(), &[1], flags);
    }

    /// Text is bytes until it is whole, and a [`GuestText`] from then on. The number of packets bounds it.
    fn add(&mut self, field: u8, bytes: &[u8]) -> Result<(), Violation> {
        let field = Field::ALL
            .into_iter()
            .find(|known| *known as u8 == field)
            .ok_or(Violation("unknown kind of text"))?;
        self.begun.get_or_insert_with(Instant::now);
        match field {
            Field::KernelRelease => self.kernel_release.extend(bytes),
            Field::Reason => self.reason.extend(bytes),
            Field::Console => self.console.push(bytes.to_vec()),
            Field::ConsoleMore => match self.console.last_mut() {
                Some(line) => line.extend(bytes),
                None => return Err(Violation("more of a line that was not begun")),
            },
        }
        Ok(())
    }

    fn failure(&mut self, code: u8) -> Result<StartFailure, Violation> {
        let code = FailureCode::ALL
            .into_iter()
            .find(|known| *known as u8 == code)
            .ok_or(Violation("unknown failure"))?;
        let reason = GuestText::line_of_bytes(&std::mem::take(&mut self.reason));
        let console = std::mem::take(&mut self.console);
        let console = console
            .iter()
            .take(GuestText::MAX_LINES)
            .map(|line| GuestText::line_of_bytes(line))
            .collect();
        Ok(match code {
            FailureCode::Jail => StartFailure::Jail { reason },
            FailureCode::Platform => StartFailure::Platform { reason },
            FailureCode::Boot => StartFailure::Boot { reason, console },
            FailureCode::Create => StartFailure::Create { reason, console },
            FailureCode::CommandNotFound => StartFailure::CommandNotFound { message: reason },
            FailureCode::NotExecutable => StartFailure::NotExecutable { message: reason },
            FailureCode::UnknownUser => StartFailure::UnknownUser { message: reason },
            FailureCode::Setup => StartFailure::Setup { message: reason },
            FailureCode::Stopped => StartFailure::Stopped,
        })
    }

    fn ended(&mut self, reader: &mut Reader<'_>) -> Result<Event, Violation> {
        let code = reader.u8()?;
        let flags = reader.u8()?;
        if flags & !(FLAG_OOM | FLAG_ERROR) != 0 {
            return Err(Violation("unknown flags"));
        }
        let words = std::mem::take(&mut self.reason);
        let exit = Exit {
            status: ExitStatus {
                code,
                oom_killed: flags & FLAG_OOM != 0,
            },
            error: (flags & FLAG_ERROR != 0)
                .then(|| GuestText::lines(&String::from_utf8_lossy(&words))),
            at: reader.time()?,
            timings: Timings::default(),
            warnings: Vec::new(),
            unrecorded: None,
        };
        let log_bytes_lost = reader.u64()?;
        Ok(Event::Ended {
            exit: Exit {
                timings: reader.timings()?,
                ..exit
            },
            log_bytes_lost,
        })
    }
}

impl AsFd for EventReceiver {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// A failure's code, words and console. What only the monitor says has no code of its own.
fn parts(failure: &StartFailure) -> (FailureCode, std::borrow::Cow<'_, str>, &[GuestText]) {
    use std::borrow::Cow::{Borrowed, Owned};
    match failure {
        StartFailure::Jail { reason } => (FailureCode::Jail, Borrowed(reason), &[]),
        StartFailure::Platform { reason } => (FailureCode::Platform, Borrowed(reason), &[]),
        StartFailure::Boot { reason, console } => (FailureCode::Boot, Borrowed(reason), console),
        StartFailure::Create { reason, console } => {
            (FailureCode::Create, Borrowed(reason), console)
        }
        StartFailure::CommandNotFound { message } => {
            (FailureCode::CommandNotFound, Borrowed(message), &[])
        }
        StartFailure::NotExecutable { message } => {
            (FailureCode::NotExecutable, Borrowed(message), &[])
        }
        StartFailure::UnknownUser { message } => (FailureCode::UnknownUser, Borrowed(message), &[]),
        StartFailure::Setup { message } => (FailureCode::Setup, Borrowed(message), &[]),
        StartFailure::Stopped => (FailureCode::Stopped, Borrowed(""), &[]),
        StartFailure::AlreadyRunning
        | StartFailure::File { .. }
        | StartFailure::NotRunning { .. }
        | StartFailure::WeakJail { .. }
        | StartFailure::Died { .. } => (FailureCode::Platform, Owned(failure.to_string()), &[]),
    }
}

fn warned(warning: &Warning) -> Vec<u8> {
    let disk = match warning.disk {
        WarnedDisk::Scratch => DISK_SCRATCH,
        WarnedDisk::Image => DISK_IMAGE,
        WarnedDisk::Volume(index) => index.saturating_add(1).min(DISK_IMAGE - 1),
    };
    let (fault, code) = match warning.fault {
        DiskFault::OutOfSpace => (FAULT_SPACE, 0),
        DiskFault::Io(code) => (FAULT_IO, code.clamp(0, MAX_ERRNO)),
    };
    let mut packet = vec![5];
    packet.extend(disk.to_le_bytes());
    packet.push(fault);
    packet.extend(code.to_le_bytes());
    packet
}

fn push_time(packet: &mut Vec<u8>, at: Timestamp) {
    packet.extend(at.as_second().to_le_bytes());
    packet.extend(at.subsec_nanosecond().to_le_bytes());
}

fn push_timings(packet: &mut Vec<u8>, timings: &Timings) {
    for mark in timings.to_marks() {
        packet.extend(mark.to_le_bytes());
    }
}

/// The rest of a packet.
struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn take<const N: usize>(&mut self) -> Result<[u8; N], Violation> {
        let (head, rest) = self
            .0
            .split_first_chunk::<N>()
            .ok_or(Violation("a packet is shorter than its kind"))?;
        self.0 = rest;
        Ok(*head)
    }

    fn u8(&mut self) -> Result<u8, Violation> {
        self.take::<1>().map(|[byte]| byte)
    }

    fn u32(&mut self) -> Result<u32, Violation> {
        self.take().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Result<u64, Violation> {
        self.take().map(u64::from_le_bytes)
    }

    fn time(&mut self) -> Result<Timestamp, Violation> {
        let seconds = self.take().map(i64::from_le_bytes)?;
        let nanoseconds = self.take().map(i32::from_le_bytes)?;
        Timestamp::new(seconds, nanoseconds).map_err(|_| Violation("not a time"))
    }

    fn warning(&mut self) -> Result<Warning, Violation> {
        let disk = match self.take().map(u16::from_le_bytes)? {
            DISK_SCRATCH => WarnedDisk::Scratch,
            DISK_IMAGE => WarnedDisk::Image,
            number => WarnedDisk::Volume(number - 1),
        };
        let fault = self.u8()?;
        let fault = match (fault, self.take().map(i32::from_le_bytes)?) {
            (FAULT_SPACE, 0) => DiskFault::OutOfSpace,
            (FAULT_IO, code @ 0..=MAX_ERRNO) => DiskFault::Io(code),
            _ => return Err(Violation("unknown fault of a disk")),
        };
        Ok(Warning { disk, fault })
    }

    fn timings(&mut self) -> Result<Timings, Violation> {
        let mut marks = [0; MARKS];
        for mark in &mut marks {
            *mark = self.u64()?;
        }
        Ok(Timings::from_marks(marks))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn marks() -> Timings {
        Timings::from_marks(std::array::from_fn(|index| u64::MAX - index as u64))
    }

    fn over_the_wire(event: &Event) -> Event {
        let (mut receiver, sender) = channel().unwrap();
        sender.send(event).unwrap();
        loop {
            match receiver.receive().unwrap() {
                Received::Event(event) => return *event,
                Received::Nothing => assert!(receiver.incomplete_for().is_some()),
                Received::Closed => panic!("closed"),
            }
        }
    }

    #[test]
    fn every_event_survives_its_packets() {
        let at: Timestamp = "2024-05-06T07:08:09.123456789Z".parse().unwrap();
        let long = GuestText::line(&"wörter ".repeat(500));
        let events = [
            Event::Started(Started {
                guest_pid: 7,
                kernel_release: "6.12.1-x".into(),
                at,
                timings: marks(),
                jail: JailReport::default(),
                unrecorded: None,
            }),
            Event::Ended {
                exit: Exit {
                    status: ExitStatus {
                        code: 137,
                        oom_killed: true,
                    },
                    error: Some(GuestText::lines("guest ended\n  its last line")),
                    at,
                    timings: marks(),
                    warnings: Vec::new(),
                    unrecorded: None,
                },
                log_bytes_lost: 1 << 40,
            },
            Event::Warned(Warning {
                disk: WarnedDisk::Scratch,
                fault: DiskFault::OutOfSpace,
            }),
            Event::Warned(Warning {
                disk: WarnedDisk::Image,
                fault: DiskFault::Io(5),
            }),
            Event::Warned(Warning {
                disk: WarnedDisk::Volume(22),
                fault: DiskFault::Io(MAX_ERRNO),
            }),
            Event::Failed {
                failure: StartFailure::Boot {
                    reason: long.clone(),
                    console: vec!["one".into(), long.clone(), "three".into()],
                },
                timings: marks(),
            },
            Event::Failed {
                failure: StartFailure::CommandNotFound { message: long },
                timings: marks(),
            },
        ];
        for event in events {
            assert_eq!(format!("{:?}", over_the_wire(&event)), format!("{event:?}"));
        }
    }

    #[test]
    fn what_the_monitor_alone_says_is_a_failure_of_the_platform() {
        let failure = StartFailure::Died {
            reason: "unknown".into(),
        };
        let event = over_the_wire(&Event::Failed {
            failure,
            timings: marks(),
        });
        let Event::Failed { failure, .. } = event else {
            panic!("{event:?}")
        };
        assert!(
            failure.to_string().contains("sandbox died while starting"),
            "{failure}"
        );
    }

    #[test]
    fn a_packet_of_any_other_form_is_a_violation() {
        let whole = {
            let mut packet = vec![2, FailureCode::Setup as u8];
            push_timings(&mut packet, &marks());
            packet
        };
        let mut wrong = vec![
            vec![0],
            vec![9; 100],
            vec![1; MAX_PACKET + 1],
            vec![4],
            vec![4, 99],
            // More of a line that was not begun.
            vec![4, Field::ConsoleMore as u8, b'x'],
            vec![2, 99],
            // Warnings of an unknown fault, with an error beside a full disk, with no error of Linux, and with more.
            vec![5, 0, 0, 3, 0, 0, 0, 0],
            vec![5, 0, 0, FAULT_SPACE, 5, 0, 0, 0],
            vec![5, 0, 0, FAULT_IO, 0, 0x10, 0, 0],
            vec![5, 0, 0, FAULT_IO, 0xff, 0xff, 0xff, 0xff],
            vec![5, 0, 0, FAULT_SPACE, 0, 0, 0, 0, 0],
            vec![5, 0, 0, FAULT_SPACE],
            [whole.as_slice(), &[0]].concat(),
            // A time with 2^31-1 nanoseconds.
            [
                vec![3, 0, 0],
                vec![0xff; 7],
                vec![0x7f],
                vec![0xff; 3],
                vec![0x7f],
                vec![0; 200],
            ]
            .concat(),
            vec![3, 0, 0x80],
        ];
        wrong.extend((1..whole.len()).map(|length| whole.get(..length).unwrap().to_vec()));
        for packet in wrong {
            let (mut receiver, sender) = channel().unwrap();
            sender.packet(&packet).unwrap();
            assert!(receiver.receive().is_err(), "{packet:?}");
        }
        let (mut receiver, sender) = channel().unwrap();
        sender.packet(&whole).unwrap();
        assert!(matches!(receiver.receive(), Ok(Received::Event(_))));
    }

    #[test]
    fn a_flood_of_text_is_bounded_and_what_is_kept_is_clean() {
        let (mut receiver, sender) = channel().unwrap();
        let flood = std::thread::spawn(move || {
            let text = "\x1b]0;title\x07".repeat(40);
            while sender.text(Field::Console, &text).is_ok() {}
        });
        let violation = loop {
            match receiver.receive() {
                Ok(_) => {}
                Err(violation) => break violation,
            }
        };
        assert_eq!(violation, Violation("too many packets"));
        let failure = receiver
            .failure(FailureCode::Boot as u8)
            .unwrap()
            .to_string();
        assert!(
            !failure.contains('\x1b') && failure.contains("title"),
            "{failure}"
        );
        assert!(failure.len() < 1 << 18, "{}", failure.len());
        drop(receiver);
        flood.join().unwrap();
    }

    /// Another thread's packet came in the middle of an event and ended it.
    #[test]
    fn a_warning_between_texts_leaves_their_event_whole() {
        let (mut receiver, sender) = channel().unwrap();
        sender.text(Field::Reason, "no such file").unwrap();
        let warning = Warning {
            disk: WarnedDisk::Scratch,
            fault: DiskFault::OutOfSpace,
        };
        sender.warn(&warning).unwrap();
        let mut packet = vec![2, FailureCode::Setup as u8];
        push_timings(&mut packet, &marks());
        sender.packet(&packet).unwrap();
        assert!(matches!(receiver.receive(), Ok(Received::Nothing)));
        let Ok(Received::Event(event)) = receiver.receive() else {
            panic!("no warning")
        };
        assert!(
            matches!(*event, Event::Warned(got) if got == warning),
            "{event:?}"
        );
        assert!(receiver.incomplete_for().is_some());
        let Ok(Received::Event(event)) = receiver.receive() else {
            panic!("no failure")
        };
        let Event::Failed { failure, .. } = *event else {
            panic!("{event:?}")
        };
        assert!(failure.to_string().contains("no such file"), "{failure}");
    }

    #[test]
    fn an_event_that_is_announced_has_to_come() {
        let (mut receiver, sender) = channel().unwrap();
        assert!(receiver.incomplete_for().is_none());
        sender.text(Field::Reason, "half of it").unwrap();
        assert!(matches!(receiver.receive(), Ok(Received::Nothing)));
        assert!(
            receiver
                .incomplete_for()
                .is_some_and(|left| left <= COMPLETE_WITHIN)
        );
        drop(sender);
        assert!(matches!(receiver.receive(), Ok(Received::Closed)));
    }
}
