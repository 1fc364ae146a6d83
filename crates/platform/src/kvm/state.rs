//! What the virtual CPUs of a machine and its owner share: whether they shall run, and how it ended.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::{AtomicI32, AtomicU8, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use bulkhead_jail::JailError;
use nix::sys::eventfd::{EfdFlags, EventFd};

use super::kick;
use crate::machine::MachineExit;

/// What the CPUs shall do.
const RUN: u8 = 0;
const PAUSE: u8 = 1;
const STOP: u8 = 2;

/// How a machine ended, or why it could not run.
#[derive(Debug)]
pub(super) enum End {
    /// As a machine ends.
    Exit(MachineExit),
    /// A CPU's thread could not be locked, and so never entered the guest.
    Unlocked(JailError),
}

#[derive(Debug)]
struct Progress {
    /// CPUs whose threads have not ended.
    running: usize,
    /// CPUs that wait for the end of a pause.
    parked: usize,
    end: Option<End>,
}

/// The state of a machine.
#[derive(Debug)]
pub(super) struct State {
    wanted: AtomicU8,
    progress: Mutex<Progress>,
    changed: Condvar,
    /// Readable when the last CPU has ended.
    ended: EventFd,
    process: i32,
    /// The CPUs' threads; zero where none has begun or it has ended.
    threads: Vec<AtomicI32>,
    /// A thread that works for the machine without running a CPU; zero where there is none.
    helper: AtomicI32,
}

impl State {
    pub(super) fn new(vcpus: usize) -> io::Result<Self> {
        let flags = EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK;
        Ok(Self {
            wanted: AtomicU8::new(RUN),
            progress: Mutex::new(Progress {
                running: vcpus,
                parked: 0,
                end: None,
            }),
            changed: Condvar::new(),
            ended: EventFd::from_value_and_flags(0, flags)?,
            // The number in the innermost process namespace, by which it can be signalled from within.
            process: nix::unistd::getpid().as_raw(),
            threads: (0..vcpus).map(|_| AtomicI32::new(0)).collect(),
            helper: AtomicI32::new(0),
        })
    }

    fn progress(&self) -> MutexGuard<'_, Progress> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// CPUs of the machine.
    pub(super) fn vcpus(&self) -> usize {
        self.threads.len()
    }

    /// The threads of this many CPUs could not be started.
    pub(super) fn never_began(&self, vcpus: usize) {
        self.progress().running -= vcpus;
    }

    /// Readable when the machine has ended.
    pub(super) fn ended(&self) -> BorrowedFd<'_> {
        self.ended.as_fd()
    }

    /// How it ended; once.
    pub(super) fn take_end(&self) -> Option<End> {
        self.progress().end.take()
    }

    /// Ends the machine, for this reason if it is the first.
    pub(super) fn end(&self, end: End) {
        {
            let mut progress = self.progress();
            if progress.end.is_none() {
                progress.end = Some(end);
            }
            self.wanted.store(STOP, Ordering::SeqCst);
        }
        self.changed.notify_all();
        self.kick();
    }

    /// Makes every CPU wait, and returns when they do.
    pub(super) fn pause(&self) {
        let progress = self.progress();
        let running = self
            .wanted
            .compare_exchange(RUN, PAUSE, Ordering::SeqCst, Ordering::SeqCst);
        if running.is_err() {
            return;
        }
        self.kick();
        let paused = |progress: &mut Progress| progress.parked < progress.running;
        drop(self.changed.wait_while(progress, paused));
    }

    /// Undoes [`State::pause`].
    pub(super) fn resume(&self) {
        let progress = self.progress();
        let _ = self
            .wanted
            .compare_exchange(PAUSE, RUN, Ordering::SeqCst, Ordering::SeqCst);
        drop(progress);
        self.changed.notify_all();
    }

    fn kick(&self) {
        for thread in self.threads.iter().chain([&self.helper]) {
            match thread.load(Ordering::SeqCst) {
                0 => {}
                thread => kick::kick(self.process, thread),
            }
        }
    }

    /// Whether a CPU shall enter its guest. Waits while the machine is paused.
    pub(super) fn proceed(&self) -> bool {
        match self.wanted.load(Ordering::SeqCst) {
            RUN => return true,
            STOP => return false,
            _ => {}
        }
        let mut progress = self.progress();
        progress.parked += 1;
        self.changed.notify_all();
        let paused = |_: &mut Progress| self.wanted.load(Ordering::SeqCst) == PAUSE;
        let waited = self.changed.wait_while(progress, paused);
        let mut progress = waited.unwrap_or_else(PoisonError::into_inner);
        progress.parked -= 1;
        self.wanted.load(Ordering::SeqCst) == RUN
    }

    /// Whether the machine is to end.
    pub(super) fn stopped(&self) -> bool {
        self.wanted.load(Ordering::SeqCst) == STOP
    }

    /// The calling thread, which holds the signal of [`kick`], gets it when the machine is to end, as long as the result
    /// lives. It has to look by itself whether that is so already.
    pub(super) fn enter_helper(&self) -> Helper<'_> {
        let thread = nix::unistd::gettid().as_raw();
        self.helper.store(thread, Ordering::SeqCst);
        Helper { state: self }
    }

    /// The calling thread has the CPU with this index, as long as the result lives.
    pub(super) fn enter(&self, index: usize) -> Present<'_> {
        if let Some(thread) = self.threads.get(index) {
            thread.store(nix::unistd::gettid().as_raw(), Ordering::SeqCst);
        }
        Present { state: self, index }
    }
}

