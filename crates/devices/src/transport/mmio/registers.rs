//! The register file (section 4.2.2), as virtual CPUs read and write it.

use std::fmt;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::interrupt::Interrupt;
use super::mailbox::{Mailbox, Start};
use super::setup::{DEVICE_NEEDS_RESET, DRIVER_OK, FAILED, Half, Part, Setup, Step, Violation};
use crate::device::DeviceId;
use crate::log_gate::LogGate;
use crate::memory::GuestMemory;
use crate::virtio::queue::VirtQueue;

/// The string "virt", little endian.
const MAGIC: u32 = 0x7472_6976;
/// Not a legacy device.
const VERSION: u32 = 2;
/// No vendor in particular: "blkh", little endian.
const VENDOR: u32 = 0x686b_6c62;
/// The configuration space begins here.
const CONFIG: u64 = 0x100;

mod offset {
    pub(super) const MAGIC_VALUE: u64 = 0x00;
    pub(super) const VERSION: u64 = 0x04;
    pub(super) const DEVICE_ID: u64 = 0x08;
    pub(super) const VENDOR_ID: u64 = 0x0c;
    pub(super) const DEVICE_FEATURES: u64 = 0x10;
    pub(super) const DEVICE_FEATURES_SEL: u64 = 0x14;
    pub(super) const DRIVER_FEATURES: u64 = 0x20;
    pub(super) const DRIVER_FEATURES_SEL: u64 = 0x24;
    pub(super) const QUEUE_SEL: u64 = 0x30;
    pub(super) const QUEUE_SIZE_MAX: u64 = 0x34;
    pub(super) const QUEUE_SIZE: u64 = 0x38;
    pub(super) const QUEUE_READY: u64 = 0x44;
    pub(super) const QUEUE_NOTIFY: u64 = super::super::QUEUE_NOTIFY;
    pub(super) const INTERRUPT_STATUS: u64 = 0x60;
    pub(super) const INTERRUPT_ACK: u64 = 0x64;
    pub(super) const STATUS: u64 = 0x70;
    pub(super) const QUEUE_DESC_LOW: u64 = 0x80;
    pub(super) const QUEUE_DESC_HIGH: u64 = 0x84;
    pub(super) const QUEUE_DRIVER_LOW: u64 = 0x90;
    pub(super) const QUEUE_DRIVER_HIGH: u64 = 0x94;
    pub(super) const QUEUE_DEVICE_LOW: u64 = 0xa0;
    pub(super) const QUEUE_DEVICE_HIGH: u64 = 0xa4;
    /// Length and base of a shared memory region: all ones for one that does not exist.
    pub(super) const SHM_LEN_LOW: u64 = 0xb0;
    pub(super) const SHM_BASE_HIGH: u64 = 0xbc;
}

/// What the registers and the device's thread share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) id: DeviceId,
    pub(super) config: Vec<u8>,
    pub(super) memory: GuestMemory,
    pub(super) interrupt: Arc<Interrupt>,
    pub(super) mailbox: Mailbox,
    pub(super) kicks: Vec<OwnedFd>,
    /// DEVICE_NEEDS_RESET.
    pub(super) broken: AtomicBool,
}

/// A device's registers and configuration space. May be used by all virtual CPUs at once.
pub struct Registers {
    shared: Arc<Shared>,
    /// Held during a reset, so that no CPU sees half of one.
    setup: Mutex<(Setup, LogGate)>,
    /// Whether a thread carries resets out; else the next turn does.
    threaded: bool,
}

impl fmt::Debug for Registers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Registers")
            .field("id", &self.shared.id)
            .field("broken", &self.broken())
            .finish_non_exhaustive()
    }
}

impl Registers {
    pub(super) fn new(shared: Arc<Shared>, setup: Setup, threaded: bool) -> Self {
        Self {
            shared,
            setup: Mutex::new((setup, LogGate::default())),
            threaded,
        }
    }

