//! What the registers ask of the device's thread.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use nix::sys::eventfd::{EfdFlags, EventFd};

use crate::virtio::queue::VirtQueue;

/// What a device is activated with.
#[derive(Debug)]
pub(super) struct Start {
    pub queues: Vec<VirtQueue>,
    pub features: u64,
}

/// Wishes since the last look, to be carried out in the order of the fields.
#[derive(Debug)]
pub(super) struct Mail {
    pub stop: bool,
    pub start: Option<Start>,
    pub guest_ended: bool,
    ticket: u64,
}

#[derive(Debug, Default)]
struct Slot {
    stop: bool,
    start: Option<Start>,
    guest_ended: bool,
    /// Stops asked for, and carried out.
    asked: u64,
    done: u64,
    /// The thread has ended: the device touches nothing any more.
    closed: bool,
}

#[derive(Debug)]
pub(super) struct Mailbox {
    slot: Mutex<Slot>,
    answered: Condvar,
    /// Watched edge triggered and never read.
    doorbell: EventFd,
}

impl Mailbox {
    pub(super) fn new() -> io::Result<Self> {
        let flags = EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK;
        Ok(Self {
            slot: Mutex::new(Slot::default()),
            answered: Condvar::new(),
            doorbell: EventFd::from_value_and_flags(0, flags)?,
        })
    }

    pub(super) fn doorbell(&self) -> BorrowedFd<'_> {
        self.doorbell.as_fd()
    }

    fn lock(&self) -> MutexGuard<'_, Slot> {
        self.slot.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn ring(&self) {
        // Fails only when the counter is full, which says the same.
        let _ = self.doorbell.write(1);
    }

    /// Activate the device, after any stop that was asked for before; `false` if its thread is gone.
    pub(super) fn start(&self, start: Start) -> bool {
        let mut slot = self.lock();
        if slot.closed {
            return false;
        }
        slot.start = Some(start);
        drop(slot);
        self.ring();
        true
    }

    /// Take the queues from the device. The ticket is for [`Mailbox::wait`].
    pub(super) fn stop(&self) -> u64 {
        let mut slot = self.lock();
        slot.start = None;
        slot.stop = true;
        slot.asked += 1;
        let ticket = slot.asked;
        drop(slot);
        self.ring();
        ticket
    }

    /// Wait until the stop with this ticket was carried out. A device's turn is bounded, so this is.
    pub(super) fn wait(&self, ticket: u64) {
        let slot = self.lock();
        let waiting = |slot: &mut Slot| slot.done < ticket && !slot.closed;
        drop(
            self.answered
                .wait_while(slot, waiting)
                .unwrap_or_else(PoisonError::into_inner),
        );
    }

    /// No virtual CPU runs any more.
    pub(super) fn guest_ended(&self) {
        self.lock().guest_ended = true;
        self.ring();
    }

    /// What was asked since the last call.
    pub(super) fn take(&self) -> Mail {
        let mut slot = self.lock();
        Mail {
            stop: std::mem::take(&mut slot.stop),
            start: slot.start.take(),
            guest_ended: slot.guest_ended,
            ticket: slot.asked,
        }
    }

    /// The stop in `mail` was carried out.
    pub(super) fn stopped(&self, mail: &Mail) {
        self.lock().done = mail.ticket;
        self.answered.notify_all();
    }

    /// Nobody will look again.
    pub(super) fn close(&self) {
        let mut slot = self.lock();
        slot.closed = true;
        slot.start = None;
        drop(slot);
        self.answered.notify_all();
    }
}
