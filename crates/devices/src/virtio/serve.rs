//! Requests and answers: how a device with one chain at a time serves a queue.

use crate::device::{DeviceError, Work};
use crate::virtio::queue::{Chain, VirtQueue};

/// Serves the queue with this `index` until it is empty, or until `batch` chains are answered, so
/// that others get a turn. `answer` carries out what `chain` then holds, and returns the number of
/// bytes that it wrote to the guest.
///
/// The driver is asked for no notifications meanwhile, and is notified once, where it wants that.
///
/// # Errors
/// The driver broke a rule of the queue, or `answer` failed: the device is broken.
pub(crate) fn serve(
    queues: &mut [VirtQueue],
    index: usize,
    chain: &mut Chain,
    batch: usize,
    mut answer: impl FnMut(&mut Chain) -> Result<u32, DeviceError>,
) -> Result<Work, DeviceError> {
    let failed = |source| DeviceError::Queue {
        queue: index,
        source,
    };
    let queue = queues.get_mut(index).ok_or(DeviceError::NotActive)?;
    let mut served = 0;
    loop {
        queue.disable_notifications().map_err(failed)?;
        while queue.pop(chain).map_err(failed)? {
            let written = answer(chain)?;
            queue.push(chain.head(), written).map_err(failed)?;
            served += 1;
            if served == batch {
                queue.notify().map_err(failed)?;
                return Ok(Work::More);
            }
        }
        queue.notify().map_err(failed)?;
        if !queue.enable_notifications().map_err(failed)? {
            return Ok(Work::Done);
        }
    }
}
