//! What the guest sees of the files, and what it can ask.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};

use super::{Pmem, PmemError};
use crate::device::{Device, Work};
use crate::virtio::queue::driver::Driver;
use crate::virtio::queue::testing::{activate, layout, memory, queue};
use crate::virtio::queue::{Chain, QueueError};

const REQUEST: u64 = 0x8_0000;
const RESPONSE: u64 = 0x8_1000;

fn file(content: &[u8]) -> File {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(content).unwrap();
    file
}

/// What a virtual CPU would read, read by the kernel, which says so where there is nothing.
fn look(pmem: &Pmem, offset: u64, length: usize) -> std::io::Result<Vec<u8>> {
    let mut memory = File::open("/proc/self/mem")?;
    let start = pmem.shared_memory().unwrap().host_address();
    memory.seek(SeekFrom::Start(start + offset))?;
    let mut data = vec![0; length];
    memory.read_exact(&mut data)?;
    Ok(data)
}

fn config(pmem: &Pmem) -> (u64, u64) {
    let field = |at: usize| u64::from_le_bytes(pmem.config()[at..at + 8].try_into().unwrap());
    (field(0), field(8))
}

#[test]
fn parts_lie_in_order_on_page_boundaries_with_zeros_between_and_after() {
    let parts = [vec![1; 5000], Vec::new(), vec![3; 4096], vec![4; 1]];
    let mut pmem = Pmem::read_only(parts.iter().map(|part| file(part)).collect()).unwrap();
    let mut expected = Vec::new();
    for part in &parts {
        expected.extend(part);
        expected.resize(expected.len().next_multiple_of(4096), 0);
    }
    assert_eq!(expected.len(), 4 * 4096);
    expected.resize(2 << 20, 0);
    assert_eq!(look(&pmem, 0, 2 << 20).unwrap(), expected);
    assert_eq!(pmem.shared_memory().unwrap().bytes(), 2 << 20);
    pmem.place(0x1_8000_0000);
    assert_eq!(config(&pmem), (0x1_8000_0000, 2 << 20));
}

#[test]
fn files_that_make_no_memory_are_refused() {
    let nothing = Pmem::read_only(Vec::new()).unwrap_err();
    assert!(matches!(nothing, PmemError::Total { .. }), "{nothing}");
    let empty = Pmem::read_only(vec![file(b""), file(b"")]).unwrap_err();
    assert!(matches!(empty, PmemError::Total { .. }), "{empty}");
    let directory = File::open("/").unwrap();
    let error = Pmem::read_only(vec![file(b"x"), directory]).unwrap_err();
    assert!(
        matches!(error, PmemError::NotRegular { part: 1 }),
        "{error}"
    );
    let huge = tempfile::tempfile().unwrap();
    huge.set_len(1 << 43).unwrap();
    let parts = (0..64).map(|_| huge.try_clone().unwrap()).collect();
    let error = Pmem::read_only(parts).unwrap_err();
    assert!(matches!(error, PmemError::Reserve { .. }), "{error}");
}

#[test]
fn pages_are_those_of_the_files_and_not_copies() {
    let mut original = file(&[1; 8192]);
    let pmem = Pmem::read_only(vec![original.try_clone().unwrap()]).unwrap();
    assert_eq!(look(&pmem, 4096, 1).unwrap(), [1]);
    original.seek(SeekFrom::Start(4096)).unwrap();
    original.write_all(&[2]).unwrap();
    assert_eq!(look(&pmem, 4096, 1).unwrap(), [2]);
}

#[test]
fn a_file_that_shrinks_is_an_error_of_the_access_and_harms_nobody_else() {
    let original = file(&[1; 3 * 4096]);
    let neighbour = file(&[7; 4096]);
    let pmem = Pmem::read_only(vec![original.try_clone().unwrap(), neighbour]).unwrap();
    assert_eq!(look(&pmem, 2 * 4096, 1).unwrap(), [1]);
    original.set_len(4096).unwrap();
    assert_eq!(look(&pmem, 0, 1).unwrap(), [1]);
    look(&pmem, 2 * 4096, 1).unwrap_err();
    assert_eq!(look(&pmem, 3 * 4096, 1).unwrap(), [7]);
}

