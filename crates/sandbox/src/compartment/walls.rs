//! When the walls close: stream threads lock themselves as they start, the control thread after the
//! kernel was started, before the first byte from the guest is read.

use std::fs::File;

use bulkhead_jail::{Enclosure, JailError, Thread, ThreadLock, VmRoot};

/// The locks of one sandbox process.
#[derive(Debug, Default)]
pub(crate) struct Walls {
    enclosure: Option<Enclosure>,
    disabled: bool,
}

impl Walls {
    /// With `disabled` no thread is locked, for debugging.
    pub fn new(enclosure: Enclosure, disabled: bool) -> Self {
        Self {
            enclosure: Some(enclosure),
            disabled,
        }
    }

    /// The kernel's root, once.
    pub fn take_vm_root(&mut self) -> Option<VmRoot> {
        self.enclosure.as_mut().and_then(Enclosure::take_vm_root)
    }

    /// The list of this process's pages, once.
    pub fn take_page_map(&mut self) -> Option<File> {
        self.enclosure.as_mut().and_then(Enclosure::take_page_map)
    }

    /// What threads lock themselves with; `None` when they are not locked.
    pub fn thread_lock(&self) -> Option<ThreadLock> {
        self.enclosure
            .as_ref()
            .filter(|_| !self.disabled)
            .map(Enclosure::thread_lock)
    }

    /// What a stream thread does first.
    pub fn stream_lock(&self) -> StreamLock {
        StreamLock(self.thread_lock())
    }

    /// Locks the calling thread, for good. Threads that it starts later inherit its lock.
    pub fn lock(self) -> Result<(), JailError> {
        match self.enclosure {
            Some(enclosure) if !self.disabled => enclosure.lock().map(drop),
            _ => Ok(()),
        }
    }
}

/// Locks stream threads that are started before the control thread is locked.
#[derive(Debug, Clone, Default)]
pub(crate) struct StreamLock(Option<ThreadLock>);

impl StreamLock {
    /// Locks the calling thread. A thread that cannot be locked must not read a guest's bytes: the process ends.
    pub fn apply(&self) {
        if let Some(lock) = &self.0
            && lock.lock(Thread::Stream).is_err()
        {
            std::process::abort();
        }
    }
}