/// A helper's thread lives.
#[derive(Debug)]
pub(super) struct Helper<'a> {
    state: &'a State,
}

impl Drop for Helper<'_> {
    fn drop(&mut self) {
        self.state.helper.store(0, Ordering::SeqCst);
    }
}

/// A CPU's thread lives.
#[derive(Debug)]
pub(super) struct Present<'a> {
    state: &'a State,
    index: usize,
}

impl Drop for Present<'_> {
    fn drop(&mut self) {
        let state = self.state;
        if let Some(thread) = state.threads.get(self.index) {
            thread.store(0, Ordering::SeqCst);
        }
        let mut progress = state.progress();
        progress.running -= 1;
        let last = progress.running == 0;
        drop(progress);
        state.changed.notify_all();
        if last {
            // An eventfd that counts to one cannot be full.
            let _ = state.ended.write(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
    use std::sync::Arc;
    use std::sync::atomic::AtomicU32;

    fn ended(state: &State) -> bool {
        let mut fds = [PollFd::new(state.ended(), PollFlags::POLLIN)];
        poll(&mut fds, PollTimeout::ZERO).expect("a descriptor") == 1
    }

    /// Threads that count instead of running a guest.
    fn counting(count: usize) -> (Arc<State>, Arc<AtomicU32>, Vec<std::thread::JoinHandle<()>>) {
        kick::prepare().expect("a handler");
        let state = Arc::new(State::new(count).expect("a state"));
        let turns = Arc::new(AtomicU32::new(0));
        let threads = (0..count)
            .map(|index| {
                let (state, turns) = (Arc::clone(&state), Arc::clone(&turns));
                std::thread::spawn(move || {
                    let _present = state.enter(index);
                    while state.proceed() {
                        turns.fetch_add(1, Ordering::SeqCst);
                        std::thread::yield_now();
                    }
                })
            })
            .collect();
        (state, turns, threads)
    }

    #[test]
    fn the_machine_has_ended_when_its_last_cpu_has_and_the_first_reason_counts() {
        let (state, _, threads) = counting(2);
        assert!(!ended(&state));
        state.end(End::Exit(MachineExit::PoweredOff));
        state.end(End::Exit(MachineExit::Stopped));
        for thread in threads {
            thread.join().expect("it ends");
        }
        assert!(ended(&state));
        assert!(matches!(
            state.take_end(),
            Some(End::Exit(MachineExit::PoweredOff))
        ));
    }

    #[test]
    fn while_it_is_paused_nothing_runs_and_it_can_go_on_or_end() {
        let (state, turns, threads) = counting(2);
        state.pause();
        let before = turns.load(Ordering::SeqCst);
        for _ in 0..100 {
            std::thread::yield_now();
        }
        assert_eq!(turns.load(Ordering::SeqCst), before);
        state.resume();
        while turns.load(Ordering::SeqCst) == before {
            std::thread::yield_now();
        }
        state.pause();
        state.end(End::Exit(MachineExit::Stopped));
        for thread in threads {
            thread.join().expect("it ends");
        }
        // A machine that has ended cannot be paused, and nobody waits for it.
        state.pause();
        state.resume();
        assert!(ended(&state));
    }
}
