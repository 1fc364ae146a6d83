//! The guest console: a bounded file for the curious, and the last lines for error messages. What the
//! guest prints is hostile; it can fill neither the disk nor the memory.

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::sync::{Arc, Mutex, PoisonError};

use bulkhead_types::GuestText;
use tokio::io::AsyncReadExt;

/// The file is begun anew when it is this long.
const FILE_MAX: u64 = 1 << 20;
const TAIL_BYTES: usize = 8 << 10;
const TAIL_LINES: usize = 20;

/// The console's last bytes.
#[derive(Debug, Clone, Default)]
pub(super) struct Tail {
    bytes: Arc<Mutex<VecDeque<u8>>>,
}

impl Tail {
    fn push(&self, bytes: &[u8]) {
        let mut tail = self.bytes.lock().unwrap_or_else(PoisonError::into_inner);
        tail.extend(bytes);
        let excess = tail.len().saturating_sub(TAIL_BYTES);
        tail.drain(..excess);
    }

    /// The last lines, cleaned.
    pub fn lines(&self) -> Vec<GuestText> {
        let tail: Vec<u8> = self
            .bytes
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .iter()
            .copied()
            .collect();
        let mut lines: Vec<GuestText> = tail
            .split(|byte| *byte == b'\n')
            .map(<[u8]>::trim_ascii_end)
            .filter(|line| !line.is_empty())
            .map(GuestText::line_of_bytes)
            .collect();
        lines.drain(..lines.len().saturating_sub(TAIL_LINES));
        lines
    }
}

/// Moves the console's bytes until its end.
pub(super) async fn follow(console: OwnedFd, file: File, tail: Tail) -> io::Result<()> {
    let mut console = tokio::net::unix::pipe::Receiver::from_owned_fd(console)?;
    let mut written = 0;
    let mut buffer = vec![0; 4096];
    loop {
        let got = console.read(&mut buffer).await?;
        let bytes = buffer.get(..got).unwrap_or_default();
        if bytes.is_empty() {
            return Ok(());
        }
        tail.push(bytes);
        if written + got as u64 > FILE_MAX && file.set_len(0).is_ok() {
            written = 0;
        }
        if file.write_all_at(bytes, written).is_ok() {
            written += got as u64;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tail_is_short_and_cannot_steer_a_terminal() {
        let tail = Tail::default();
        for n in 0..2000 {
            tail.push(format!("line {n}\x1b[2J\r\n").as_bytes());
        }
        let lines = tail.lines();
        assert_eq!(lines.len(), TAIL_LINES);
        assert_eq!(*lines.last().unwrap(), "line 1999\u{fffd}[2J");
    }

    #[tokio::test]
    async fn a_chatty_guest_does_not_fill_the_disk() {
        let (reader, writer) = io::pipe().unwrap();
        let file = tempfile::tempfile().unwrap();
        let tail = Tail::default();
        let task = tokio::spawn(follow(
            reader.into(),
            file.try_clone().unwrap(),
            tail.clone(),
        ));
        let writing = tokio::task::spawn_blocking(move || {
            let mut writer = writer;
            for _ in 0..3000 {
                io::Write::write_all(&mut writer, &[b'x'; 1023]).unwrap();
                io::Write::write_all(&mut writer, b"\n").unwrap();
            }
        });
        writing.await.unwrap();
        task.await.unwrap().unwrap();
        let length = file.metadata().unwrap().len();
        assert!(length > 0 && length <= FILE_MAX, "{length}");
        assert_eq!(tail.lines().last().unwrap().len(), 1023);
    }
}
