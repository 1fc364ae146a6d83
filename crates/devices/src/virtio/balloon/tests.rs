//! Whether pages really go, and what is refused.

use vm_memory::{Address, Bytes, FileOffset, GuestAddress, GuestMemoryBackend, GuestMemoryMmap};

use super::Balloon;
use crate::device::{Activation, Device, DeviceError, Work};
use crate::memory::GuestMemory;
use crate::poll::Poller;
use crate::virtio::queue::driver::Driver;
use crate::virtio::queue::testing::queue;
use crate::virtio::queue::{QueueError, VIRTIO_F_RING_EVENT_IDX};

const INFLATE: usize = 0;
const DEFLATE: usize = 1;
const REPORTING: usize = 2;
const F_REPORTING: u64 = 1 << 5;

const PAGE: u64 = 4096;
const BYTES: u64 = 16 << 20;
/// Above the rings.
const FREE: u64 = 4 << 20;

struct Setup {
    device: Balloon,
    drivers: Vec<Driver>,
    memory: GuestMemory,
}

fn activate(memory: GuestMemory, queues: usize, features: u64) -> Result<Setup, DeviceError> {
    let mut base = PAGE;
    let mut drivers = Vec::new();
    for _ in 0..queues {
        let driver = Driver::new(&memory, base, 256);
        base = driver.end().next_multiple_of(PAGE);
        drivers.push(driver);
    }
    let mut device = Balloon::new();
    device.activate(Activation {
        memory: memory.clone(),
        queues: drivers
            .iter()
            .map(|driver| queue(driver).unwrap().0)
            .collect(),
        features: VIRTIO_F_RING_EVENT_IDX | features,
        poller: Poller::new().unwrap(),
    })?;
    Ok(Setup {
        device,
        drivers,
        memory,
    })
}

fn private() -> Setup {
    let memory = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), BYTES as usize)]).unwrap();
    activate(memory, 3, F_REPORTING).unwrap()
}

fn shared() -> (Setup, std::fs::File) {
    let file = tempfile::tempfile().unwrap();
    file.set_len(BYTES).unwrap();
    let backing = FileOffset::new(file.try_clone().unwrap(), 0);
    let ranges = [(GuestAddress(0), BYTES as usize, Some(backing))];
    let memory = GuestMemoryMmap::from_ranges_with_files(ranges).unwrap();
    (activate(memory, 3, F_REPORTING).unwrap(), file)
}

impl Setup {
    fn touch(&self, start: u64, pages: u64) {
        for page in 0..pages {
            let at = GuestAddress(start + page * PAGE);
            self.memory.write_obj(0x5a_u8, at).unwrap();
        }
    }

    /// Pages of the range that the host holds.
    fn resident(&self, start: u64, pages: u64) -> usize {
        let at = self.memory.get_host_address(GuestAddress(start)).unwrap();
        let mut present = vec![0_u8; pages as usize];
        let length = (pages * PAGE) as usize;
        // SAFETY: the range is mapped, and there is a byte for each of its pages.
        let answer = unsafe { libc::mincore(at.cast(), length, present.as_mut_ptr()) };
        assert_eq!(answer, 0);
        present.iter().filter(|page| **page & 1 == 1).count()
    }

    fn give(&mut self, queue: usize, chain: &[(u64, u32, bool)]) -> Result<(), DeviceError> {
        let head = self.drivers[queue].add(chain);
        assert_eq!(self.device.queue_event(queue)?, Work::Done);
        assert_eq!(self.drivers[queue].take_used(), Some((head, 0)));
        Ok(())
    }

    /// Inflate by the numbers of pages, written at the end of memory.
    fn inflate(&mut self, numbers: &[u32]) -> Result<(), DeviceError> {
        let list = BYTES - (64 << 10);
        let bytes: Vec<u8> = numbers.iter().flat_map(|n| n.to_le_bytes()).collect();
        self.drivers[INFLATE].write(list, &bytes);
        self.give(INFLATE, &[(list, bytes.len() as u32, false)])
    }
}

