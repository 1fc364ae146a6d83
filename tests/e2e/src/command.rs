//! Child processes with a deadline: a hang is a failure with output, not a stuck test run.

use std::io::{Read, Write};
use std::process::{Child, Command, Stdio};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Longest that one command may take; generous, because two cores run several tests at once.
const DEADLINE: Duration = Duration::from_secs(120);

/// A command that has ended.
#[derive(Debug)]
pub struct Finished {
    /// What was run, for messages.
    pub line: String,
    /// Exit code; 128 + n when signal n ended it.
    pub code: i32,
    /// Everything written to stdout.
    pub stdout: Vec<u8>,
    /// Everything written to stderr, lossily decoded.
    pub stderr: String,
}

impl Finished {
    /// Stdout as text without the final newline.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout)
            .trim_end_matches('\n')
            .to_owned()
    }

    /// Panics with all output unless the exit code is `code`.
    #[track_caller]
    pub fn expect_code(self, code: i32) -> Self {
        assert!(
            self.code == code,
            "`{}` exited with {}, expected {code}\n--- stdout\n{}\n--- stderr\n{}",
            self.line,
            self.code,
            self.text(),
            self.stderr
        );
        self
    }

    /// Panics with all output unless the command succeeded.
    #[track_caller]
    pub fn ok(self) -> Self {
        self.expect_code(0)
    }

    /// Panics unless stderr contains `part`.
    #[track_caller]
    pub fn says(self, part: &str) -> Self {
        assert!(
            self.stderr.contains(part),
            "`{}` did not say '{part}' on stderr:\n{}",
            self.line,
            self.stderr
        );
        self
    }
}

/// A command that is running.
pub struct Running {
    /// The process.
    pub child: Child,
    line: String,
    stdout: Option<JoinHandle<Vec<u8>>>,
    stderr: Option<JoinHandle<Vec<u8>>>,
    started: Instant,
}

impl Running {
    /// Starts `command` with stdin from `input` (or nothing) and its output collected.
    pub fn start(command: &mut Command, input: Option<Vec<u8>>) -> Self {
        let line = format!("{command:?}");
        let mut child = command
            .stdin(if input.is_some() {
                Stdio::piped()
            } else {
                Stdio::null()
            })
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|e| panic!("cannot start {line}: {e}"));
        if let (Some(bytes), Some(mut pipe)) = (input, child.stdin.take()) {
            // A command may end without reading all of its input.
            std::thread::spawn(move || drop(pipe.write_all(&bytes)));
        }
        let stdout = child.stdout.take().map(collect);
        let stderr = child.stderr.take().map(collect);
        Self {
            child,
            line,
            stdout,
            stderr,
            started: Instant::now(),
        }
    }

    /// Sends a signal to the command.
    pub fn signal(&self, signal: i32) {
        // SAFETY: kill(2) has no memory effects; the child is not yet reaped, so the pid is ours.
        unsafe { libc::kill(i32::try_from(self.child.id()).unwrap_or(i32::MAX), signal) };
    }

    /// Waits for the end, killing the command when the deadline passes.
    #[track_caller]
    pub fn finish(mut self) -> Finished {
        use std::os::unix::process::ExitStatusExt;
        let mut late = false;
        let deadline = crate::patience(DEADLINE);
        let status = loop {
            if let Some(status) = self.child.try_wait().expect("wait for a child") {
                break status;
            }
            if self.started.elapsed() > deadline {
                late = true;
                self.child.kill().expect("kill a child that hangs");
            }
            std::thread::sleep(Duration::from_millis(3));
        };
        let take = |thread: Option<JoinHandle<Vec<u8>>>| {
            thread
                .map(|t| t.join().expect("reader thread"))
                .unwrap_or_default()
        };
        let finished = Finished {
            line: self.line,
            code: status
                .code()
                .unwrap_or_else(|| 128 + status.signal().unwrap_or(0)),
            stdout: take(self.stdout.take()),
            stderr: String::from_utf8_lossy(&take(self.stderr.take())).into_owned(),
        };
        assert!(
            !late,
            "`{}` was still running after {deadline:?}\n--- stdout\n{}\n--- stderr\n{}",
            finished.line,
            finished.text(),
            finished.stderr
        );
        finished
    }
}

/// Ends what a shell does to the jobs that it starts in the background: they, and every command that they start, ignore
/// Ctrl-C.
pub(crate) fn heed_interrupts() {
    for signal in [libc::SIGINT, libc::SIGQUIT] {
        // SAFETY: the default disposition runs no code of this program.
        unsafe { libc::signal(signal, libc::SIG_DFL) };
    }
}

fn collect(mut pipe: impl Read + Send + 'static) -> JoinHandle<Vec<u8>> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        let _ = pipe.read_to_end(&mut bytes);
        bytes
    })
}

/// Whether a client program is installed; when not, says what that leaves unproven.
pub fn tool_exists(name: &str) -> bool {
    let found = std::env::var_os("PATH").is_some_and(|path| {
        std::env::split_paths(&path)
            .chain(["/sbin", "/usr/sbin"].map(Into::into))
            .any(|dir| dir.join(name).is_file())
    });
    if !found {
        crate::cannot_run!("{name} is not installed (make deps installs it)");
    }
    found
}

/// Runs another program to its end.
#[track_caller]
pub fn run_tool(program: &str, args: &[&str]) -> Finished {
    Running::start(Command::new(program).args(args), None).finish()
}
