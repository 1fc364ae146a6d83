//! What a driver that keeps the rules gets.

use std::io::Read;
use std::time::Duration;

use bulkhead_devices::{Balloon, Device, Operation, Rng};

use super::support::mmio_guest::*;
use super::{ALL, disk, every_device, header, sockets};

#[test]
fn every_device_says_what_it_is() {
    for (device, id, queues) in every_device() {
        let (guest, _worker) = Guest::detached(device, &memory());
        assert_eq!(guest.read(MAGIC).to_le_bytes(), *b"virt");
        assert_eq!(guest.read(VERSION), 2);
        assert_eq!(guest.read(DEVICE_ID), id);
        assert_ne!(guest.read(VENDOR_ID), 0);
        assert_ne!(guest.features() & VERSION_1, 0);
        assert_ne!(guest.features() & EVENT_IDX, 0);
        guest.write(DEVICE_FEATURES_SEL, 2);
        assert_eq!(guest.read(DEVICE_FEATURES), 0);
        for queue in 0..queues + 2 {
            guest.write(QUEUE_SEL, queue);
            let limit = if queue < queues { 256 } else { 0 };
            assert_eq!(guest.read(QUEUE_SIZE_MAX), limit);
        }
        assert_eq!(guest.registers.kicks().len(), queues as usize);
        // Shared memory regions: there is none.
        for region in [0, 1, u32::MAX] {
            guest.write(0xac, region);
            for half in [0xb0, 0xb4, 0xb8, 0xbc] {
                assert_eq!(guest.read(half), u32::MAX);
            }
        }
        assert_eq!(guest.read(CONFIG_GENERATION), 0);
        assert_eq!(guest.status(), 0);
    }
}

#[test]
fn a_guest_gets_random_bytes_and_an_interrupt() {
    let (mut guest, handle) = Guest::spawn(Rng::new());
    guest.boot(ALL);
    guest.queues[0].add(&[(DATA, 64, true)]);
    guest.kick(0);
    assert!(guest.line.interrupted(PATIENCE));
    assert_eq!(guest.read(INTERRUPT_STATUS), USED_BUFFER);
    guest.write(INTERRUPT_ACK, USED_BUFFER);
    assert_eq!(guest.read(INTERRUPT_STATUS), 0);
    assert_eq!(guest.queues[0].take_used().unwrap().1, 64);
    assert_ne!(guest.queues[0].read(DATA, 64), [0; 64]);

    // The same without the register: what the hypervisor does by itself.
    guest.queues[0].add(&[(DATA, 32, true)]);
    nix::unistd::write(&guest.registers.kicks()[0], &1_u64.to_ne_bytes()).unwrap();
    assert_eq!(guest.wait_used(0).1, 32);
    drop(guest);
    handle.join().unwrap();
}

#[test]
fn kicks_that_come_before_the_device_is_ready_are_not_lost() {
    let (mut guest, _handle) = Guest::spawn(Rng::new());
    assert!(guest.greet(ALL));
    guest.set_up_queue(0, 16);
    guest.queues[0].add(&[(DATA, 16, true)]);
    guest.kick(0);
    guest.add_status(DRIVER_OK);
    assert_eq!(guest.wait_used(0).1, 16);
}

#[test]
fn a_disk_is_read_and_its_configuration_in_all_widths() {
    let content: Vec<u8> = (0..100_000_u32).map(|value| (value / 3) as u8).collect();
    let device = disk(&content);
    let config = device.config().to_vec();
    let (mut guest, _handle) = Guest::spawn(device);
    for width in [1, 2, 4, 8] {
        for start in (0..128).step_by(width) {
            let mut data = vec![0xa5; width];
            guest.registers.read(CONFIG + start as u64, &mut data);
            let byte = |at: usize| config.get(at).copied().unwrap_or(0);
            let expected: Vec<u8> = (start..start + width).map(byte).collect();
            assert_eq!(data, expected);
        }
    }
    let mut beyond = [0xa5; 4];
    for offset in [0xffc, 0x1000, 1 << 40, u64::MAX] {
        guest.registers.read(offset, &mut beyond);
        assert_eq!(beyond, [0; 4]);
        beyond.fill(0xa5);
    }
    guest.boot(ALL);
    for sector in [0_u64, 7, 100] {
        let mut request = [0; 16];
        request[8..].copy_from_slice(&sector.to_le_bytes());
        guest.queues[0].write(DATA, &request);
        let status = (DATA + 16, 1, true);
        let chain = [(DATA, 16, false), (DATA + 4096, 4096, true), status];
        guest.queues[0].add(&chain);
        guest.kick(0);
        assert_eq!(guest.wait_used(0).1, 4097);
        let at = sector as usize * 512;
        assert_eq!(
            guest.queues[0].read(DATA + 4096, 4096),
            content[at..at + 4096]
        );
    }
}

#[test]
fn a_balloon_without_reporting_needs_two_queues_and_with_it_three() {
    for (mask, queues, works) in [(ALL, 3, true), (!(1 << 5), 2, true), (ALL, 2, false)] {
        let (mut guest, _handle) = Guest::spawn(Balloon::new());
        assert!(guest.greet(mask));
        for index in 0..queues {
            guest.set_up_queue(index, 64);
        }
        guest.add_status(DRIVER_OK);
        if works {
            guest.queues[1].add(&[(DATA, 4, false)]);
            guest.kick(1);
            guest.wait_used(1);
        } else {
            guest.wait_broken();
        }
    }
}

#[test]
fn what_a_guest_sent_before_its_end_reaches_a_host_that_reads_slowly() {
    const TX: usize = 1;
    const PACKET: u32 = 0xf000;
    let (device, accepted) = sockets();
    let (mut guest, handle) = Guest::spawn(device);
    guest.boot(ALL);
    guest.queues[TX].write(DATA, &header(Operation::Request, 0).encode());
    guest.queues[TX].add(&[(DATA, 44, false)]);
    guest.kick(TX as u32);
    let mut host = accepted.recv_timeout(PATIENCE).unwrap();
    let data: Vec<u8> = (0..4 * PACKET).map(|at| (at / 7) as u8).collect();
    guest.queues[TX].write(DATA + 0x1000, &data);
    guest.queues[TX].write(DATA, &header(Operation::ReadWrite, PACKET).encode());
    for index in 0..4 {
        let at = DATA + 0x1000 + u64::from(index * PACKET);
        guest.queues[TX].add(&[(DATA, 44, false), (at, PACKET, false)]);
    }
    // No kick follows: the guest ends first.
    drop(guest);
    std::thread::sleep(Duration::from_millis(10));
    let mut received = vec![0; data.len()];
    for piece in received.chunks_mut(1000) {
        host.read_exact(piece).unwrap();
    }
    assert_eq!(received, data);
    handle.join().unwrap();
    assert_eq!(host.read(&mut [0]).unwrap(), 0);
}
