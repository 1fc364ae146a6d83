//! Rules that a driver can break, each followed by a reset and a driver that keeps them.

use bulkhead_devices::{Rng, TransportError};

use super::ALL;
use super::support::mmio_guest::*;

#[test]
fn features_are_agreed_on_only_if_they_were_offered_and_modern() {
    let (mut guest, _worker) = Guest::detached(Box::new(Rng::new()), &memory());
    assert!(guest.greet(ALL));
    let offered = guest.features();
    for (accepted, fine) in [
        (VERSION_1, true),
        (offered, true),
        (offered & !VERSION_1, false),
        (0, false),
        (offered | 1, false),
        (offered | 1 << 34, false),
        (offered | 1 << 63, false),
    ] {
        guest.reset();
        guest.write(STATUS, ACKNOWLEDGE);
        guest.write(STATUS, ACKNOWLEDGE | DRIVER);
        guest.accept(accepted);
        guest.add_status(FEATURES_OK);
        let agreed = guest.status() & FEATURES_OK != 0;
        assert_eq!(agreed, fine, "{accepted:#x}");
        // To refuse is the device's right and no reason to stop.
        assert!(!guest.registers.broken());
    }
    guest.reset();
    guest.write(STATUS, ACKNOWLEDGE | DRIVER);
    guest.accept(offered);
    guest.write(DRIVER_FEATURES_SEL, 2);
    guest.write(DRIVER_FEATURES, 1);
    guest.add_status(FEATURES_OK);
    assert_eq!(guest.status() & FEATURES_OK, 0);
}

/// Write something a driver must not, and see the device ask for a reset, and work after it.
fn breaks(what: &str, misbehave: impl FnOnce(&mut Guest)) {
    let (mut guest, handle) = Guest::spawn(Rng::new());
    misbehave(&mut guest);
    assert_ne!(guest.status() & NEEDS_RESET, 0, "{what}");
    assert!(guest.registers.broken());
    guest.reset();
    assert_eq!(guest.status(), 0, "{what}");
    assert_eq!(guest.read(INTERRUPT_STATUS), 0);
    assert!(!guest.registers.broken());
    guest.boot(ALL);
    guest.queues[0].add(&[(DATA, 16, true)]);
    guest.kick(0);
    assert_eq!(guest.wait_used(0).1, 16, "{what}");
    drop(guest);
    handle.join().unwrap();
}

#[test]
fn a_status_out_of_order_breaks_the_device() {
    for status in [DRIVER, FEATURES_OK, DRIVER_OK, ACKNOWLEDGE | FEATURES_OK] {
        breaks("set without its predecessor", |guest| {
            guest.write(STATUS, status)
        });
    }
    breaks("cleared", |guest| {
        guest.write(STATUS, ACKNOWLEDGE | DRIVER);
        guest.write(STATUS, DRIVER);
    });
    breaks("ready without agreement", |guest| {
        guest.write(STATUS, ACKNOWLEDGE | DRIVER);
        guest.write(STATUS, ACKNOWLEDGE | DRIVER | DRIVER_OK);
    });
    breaks("ready without a queue", |guest| {
        guest.greet(ALL);
        guest.add_status(DRIVER_OK);
    });
}

#[test]
fn features_after_the_agreement_break_the_device() {
    breaks("late features", |guest| {
        guest.greet(ALL);
        guest.accept(VERSION_1);
    });
}

#[test]
fn an_impossible_queue_breaks_the_device() {
    let sound = |guest: &mut Guest| {
        assert!(guest.greet(ALL));
        guest.write(QUEUE_SEL, 0);
        guest.write(QUEUE_SIZE, 64);
        guest.write_pair(QUEUE_DESC, BASE);
        guest.write_pair(QUEUE_DRIVER, BASE + 0x1000);
        guest.write_pair(QUEUE_DEVICE, BASE + 0x2000);
    };
    for size in [0, 3, 512, 0x1_0040, u32::MAX] {
        breaks("size", |guest| {
            sound(guest);
            guest.write(QUEUE_SIZE, size);
            guest.write(QUEUE_READY, 1);
        });
    }
    let end = BASE + REGION;
    for part in [QUEUE_DESC, QUEUE_DRIVER, QUEUE_DEVICE] {
        for address in [
            0,
            BASE + 1,
            BASE - 16,
            end - 16,
            end,
            u64::MAX - 15,
            1 << 52,
        ] {
            breaks("address", |guest| {
                sound(guest);
                guest.write_pair(part, address);
                guest.write(QUEUE_READY, 1);
            });
        }
    }
    breaks("no such queue", |guest| {
        sound(guest);
        guest.write(QUEUE_SEL, 1);
        guest.write(QUEUE_READY, 1);
    });
    breaks("too early", |guest| guest.write(QUEUE_READY, 1));
    breaks("neither 0 nor 1", |guest| {
        sound(guest);
        guest.write(QUEUE_READY, 2);
    });
    breaks("changed while ready", |guest| {
        sound(guest);
        guest.write(QUEUE_READY, 1);
        guest.write(QUEUE_SIZE, 32);
    });
    breaks("kick of no queue", |guest| guest.kick(1));
    for (offset, data) in [(STATUS, &[1][..]), (STATUS, &[1; 8]), (STATUS + 2, &[1; 4])] {
        breaks("width", |guest| guest.registers.write(offset, data));
    }
}

