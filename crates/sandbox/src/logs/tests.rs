use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::Path;
use std::time::Duration;

use super::format::{FILE_HEADER, RECORD_HEADER};
use super::*;
use crate::lock::RunLock;

fn open(dir: &Path) -> [File; 2] {
    LOG_FILES.map(|name| {
        OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(dir.join(name))
            .unwrap()
    })
}

fn writer(dir: &Path, max: u64) -> LogWriter {
    LogWriter::new(open(dir), max)
}

fn read(dir: &Path, filter: LogFilter) -> Vec<LogEntry> {
    LogReader::open(dir, filter)
        .unwrap()
        .map(|entry| entry.unwrap())
        .collect()
}

fn text(entries: &[LogEntry]) -> String {
    entries
        .iter()
        .map(|entry| String::from_utf8_lossy(&entry.bytes))
        .collect()
}

#[test]
fn lines_keep_their_stream_order_and_time() {
    let dir = tempfile::tempdir().unwrap();
    let before = jiff::Timestamp::now();
    let mut log = writer(dir.path(), 1 << 20);
    log.append(LogStream::Stdout, b"one\ntw");
    std::thread::sleep(Duration::from_millis(2));
    log.append(LogStream::Stderr, b"bad\n");
    log.append(LogStream::Stdout, b"o\nthree");
    let entries = read(dir.path(), LogFilter::default());
    let seen: Vec<_> = entries
        .iter()
        .map(|e| (e.stream, e.bytes.as_slice(), e.starts_line))
        .collect();
    assert_eq!(
        seen,
        [
            (LogStream::Stdout, &b"one\n"[..], true),
            (LogStream::Stdout, b"tw", true),
            (LogStream::Stderr, b"bad\n", true),
            (LogStream::Stdout, b"o\n", false),
            (LogStream::Stdout, b"three", true),
        ]
    );
    assert!(
        entries
            .iter()
            .all(|e| e.time >= before && e.time <= jiff::Timestamp::now())
    );
    let times: Vec<_> = entries.iter().map(|e| e.time).collect();
    assert_eq!(
        times[1], times[3],
        "a line has one time, that of its first piece"
    );
    assert!(
        times[0] <= times[1] && times[1] < times[2] && times[2] <= times[4],
        "{times:?}"
    );
}

#[test]
fn tail_counts_lines_not_pieces() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = writer(dir.path(), 1 << 20);
    for piece in ["a1", "a2\n", "b1", "b2\n", "c\n"] {
        log.append(LogStream::Stdout, piece.as_bytes());
    }
    let tail = |n| {
        text(&read(
            dir.path(),
            LogFilter {
                tail: Some(n),
                ..LogFilter::default()
            },
        ))
    };
    assert_eq!(tail(0), "");
    assert_eq!(tail(1), "c\n");
    assert_eq!(tail(2), "b1b2\nc\n");
    assert_eq!(tail(99), "a1a2\nb1b2\nc\n");
}

#[test]
fn since_and_until_bound_what_is_shown() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = writer(dir.path(), 1 << 20);
    let mut marks = Vec::new();
    for line in ["a\n", "b\n", "c\n"] {
        log.append(LogStream::Stdout, line.as_bytes());
        std::thread::sleep(Duration::from_millis(2));
        marks.push(jiff::Timestamp::now());
    }
    let filter = LogFilter {
        since: Some(marks[0]),
        until: Some(marks[1]),
        ..LogFilter::default()
    };
    assert_eq!(text(&read(dir.path(), filter)), "b\n");
}

/// A long line comes in pieces; it belongs to the moment at which it began, as a whole.
#[test]
fn since_and_until_do_not_cut_a_line_in_the_middle() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = writer(dir.path(), 1 << 20);
    let now = || {
        std::thread::sleep(Duration::from_millis(2));
        let mark = jiff::Timestamp::now();
        std::thread::sleep(Duration::from_millis(2));
        mark
    };
    log.append(LogStream::Stdout, b"a1 ");
    let inside_a = now();
    log.append(LogStream::Stderr, b"other\n");
    log.append(LogStream::Stdout, b"a2\nb1 ");
    let inside_b = now();
    log.append(LogStream::Stdout, b"b2\n");
    log.append(LogStream::Stdout, b"c\n");
    let shown = |since, until| {
        let filter = LogFilter {
            since,
            until,
            ..LogFilter::default()
        };
        text(&read(dir.path(), filter))
    };
    assert_eq!(shown(None, Some(inside_a)), "a1 a2\n");
    assert_eq!(shown(None, Some(inside_b)), "a1 other\na2\nb1 b2\n");
    assert_eq!(shown(Some(inside_a), None), "other\nb1 b2\nc\n");
    assert_eq!(shown(Some(inside_b), None), "c\n");
}

