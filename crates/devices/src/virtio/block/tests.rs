//! Requests against real files.

use std::fs::File;
use std::io::Write;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::sync::{Arc, Mutex};

use super::{Block, BlockError, Fault};
use crate::device::{Device, DeviceError, Work};
use crate::virtio::queue::driver::Driver;
use crate::virtio::queue::testing::activate;

const HEADER: u64 = 0x4_0000;
const STATUS: u64 = 0x5_0000;
const DATA: u64 = 0x100_0000;

const IN: u32 = 0;
const OUT: u32 = 1;
const FLUSH: u32 = 4;
const GET_ID: u32 = 8;
const DISCARD: u32 = 11;
const WRITE_ZEROES: u32 = 13;

struct Bench {
    device: Block,
    driver: Driver,
}

impl Bench {
    fn new(mut device: Block) -> Self {
        let (mut drivers, _, _) = activate(&mut device);
        let driver = drivers.remove(0);
        Self { device, driver }
    }

    fn header(&self, kind: u32, sector: u64) {
        let mut header = [0; 16];
        header[..4].copy_from_slice(&kind.to_le_bytes());
        header[8..].copy_from_slice(&sector.to_le_bytes());
        self.driver.write(HEADER, &header);
        self.driver.write(STATUS, &[0xff]);
    }

    fn run(&mut self, data: &[(u64, u32, bool)]) -> Result<(u8, u32), DeviceError> {
        let mut chain = vec![(HEADER, 16, false)];
        chain.extend_from_slice(data);
        chain.push((STATUS, 1, true));
        self.driver.add(&chain);
        assert_eq!(self.device.queue_event(0)?, Work::Done);
        let (_, length) = self.driver.take_used().unwrap();
        Ok((self.driver.read(STATUS, 1)[0], length))
    }

    fn read(&mut self, sector: u64, length: u32) -> Option<Vec<u8>> {
        self.header(IN, sector);
        // In three uneven pieces, so that pieces and parts do not coincide.
        let first = length / 3;
        let second = length / 2 - first;
        let (status, used) = self
            .run(&[
                (DATA, first, true),
                (DATA + u64::from(first), second, true),
                (
                    DATA + u64::from(first + second),
                    length - first - second,
                    true,
                ),
            ])
            .unwrap();
        (status == 0).then(|| {
            assert_eq!(used, length + 1);
            self.driver.read(DATA, length as usize)
        })
    }

    fn write(&mut self, sector: u64, data: &[u8]) -> u8 {
        self.header(OUT, sector);
        self.driver.write(DATA, data);
        self.run(&[(DATA, data.len() as u32, false)]).unwrap().0
    }

    fn ranges(&mut self, kind: u32, ranges: &[(u64, u32, u32)]) -> u8 {
        self.header(kind, 0);
        let mut raw = Vec::new();
        for (sector, count, flags) in ranges {
            raw.extend(sector.to_le_bytes());
            raw.extend(count.to_le_bytes());
            raw.extend(flags.to_le_bytes());
        }
        self.driver.write(DATA, &raw);
        self.run(&[(DATA, raw.len() as u32, false)]).unwrap().0
    }
}

fn file(bytes: &[u8]) -> File {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(bytes).unwrap();
    file
}

fn pattern(length: usize, seed: u8) -> Vec<u8> {
    (0..length)
        .map(|index| (index as u8).wrapping_mul(31).wrapping_add(seed) | 1)
        .collect()
}

fn writable(bytes: u64) -> Bench {
    let file = tempfile::tempfile().unwrap();
    file.set_len(bytes).unwrap();
    Bench::new(Block::writable(file, "scratch").unwrap())
}

#[test]
fn parts_are_joined_each_padded_with_zeros_to_4_kib() {
    let parts = [
        pattern(5000, 1),
        Vec::new(),
        pattern(4096, 2),
        pattern(1, 3),
    ];
    let mut whole = Vec::new();
    for part in &parts {
        whole.extend_from_slice(part);
        whole.resize(whole.len().next_multiple_of(4096), 0);
    }
    let files = parts.iter().map(|part| file(part)).collect();
    let device = Block::read_only(files, "image").unwrap();
    assert_eq!(device.bytes(), whole.len() as u64);
    assert_eq!(
        device.config()[..8],
        (whole.len() as u64 / 512).to_le_bytes()
    );
    let mut bench = Bench::new(device);
    let sectors = whole.len() / 512;
    for first in 0..sectors {
        for last in first + 1..=sectors {
            let length = ((last - first) * 512) as u32;
            let read = bench.read(first as u64, length).unwrap();
            assert!(read == whole[first * 512..last * 512], "{first}..{last}");
        }
    }
}