    /// The kick of each queue, an eventfd: to be signalled by a 32-bit write of the queue's index
    /// to [`super::QUEUE_NOTIFY`].
    pub fn kicks(&self) -> &[OwnedFd] {
        &self.shared.kicks
    }

    /// Whether the driver broke a rule and has not reset the device since.
    pub fn broken(&self) -> bool {
        self.shared.broken.load(Ordering::SeqCst)
    }

    /// No virtual CPU runs any more: the device's thread delivers what the guest handed over, then
    /// ends. Dropping the registers says the same.
    pub fn guest_ended(&self) {
        self.shared.mailbox.guest_ended();
    }

    fn lock(&self) -> MutexGuard<'_, (Setup, LogGate)> {
        self.setup.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A virtual CPU reads at `offset` of the window. What does not exist reads as zeros.
    pub fn read(&self, offset: u64, data: &mut [u8]) {
        data.fill(0);
        if let Some(start) = offset.checked_sub(CONFIG) {
            let start = usize::try_from(start).unwrap_or(usize::MAX);
            let config = self.shared.config.iter().skip(start);
            data.iter_mut()
                .zip(config)
                .for_each(|(out, byte)| *out = *byte);
        } else if let Ok(word) = <&mut [u8; 4]>::try_from(data) {
            *word = self.register(offset).to_le_bytes();
        }
    }

    fn register(&self, offset: u64) -> u32 {
        match offset {
            offset::MAGIC_VALUE => MAGIC,
            offset::VERSION => VERSION,
            offset::DEVICE_ID => self.shared.id.number(),
            offset::VENDOR_ID => VENDOR,
            offset::DEVICE_FEATURES => self.lock().0.device_features(),
            offset::QUEUE_SIZE_MAX => self.lock().0.queue_size_limit(),
            offset::QUEUE_READY => self.lock().0.queue_ready(),
            offset::INTERRUPT_STATUS => self.shared.interrupt.pending(),
            offset::STATUS => {
                let status = self.lock().0.status();
                let needs_reset = if self.broken() { DEVICE_NEEDS_RESET } else { 0 };
                status | needs_reset
            }
            offset::SHM_LEN_LOW..=offset::SHM_BASE_HIGH if offset.is_multiple_of(4) => u32::MAX,
            // Among others the configuration generation, which is constant.
            _ => 0,
        }
    }

    /// A virtual CPU writes at `offset` of the window.
    pub fn write(&self, offset: u64, data: &[u8]) {
        if offset >= CONFIG {
            return;
        }
        let (Ok(word), true) = (<[u8; 4]>::try_from(data), offset.is_multiple_of(4)) else {
            let mut guard = self.lock();
            let (setup, log) = &mut *guard;
            let violation = Violation("a register was not written as one aligned word");
            self.violated(setup, log, violation);
            return;
        };
        let value = u32::from_le_bytes(word);
        match offset {
            offset::INTERRUPT_ACK => self.shared.interrupt.acknowledge(value),
            offset::QUEUE_NOTIFY if self.kick(value) => (),
            _ => {
                let mut guard = self.lock();
                let (setup, log) = &mut *guard;
                if let Err(violation) = self.change(setup, offset, value) {
                    self.violated(setup, log, violation);
                }
            }
        }
    }

    /// Whether there is such a queue to kick.
    fn kick(&self, queue: u32) -> bool {
        let Some(kick) = self.shared.kicks.get(queue as usize) else {
            return false;
        };
        // Fails only when the counter is full, which says the same.
        let _ = nix::unistd::write(kick, &1_u64.to_ne_bytes());
        true
    }