#[test]
fn rotation_bounds_the_disk_and_keeps_the_newest() {
    let dir = tempfile::tempdir().unwrap();
    let max = 64 << 10;
    let mut log = writer(dir.path(), max);
    for n in 0..20_000 {
        log.append(LogStream::Stdout, format!("line {n:06}\n").as_bytes());
    }
    let sizes: Vec<u64> = LOG_FILES
        .iter()
        .map(|name| dir.path().join(name).metadata().unwrap().len())
        .collect();
    assert!(sizes.iter().all(|size| *size <= max), "{sizes:?}");
    let entries = read(dir.path(), LogFilter::default());
    assert!(entries.len() as u64 > max / (RECORD_HEADER as u64 + 12));
    assert_eq!(entries.last().unwrap().bytes, b"line 019999\n");
    let first: usize = 20_000 - entries.len();
    assert_eq!(text(&entries[..1]), format!("line {first:06}\n"));
}

#[test]
fn a_new_writer_continues_after_the_last_complete_record() {
    let dir = tempfile::tempdir().unwrap();
    writer(dir.path(), 1 << 20).append(LogStream::Stdout, b"kept\n");
    let path = dir.path().join("log.0");
    let whole = path.metadata().unwrap().len();
    let mut torn = OpenOptions::new().append(true).open(&path).unwrap();
    torn.write_all(&[1, 0, 0, 0, 0, 0, 0, 0, 0, 50, 0, 0, 0, b't', b'o'])
        .unwrap();
    assert_eq!(text(&read(dir.path(), LogFilter::default())), "kept\n");
    writer(dir.path(), 1 << 20).append(LogStream::Stdout, b"next\n");
    assert_eq!(
        text(&read(dir.path(), LogFilter::default())),
        "kept\nnext\n"
    );
    assert_eq!(
        path.metadata().unwrap().len(),
        whole + RECORD_HEADER as u64 + 5
    );
}

#[test]
fn damage_hides_what_follows_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = writer(dir.path(), 1 << 20);
    log.append(LogStream::Stdout, b"good\n");
    let at = FILE_HEADER + RECORD_HEADER + 5;
    log.append(LogStream::Stdout, b"hit\n");
    std::os::unix::fs::FileExt::write_all_at(&open(dir.path())[0], &[0xee; 20], at as u64).unwrap();
    assert_eq!(text(&read(dir.path(), LogFilter::default())), "good\n");
    std::fs::write(dir.path().join("log.1"), b"no log at all").unwrap();
    assert_eq!(text(&read(dir.path(), LogFilter::default())), "good\n");
}

#[test]
fn a_follower_sees_each_line_soon_and_ends_with_the_container() {
    let dir = tempfile::tempdir().unwrap();
    let lock = RunLock::take(dir.path()).unwrap();
    let mut follower = LogReader::open(
        dir.path(),
        LogFilter {
            follow: true,
            ..LogFilter::default()
        },
    )
    .unwrap();
    let path = dir.path().to_owned();
    let writing = std::thread::spawn(move || {
        let mut log = writer(&path, 64 << 10);
        for n in 0..30_000 {
            log.append(LogStream::Stdout, format!("{n}\n").as_bytes());
            if n % 500 == 0 {
                std::thread::sleep(Duration::from_millis(3));
            }
        }
        drop(lock);
    });
    let mut next = 0;
    for entry in &mut follower {
        let entry = entry.unwrap();
        if entry.stream == LogStream::Notice {
            // Overtaken: then it says so, and goes on with something newer.
            next = 0;
            continue;
        }
        let n: i32 = String::from_utf8_lossy(&entry.bytes)
            .trim()
            .parse()
            .unwrap();
        assert!(next == 0 || n == next, "{n} after {}", next - 1);
        next = n + 1;
    }
    assert_eq!(next, 30_000);
    writing.join().unwrap();
}

#[test]
fn a_full_disk_loses_output_loudly_and_never_blocks() {
    let dir = tempfile::tempdir().unwrap();
    // Descriptors without write permission refuse as a full disk does.
    let [first, second] = open(dir.path());
    let mut log = LogWriter::new(
        [File::open(dir.path().join("log.0")).unwrap(), second],
        1 << 20,
    );
    log.append(LogStream::Stdout, b"12345");
    log.append(LogStream::Stdout, b"678");
    assert_eq!(log.bytes_lost(), 8);
    log.replace_first(first);
    log.append(LogStream::Stdout, b"back\n");
    let entries = read(dir.path(), LogFilter::default());
    assert_eq!(entries[0].stream, LogStream::Notice);
    assert!(text(&entries[..1]).starts_with("bulkhead: 8 bytes of output were not logged: "));
    assert_eq!(entries[1].bytes, b"back\n");
    assert_eq!(log.bytes_lost(), 8);
}