#[test]
fn a_driver_that_gives_up_changes_nothing_until_it_resets() {
    let (mut guest, _handle) = Guest::spawn(Rng::new());
    guest.write(STATUS, ACKNOWLEDGE | DRIVER);
    guest.add_status(FAILED);
    guest.add_status(FEATURES_OK);
    assert_eq!(guest.status(), ACKNOWLEDGE | DRIVER | FAILED);
    guest.reset();
    guest.boot(ALL);
}

#[test]
fn a_broken_chain_asks_for_a_reset_with_an_interrupt_and_serves_the_next_driver() {
    let (mut guest, handle) = Guest::spawn(Rng::new());
    guest.boot(ALL);
    guest.queues[0].add(&[(BASE + REGION, 16, true)]);
    guest.kick(0);
    guest.wait_broken();
    assert_ne!(guest.read(INTERRUPT_STATUS) & CONFIGURATION, 0);
    // It stays stopped, whatever comes.
    guest.queues[0].add(&[(DATA, 16, true)]);
    guest.kick(0);
    guest.add_status(DRIVER_OK);
    assert_ne!(guest.status() & NEEDS_RESET, 0);
    guest.reset();
    guest.boot(ALL);
    guest.queues[0].add(&[(DATA, 16, true)]);
    guest.kick(0);
    assert_eq!(guest.wait_used(0).1, 16);

    guest.queues[0].add(&[(BASE + REGION, 16, true)]);
    guest.kick(0);
    guest.wait_broken();
    drop(guest);
    let error = handle.join().unwrap_err();
    assert!(matches!(error, TransportError::Device(_)), "{error}");
}

#[test]
fn a_rule_broken_on_a_live_device_stops_it_and_says_so_with_an_interrupt() {
    for wrong in [
        |guest: &Guest| guest.kick(1),
        |guest: &Guest| guest.write(STATUS, ACKNOWLEDGE),
        |guest: &Guest| guest.write(QUEUE_SIZE, 16),
        |guest: &Guest| guest.registers.write(STATUS, &[0]),
    ] {
        let (mut guest, handle) = Guest::spawn(Rng::new());
        guest.boot(ALL);
        wrong(&guest);
        assert!(guest.line.interrupted(PATIENCE));
        assert_eq!(guest.read(INTERRUPT_STATUS), CONFIGURATION);
        assert_ne!(guest.status() & NEEDS_RESET, 0);
        // The reset also waits for the device to have let go, so that this stays unanswered.
        guest.queues[0].add(&[(DATA, 16, true)]);
        guest.kick(0);
        let unused = guest.queues.remove(0);
        guest.reset();
        assert!(!unused.has_used());
        guest.boot(ALL);
        guest.queues[0].add(&[(DATA, 16, true)]);
        guest.kick(0);
        assert_eq!(guest.wait_used(0).1, 16);
        drop(guest);
        handle.join().unwrap();
    }
}

#[test]
fn what_does_not_exist_or_cannot_be_written_is_ignored() {
    let (mut guest, _handle) = Guest::spawn(Rng::new());
    for offset in (0..0x100).step_by(4) {
        let written = (0x14..=0x24).contains(&offset)
            || (QUEUE_SEL..=QUEUE_READY).contains(&offset)
            || (QUEUE_NOTIFY..=STATUS).contains(&offset)
            || (QUEUE_DESC..0xb0).contains(&offset);
        if !written {
            guest.write(offset, 0x1234_5678);
        }
    }
    guest.write(CONFIG, 0xffff_ffff);
    guest.registers.write(CONFIG + 3, &[1; 7]);
    guest.registers.write(0x1000, &[1; 4]);
    guest.registers.write(u64::MAX, &[1; 4]);
    assert_eq!(guest.status(), 0);
    guest.boot(ALL);
}
