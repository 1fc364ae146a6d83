//! The device's thread, and several processors: resets, ends, and everything at once.

use std::sync::Arc;
use std::thread::JoinHandle;

use bulkhead_devices::{Balloon, Rng, TransportError, mmio};
use vm_memory::{Bytes, GuestAddress};

use super::support::mmio_guest::*;
use super::{ALL, sockets};

#[test]
fn after_a_reset_the_device_touches_nothing() {
    let (mut guest, _handle) = Guest::spawn(Rng::new());
    for _ in 0..50 {
        guest.boot(ALL);
        for index in 0..64 {
            guest.queues[0].add(&[(DATA + 4096 * index, 4096, true)]);
        }
        guest.kick(0);
        // At a moment when it is most likely in the middle of it.
        let used = guest.queues[0].used;
        while guest
            .memory
            .read_obj::<u16>(GuestAddress(used + 2))
            .unwrap()
            == 0
        {
            std::thread::yield_now();
        }
        guest.reset();
        guest
            .memory
            .write_slice(&[0; 0x4_1000], GuestAddress(DATA - 4096))
            .unwrap();
        guest
            .memory
            .write_slice(&[0; 0x1000], GuestAddress(BASE))
            .unwrap();
        std::thread::yield_now();
        let mut seen = vec![1; 0x4_1000];
        guest
            .memory
            .read_slice(&mut seen, GuestAddress(DATA - 4096))
            .unwrap();
        assert!(seen.iter().all(|byte| *byte == 0));
    }
}

#[test]
fn a_queue_taken_from_a_live_device_is_let_go_at_once() {
    let (mut guest, _handle) = Guest::spawn(Balloon::new());
    guest.boot(ALL);
    guest.write(QUEUE_SEL, 1);
    guest.write(QUEUE_READY, 0);
    assert_eq!(guest.read(QUEUE_READY), 0);
    assert_ne!(guest.status() & NEEDS_RESET, 0);
    guest.queues[0].add(&[(DATA, 4, false)]);
    guest.kick(0);
    guest.reset();
    guest.boot(ALL);
}

#[test]
fn a_device_whose_thread_could_not_start_asks_for_a_reset_and_hangs_nobody() {
    let (line, end) = Line::new();
    let denied = || Err(std::io::ErrorKind::PermissionDenied.into());
    let memory = memory();
    let started = mmio::spawn(Box::new(Rng::new()), memory.clone(), end, "denied", denied);
    let (registers, handle) = started.unwrap();
    let error = handle.join().unwrap_err();
    assert!(matches!(error, TransportError::Prepare(_)), "{error}");
    let mut guest = Guest::new(registers, line, memory);
    for _ in 0..2 {
        guest.greet(ALL);
        guest.set_up_queue(0, 64);
        guest.add_status(DRIVER_OK);
        assert_ne!(guest.status() & NEEDS_RESET, 0);
        guest.reset();
    }
}

#[test]
fn a_stopped_thread_does_not_keep_a_reset_waiting() {
    let (mut guest, handle) = Guest::spawn(Rng::new());
    guest.boot(ALL);
    handle.stop();
    handle.join().unwrap();
    guest.reset();
    assert_eq!(guest.status(), 0);
}

#[test]
fn registers_are_used_by_several_processors_at_once() {
    let (device, _accepted) = sockets();
    let (mut guest, handle) = Guest::spawn(device);
    guest.boot(ALL);
    let readers = [0, 1, 2].map(|_| {
        let registers = Arc::clone(&guest.registers);
        std::thread::spawn(move || {
            for _ in 0..200 {
                for offset in (0..0x120).step_by(4) {
                    let mut word = [0; 4];
                    registers.read(offset, &mut word);
                    if offset == STATUS {
                        let status = u32::from_le_bytes(word);
                        assert_eq!(status & NEEDS_RESET, 0);
                    }
                }
                registers.write(INTERRUPT_ACK, &3_u32.to_le_bytes());
                registers.write(QUEUE_NOTIFY, &1_u32.to_le_bytes());
                // On a busy machine the others need the processor to get on.
                std::thread::yield_now();
            }
        })
    });
    while !readers.iter().all(JoinHandle::is_finished) {
        guest.reset();
        guest.boot(ALL);
    }
    for reader in readers {
        reader.join().unwrap();
    }
    drop(guest);
    handle.join().unwrap();
}

#[test]
fn two_processors_resetting_at_once_both_come_back() {
    let (guest, handle) = Guest::spawn(Rng::new());
    let threads: Vec<_> = (0..4)
        .map(|_| {
            let registers = Arc::clone(&guest.registers);
            std::thread::spawn(move || {
                for status in (0..2000_u32).map(|n| [1_u32, 3, 11, 15, 0][n as usize % 5]) {
                    registers.write(STATUS, &status.to_le_bytes());
                }
            })
        })
        .collect();
    threads
        .into_iter()
        .for_each(|thread| thread.join().unwrap());
    guest.write(STATUS, 0);
    assert_eq!(guest.status(), 0);
    drop(guest);
    handle.join().unwrap();
}