#[test]
fn memory_lives_as_long_as_anybody_holds_it() {
    let pmem = Pmem::read_only(vec![file(&[9; 100])]).unwrap();
    let held = pmem.shared_memory().unwrap();
    drop(pmem);
    let mut memory = File::open("/proc/self/mem").unwrap();
    memory.seek(SeekFrom::Start(held.host_address())).unwrap();
    let mut data = [0; 100];
    memory.read_exact(&mut data).unwrap();
    assert_eq!(data, [9; 100]);
}

fn ask(driver: &mut Driver, device: &mut Pmem, request: u32) -> u32 {
    driver.write(REQUEST, &request.to_le_bytes());
    driver.write(RESPONSE, &[0xff; 4]);
    driver.add(&[(REQUEST, 4, false), (RESPONSE, 4, true)]);
    assert_eq!(device.queue_event(0).unwrap(), Work::Done);
    assert_eq!(driver.take_used().unwrap().1, 4);
    u32::from_le_bytes(driver.read(RESPONSE, 4).try_into().unwrap())
}

#[test]
fn a_flush_succeeds_and_another_request_does_not() {
    let mut pmem = Pmem::read_only(vec![file(b"x")]).unwrap();
    let (mut drivers, _, _) = activate(&mut pmem);
    assert_eq!(ask(&mut drivers[0], &mut pmem, 0), 0);
    assert_ne!(ask(&mut drivers[0], &mut pmem, 1), 0);
}

#[test]
fn a_request_without_room_for_its_answer_breaks_the_device() {
    for chain in [
        &[(REQUEST, 4, false), (RESPONSE, 3, true)][..],
        &[(REQUEST, 3, false), (RESPONSE, 4, true)],
        &[(RESPONSE, 4, true)],
        &[(REQUEST, 4, false)],
    ] {
        let mut pmem = Pmem::read_only(vec![file(b"x")]).unwrap();
        let (mut drivers, _, _) = activate(&mut pmem);
        drivers[0].add(chain);
        pmem.queue_event(0).unwrap_err();
    }
}

#[test]
fn devices_may_read_it_where_the_guest_has_it_and_never_write() {
    const AT: u64 = 0x1_0000_0000;
    let pmem = Pmem::read_only(vec![file(b"from the image")]).unwrap();
    let shared = pmem.shared_memory().unwrap();
    let memory = shared.join(&memory(), AT).unwrap();
    assert!(shared.join(&memory, AT + 4096).is_err());
    assert!(shared.join(&memory, u64::MAX - 4095).is_err());
    drop((pmem, shared));

    let mut driver = Driver::new(&memory, 0x1000, 16);
    let (mut queue, _) = queue(&driver).unwrap();
    let mut chain = Chain::new(&memory);
    driver.add(&[(AT + 5, 9, false)]);
    assert!(queue.pop(&mut chain).unwrap());
    let mut seen = [0; 9];
    assert_eq!(chain.readable.read_at(0, &mut seen), 9);
    assert_eq!(&seen, b"the image");

    driver.add(&[(AT, 1, true)]);
    let error = queue.pop(&mut chain).unwrap_err();
    assert!(matches!(error, QueueError::OutsideMemory { .. }), "{error}");
    for part in 0..3 {
        let mut layout = layout(&driver);
        *[
            &mut layout.descriptors,
            &mut layout.available,
            &mut layout.used,
        ][part] = AT + 4096;
        let error = layout.check(&memory, 256).unwrap_err();
        assert!(matches!(error, QueueError::Placement { .. }), "{error}");
    }
}
