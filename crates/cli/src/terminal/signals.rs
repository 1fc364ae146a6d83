//! Signals: before a container runs they are meant for us, and take back what is half done; then they are meant for the
//! container, and so is a change of the window's size.
//!
//! ```text
//! TakeBack ──▶ GiveUp ──▶ Forward        run
//! TakeBack                               pull, load, save, import, bootstrap, create
//!              GiveUp ──▶ End            start, restart, run -d
//!              End    ──▶ Forward        exec, attach
//! ```
//!
//! They are blocked from the beginning and taken one by one by a thread, so that one that comes early is delivered late
//! instead of ending us and leaving something behind.

use std::collections::VecDeque;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, Once, PoisonError};
use std::time::Duration;

use bulkhead_sandbox::Client;
use bulkhead_types::{ContainerId, Signal, TerminalSize};
use nix::sys::signal::{SigSet, Signal as Host};

use super::end_by;
use super::raw::RawMode;

/// The hidden verb that [`take_back`] ends in. The number of the signal and the state directory follow, then the identifier
/// of the container that was being created, if one was.
pub const INTERRUPTED_VERB: &str = "interrupted";

/// What Docker's client forwards and can be sent from a shell; stopping and continuing stay with the
/// shell's job control.
const FORWARDED: [Host; 8] = [
    Host::SIGHUP,
    Host::SIGINT,
    Host::SIGQUIT,
    Host::SIGTERM,
    Host::SIGUSR1,
    Host::SIGUSR2,
    Host::SIGALRM,
    Host::SIGPWR,
];
/// Those by which a person, a terminal or a supervisor asks for the end.
const ENDING: [Host; 4] = [Host::SIGHUP, Host::SIGINT, Host::SIGQUIT, Host::SIGTERM];

/// After this many requests to end that the container did not follow, we end and leave it.
const PATIENCE: u32 = 3;
/// Files of ours that are not finished yet begin with it, wherever they are.
const UNFINISHED: &[u8] = b".bulkhead-";
/// So often a start that is given up is looked for: its sandbox listens a moment after it was launched.
const LOOK: Duration = Duration::from_millis(10);

/// A process in a container that signals and sizes go to.
pub trait Target: Send + Sync + 'static {
    /// Sends a signal.
    fn signal(&self, signal: Signal);
    /// Sets the terminal's size.
    fn resize(&self, size: TerminalSize);
}

/// What a signal does at the moment.
#[derive(Clone)]
enum Role {
    /// Ends us.
    End,
    /// Ends us, and what is half done in this state directory is removed.
    TakeBack(PathBuf),
    /// Ends the container that is being started.
    GiveUp(Arc<Start>),
    /// Goes to the process; without `proxy` ends us.
    Forward {
        target: Arc<dyn Target>,
        proxy: bool,
    },
}

struct Shared {
    role: Role,
    /// Files to be removed by [`Role::TakeBack`].
    files: Vec<PathBuf>,
    /// The container to be removed by [`Role::TakeBack`], whether it is there already or not.
    container: Option<ContainerId>,
    /// Came before there was a process to forward them to.
    early: VecDeque<Host>,
}

static SHARED: Mutex<Shared> = Mutex::new(Shared {
    role: Role::End,
    files: Vec::new(),
    container: None,
    early: VecDeque::new(),
});

fn shared() -> MutexGuard<'static, Shared> {
    // What is in it is replaced whole: a panic leaves it sound.
    SHARED.lock().unwrap_or_else(PoisonError::into_inner)
}

/// From now on signals wait for a role; without one they end us. Children inherit that they are blocked; `main` undoes it
/// for a sandbox.
///
/// # Errors
/// When the system refuses.
pub fn catch() -> io::Result<()> {
    static ONCE: Once = Once::new();
    let mut set = SigSet::empty();
    set.extend(FORWARDED);
    set.add(Host::SIGWINCH);
    // `nohup` and shells without job control have us ignore some: a signal that is only blocked would come through.
    for signal in ignored(&fs::read_to_string("/proc/self/status").unwrap_or_default()) {
        set.remove(signal);
    }
    set.thread_block()?;
    let mut result = Ok(());
    ONCE.call_once(|| {
        result = std::thread::Builder::new()
            .name("signals".to_owned())
            .spawn(move || handle(&set))
            .map(drop);
    });
    result
}

/// The signals that a process ignores, by its /proc/PID/status.
fn ignored(status: &str) -> Vec<Host> {
    let line = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = line
        .and_then(|text| u64::from_str_radix(text.trim(), 16).ok())
        .unwrap_or(0);
    FORWARDED
        .into_iter()
        .filter(|signal| mask >> (*signal as u32 - 1) & 1 == 1)
        .collect()
}

/// From now on a signal removes what this command has half done in the state directory `root`, and ends us.
///
/// # Errors
/// When the system refuses.
pub fn take_back(root: &Path) -> io::Result<()> {
    shared().role = Role::TakeBack(root.to_owned());
    catch()
}

/// A file outside of the state directory that is to be removed when a signal ends us before it was [`keep_file`]d.
pub fn take_back_file(path: &Path) {
    shared().files.push(path.to_owned());
}

/// Undoes [`take_back_file`].
pub fn keep_file(path: &Path) {
    shared().files.retain(|other| other != path);
}

/// A container that this command creates, to be removed when a signal ends us before its start has begun, or before it was
/// [`keep_container`]ed.
pub fn take_back_container(id: &ContainerId) {
    shared().container = Some(id.clone());
}

/// Undoes [`take_back_container`].
pub fn keep_container() {
    shared().container = None;
}