#[test]
fn what_lies_beyond_the_end_is_an_error_for_the_guest_only() {
    let mut bench = Bench::new(Block::read_only(vec![file(&[1; 4096])], "image").unwrap());
    assert_eq!(bench.read(8, 512), None);
    assert_eq!(bench.read(7, 1024), None);
    assert_eq!(bench.read(u64::MAX, 512), None);
    assert_eq!(bench.read(u64::MAX / 512, 512), None);
    assert_eq!(bench.read(0, 100), None);
    assert!(bench.read(7, 512).is_some());
}

#[test]
fn a_read_only_disk_refuses_to_change() {
    let mut bench = Bench::new(Block::read_only(vec![file(&[1; 4096])], "image").unwrap());
    assert_eq!(bench.write(0, &[0; 512]), 1);
    assert_eq!(bench.ranges(DISCARD, &[(0, 8, 0)]), 2);
    assert_eq!(bench.read(0, 512).unwrap(), vec![1; 512]);
    assert_ne!(bench.device.features() & (1 << 5), 0);
}

#[test]
fn what_was_written_is_read_back_and_lies_in_the_file() {
    let backing = tempfile::tempfile().unwrap();
    backing.set_len(1 << 20).unwrap();
    let mirror = backing.try_clone().unwrap();
    let mut bench = Bench::new(Block::writable(backing, "scratch").unwrap());
    let data = pattern(9 * 512, 9);
    assert_eq!(bench.write(3, &data), 0);
    assert_eq!(bench.read(3, 9 * 512).unwrap(), data);
    bench.header(FLUSH, 0);
    assert_eq!(bench.run(&[]).unwrap(), (0, 1));
    let mut on_disk = vec![0; data.len()];
    mirror.read_exact_at(&mut on_disk, 3 * 512).unwrap();
    assert_eq!(on_disk, data);
    assert_eq!(bench.write(2048, &[0; 512]), 1);
}

#[test]
fn discarded_space_is_freed_on_the_host_and_reads_as_zeros() {
    for kind in [DISCARD, WRITE_ZEROES] {
        let backing = tempfile::tempfile().unwrap();
        backing.set_len(4 << 20).unwrap();
        let mirror = backing.try_clone().unwrap();
        let mut bench = Bench::new(Block::writable(backing, "scratch").unwrap());
        for sector in (0..4096).step_by(512) {
            assert_eq!(bench.write(sector, &pattern(512 * 512, 5)), 0);
        }
        let before = mirror.metadata().unwrap().blocks();
        let unmap = u32::from(kind == WRITE_ZEROES);
        assert_eq!(bench.ranges(kind, &[(0, 2048, unmap), (4000, 8, unmap)]), 0);
        let metadata = mirror.metadata().unwrap();
        assert!(metadata.blocks() + 2000 < before);
        assert_eq!(metadata.len(), 4 << 20);
        assert_eq!(bench.read(2047, 512).unwrap(), vec![0; 512]);
        assert_ne!(bench.read(2048, 512).unwrap(), vec![0; 512]);
    }
}

/// A file system without `FALLOC_FL_ZERO_RANGE`: tmpfs.
#[test]
fn a_host_that_cannot_zero_a_range_does_not_write_gibibytes_for_it() {
    let backing = tempfile::tempfile_in("/dev/shm").unwrap();
    backing.set_len(2 << 30).unwrap();
    let mirror = backing.try_clone().unwrap();
    let mut bench = Bench::new(Block::writable(backing, "scratch").unwrap());
    let data = pattern(4096, 3);
    assert_eq!(bench.write(0, &data), 0);
    let before = mirror.metadata().unwrap().blocks();
    let status = bench.ranges(WRITE_ZEROES, &[(0, 1 << 21, 0), (1 << 21, 1 << 21, 0)]);
    let after = mirror.metadata().unwrap().blocks();
    assert_eq!(after, before, "zeros were written");
    // The driver writes the zeros itself when it is told that the device cannot.
    assert_eq!(status, 2);
    assert_eq!(bench.read(0, 4096).unwrap(), data);
    assert_eq!(bench.ranges(WRITE_ZEROES, &[(0, 8, 1)]), 0);
    assert_eq!(bench.read(0, 4096).unwrap(), vec![0; 4096]);
}

