//! The request queue.

use std::fmt;
use std::fs::File;
use std::io;

use super::config::{self, CONFIG_LENGTH, QUEUE_SIZE};
use super::disk::Disk;
use super::error::{BlockError, Fault};
use super::request::{self, Action, HEADER_LENGTH, ID_LENGTH, SECTOR, Status};
use crate::device::{Activation, Device, DeviceError, DeviceId, Work};
use crate::log_gate::LogGate;
use crate::virtio::queue::Chain;
use crate::virtio::serve::serve;

const QUEUE: usize = 0;
const QUEUE_SIZES: [u16; 1] = [QUEUE_SIZE];

/// Requests carried out before other events get a turn.
const MAX_BATCH: usize = 512;

type Observer = Box<dyn FnMut(Fault) + Send>;

/// A disk.
pub struct Block {
    disk: Disk,
    serial: [u8; ID_LENGTH],
    name: String,
    config: [u8; CONFIG_LENGTH],
    observer: Option<Observer>,
    log: LogGate,
    active: Option<Active>,
}

#[derive(Debug)]
struct Active {
    activation: Activation,
    chain: Chain,
}

impl fmt::Debug for Block {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Block")
            .field("serial", &self.name)
            .field("bytes", &self.disk.bytes())
            .field("read_only", &self.disk.is_read_only())
            .finish_non_exhaustive()
    }
}

impl Block {
    /// A read-only disk of `parts` end to end, each padded with zeros to a multiple of 4 KiB.
    /// `serial` (1 to 20 ASCII characters) is how the guest finds it.
    pub fn read_only(parts: Vec<File>, serial: &str) -> Result<Self, BlockError> {
        Self::new(Disk::joined(parts)?, serial)
    }

    /// A writable disk as large as `file` is now. What the guest discards is freed on the host.
    pub fn writable(file: File, serial: &str) -> Result<Self, BlockError> {
        Self::new(Disk::writable(file)?, serial)
    }

    fn new(disk: Disk, name: &str) -> Result<Self, BlockError> {
        let printable = name.bytes().all(|byte| byte.is_ascii_graphic());
        if name.is_empty() || name.len() > ID_LENGTH || !printable {
            return Err(BlockError::Serial {
                serial: name.to_owned(),
            });
        }
        let mut serial = [0_u8; ID_LENGTH];
        for (slot, byte) in serial.iter_mut().zip(name.bytes()) {
            *slot = byte;
        }
        Ok(Self {
            config: config::space(disk.bytes() / SECTOR),
            disk,
            serial,
            name: name.to_owned(),
            observer: None,
            log: LogGate::default(),
            active: None,
        })
    }

    /// Call `observer`, in the device's thread, whenever the host fails a request of the guest.
    /// It must be quick and must not block.
    pub fn on_fault(mut self, observer: impl FnMut(Fault) + Send + 'static) -> Self {
        self.observer = Some(Box::new(observer));
        self
    }

    /// Capacity in bytes.
    pub fn bytes(&self) -> u64 {
        self.disk.bytes()
    }

    fn serve(&mut self, active: &mut Active) -> Result<Work, DeviceError> {
        let Active { activation, chain } = active;
        serve(&mut activation.queues, QUEUE, chain, MAX_BATCH, |chain| {
            self.request(chain)
        })
    }

    /// Carry out one request; returns the number of bytes written to the guest.
    fn request(&mut self, chain: &mut Chain) -> Result<u32, DeviceError> {
        let action =
            request::parse(chain, self.disk.bytes()).map_err(|reason| DeviceError::Request {
                queue: QUEUE,
                reason,
            })?;
        let (status, data) = match self.perform(action, chain) {
            Ok(outcome) => outcome,
            Err(error) => {
                self.report(action, &error);
                (Status::IoError, 0)
            }
        };
        let status_at = chain.writable.len() - 1;
        chain.writable.write_at(status_at, &[status as u8]);
        Ok(u32::try_from(data + 1).unwrap_or(u32::MAX))
    }

    /// The status and the number of data bytes given to the guest; an error is the host's.
    fn perform(&self, action: Action, chain: &mut Chain) -> io::Result<(Status, usize)> {
        let read_only = self.disk.is_read_only();
        match action {
            Action::Refused(status) => Ok((status, 0)),
            Action::Read { offset, length } => {
                self.disk.read(&mut chain.writable, offset, length)?;
                Ok((Status::Ok, length))
            }
            Action::Flush => self.disk.flush().map(|()| (Status::Ok, 0)),
            Action::GetId => {
                let written = chain.writable.write_at(0, &self.serial);
                Ok((Status::Ok, written))
            }
            Action::Write { .. } if read_only => Ok((Status::IoError, 0)),
            Action::Ranges { .. } if read_only => Ok((Status::Unsupported, 0)),
            Action::Write { offset, length } => {
                self.disk
                    .write(&mut chain.readable, HEADER_LENGTH, length, offset)?;
                Ok((Status::Ok, 0))
            }
            Action::Ranges { count, keep } => {
                let capacity = self.disk.bytes();
                let range = |index| request::range(&chain.readable, index, keep, capacity);
                if let Some(status) = (0..count).find_map(|index| range(index).err()) {
                    return Ok((status, 0));
                }
                for index in 0..count {
                    // Checked again: the guest may have rewritten the range since.
                    let status = match range(index) {
                        Ok(range) => self.disk.release(range, keep)?,
                        Err(status) => status,
                    };
                    if status != Status::Ok {
                        return Ok((status, 0));
                    }
                }
                Ok((Status::Ok, 0))
            }
        }
    }

    fn report(&mut self, action: Action, error: &io::Error) {
        if let Some(observer) = &mut self.observer {
            observer(Fault::of(error));
        }
        if let Some(suppressed) = self.log.pass() {
            tracing::warn!(
                disk = %self.name,
                ?action,
                %error,
                suppressed,
                "the host failed a disk request"
            );
        }
    }
}

impl Device for Block {
    fn id(&self) -> DeviceId {
        DeviceId::Block
    }

    fn queue_sizes(&self) -> &[u16] {
        &QUEUE_SIZES
    }

    fn features(&self) -> u64 {
        config::features(self.disk.is_read_only())
    }

    fn config(&self) -> &[u8] {
        &self.config
    }

    fn activate(&mut self, activation: Activation) -> Result<(), DeviceError> {
        activation.expect_queues(QUEUE_SIZES.len())?;
        let chain = Chain::new(&activation.memory);
        self.active = Some(Active { activation, chain });
        Ok(())
    }

    fn queue_event(&mut self, _queue: usize) -> Result<Work, DeviceError> {
        let mut active = self.active.take().ok_or(DeviceError::NotActive)?;
        let outcome = self.serve(&mut active);
        self.active = Some(active);
        outcome
    }

    fn reset(&mut self) -> Option<Activation> {
        self.active.take().map(|active| active.activation)
    }
}
