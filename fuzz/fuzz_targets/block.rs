//! Both kinds of disk under arbitrary requests. A read-only disk must never change, a writable one
//! never grow.

#![no_main]

mod guest;

use std::fs::File;
use std::io::Write;
use std::os::fd::FromRawFd;

use bulkhead_devices::{Block, Device};
use guest::{DATA, Input, activate};
use libfuzzer_sys::fuzz_target;
use vm_memory::{Bytes, GuestAddress};

const BYTES: u64 = 64 * 1024;

fn file(bytes: u64) -> File {
    // SAFETY: the name is a valid C string and the descriptor is ours alone.
    let mut file = unsafe { File::from_raw_fd(libc::memfd_create(c"disk".as_ptr(), 0)) };
    file.write_all(&vec![0x55; bytes as usize]).unwrap();
    file
}

thread_local! {
    static FILES: [File; 3] = [file(BYTES), file(5000), file(4096)];
}

fuzz_target!(|data: &[u8]| {
    FILES.with(|files| {
        let mut input = Input(data);
        let read_only = input.u8().is_multiple_of(2);
        let copies = |from: &[File]| from.iter().map(|f| f.try_clone().unwrap()).collect();
        let device = if read_only {
            Block::read_only(copies(&files[1..]), "image")
        } else {
            Block::writable(files[0].try_clone().unwrap(), "scratch")
        };
        let mut device = device.unwrap();
        let (memory, mut rings, _poller) = activate(&mut device);
        while !input.is_empty() {
            match input.u8() % 8 {
                0 => rings[0].scribble(&mut input),
                1 => {
                    let at = GuestAddress(input.address());
                    let count = usize::from(input.u8());
                    let _ = memory.write_slice(&input.take(count), at);
                }
                2..=5 => {
                    let mut header = [0; 16];
                    header[0] = input.u8() % 16;
                    let sector = match input.u8() {
                        0 => input.u64(),
                        near => u64::from(near % 140),
                    };
                    header[8..].copy_from_slice(&sector.to_le_bytes());
                    let _ = memory.write_slice(&header, GuestAddress(DATA));
                    let mut pieces = vec![(DATA, 16, 0)];
                    for _ in 0..input.u8() % 4 {
                        let direction = 2 * u16::from(input.u8() % 2);
                        pieces.push((input.address(), input.length(), direction));
                    }
                    if !input.u8().is_multiple_of(16) {
                        pieces.push((DATA + 16, 1, 2));
                    }
                    rings[0].add(&pieces);
                }
                _ => {
                    if device.queue_event(0).is_err() {
                        break;
                    }
                }
            }
        }
        assert_eq!(files[0].metadata().unwrap().len(), BYTES);
        if read_only {
            let mut content = [0; 5000];
            std::os::unix::fs::FileExt::read_exact_at(&files[1], &mut content, 0).unwrap();
            assert!(content.iter().all(|byte| *byte == 0x55));
        }
    });
});
