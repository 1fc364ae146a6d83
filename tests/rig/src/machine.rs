//! An emulated machine that runs a share of the tests.

use std::io::{self, BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::Duration;

use crate::payload;
use crate::report::Report;
use crate::share::Share;

/// In the emulated machine a loop of 200 rounds does this part of them.
const SCALE: &str = "0.03";
/// A machine inside an emulated machine is this much slower than what the tests' deadlines were made for.
const PATIENCE: &str = "10";
/// Of the emulated machine, in mebibytes: one test wants a container with more than 4 GiB.
pub const MEMORY: u64 = 6656;
/// A machine writes something every ten seconds; one that does not for so long stands still. The emulator is to blame
/// for that and not what it emulates, as for a machine whose own kernel dies, so another machine goes on; a test that
/// hangs in a machine that lives fails.
const SILENCE: Duration = Duration::from_secs(150);
/// How many one share may take. A file of tests that ends two of them is not the emulator's fault.
const MOST: usize = 4;
/// What the rig exits with when the machine died: tests/rig/run.sh.
const DIED: i32 = 125;
/// Longest time for a machine, in seconds.
const LIMIT: &str = "3300";

/// What every machine is made of.
#[derive(Debug, Clone, Copy)]
pub struct Plan<'a> {
    /// The workspace.
    pub workspace: &'a Path,
    /// The payload's image.
    pub disk: &'a Path,
    /// Processors of the machine. QEMU's emulation of several at once is not sound with machines inside
    /// (docs/decisions/0011), so there should be one wherever the tests do with it.
    pub processors: usize,
}

/// Runs `share` to its end, in one machine or, where that is lost, in several.
///
/// # Errors
/// The rig cannot be started, or the report not be written.
pub fn run<W: Write>(plan: Plan<'_>, share: &[Share], report: &mut Report<W>) -> io::Result<()> {
    let mut left = share;
    let mut last = None;
    for _ in 0..MOST {
        let Some(Lost { file, how }) = once(plan, left, report)? else {
            return Ok(());
        };
        if last.as_ref() == Some(&file) {
            report.trouble(format!("two emulated machines ended in {file}"));
            return Ok(());
        }
        report.second_try(&format!(
            "the emulated machine {how} in {file}: once more from there in another one"
        ))?;
        let done = left.iter().take_while(|part| part.binary.name != file);
        left = &left[done.count()..];
        last = Some(file);
    }
    report.trouble(format!("{MOST} emulated machines were lost"));
    Ok(())
}

/// A machine that did not come to its end.
struct Lost {
    /// The file of tests that it was in.
    file: String,
    how: &'static str,
}

/// Runs one machine, to its end or until it is lost.
fn once<W: Write>(
    plan: Plan<'_>,
    share: &[Share],
    report: &mut Report<W>,
) -> io::Result<Option<Lost>> {
    let value = |name: &str, default: &str| std::env::var(name).unwrap_or_else(|_| default.into());
    let setting = |name, default| format!("{name}={}", value(name, default));
    let mut command = Command::new(plan.workspace.join("tests/rig/run.sh"));
    command
        .args(["--timeout", &value("BULKHEAD_RIG_LIMIT", LIMIT)])
        .args(["--memory", &MEMORY.to_string()])
        .args(["--cpus", &plan.processors.to_string()]);
    if let Ok(socket) = std::env::var("BULKHEAD_RIG_MONITOR") {
        command.args(["--monitor", &socket]);
    }
    let mut child = command
        .arg("--payload")
        .arg(plan.disk)
        .args(["--", "env"])
        .arg(setting("BULKHEAD_E2E_SCALE", SCALE))
        .arg(setting("BULKHEAD_E2E_PATIENCE", PATIENCE))
        .arg(setting("BULKHEAD_E2E_ISOLATION", "kvm"))
        .args(["sh", "/payload/suite.sh"])
        .args(share.iter().map(payload::suite_line))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()?;
    let (sender, lines) = mpsc::channel();
    if let Some(output) = child.stdout.take() {
        std::thread::spawn(move || {
            for line in BufReader::new(output).split(b'\n').map_while(Result::ok) {
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
    }
    loop {
        match lines.recv_timeout(SILENCE) {
            Ok(line) => report.line(&String::from_utf8_lossy(&line))?,
            Err(RecvTimeoutError::Disconnected) => break,
            Err(RecvTimeoutError::Timeout) => {
                if let Some(file) = report.forget_binary() {
                    let script = i32::try_from(child.id()).map_err(io::Error::other)?;
                    // SAFETY: kill(2) has no memory effects; the child is ours and not reaped yet.
                    unsafe { libc::kill(script, libc::SIGTERM) };
                    child.wait()?;
                    let how = "stood still";
                    return Ok(Some(Lost { file, how }));
                }
            }
        }
    }
    let status = child.wait()?;
    if status.code() == Some(DIED)
        && let Some(file) = report.forget_binary()
    {
        return Ok(Some(Lost { file, how: "died" }));
    }
    if !status.success() {
        report.trouble(format!("the emulated machine ended with {status}"));
    }
    Ok(None)
}
