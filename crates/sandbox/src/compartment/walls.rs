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

    /// What a stream thread does first that is started before [`Walls::lock`].
    pub fn stream_lock(&self) -> StreamLock {
        self.thread_lock()
            .map_or(StreamLock::None, StreamLock::Whole)
    }

    /// Locks the calling thread, for good. Threads that it starts later inherit its lock, and take the stream policy
    /// on top of it with what this returns.
    pub fn lock(self) -> Result<StreamLock, JailError> {
        match self.enclosure {
            Some(enclosure) if !self.disabled => {
                let lock = enclosure.thread_lock();
                enclosure.lock()?;
                Ok(StreamLock::Inherited(lock))
            }
            _ => Ok(StreamLock::None),
        }
    }
}

/// The lock of a stream thread, which it applies before it touches a byte.
#[derive(Debug, Clone, Default)]
pub(crate) enum StreamLock {
    /// Jails are off.
    #[default]
    None,
    /// The starting thread has no lock yet: the new one takes all of it.
    Whole(ThreadLock),
    /// The starting thread is the locked control thread: the new one has its lock, and gives up what only it needs.
    Inherited(ThreadLock),
}

impl StreamLock {
    /// Locks the calling thread. A thread that cannot be locked must not read a guest's bytes: the process ends.
    pub fn apply(&self) {
        let locked = match self {
            Self::None => Ok(()),
            Self::Whole(lock) => lock.lock(Thread::Stream),
            Self::Inherited(lock) => lock.narrow(Thread::Stream),
        };
        if locked.is_err() {
            std::process::abort();
        }
    }
}
