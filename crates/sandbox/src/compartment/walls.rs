//! When the walls close: stream threads lock themselves as they start, the control thread after the
//! kernel was started, before the first byte from the guest is read.

use bulkhead_jail::{Enclosure, JailError, Thread, ThreadLock};

/// The locks of one sandbox process.
#[derive(Debug, Default)]
pub(crate) struct Walls {
    enclosure: Option<Enclosure>,
}

impl Walls {
    /// With `disabled` the process stays unlocked, for debugging.
    pub fn new(enclosure: Enclosure, disabled: bool) -> Self {
        Self {
            enclosure: Some(enclosure).filter(|_| !disabled),
        }
    }

    /// The enclosure, for the platform's preparation.
    pub fn enclosure(&mut self) -> Option<&mut Enclosure> {
        self.enclosure.as_mut()
    }

    /// What a stream thread does first.
    pub fn stream_lock(&self) -> StreamLock {
        StreamLock(self.enclosure.as_ref().map(Enclosure::thread_lock))
    }

    /// Locks the calling thread, for good. Threads that it starts later inherit its lock.
    pub fn lock(self) -> Result<(), JailError> {
        match self.enclosure {
            Some(enclosure) => enclosure.lock().map(drop),
            None => Ok(()),
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