    fn change(&self, setup: &mut Setup, offset: u64, value: u32) -> Result<(), Violation> {
        use offset::*;
        if self.broken() && (offset, value) != (STATUS, 0) {
            // Nothing helps but a reset.
            if offset == STATUS && value & FAILED != 0 {
                let _ = setup.advance(value);
            }
            return Ok(());
        }
        let mut address = |part, half| setup.set_queue_address(part, half, value);
        match offset {
            QUEUE_DESC_LOW => address(Part::Descriptors, Half::Low),
            QUEUE_DESC_HIGH => address(Part::Descriptors, Half::High),
            QUEUE_DRIVER_LOW => address(Part::Available, Half::Low),
            QUEUE_DRIVER_HIGH => address(Part::Available, Half::High),
            QUEUE_DEVICE_LOW => address(Part::Used, Half::Low),
            QUEUE_DEVICE_HIGH => address(Part::Used, Half::High),
            DEVICE_FEATURES_SEL => {
                setup.select_device_features(value);
                Ok(())
            }
            DRIVER_FEATURES_SEL => {
                setup.select_driver_features(value);
                Ok(())
            }
            DRIVER_FEATURES => setup.accept_features(value),
            QUEUE_SEL => {
                setup.select_queue(value);
                Ok(())
            }
            QUEUE_SIZE => setup.set_queue_size(value),
            QUEUE_READY => self.queue_ready(setup, value),
            QUEUE_NOTIFY => Err(Violation("a queue was kicked that does not exist")),
            STATUS if value == 0 => {
                self.reset(setup);
                Ok(())
            }
            STATUS => match setup.advance(value)? {
                Step::Nothing => Ok(()),
                Step::Start => self.start(setup),
            },
            _ => Ok(()),
        }
    }

    fn queue_ready(&self, setup: &mut Setup, value: u32) -> Result<(), Violation> {
        let memory = &self.shared.memory;
        match value {
            0 => {
                setup.disable_queue();
                if setup.live {
                    // Legal (section 4.2.2.2), but none of our devices can do without a queue: it
                    // lets go of all of them, which is what the driver waits for.
                    self.stop(setup);
                    return Err(Violation("a queue was taken from a live device"));
                }
                Ok(())
            }
            1 => setup.enable_queue(|layout, limit| layout.check(memory, limit).is_ok()),
            _ => Err(Violation("QueueReady is neither 0 nor 1")),
        }
    }

    fn start(&self, setup: &mut Setup) -> Result<(), Violation> {
        let queues = setup
            .ready_queues()?
            .into_iter()
            .map(|(layout, limit)| {
                let notifier = Box::new(Arc::clone(&self.shared.interrupt));
                VirtQueue::new(&self.shared.memory, layout, limit, notifier)
                    .map_err(|_| Violation("a queue has an impossible size or place"))
            })
            .collect::<Result<_, _>>()?;
        let features = setup.accepted();
        setup.live = self.shared.mailbox.start(Start { queues, features });
        if setup.live {
            Ok(())
        } else {
            Err(Violation("the device's thread has ended"))
        }
    }

    /// Take the queues from the device; with a thread, wait until it has let go of them.
    fn stop(&self, setup: &mut Setup) {
        if !setup.live {
            return;
        }
        setup.live = false;
        let ticket = self.shared.mailbox.stop();
        if self.threaded {
            self.shared.mailbox.wait(ticket);
        }
    }

    fn reset(&self, setup: &mut Setup) {
        self.stop(setup);
        setup.reset();
        self.shared.interrupt.clear();
        self.shared.broken.store(false, Ordering::SeqCst);
    }

    /// The driver broke a rule: the device stops and asks to be reset.
    fn violated(&self, setup: &mut Setup, log: &mut LogGate, violation: Violation) {
        if self.shared.broken.swap(true, Ordering::SeqCst) {
            // It has stopped already, or is about to.
            return;
        }
        if setup.live {
            // Without waiting: `live` stays, so that a reset does.
            let _ = self.shared.mailbox.stop();
        }
        if setup.status() & DRIVER_OK != 0 {
            // The eventfd is ours and cannot fail in a way that something could be done about.
            let _ = self.shared.interrupt.configuration_changed();
        }
        if let Some(suppressed) = log.pass() {
            tracing::warn!(
                device = ?self.shared.id,
                reason = violation.0,
                suppressed,
                "the guest's driver broke a rule; the device needs a reset"
            );
        }
    }
}

impl Drop for Registers {
    fn drop(&mut self) {
        self.guest_ended();
    }
}
