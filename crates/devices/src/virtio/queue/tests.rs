//! What a hostile driver can do to a ring.

use std::fs::File;
use std::io::{Read, Seek, Write};
use std::os::fd::AsFd;

use super::driver::{Driver, INDIRECT, NEXT, WRITE};
use super::testing::{layout, memory, queue};
use super::{Buffers, Chain, QueueError, VirtQueue};

const DATA: u64 = 0x8_0000;
const TABLE: u64 = 0x9_0000;

fn setup() -> (Driver, VirtQueue, Chain) {
    let driver = Driver::new(&memory(), 0x1000, 16);
    let (queue, _) = queue(&driver).unwrap();
    let chain = Chain::new(&driver.memory);
    (driver, queue, chain)
}

#[test]
fn a_chain_comes_with_all_its_bytes() {
    let (mut driver, mut queue, mut chain) = setup();
    driver.write(DATA, b"hello world");
    let head = driver.add(&[
        (DATA, 5, false),
        (DATA + 5, 6, false),
        (DATA + 0x100, 7, true),
    ]);
    assert!(queue.pop(&mut chain).unwrap());
    assert_eq!(chain.head(), head);
    assert_eq!((chain.readable.len(), chain.writable.len()), (11, 7));
    let mut text = [0; 16];
    assert_eq!(chain.readable.read_at(3, &mut text), 8);
    assert_eq!(&text[..8], b"lo world");
    assert_eq!(chain.writable.write_at(0, b"12345678"), 7);
    assert_eq!(driver.read(DATA + 0x100, 8), b"1234567\0");
    queue.push(head, 7).unwrap();
    assert_eq!(driver.take_used(), Some((head, 7)));
    assert!(!queue.pop(&mut chain).unwrap());
}

#[test]
fn a_chain_that_loops_is_an_error() {
    let (mut driver, mut queue, mut chain) = setup();
    driver.describe(driver.descriptors, 0, (DATA, 1), NEXT, 1);
    driver.describe(driver.descriptors, 1, (DATA, 1), NEXT, 0);
    driver.offer(0);
    let error = queue.pop(&mut chain).unwrap_err();
    assert!(matches!(error, QueueError::BrokenChain { head: 0 }));
}

#[test]
fn a_chain_that_leaves_the_table_is_an_error_and_not_a_short_chain() {
    let (mut driver, mut queue, mut chain) = setup();
    driver.describe(driver.descriptors, 0, (DATA, 1), NEXT, 16);
    driver.offer(0);
    let error = queue.pop(&mut chain).unwrap_err();
    assert!(matches!(error, QueueError::BrokenChain { head: 0 }));
}

#[test]
fn a_head_outside_the_table_is_an_error() {
    let (mut driver, mut queue, mut chain) = setup();
    driver.offer(400);
    let error = queue.pop(&mut chain).unwrap_err();
    assert!(matches!(error, QueueError::BrokenChain { head: 400 }));
}

#[test]
fn a_readable_buffer_after_a_writable_one_is_an_error() {
    let (mut driver, mut queue, mut chain) = setup();
    driver.add(&[(DATA, 0, true), (DATA, 4, false)]);
    let error = queue.pop(&mut chain).unwrap_err();
    assert!(matches!(error, QueueError::Order { head: 0 }));
}

#[test]
fn buffers_outside_memory_are_errors() {
    for (address, length) in [
        (0, 1),
        (0xf_ffff, 2),
        (u64::MAX, 1),
        (u64::MAX - 1, u32::MAX),
        (0x1ff_ffff, 2),
        (DATA, u32::MAX),
    ] {
        let (mut driver, mut queue, mut chain) = setup();
        driver.add(&[(address, length, true)]);
        let error = queue.pop(&mut chain).unwrap_err();
        assert!(
            matches!(error, QueueError::OutsideMemory { .. }),
            "{address:#x} {length:#x}: {error:?}"
        );
    }
}

#[test]
fn an_indirect_table_is_followed() {
    let (mut driver, mut queue, mut chain) = setup();
    driver.describe(TABLE, 0, (DATA, 3), NEXT, 2);
    driver.describe(TABLE, 2, (DATA + 8, 5), WRITE, 0);
    driver.describe(driver.descriptors, 3, (TABLE, 48), INDIRECT, 0);
    driver.offer(3);
    assert!(queue.pop(&mut chain).unwrap());
    assert_eq!(chain.head(), 3);
    assert_eq!((chain.readable.len(), chain.writable.len()), (3, 5));
}

