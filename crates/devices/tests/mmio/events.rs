//! Event indexes (section 2.7.7) on every queue of every device.

use std::time::Duration;

use bulkhead_devices::{Operation, Vsock, Work};
use vm_memory::{Bytes, GuestAddress};

use super::support::mmio_guest::*;
use super::{ALL, every_device, header, refuse, request};

#[test]
fn every_queue_tells_and_is_told_by_index_when_to_notify() {
    for (device, id, queues) in every_device() {
        let (mut guest, mut worker) = Guest::detached(device, &memory());
        guest.boot(ALL);
        let mut turn = || while worker.turn().unwrap() == Work::More {};
        turn();
        for queue in 0..queues {
            // A socket device sends what it has to say, and has no events: two queues without
            // requests.
            if id == 19 && queue != 1 {
                continue;
            }
            let index = queue as usize;
            let (data, chain) = request(id, queue);
            guest.queues[index].write(DATA, &data);
            let name = format!("queue {queue} of device {id}");

            // Told to be notified of the second buffer, it is silent about the first.
            guest.queues[index].set_used_event(1);
            guest.queues[index].add(&chain);
            guest.kick(queue);
            turn();
            assert!(guest.queues[index].has_used(), "{name}");
            assert!(!guest.line.interrupted(Duration::ZERO), "{name}");
            guest.queues[index].add(&chain);
            guest.kick(queue);
            turn();
            assert!(guest.line.interrupted(Duration::ZERO), "{name}");

            // And it says at which buffer it wants the next kick: the third.
            let size = u64::from(guest.queues[index].size);
            let field = guest.queues[index].used + 4 + 8 * size;
            let avail_event: u16 = guest.memory.read_obj(GuestAddress(field)).unwrap();
            assert_eq!(avail_event, 2, "{name}");
            assert_eq!(guest.status() & NEEDS_RESET, 0, "{name}");
        }
    }
}

#[test]
fn packets_to_the_guest_obey_event_indexes_too() {
    const RX: usize = 0;
    const TX: usize = 1;
    let (mut guest, mut worker) =
        Guest::detached(Box::new(Vsock::new(3, Box::new(refuse))), &memory());
    guest.boot(ALL);
    let mut turn = || while worker.turn().unwrap() == Work::More {};
    guest.queues[RX].set_used_event(1);
    guest.queues[TX].set_used_event(100);
    guest.queues[TX].write(DATA, &header(Operation::Request, 0).encode());
    for expected in [false, true] {
        guest.queues[RX].add(&[(DATA + 0x1000, 4096, true)]);
        guest.queues[TX].add(&[(DATA, 44, false)]);
        guest.kick(TX as u32);
        turn();
        assert!(guest.queues[RX].take_used().is_some());
        assert_eq!(guest.line.interrupted(Duration::ZERO), expected);
    }
}
