//! The serial line: what the guest's kernel prints, on its way into the console's pipe.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::OwnedFd;

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use vm_superio::Trigger;
use vm_superio::serial::NoEvents;
use vmm_sys_util::eventfd::EventFd;

/// Bytes gathered before they are written even without the end of a line.
const LINE: usize = 512;

/// What a kernel says first when it panics (kernel/panic.c).
const PANIC: &[u8] = b"Kernel panic - not syncing";

/// Lines that a panic may have behind its first one: registers, a trace.
const PANIC_LINES: u32 = 128;

/// A UART whose output is a [`Console`].
pub(super) type Serial = vm_superio::Serial<Line, NoEvents, Console>;

/// The serial line's interrupt.
#[derive(Debug)]
pub(super) struct Line(pub EventFd);

impl Trigger for Line {
    type E = io::Error;

    fn trigger(&self) -> io::Result<()> {
        self.0.write(1)
    }
}

/// Writes whole lines into a pipe, never waits for its reader, and recognizes a panic.
///
/// A virtual CPU that waited for the reader could not be stopped by that very reader. So what does not fit into the
/// pipe is lost, and how much that was is said at the place.
#[derive(Debug)]
pub(super) struct Console {
    pipe: File,
    line: Vec<u8>,
    lost: u64,
    /// Lines that may still belong to a panic.
    panic: u32,
}

impl Console {
    /// `pipe` becomes non-blocking for all who have it open.
    pub(super) fn new(pipe: OwnedFd) -> io::Result<Self> {
        let flags = fcntl(&pipe, FcntlArg::F_GETFL)?;
        let flags = OFlag::from_bits_retain(flags) | OFlag::O_NONBLOCK;
        fcntl(&pipe, FcntlArg::F_SETFL(flags))?;
        Ok(Self {
            pipe: pipe.into(),
            line: Vec::with_capacity(LINE),
            lost: 0,
            panic: 0,
        })
    }

    /// Whether the kernel's last words were those of a panic.
    pub(super) fn panicked(&self) -> bool {
        self.panic > 0
    }

    /// Writes what was gathered.
    pub(super) fn finish(&mut self) {
        if self.line.is_empty() {
            return;
        }
        if self.line.windows(PANIC.len()).any(|window| window == PANIC) {
            self.panic = PANIC_LINES;
        } else {
            self.panic = self.panic.saturating_sub(1);
        }
        let length = self.line.len() as u64;
        if self.lost > 0 {
            let mut text =
                format!("[{} bytes of the console were lost here]\n", self.lost).into_bytes();
            text.append(&mut self.line);
            self.line = text;
        }
        if self.put() {
            self.lost = 0;
        } else {
            // Full, or nobody reads any more.
            self.lost += length;
        }
        self.line.clear();
    }
}

impl Console {
    /// Writes the line, which a pipe takes as a whole or not at all: it is shorter than PIPE_BUF (pipe(7)).
    fn put(&mut self) -> bool {
        self.pipe.write_all(&self.line).is_ok()
    }
}

impl Write for Console {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        for byte in bytes {
            self.line.push(*byte);
            if *byte == b'\n' || self.line.len() >= LINE {
                self.finish();
            }
        }
        Ok(bytes.len())
    }

    /// Nothing: the UART asks for it after every byte.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for Console {
    fn drop(&mut self) {
        self.finish();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;

    fn console() -> (Console, File) {
        let (read, write) = nix::unistd::pipe().expect("a pipe");
        (Console::new(write).expect("a console"), read.into())
    }

    #[test]
    fn lines_arrive_whole_and_the_last_one_without_its_end() {
        let (mut console, mut reader) = console();
        console.write_all(b"one\ntw").expect("taken");
        let mut buffer = [0; 64];
        let count = reader.read(&mut buffer).expect("read");
        assert_eq!(&buffer[..count], b"one\n");
        console.write_all(b"o").expect("taken");
        console.finish();
        drop(console);
        let mut rest = String::new();
        reader.read_to_string(&mut rest).expect("read");
        assert_eq!(rest, "two");
    }

    #[test]
    fn a_reader_that_does_not_read_costs_output_and_no_waiting() {
        let (mut console, mut reader) = console();
        let line = [b'x'; 99];
        for _ in 0..2000 {
            console.write_all(&line).expect("taken");
            console.write_all(b"\n").expect("taken");
        }
        let mut buffer = vec![0; 1 << 20];
        let count = reader.read(&mut buffer).expect("read");
        assert!(count < 200_000);
        console.write_all(b"again\n").expect("taken");
        drop(console);
        let mut rest = String::new();
        reader.read_to_string(&mut rest).expect("read");
        let lost = 200_000 - count;
        assert_eq!(
            rest,
            format!("[{lost} bytes of the console were lost here]\nagain\n")
        );
    }

    #[test]
    fn a_panic_is_recognized_until_the_kernel_goes_on_talking() {
        let (mut console, _reader) = console();
        console.write_all(b"Kernel panic\n").expect("taken");
        assert!(!console.panicked());
        console
            .write_all(b"[    1.0] Kernel panic - not syncing: Attempted to kill init!\nCPU: 0\n")
            .expect("taken");
        assert!(console.panicked());
        for _ in 0..PANIC_LINES {
            console.write_all(b"fine\n").expect("taken");
        }
        assert!(!console.panicked());
    }
}