#[test]
fn zeroes_without_unmap_are_zeroes() {
    let mut bench = writable(1 << 20);
    assert_eq!(bench.write(0, &pattern(4096, 1)), 0);
    assert_eq!(bench.ranges(WRITE_ZEROES, &[(1, 3, 0)]), 0);
    let mut expected = pattern(4096, 1);
    expected[512..2048].fill(0);
    assert_eq!(bench.read(0, 4096).unwrap(), expected);
}

#[test]
fn one_bad_range_among_good_ones_changes_nothing() {
    let mut bench = writable(1 << 20);
    let data = pattern(4096, 7);
    for bad in [(2048, 1, 0), (u64::MAX, 8, 0), (0, u32::MAX, 0)] {
        assert_eq!(bench.write(0, &data), 0);
        assert_eq!(bench.ranges(DISCARD, &[(0, 8, 0), bad]), 1, "{bad:?}");
        assert_eq!(bench.read(0, 4096).unwrap(), data);
    }
    assert_eq!(bench.ranges(DISCARD, &[(0, 8, 1)]), 2);
    assert_eq!(bench.ranges(DISCARD, &[]), 1);
    assert_eq!(bench.ranges(DISCARD, &[(0, 1, 0); 65]), 1);
}

#[test]
fn the_serial_is_how_a_guest_finds_its_disk() {
    let mut bench = writable(4096);
    bench.header(GET_ID, 0);
    assert_eq!(bench.run(&[(DATA, 20, true)]).unwrap(), (0, 21));
    assert_eq!(
        bench.driver.read(DATA, 20),
        b"scratch\0\0\0\0\0\0\0\0\0\0\0\0\0"
    );
    bench.header(GET_ID, 0);
    assert_eq!(bench.run(&[(DATA, 19, true)]).unwrap().0, 1);
    assert!(matches!(
        Block::read_only(Vec::new(), "longer than twenty bytes"),
        Err(BlockError::Serial { .. })
    ));
    assert!(Block::read_only(Vec::new(), "").is_err());
}

#[test]
fn requests_without_header_or_status_break_the_device() {
    let mut bench = writable(4096);
    bench.driver.add(&[(HEADER, 15, false), (STATUS, 1, true)]);
    let error = bench.device.queue_event(0).unwrap_err();
    assert!(matches!(error, DeviceError::Request { .. }));
    let mut bench = writable(4096);
    bench.driver.add(&[(HEADER, 16, false)]);
    let error = bench.device.queue_event(0).unwrap_err();
    assert!(matches!(error, DeviceError::Request { .. }));
}

#[test]
fn an_unknown_request_is_unsupported() {
    let mut bench = writable(4096);
    bench.header(77, 0);
    assert_eq!(bench.run(&[(DATA, 512, true)]).unwrap(), (2, 1));
}

#[test]
fn a_failure_of_the_host_is_an_io_error_and_is_reported() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("disk");
    File::create(&path).unwrap().set_len(4096).unwrap();
    let faults = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&faults);
    let device = Block::writable(File::open(&path).unwrap(), "scratch")
        .unwrap()
        .on_fault(move |fault| seen.lock().unwrap().push(fault));
    let mut bench = Bench::new(device);
    assert_eq!(bench.write(0, &[0; 512]), 1);
    assert_eq!(*faults.lock().unwrap(), [Fault::Io(Some(libc::EBADF))]);
    let full = std::io::Error::from_raw_os_error(libc::ENOSPC);
    assert_eq!(Fault::of(&full), Fault::OutOfSpace);
}

#[test]
fn files_that_cannot_be_disks_are_refused() {
    let odd = file(&[0; 1000]);
    assert!(matches!(
        Block::writable(odd, "x"),
        Err(BlockError::Unaligned { bytes: 1000 })
    ));
    let directory = File::open("/").unwrap();
    assert!(matches!(
        Block::read_only(vec![directory], "x"),
        Err(BlockError::NotRegular { part: 0 })
    ));
}

#[test]
fn a_reset_device_serves_again() {
    let mut bench = writable(4096);
    assert_eq!(bench.write(0, &[7; 512]), 0);
    let activation = bench.device.reset().unwrap();
    assert_eq!(activation.queues[0].position(), 1);
    assert!(matches!(
        bench.device.queue_event(0),
        Err(DeviceError::NotActive)
    ));
    bench.device.activate(activation).unwrap();
    assert_eq!(bench.read(0, 512).unwrap(), vec![7; 512]);
}
