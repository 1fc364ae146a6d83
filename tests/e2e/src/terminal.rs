//! A pseudo-terminal with a person's habits: type, wait for a text, change the window's size.

use std::io::{Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// A command on a terminal of its own.
pub struct Terminal {
    master: std::fs::File,
    screen: Arc<Mutex<Vec<u8>>>,
    reader: std::thread::JoinHandle<()>,
    /// The command.
    pub child: Child,
}

impl Terminal {
    /// Starts `command` as the foreground job of a new terminal of 24 by 80.
    pub fn start(command: Command) -> Self {
        Self::start_with_columns(command, 80)
    }

    /// As [`Terminal::start`], with as many columns.
    pub fn start_with_columns(mut command: Command, columns: u16) -> Self {
        let size = nix::pty::Winsize {
            ws_row: 24,
            ws_col: columns,
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        let pty = nix::pty::openpty(Some(&size), None).expect("openpty");
        let slave = |fd: &OwnedFd| fd.try_clone().expect("dup");
        command
            .stdin(slave(&pty.slave))
            .stdout(slave(&pty.slave))
            .stderr(slave(&pty.slave));
        // SAFETY: setsid and ioctl are async-signal-safe and touch no memory of the parent.
        unsafe {
            command.pre_exec(|| {
                libc::setsid();
                if libc::ioctl(0, libc::TIOCSCTTY, 0) != 0 {
                    return Err(std::io::Error::last_os_error());
                }
                Ok(())
            });
        }
        let child = command.spawn().expect("start the command on a terminal");
        drop(pty.slave);
        drop(command);
        let master = std::fs::File::from(pty.master);
        let screen = Arc::new(Mutex::new(Vec::new()));
        let mut output = master.try_clone().expect("dup");
        let sink = Arc::clone(&screen);
        let reader = std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(count @ 1..) = output.read(&mut buffer) {
                sink.lock()
                    .expect("screen")
                    .extend_from_slice(&buffer[..count]);
            }
        });
        Self {
            master,
            screen,
            reader,
            child,
        }
    }

    /// Types `keys`.
    pub fn send(&mut self, keys: &str) {
        self.master
            .write_all(keys.as_bytes())
            .expect("write to the terminal");
    }

    /// Waits until `text` was shown.
    #[track_caller]
    pub fn expect(&self, text: &str) {
        let start = Instant::now();
        while !self.shown().contains(text) {
            assert!(
                start.elapsed() < crate::patience(Duration::from_secs(30)),
                "'{text}' never showed up in:\n{}",
                self.shown()
            );
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Everything shown so far.
    pub fn shown(&self) -> String {
        String::from_utf8_lossy(&self.screen.lock().expect("screen")).into_owned()
    }

    /// Changes the window's size, which raises SIGWINCH.
    pub fn resize(&self, rows: u16, columns: u16) {
        let size = nix::pty::Winsize {
            ws_row: rows,
            ws_col: columns,
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        // SAFETY: the descriptor is open and `size` outlives the call.
        let result =
            unsafe { libc::ioctl(self.master.as_raw_fd(), libc::TIOCSWINSZ, &raw const size) };
        assert_eq!(result, 0, "TIOCSWINSZ");
    }

    /// Waits for the command's exit code, and for what it showed.
    #[track_caller]
    pub fn wait(&mut self) -> i32 {
        use std::os::unix::process::ExitStatusExt;
        let start = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().expect("wait") {
                // On a loaded host the last words are still on their way. A process that was left behind may keep the
                // terminal open: it has a second.
                let ended = Instant::now();
                while !self.reader.is_finished() && ended.elapsed() < Duration::from_secs(1) {
                    std::thread::sleep(Duration::from_millis(5));
                }
                return status
                    .code()
                    .unwrap_or_else(|| 128 + status.signal().unwrap_or(0));
            }
            if start.elapsed() > crate::patience(Duration::from_secs(60)) {
                let _ = self.child.kill();
                panic!(
                    "the command on the terminal did not end; it showed:\n{}",
                    self.shown()
                );
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Local modes of the terminal, to see that raw mode was undone.
    pub fn is_cooked(&self) -> bool {
        nix::sys::termios::tcgetattr(&self.master)
            .expect("tcgetattr")
            .local_flags
            .contains(nix::sys::termios::LocalFlags::ICANON | nix::sys::termios::LocalFlags::ECHO)
    }
}
