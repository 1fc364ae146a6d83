//! A ring while the front end sets it up.

use std::sync::Arc;

use super::message::RingAddresses;
use super::notify::{Call, Kick, Silent};
use super::regions::Regions;
use crate::virtio::queue::{Notifier, QueueError, RingLayout, VirtQueue};

/// What has been said about a ring so far.
#[derive(Debug, Default)]
pub(super) struct Vring {
    pub size: Option<u16>,
    pub base: u16,
    pub addresses: Option<RingAddresses>,
    pub kick: Option<Kick>,
    pub call: Option<Arc<Call>>,
    pub enabled: bool,
}

impl Vring {
    /// Whether the driver may use the ring as soon as all others are ready, too.
    pub(super) fn is_ready(&self) -> bool {
        self.enabled && self.kick.is_some() && self.size.is_some() && self.addresses.is_some()
    }

    /// Take the ring into use.
    pub(super) fn start(
        &self,
        regions: &Regions,
        limit: u16,
        event_idx: bool,
    ) -> Result<VirtQueue, QueueError> {
        let addresses = self.addresses.unwrap_or(RingAddresses {
            descriptors: 0,
            used: 0,
            available: 0,
        });
        let translate = |part: &'static str, user: u64| {
            regions.guest_address(user).ok_or(QueueError::Placement {
                part,
                address: user,
            })
        };
        let layout = RingLayout {
            size: self.size.unwrap_or(0),
            descriptors: translate("descriptor table", addresses.descriptors)?,
            available: translate("available ring", addresses.available)?,
            used: translate("used ring", addresses.used)?,
            position: self.base,
            event_idx,
        };
        let notifier: Box<dyn Notifier> = match &self.call {
            Some(call) => Box::new(Arc::clone(call)),
            None => Box::new(Silent),
        };
        VirtQueue::new(&regions.memory, layout, limit, notifier)
    }
}