#[test]
fn reported_pages_are_gone_and_come_back_as_zeros() {
    let mut setup = private();
    setup.touch(FREE, 1024);
    assert_eq!(setup.resident(FREE, 1024), 1024);
    let half = 512 * PAGE as u32;
    let ranges = [(FREE, half / 2, true), (FREE + 512 * PAGE, half, true)];
    setup.give(REPORTING, &ranges).unwrap();
    assert_eq!(setup.resident(FREE, 256), 0);
    assert_eq!(setup.resident(FREE + 256 * PAGE, 256), 256);
    assert_eq!(setup.resident(FREE + 512 * PAGE, 512), 0);
    let kept: u8 = setup
        .memory
        .read_obj(GuestAddress(FREE + 256 * PAGE))
        .unwrap();
    let lost: u8 = setup.memory.read_obj(GuestAddress(FREE)).unwrap();
    assert_eq!((kept, lost), (0x5a, 0));
}

#[test]
fn pages_of_a_shared_file_leave_the_file() {
    use std::os::unix::fs::MetadataExt;
    let (mut setup, file) = shared();
    setup.touch(FREE, 1024);
    let before = file.metadata().unwrap().blocks() * 512;
    setup
        .give(REPORTING, &[(FREE, 1024 * PAGE as u32, true)])
        .unwrap();
    let after = file.metadata().unwrap().blocks() * 512;
    assert!(
        before - after >= 1024 * PAGE,
        "{before} bytes, then {after}"
    );
    let lost: u8 = setup.memory.read_obj(GuestAddress(FREE)).unwrap();
    assert_eq!(lost, 0);
    assert_eq!(file.metadata().unwrap().len(), BYTES);
}

#[test]
fn inflated_pages_are_gone_in_whatever_order_they_come() {
    let mut setup = private();
    setup.touch(FREE, 600);
    let first = (FREE / PAGE) as u32;
    let up: Vec<u32> = (0..100).map(|page| first + page).collect();
    let down: Vec<u32> = (100..400).rev().map(|page| first + page).collect();
    let mut mixed: Vec<u32> = (400..500)
        .map(|page| first + (page * 37) % 100 + 400)
        .collect();
    mixed.extend(mixed.clone());
    for numbers in [up, down, mixed] {
        setup.inflate(&numbers).unwrap();
    }
    let gone = setup.resident(FREE, 400);
    let kept = setup.resident(FREE + 500 * PAGE, 100);
    assert_eq!((gone, kept), (0, 100));
    // 37 and 100 have no common factor: all hundred pages were named.
    assert_eq!(setup.resident(FREE + 400 * PAGE, 100), 0);
    setup.give(DEFLATE, &[(FREE, 400, false)]).unwrap();
    setup.touch(FREE, 1);
    assert_eq!(setup.resident(FREE, 1), 1);
}

#[test]
fn parts_of_pages_stay() {
    let mut setup = private();
    setup.touch(FREE, 4);
    let ranges = [
        (FREE + 1, 2 * PAGE as u32, true),
        (FREE + 3 * PAGE, 100, true),
    ];
    setup.give(REPORTING, &ranges).unwrap();
    assert_eq!(setup.resident(FREE, 1), 1);
    assert_eq!(setup.resident(FREE + PAGE, 1), 0);
    assert_eq!(setup.resident(FREE + 2 * PAGE, 2), 2);
}

#[test]
fn a_range_outside_memory_breaks_the_device_before_anything_is_given_back() {
    for outside in [
        (BYTES - PAGE, 2 * PAGE as u32),
        (BYTES, PAGE as u32),
        (u64::MAX - PAGE + 1, PAGE as u32),
        (0, u32::MAX),
    ] {
        let mut setup = private();
        setup.touch(FREE, 1);
        let (address, length) = outside;
        let ranges = [(FREE, PAGE as u32, true), (address, length, true)];
        let error = setup.give(REPORTING, &ranges).unwrap_err();
        let expected = matches!(
            error,
            DeviceError::Queue {
                queue: REPORTING,
                source: QueueError::OutsideMemory { .. } | QueueError::BrokenChain { .. }
            }
        );
        assert!(expected, "{error:?}");
        assert_eq!(setup.resident(FREE, 1), 1);
    }
}