#[test]
fn bad_indirect_tables_are_errors() {
    let nested = |driver: &Driver| {
        driver.describe(TABLE, 0, (TABLE, 16), INDIRECT, 0);
        (TABLE, 16)
    };
    let ragged = |_: &Driver| (TABLE, 17);
    let outside = |_: &Driver| (0x20_0000, 16);
    let empty = |_: &Driver| (TABLE, 0);
    type Case<'a> = &'a dyn Fn(&Driver) -> (u64, u32);
    let cases: [Case<'_>; 4] = [&nested, &ragged, &outside, &empty];
    for case in cases {
        let (mut driver, mut queue, mut chain) = setup();
        let table = case(&driver);
        driver.describe(driver.descriptors, 0, table, INDIRECT, 0);
        driver.offer(0);
        let error = queue.pop(&mut chain).unwrap_err();
        assert!(matches!(error, QueueError::BrokenChain { head: 0 }));
    }
}

#[test]
fn an_indirect_chain_longer_than_the_queue_is_an_error() {
    let (mut driver, mut queue, mut chain) = setup();
    for index in 0..17 {
        let flags = if index == 16 { 0 } else { NEXT };
        driver.describe(TABLE, index, (DATA, 1), flags, index + 1);
    }
    driver.describe(driver.descriptors, 0, (TABLE, 17 * 16), INDIRECT, 0);
    driver.offer(0);
    let error = queue.pop(&mut chain).unwrap_err();
    assert!(matches!(error, QueueError::LongChain { limit: 16, .. }));
}

#[test]
fn an_available_index_that_jumps_is_an_error() {
    let (driver, mut queue, mut chain) = setup();
    driver.set_available_index(17);
    let error = queue.pop(&mut chain).unwrap_err();
    assert!(matches!(error, QueueError::Ring { .. }));
}

#[test]
fn rings_that_cannot_be_are_refused() {
    let driver = Driver::new(&memory(), 0x1000, 16);
    let good = layout(&driver);
    let check = |layout| {
        VirtQueue::new(
            &driver.memory,
            layout,
            256,
            Box::new(super::testing::Counter::default()),
        )
        .map(drop)
    };
    assert!(check(good).is_ok());
    for size in [0, 3, 512, 65535] {
        let error = check(super::RingLayout { size, ..good }).unwrap_err();
        assert!(matches!(error, QueueError::Size { .. }), "{size}");
    }
    let mut misaligned = good;
    misaligned.descriptors += 8;
    assert!(matches!(
        check(misaligned).unwrap_err(),
        QueueError::Alignment { .. }
    ));
    for address in [0, 0xf_fff0, 0x20_0000, !0xf] {
        let mut outside = good;
        outside.used = address;
        let error = check(outside).unwrap_err();
        assert!(
            matches!(error, QueueError::Placement { .. }),
            "{address:#x}"
        );
    }
}

#[test]
fn a_driver_is_notified_once_per_batch_and_only_if_it_asks() {
    let mut driver = Driver::new(&memory(), 0x1000, 16);
    let (mut queue, notified) = queue(&driver).unwrap();
    let mut chain = Chain::new(&driver.memory);
    let serve = |queue: &mut VirtQueue, chain: &mut Chain| {
        while queue.pop(chain).unwrap() {
            queue.push(chain.head(), 0).unwrap();
        }
        queue.notify().unwrap();
    };
    for _ in 0..3 {
        driver.add(&[(DATA, 1, true)]);
    }
    driver.set_used_event(0);
    serve(&mut queue, &mut chain);
    assert_eq!(notified.get(), 1);

    driver.set_used_event(10);
    driver.add(&[(DATA, 1, true)]);
    serve(&mut queue, &mut chain);
    assert_eq!(notified.get(), 1);

    queue.notify().unwrap();
    assert_eq!(notified.get(), 1);
}

#[test]
fn without_event_indexes_the_flag_of_the_driver_counts() {
    let mut driver = Driver::new(&memory(), 0x1000, 16);
    let counter = super::testing::Counter::default();
    let mut plain = layout(&driver);
    plain.event_idx = false;
    let notifier = Box::new(counter.clone());
    let mut queue = VirtQueue::new(&driver.memory, plain, 256, notifier).unwrap();
    let mut chain = Chain::new(&driver.memory);
    for (flags, expected) in [(1, 0), (0, 1)] {
        driver.set_available_flags(flags);
        driver.add(&[(DATA, 1, true)]);
        assert!(queue.pop(&mut chain).unwrap());
        queue.push(chain.head(), 0).unwrap();
        queue.notify().unwrap();
        assert_eq!(counter.get(), expected);
    }
}

#[test]
fn chains_given_back_come_again() {
    let (mut driver, mut queue, mut chain) = setup();
    let first = driver.add(&[(DATA, 1, true)]);
    let second = driver.add(&[(DATA, 1, true)]);
    assert!(queue.pop(&mut chain).unwrap());
    assert!(queue.pop(&mut chain).unwrap());
    queue.give_back(1);
    assert!(queue.pop(&mut chain).unwrap());
    assert_eq!(chain.head(), second);
    queue.give_back(2);
    assert!(queue.pop(&mut chain).unwrap());
    assert_eq!(chain.head(), first);
}

#[test]
fn files_and_guest_memory_exchange_any_part_of_a_chain() {
    let memory = memory();
    let mut file = tempfile::tempfile().unwrap();
    let bytes: Vec<u8> = (0..5000_u32).map(|value| value as u8 ^ 0x5a).collect();
    file.write_all(&bytes).unwrap();

    let driver = Driver::new(&memory, 0x1000, 16);
    let mut buffers = Buffers::new(&memory);
    for (address, length) in [(DATA, 100), (DATA + 0x1000, 0), (0x100_0000, 3000)] {
        buffers
            .push(vm_memory::GuestAddress(address), length)
            .unwrap();
    }
    buffers.fill_from_file(file.as_fd(), 7, 50, 2000).unwrap();
    assert_eq!(driver.read(DATA + 50, 50), &bytes[7..57]);
    assert_eq!(driver.read(0x100_0000, 1950), &bytes[57..2007]);

    let mut copy: File = tempfile::tempfile().unwrap();
    buffers.drain_to_file(copy.as_fd(), 0, 50, 2000).unwrap();
    let mut read = Vec::new();
    copy.rewind().unwrap();
    copy.read_to_end(&mut read).unwrap();
    assert_eq!(read, &bytes[7..2007]);

    let error = buffers.fill_from_file(file.as_fd(), 4990, 0, 11);
    assert_eq!(error.unwrap_err().kind(), std::io::ErrorKind::UnexpectedEof);
    assert_eq!(buffers.zero_at(3090, 100), 10);
}
