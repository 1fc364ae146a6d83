//! Why a device's thread ended, whatever carried the device.

use std::io;

use super::vhost_user::{ChannelError, SessionError};
use crate::device::DeviceError;

/// Why a device's thread ended early.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TransportError {
    /// The caller's own preparation of the thread failed.
    #[error("prepare the device thread")]
    Prepare(#[source] io::Error),
    /// Waiting for events failed.
    #[error("wait for events of the device")]
    Wait(#[source] io::Error),
    /// The front end could not be accepted.
    #[error("accept the vhost-user front end")]
    Accept(#[source] io::Error),
    /// The front end sent nonsense, or its socket failed.
    #[error("talk to the vhost-user front end")]
    Channel(#[source] ChannelError),
    /// The front end set up something impossible, or its guest broke the device.
    #[error("run the device")]
    Session(#[source] SessionError),
    /// The guest broke the device behind its registers and never reset it.
    #[error("serve the guest")]
    Device(#[source] DeviceError),
    /// The thread panicked.
    #[error("run the device: its thread panicked")]
    Panicked,
}
