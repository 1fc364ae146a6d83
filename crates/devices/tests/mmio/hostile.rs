//! A driver that writes anything anywhere, for as long as it likes, from a seed that a failure names.
//!
//! Whatever it did, the device must come back with a reset, and serve the next driver.

use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::fs::FileExt;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::mpsc::Receiver;

use bulkhead_devices::mmio::Worker;
use bulkhead_devices::{Block, Device, GuestMemory, Work};
use vm_memory::{Bytes, GuestAddress};

use super::support::mmio_guest::*;
use super::{ALL, every_device, file, request, sockets};

/// Drivers of each device, and what each of them does.
const SEEDS: u64 = 150;
const DEEDS: u32 = 250;

const DISK: u64 = 0x1_0000;

/// Numbers from a seed (splitmix64).
struct Dice(u64);

impl Dice {
    fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.roll() % bound
    }

    /// An address that is often in memory, and often at an edge of it.
    fn address(&mut self) -> u64 {
        match self.below(8) {
            0 => self.roll(),
            1 => BASE + REGION - self.below(64),
            2 => BASE + 2 * REGION + self.below(64) - 32,
            3 => self.below(BASE + 3 * REGION),
            _ => DATA + self.below(0x4000),
        }
    }

    fn length(&mut self) -> u32 {
        match self.below(8) {
            0 => self.roll() as u32,
            1 => 0,
            _ => self.below(0x2000) as u32,
        }
    }

    fn value(&mut self) -> u32 {
        match self.below(6) {
            0 => self.roll() as u32,
            1 => 1 << self.below(32),
            2 => self.address() as u32,
            _ => self.below(16) as u32,
        }
    }
}

const REGISTERS: [u64; 18] = [
    DEVICE_FEATURES_SEL,
    DRIVER_FEATURES,
    DRIVER_FEATURES_SEL,
    QUEUE_SEL,
    QUEUE_SIZE,
    QUEUE_READY,
    QUEUE_NOTIFY,
    QUEUE_NOTIFY,
    INTERRUPT_ACK,
    STATUS,
    STATUS,
    QUEUE_DESC,
    QUEUE_DESC + 4,
    QUEUE_DRIVER,
    QUEUE_DRIVER + 4,
    QUEUE_DEVICE,
    QUEUE_DEVICE + 4,
    CONFIG,
];

/// One access to the window.
fn touch(guest: &Guest, dice: &mut Dice) {
    let offset = match dice.below(8) {
        0 => dice.below(0x1100),
        1 => dice.roll(),
        index => REGISTERS[(index + dice.roll()) as usize % REGISTERS.len()],
    };
    let mut data = dice.value().to_le_bytes().repeat(2);
    data.truncate([4, 4, 4, 4, 4, 1, 2, 8][dice.below(8) as usize]);
    if dice.below(3) == 0 {
        guest.registers.read(offset, &mut data);
    } else {
        guest.registers.write(offset, &data);
    }
}

/// As a sound driver does, with sizes of its own.
fn boot(guest: &mut Guest, dice: &mut Dice) {
    guest.reset();
    let mask = if dice.below(2) == 0 {
        ALL
    } else {
        dice.roll() | VERSION_1
    };
    if !guest.greet(mask) {
        return;
    }
    for index in 0..8 {
        guest.write(QUEUE_SEL, index);
        if guest.read(QUEUE_SIZE_MAX) == 0 {
            break;
        }
        guest.set_up_queue(index, 1 << dice.below(7));
    }
    guest.add_status(DRIVER_OK);
}

/// Rings and tables made of noise.
fn scribble(guest: &Guest, dice: &mut Dice) {
    let Some(queue) = guest.queues.get(dice.below(3) as usize) else {
        return;
    };
    match dice.below(4) {
        0 => queue.set_available_index(dice.roll() as u16),
        1 => {
            let at = queue.descriptors + dice.below(queue.end() - queue.descriptors);
            let _ = guest
                .memory
                .write_slice(&dice.roll().to_le_bytes(), GuestAddress(at));
        }
        2 => {
            let at = queue.available + 4 + 2 * dice.below(u64::from(queue.size));
            let _ = guest
                .memory
                .write_obj(dice.below(70) as u16, GuestAddress(at));
        }
        _ => {
            let index = dice.below(u64::from(queue.size)) as u16;
            let flags = dice.below(8) as u16;
            let next = dice.below(u64::from(queue.size) + 1) as u16;
            let buffer = (dice.address(), dice.length());
            queue.describe(queue.descriptors, index, buffer, flags, next);
        }
    }
}

/// A request that is almost one.
fn ask(guest: &mut Guest, id: u32, dice: &mut Dice) {
    let index = dice.below(3) as u32;
    let (mut data, mut chain) = request(id, index);
    if let Some(byte) = data.get_mut(dice.below(32) as usize) {
        *byte = dice.below(16) as u8;
    }
    if dice.below(3) == 0 {
        let piece = dice.below(chain.len() as u64) as usize;
        chain[piece] = (dice.address(), dice.length(), dice.below(2) == 0);
    }
    if let Some(queue) = guest.queues.get_mut(index as usize) {
        queue.write(DATA, &data);
        if chain.len() <= usize::from(queue.size) {
            queue.add(&chain);
        }
        guest.kick(index);
    }
}

fn settle(worker: &mut Worker) {
    for _ in 0..1000 {
        if worker.turn().unwrap() == Work::Done {
            return;
        }
    }
    panic!("the device works without end");
}