#[test]
fn a_page_number_outside_memory_or_cut_off_breaks_the_device() {
    let mut setup = private();
    for numbers in [[(BYTES / PAGE) as u32], [u32::MAX]] {
        let error = setup.inflate(&numbers).unwrap_err();
        assert!(matches!(error, DeviceError::Request { queue: INFLATE, .. }));
        setup = private();
    }
    setup.drivers[INFLATE].add(&[(FREE, 6, false)]);
    setup.device.queue_event(INFLATE).unwrap_err();
}

#[test]
fn long_lists_of_numbers_are_read_to_their_end() {
    let mut setup = private();
    setup.touch(FREE, 1000);
    let first = (FREE / PAGE) as u32;
    let numbers: Vec<u32> = (0..1000).map(|page| first + page).collect();
    setup.inflate(&numbers).unwrap();
    assert_eq!(setup.resident(FREE, 1000), 0);
}

#[test]
fn a_guest_that_reports_nothing_needs_no_queue_for_it() {
    let memory = || GuestMemoryMmap::from_ranges(&[(GuestAddress(0), BYTES as usize)]).unwrap();
    let mut setup = activate(memory(), 2, 0).unwrap();
    setup.touch(FREE, 1);
    setup.inflate(&[(FREE / PAGE) as u32]).unwrap();
    assert_eq!(setup.resident(FREE, 1), 0);
    assert!(activate(memory(), 2, F_REPORTING).is_err());
    assert!(activate(memory(), 1, 0).is_err());
}

#[test]
fn a_guest_that_reports_without_end_leaves_turns_to_others() {
    let mut setup = private();
    for _ in 0..100 {
        setup.drivers[REPORTING].add(&[(FREE, PAGE as u32, true)]);
    }
    assert_eq!(setup.device.queue_event(REPORTING).unwrap(), Work::More);
    let served = std::iter::from_fn(|| setup.drivers[REPORTING].take_used()).count();
    assert!(served > 0 && served < 100, "{served}");
    while setup.device.queue_event(REPORTING).unwrap() == Work::More {}
    let rest = std::iter::from_fn(|| setup.drivers[REPORTING].take_used()).count();
    assert_eq!(served + rest, 100);
}

#[test]
fn neighbouring_regions_lose_only_their_own_pages() {
    // Two regions of the guest with a hole between them; ranges up to both edges.
    let ranges = [
        (GuestAddress(0), BYTES as usize),
        (GuestAddress(2 * BYTES), BYTES as usize),
    ];
    let memory = GuestMemoryMmap::from_ranges(&ranges).unwrap();
    let mut setup = activate(memory, 3, F_REPORTING).unwrap();
    let last = BYTES - PAGE;
    let first = GuestAddress(2 * BYTES).raw_value();
    setup.touch(last, 1);
    setup.touch(first, 2);
    let chain = [(last, PAGE as u32, true), (first, PAGE as u32, true)];
    setup.give(REPORTING, &chain).unwrap();
    assert_eq!(setup.resident(last, 1), 0);
    assert_eq!(setup.resident(first, 1), 0);
    assert_eq!(setup.resident(first + PAGE, 1), 1);
}

#[test]
fn a_host_that_keeps_the_pages_does_not_stop_the_guest() {
    let mut setup = private();
    setup.touch(FREE, 2);
    let at = setup.memory.get_host_address(GuestAddress(FREE)).unwrap();
    // Locked pages are not given back.
    // SAFETY: the page is mapped, and locking it changes nothing about it.
    if unsafe { libc::mlock(at.cast(), PAGE as usize) } != 0 {
        bulkhead_harness::cannot_run!("this process may lock no page in memory");
        return;
    }
    let ranges = [(FREE, PAGE as u32, true), (FREE + PAGE, PAGE as u32, true)];
    setup.give(REPORTING, &ranges).unwrap();
    setup.give(REPORTING, &ranges[1..]).unwrap();
    assert_eq!(setup.resident(FREE, 1), 1);
    assert_eq!(setup.resident(FREE + PAGE, 1), 0);
}
