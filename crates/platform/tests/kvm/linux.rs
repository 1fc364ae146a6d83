//! Linux, with a first process that says what it sees and then ends the machine in some way.

use bulkhead_devices::{Balloon, Rng};
use bulkhead_platform::{
    KernelImage, KernelKind, KernelSearch, MachineExit, VmDevice, build_initramfs, find_kernel,
};
use bulkhead_types::Isolation;

use crate::code::Code;
use bulkhead_harness::cannot_run;

use crate::rig::{Files, Plan, Started, can_run_kernels};

/// Commands of reboot(2).
const OFF: u32 = 0x4321_fedc;
const RESTART: u32 = 0x0123_4567;

/// The kernels that are here: the one that a search prefers, and a distribution's.
fn kernels() -> Vec<KernelImage> {
    if !can_run_kernels() {
        return Vec::new();
    }
    let preferred = KernelSearch::from_environment(None);
    let distribution = KernelSearch {
        machine_kernels: preferred.machine_kernels.clone(),
        machine_modules: preferred.machine_modules.clone(),
        ..KernelSearch::default()
    };
    let mut found = Vec::new();
    for search in [preferred, distribution] {
        match find_kernel(Isolation::Kvm, &search) {
            Ok(kernel) if !found.contains(&kernel) => found.push(kernel),
            Ok(_) => {}
            Err(error) => cannot_run!("{error}"),
        }
    }
    for kind in [KernelKind::Tuned, KernelKind::Distribution] {
        if !found.iter().any(|kernel| kernel.kind == kind) {
            cannot_run!("no {kind:?} kernel for KVM is here");
        }
    }
    found
}

/// Each kernel with each number of CPUs, and `init` as its first process.
fn each(init: Code, mut test: impl FnMut(Plan)) {
    for kernel in kernels() {
        let files = Files::new(&[]);
        let program = files.path().join("init");
        std::fs::write(&program, init.program()).expect("written");
        let initramfs = build_initramfs(&program, &kernel, files.path()).expect("an initramfs");
        for vcpus in [1, 2] {
            println!("{:?} kernel, {vcpus} CPUs", kernel.kind);
            test(Plan {
                kernel: kernel.clone(),
                initramfs: initramfs.clone(),
                memory: 256 << 20,
                vcpus,
                words: Vec::new(),
                devices: devices(),
            });
        }
    }
}

fn devices() -> Vec<VmDevice> {
    let rng = VmDevice {
        name: "rng".to_owned(),
        device: Box::new(Rng::new()),
    };
    let balloon = VmDevice {
        name: "balloon".to_owned(),
        device: Box::new(Balloon::new()),
    };
    vec![rng, balloon]
}

/// The number behind a label.
fn number(console: &str, label: &str) -> u64 {
    let line = console.lines().find_map(|line| line.split_once(label));
    let (_, digits) = line.unwrap_or_else(|| panic!("no {label} in:\n{console}"));
    let digits = digits.bytes().take_while(u8::is_ascii_graphic);
    digits.fold(0, |number, digit| number << 4 | u64::from(digit - b'0'))
}

#[test]
fn it_boots_with_its_cpus_and_memory_and_powers_off() {
    let init = Code::default()
        .print_processors("CPUS ")
        .print_memory("MEMORY ")
        .reboot(OFF);
    each(init, |plan| {
        let (vcpus, memory) = (plan.vcpus, plan.memory);
        let (exit, console) = plan.run();
        assert_eq!(exit, MachineExit::PoweredOff, "{console}");
        assert_eq!(number(&console, "CPUS "), (1 << vcpus) - 1, "{console}");
        // The kernel keeps some for itself.
        let seen = number(&console, "MEMORY ");
        assert!(seen < memory && seen > memory / 2, "{seen}");
    });
}

#[test]
fn a_restart_is_told_apart() {
    each(Code::default().print("UP\n").reboot(RESTART), |plan| {
        let (exit, console) = plan.run();
        assert_eq!(exit, MachineExit::Restarted, "{console}");
        assert!(console.contains("UP"), "{console}");
    });
}

#[test]
fn a_panic_is_told_apart_and_its_reason_is_on_the_console() {
    each(Code::default().exit(), |plan| {
        let (exit, console) = plan.run();
        assert_eq!(exit, MachineExit::Panicked, "{console}");
        let reason = "Kernel panic - not syncing: Attempted to kill init!";
        assert!(console.contains(reason), "{console}");
    });
}

#[test]
fn a_guest_whose_every_process_spins_is_stopped() {
    let spinning = Code::default().fork().fork().print("SPINNING\n").spin();
    each(spinning, |plan| {
        let mut started: Started = plan.start().expect("a machine");
        started.wait_for("SPINNING");
        started.machine.stop().expect("it lives");
        let (exit, _) = started.end();
        assert_eq!(exit, MachineExit::Stopped);
    });
}

#[test]
fn memory_behind_the_hole_is_used() {
    // Half a GiB more than there is room for below the hole.
    let below = 3_u64 << 30;
    let wanted = below + (512 << 20);
    let init = Code::default().print_memory("MEMORY ").reboot(OFF);
    let host = nix::sys::sysinfo::sysinfo().expect("the host's memory");
    let has = host.ram_total() + host.swap_total();
    if has < wanted {
        cannot_run!("this host has {has} bytes of memory, fewer than {wanted}");
        return;
    }
    each(init, |mut plan| {
        plan.memory = wanted;
        let (exit, console) = plan.run();
        assert_eq!(exit, MachineExit::PoweredOff, "{console}");
        // What the kernel keeps for itself is less than half of what lies behind the hole.
        let seen = number(&console, "MEMORY ");
        assert!(seen > below + (256 << 20), "{seen}");
    });
}
