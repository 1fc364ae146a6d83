//! The hidden verb `interrupted`: what a command becomes when a signal ends it in the middle of its work. It ends the
//! helpers that the command started, removes what it left half done, and ends by that signal itself.

use std::ffi::OsString;
use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use bulkhead_engine::{Engine, EngineConfig, RemoveOptions};
use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use crate::terminal::end_by;

/// mmdebstrap removes the tree that it was making; who is not done by then is killed.
const HELPERS_WITHIN: Duration = Duration::from_secs(10);
const LOOK: Duration = Duration::from_millis(10);

/// The verb; `words` are those after it: the signal's number, the state directory, and the container that was being created.
pub fn main(words: &[OsString]) -> ! {
    let mut words = words.iter();
    let signal = words
        .next()
        .and_then(|word| word.to_str()?.parse::<i32>().ok())
        .and_then(|number| Signal::try_from(number).ok())
        .unwrap_or(Signal::SIGINT);
    end_helpers();
    if let Some(root) = words.next() {
        take_back(root.into(), words.next().and_then(|word| word.to_str()));
    }
    end_by(signal)
}

fn take_back(root: PathBuf, container: Option<&str>) {
    let Ok(engine) = Engine::open(EngineConfig {
        root: Some(root),
        ..EngineConfig::from_process()
    }) else {
        return;
    };
    if let Some(id) = container {
        // That it is not there, or not whole yet, is the usual case: the sweep removes what is half of one.
        let _ = engine.remove(id, RemoveOptions { force: true });
    }
    // What cannot be removed now is removed by the next command that looks; nobody is there to be told.
    let _ = engine.sweep();
    if let Ok(store) = engine.store() {
        store.tidy();
    }
}

fn end_helpers() {
    let tell = |signal| {
        for child in children() {
            let _ = kill(child, signal);
        }
    };
    tell(Signal::SIGTERM);
    let began = Instant::now();
    while reap() {
        if began.elapsed() > HELPERS_WITHIN {
            tell(Signal::SIGKILL);
        }
        std::thread::sleep(LOOK);
    }
}

/// Takes notice of children that have ended; whether there are others.
fn reap() -> bool {
    loop {
        match waitpid(None::<Pid>, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::StillAlive) => return true,
            Ok(_) | Err(Errno::EINTR) => {}
            Err(_) => return false,
        }
    }
}

fn children() -> Vec<Pid> {
    let me = std::process::id().to_string();
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries
        .filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok())
        .filter(|pid| {
            // pid (comm) state ppid …; the name may hold anything.
            let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            let after = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
            after.split_whitespace().nth(1) == Some(me.as_str())
        })
        .map(Pid::from_raw)
        .collect()
}