/// The next driver finds the device as new.
fn serves_again(guest: &mut Guest, id: u32, mut turn: impl FnMut()) {
    assert_eq!(guest.read(MAGIC).to_le_bytes(), *b"virt");
    assert_eq!(guest.read(DEVICE_ID), id);
    guest.reset();
    turn();
    assert_eq!((guest.status(), guest.read(INTERRUPT_STATUS)), (0, 0));
    guest.boot(ALL);
    let queue = if id == 19 { 1 } else { 0 };
    let (data, chain) = request(id, queue);
    let index = queue as usize;
    guest.queues[index].write(DATA, &data);
    guest.queues[index].add(&chain);
    guest.kick(queue);
    turn();
    guest.wait_used(index);
    assert_eq!(guest.status() & NEEDS_RESET, 0);
}

/// Hosts of the socket device, which do a little of everything.
struct Hosts(Receiver<UnixStream>, Vec<UnixStream>);

impl Hosts {
    fn act(&mut self, dice: &mut Dice) {
        self.1.extend(self.0.try_iter());
        let Some(host) = self.1.last_mut() else {
            return;
        };
        host.set_nonblocking(true).unwrap();
        match dice.below(8) {
            0 => drop(self.1.pop()),
            1 | 2 => {
                let _ = host.write(&[7; 3000]);
            }
            _ => {
                let _ = host.read(&mut [0; 3000]);
            }
        }
    }
}

/// A device with the number of its type.
type Victim = (Box<dyn Device>, u32);

/// Everything to be driven: each device, a writable disk, and sockets with hosts.
fn victims(scratch: &File) -> (Vec<Victim>, Hosts) {
    let (sockets, accepted) = sockets();
    let mut victims: Vec<Victim> = every_device()
        .into_iter()
        .map(|(device, id, _)| (device, id))
        .collect();
    let scratch = Block::writable(scratch.try_clone().unwrap(), "scratch").unwrap();
    victims.push((Box::new(scratch), 2));
    victims.push((Box::new(sockets), 19));
    (victims, Hosts(accepted, Vec::new()))
}

#[test]
fn no_driver_brings_a_device_down() {
    let memory = memory();
    let scratch = file(&vec![1; DISK as usize]);
    for seed in 0..SEEDS {
        let (victims, mut hosts) = victims(&scratch);
        for (index, (device, id)) in victims.into_iter().enumerate() {
            let mut dice = Dice(seed << 8 | index as u64);
            let (mut guest, mut worker) = Guest::detached(device, &memory);
            let mut broken = false;
            for _ in 0..DEEDS {
                match dice.below(16) {
                    0 => boot(&mut guest, &mut dice),
                    1..=4 => touch(&guest, &mut dice),
                    5..=8 => scribble(&guest, &mut dice),
                    9..=12 => ask(&mut guest, id, &mut dice),
                    13 => hosts.act(&mut dice),
                    _ => settle(&mut worker),
                }
                broken |= guest.registers.broken();
            }
            // Without this the noise would be too quiet to prove anything.
            assert!(broken, "seed {seed} did no harm to device {id}");
            serves_again(&mut guest, id, || settle(&mut worker));
        }
    }
    assert_eq!(scratch.metadata().unwrap().len(), DISK);
}

fn hammer(registers: Arc<Guest>, memory: GuestMemory, mut dice: Dice) {
    for _ in 0..4000 {
        match dice.below(3) {
            0 => {
                let at = GuestAddress(BASE + dice.below(0x8000));
                let _ = memory.write_slice(&dice.roll().to_le_bytes(), at);
            }
            _ => touch(&registers, &mut dice),
        }
    }
}

#[test]
fn no_number_of_processors_brings_a_device_down() {
    let scratch = file(&vec![1; DISK as usize]);
    for seed in 0..3 {
        let (victims, _hosts) = victims(&scratch);
        for (index, (device, id)) in victims.into_iter().enumerate() {
            let (mut guest, handle) = Guest::spawn_boxed(device);
            let mut dice = Dice(!(seed << 8 | index as u64));
            for _ in 0..3 {
                boot(&mut guest, &mut dice);
                let shared = Arc::new(guest);
                let processors = [0, 1, 2].map(|_| {
                    let (guest, memory) = (Arc::clone(&shared), shared.memory.clone());
                    let dice = Dice(dice.roll());
                    std::thread::spawn(move || hammer(guest, memory, dice))
                });
                for processor in processors {
                    processor.join().unwrap();
                }
                guest = Arc::into_inner(shared).unwrap();
                serves_again(&mut guest, id, || ());
            }
            drop(guest);
            handle.join().unwrap();
        }
    }
    assert_eq!(scratch.metadata().unwrap().len(), DISK);
}

#[test]
fn a_read_only_disk_is_the_same_after_a_storm_of_requests() {
    let content = vec![0x55; 5000];
    let image = file(&content);
    let memory = memory();
    let disk = Block::read_only(vec![image.try_clone().unwrap()], "image").unwrap();
    let (mut guest, mut worker) = Guest::detached(Box::new(disk), &memory);
    let mut dice = Dice(1);
    for _ in 0..200 {
        guest.reset();
        guest.boot(ALL);
        for _ in 0..50 {
            let mut request = [0; 16];
            request[0] = dice.below(16) as u8;
            request[8] = dice.below(12) as u8;
            guest.queues[0].write(DATA, &request);
            let direction = dice.below(2) == 0;
            let middle = (dice.address(), 512 * dice.below(4) as u32, direction);
            guest.queues[0].add(&[(DATA, 16, false), middle, (DATA + 64, 1, true)]);
            guest.kick(0);
            settle(&mut worker);
        }
    }
    let mut after = vec![0; 5000];
    image.read_exact_at(&mut after, 0).unwrap();
    assert_eq!(after, content);
    assert_eq!(image.metadata().unwrap().len(), 5000);
}
