//! The sandbox's own log: what the monitor and the devices have to say, and the message of a panic. It is standard error of
//! both halves, and the one file that they can still write under every policy.

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::sync::atomic::{AtomicU64, Ordering};

use bulkhead_types::GuestText;
use nix::fcntl::{FallocateFlags, fallocate};
use nix::unistd::dup2_stderr;
use tracing::level_filters::LevelFilter;

/// Name of the log of the sandbox's last run in a container's directory.
pub const SANDBOX_LOG: &str = "sandbox.log";

/// Most bytes that one half of a sandbox writes there in a run, so that both together write a mebibyte. A guest that makes a
/// device complain all the time is slowed down by the devices; this bounds what is left of that over the years.
const HALF_MAX: u64 = 512 << 10;

/// Room that the file has from the start, in bytes: a page. The first to be told is often that the disk is full.
const ROOM: i64 = 4096;

static BOUND: Bound = Bound(AtomicU64::new(0));

/// Begins the log anew, in the working directory, and makes it standard error. To be called under the run lock and before
/// the fork. `level` is the command's, and warnings are kept in any case.
pub(super) fn begin(level: &str) -> io::Result<()> {
    let file = OpenOptions::new()
        // Both halves write at the end, whoever wrote before.
        .append(true)
        .create(true)
        .mode(0o600)
        .open(SANDBOX_LOG)?;
    file.set_len(0)?;
    // Not every file system can; then a full disk has no room for the words that say so.
    let _ = fallocate(&file, FallocateFlags::FALLOC_FL_KEEP_SIZE, 0, ROOM);
    debug_assert!(file.as_raw_fd() > 2);
    dup2_stderr(&file)?;
    let level = level.parse().unwrap_or(LevelFilter::WARN);
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(level.max(LevelFilter::WARN))
        .with_ansi(false)
        .with_writer(|| Line {
            bound: &BOUND,
            to: io::stderr(),
        })
        .finish();
    // It is there already only in a test's process.
    let _ = tracing::subscriber::set_global_default(subscriber);
    std::panic::set_hook(Box::new(|panic| {
        let thread = std::thread::current();
        let name = thread.name().unwrap_or("unnamed");
        // A message may quote what the guest sent.
        let words = GuestText::line(&panic.to_string());
        tracing::error!("thread '{name}': {}", words.as_str());
    }));
    Ok(())
}

/// How much was written, of [`HALF_MAX`].
#[derive(Debug)]
struct Bound(AtomicU64);

impl Bound {
    /// Whether `length` more bytes may be written; `None`: no, and this is the first time.
    fn admits(&self, length: usize) -> Option<bool> {
        let length = u64::try_from(length).unwrap_or(u64::MAX);
        let before = self
            .0
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |before| {
                Some(before.saturating_add(length))
            })
            .unwrap_or(u64::MAX);
        match before.saturating_add(length) <= HALF_MAX {
            true => Some(true),
            false if before <= HALF_MAX => {
                // What is shorter must not come in again after the last words.
                self.0.store(u64::MAX, Ordering::Relaxed);
                None
            }
            false => Some(false),
        }
    }
}

/// A line on its way. Nothing that happens to it may disturb who wrote it.
struct Line<'a, W> {
    bound: &'a Bound,
    to: W,
}

impl<W: Write> Write for Line<'_, W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let _ = match self.bound.admits(bytes.len()) {
            Some(true) => self.to.write_all(bytes),
            Some(false) => Ok(()),
            None => self
                .to
                .write_all(b"this log is as long as it may become: nothing more is written\n"),
        };
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// In the process that has it as an environment variable, the test below plays the sandbox.
    const PLAY: &str = "TEST_PLAYS_THE_SANDBOX";

    /// All of it went to /dev/null.
    #[test]
    fn warnings_and_panics_are_in_the_file() {
        if std::env::var_os(PLAY).is_some() {
            begin("ERROR").unwrap();
            tracing::warn!("a device complains");
            tracing::debug!("more than was asked for");
            let panics = || panic!("quotes\x1b]0;title\x07 of a guest\nand a forged line");
            let thread = std::thread::Builder::new().name("device".to_owned());
            assert!(thread.spawn(panics).unwrap().join().is_err());
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join(SANDBOX_LOG), "of the run before").unwrap();
        let name = "monitor::log::tests::warnings_and_panics_are_in_the_file";
        let played = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", name])
            .env(PLAY, "1")
            .current_dir(dir.path())
            .output()
            .unwrap();
        assert!(played.status.success(), "{played:?}");
        let log = std::fs::read_to_string(dir.path().join(SANDBOX_LOG)).unwrap();
        let lines: Vec<_> = log.lines().collect();
        let [warning, panic] = lines.as_slice() else {
            panic!("{log}")
        };
        assert!(
            warning.contains(" WARN ") && warning.ends_with("a device complains"),
            "{warning}"
        );
        assert!(
            panic.contains("ERROR") && panic.contains("thread 'device': panicked at"),
            "{panic}"
        );
        assert!(
            panic.contains("and a forged line") && !panic.contains('\x1b'),
            "{panic}"
        );
    }

    #[test]
    fn a_log_without_end_is_cut_and_says_so_once() {
        let bound = Bound(AtomicU64::new(0));
        let mut out = Vec::new();
        let line = [b"a warning ".repeat(20).as_slice(), b"\n"].concat();
        for _ in 0..10_000 {
            let mut to = Line {
                bound: &bound,
                to: &mut out,
            };
            to.write_all(&line).unwrap();
        }
        let short = Line {
            bound: &bound,
            to: &mut out,
        }
        .write(b"short\n");
        assert_eq!(short.unwrap(), 6);
        assert!(out.len() as u64 <= HALF_MAX + 100, "{}", out.len());
        let text = String::from_utf8(out).unwrap();
        assert_eq!(text.matches("nothing more is written").count(), 1);
        assert!(text.ends_with("nothing more is written\n"));
    }
}