/// From now on a signal that asks for the end gives up the start of a container, until the result is dropped.
///
/// # Errors
/// When the system refuses.
pub fn starting(client: Client) -> io::Result<Starting> {
    let start = Arc::new(Start {
        client,
        over: AtomicBool::new(false),
        asked: Mutex::new(None),
    });
    shared().role = Role::GiveUp(Arc::clone(&start));
    catch()?;
    Ok(Starting(start))
}

/// A start that is under way.
struct Start {
    client: Client,
    over: AtomicBool,
    asked: Mutex<Option<Host>>,
}

/// A start that a signal gives up.
pub struct Starting(Arc<Start>);

impl Starting {
    /// To be called when the start is over, one way or the other: the signal that it was given up for.
    pub fn given_up_for(&self) -> Option<Host> {
        self.0.over.store(true, Ordering::SeqCst);
        *self.0.asked.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Starting {
    fn drop(&mut self) {
        self.0.over.store(true, Ordering::SeqCst);
        let mut shared = shared();
        if matches!(shared.role, Role::GiveUp(_)) {
            shared.role = Role::End;
        }
    }
}

impl Start {
    /// In a thread of its own: the sandbox may not be there yet, and is asked again until somebody says that it is over.
    fn give_up(self: Arc<Self>, signal: Host) {
        let first = {
            let mut asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
            asked.replace(signal).is_none()
        };
        if !first {
            return;
        }
        // Without a thread the start goes on to its end, and is given up then.
        let _ = std::thread::Builder::new()
            .name("give up".to_owned())
            .spawn(move || {
                while !self.over.load(Ordering::SeqCst) {
                    let _ = self.client.stop(Signal::KILL, None);
                    std::thread::sleep(LOOK);
                }
            });
    }
}

/// From now on signals and sizes go to `target`. Without `proxy` a signal ends us, with the terminal given back.
///
/// # Errors
/// When no thread can be started.
pub fn forward(target: Arc<dyn Target>, proxy: bool) -> io::Result<()> {
    let early = {
        let mut shared = shared();
        shared.role = Role::Forward {
            target: Arc::clone(&target),
            proxy,
        };
        std::mem::take(&mut shared.early)
    };
    for signal in early.into_iter().filter(|_| proxy) {
        send(target.as_ref(), signal);
    }
    catch()
}

fn send(target: &dyn Target, signal: Host) {
    if let Some(signal) = u8::try_from(signal as i32)
        .ok()
        .and_then(|number| Signal::try_from(number).ok())
    {
        target.signal(signal);
    }
}

/// The thread: takes signal after signal, for as long as there is a process.
fn handle(set: &SigSet) {
    let mut asked = 0;
    while let Ok(signal) = set.wait() {
        let now = shared();
        let role = match now.role.clone() {
            // Held to the end: a step that begins meanwhile, such as the start of the container, would outlive us.
            Role::TakeBack(root) if signal != Host::SIGWINCH => {
                end_after_taking_back(&now, &root, signal)
            }
            role => role,
        };
        drop(now);
        match role {
            Role::Forward { target, .. } if signal == Host::SIGWINCH => {
                if let Some(size) = super::size() {
                    target.resize(size);
                }
            }
            _ if signal == Host::SIGWINCH => {}
            Role::End | Role::Forward { proxy: false, .. } => end_by(signal),
            Role::TakeBack(_) => {}
            Role::GiveUp(start)
                if ENDING.contains(&signal) && !start.over.load(Ordering::SeqCst) =>
            {
                start.give_up(signal);
            }
            Role::GiveUp(_) => shared().early.push_back(signal),
            Role::Forward { target, .. } => {
                send(target.as_ref(), signal);
                if matches!(signal, Host::SIGINT | Host::SIGTERM) {
                    asked += 1;
                }
                if asked >= PATIENCE {
                    RawMode::restore();
                    eprintln!(
                        "\nbulkhead: got {PATIENCE} SIGTERM/SIGINTs, leaving the container behind"
                    );
                    std::process::exit(1);
                }
            }
        }
    }
}

/// Ends every thread at once by executing the hidden verb in our place: what they held (locks, half a layer, a download)
/// is then nobody's, and is removed as what a killed process leaves is. The process stays the same for whoever waits.
fn end_after_taking_back(now: &Shared, root: &Path, signal: Host) -> ! {
    RawMode::restore();
    for file in now.files.iter().cloned().chain(unfinished()) {
        // One that is gone is what is wanted, and about another nothing can be done here.
        let _ = fs::remove_file(file);
    }
    let _failed = Command::new("/proc/self/exe")
        .arg0("bulkhead")
        .arg(INTERRUPTED_VERB)
        .arg((signal as i32).to_string())
        .arg(root)
        .args(now.container.iter().map(ContainerId::as_str))
        .exec();
    end_by(signal)
}

/// Files with a name for unfinished ones that this process has open: nobody else's.
fn unfinished() -> Vec<PathBuf> {
    fs::read_dir("/proc/self/fd")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| fs::read_link(entry.path()).ok())
        .filter(|path| {
            path.file_name()
                .is_some_and(|name| name.as_bytes().starts_with(UNFINISHED))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_nohup_ignores_stays_ignored() {
        let status = "Name:\tx\nSigBlk:\t0000000000000003\nSigIgn:\t0000000000000001\nSigCgt:\t0\n";
        assert_eq!(ignored(status), [Host::SIGHUP]);
        assert_eq!(
            ignored("SigIgn:\t0000000000000006\n"),
            [Host::SIGINT, Host::SIGQUIT]
        );
        assert_eq!(ignored(""), []);
    }
}
