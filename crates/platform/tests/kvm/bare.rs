//! Kernels of a few instructions: how a machine is entered, what its ports do, how it ends.

use bulkhead_devices::Rng;
use bulkhead_platform::{KvmError, MachineExit, PlatformError, VmDevice};

use crate::code::Code;
use crate::rig::{Files, can_make_machines};

fn run(code: Code) -> Option<(MachineExit, String)> {
    can_make_machines().then(|| Files::new(&code.kernel()).plan().run())
}

#[test]
fn a_guest_that_powers_off_is_told_apart() {
    if let Some((exit, console)) = run(Code::default().say("up\nbye").power_off().spin()) {
        assert_eq!(exit, MachineExit::PoweredOff);
        assert_eq!(console, "up\nbye");
    }
}

#[test]
fn a_guest_that_resets_is_told_apart_by_whichever_way_it_does() {
    for (port, value) in [(0x602, 1), (0x64, 0xfe)] {
        if let Some((exit, _)) = run(Code::default().port(port, value).spin()) {
            assert_eq!(exit, MachineExit::Restarted);
        }
    }
}

#[test]
fn a_triple_fault_is_told_apart() {
    // There is no descriptor for any exception.
    if let Some((exit, console)) = run(Code::default().say("x").undefined().spin()) {
        assert_eq!(exit, MachineExit::TripleFault);
        assert_eq!(console, "x");
    }
}

#[test]
fn a_panic_that_the_guest_reports_is_told_apart_from_the_reset_behind_it() {
    let code = Code::default()
        .port(0x505, 1)
        .say("last words")
        .port(0x602, 1);
    if let Some((exit, console)) = run(code.spin()) {
        assert_eq!(exit, MachineExit::Panicked);
        assert_eq!(console, "last words");
    }
}

#[test]
fn a_spinning_guest_is_stopped_and_its_threads_are_gone() {
    if !can_make_machines() {
        return;
    }
    let files = Files::new(&Code::default().say("spinning\n").spin().kernel());
    let mut plan = files.plan();
    plan.vcpus = 2;
    plan.devices.push(VmDevice {
        name: "spun".to_owned(),
        device: Box::new(Rng::new()),
    });
    let mut started = plan.start().expect("a machine");
    started.wait_for("spinning");
    started.machine.stop().expect("it lives");
    let (exit, _) = started.end();
    assert_eq!(exit, MachineExit::Stopped);
    crate::rig::wait_for_threads("spun", 0);
}

#[test]
fn a_dropped_machine_leaves_no_thread() {
    if !can_make_machines() {
        return;
    }
    let files = Files::new(&Code::default().say("spinning\n").spin().kernel());
    let mut plan = files.plan();
    plan.devices.push(VmDevice {
        name: "dropped".to_owned(),
        device: Box::new(Rng::new()),
    });
    let mut started = plan.start().expect("a machine");
    started.wait_for("spinning");
    crate::rig::wait_for_threads("dropped", 1);
    drop(started);
    crate::rig::wait_for_threads("dropped", 0);
}

#[test]
fn a_paused_guest_does_nothing_and_goes_on_when_it_is_resumed() {
    if !can_make_machines() {
        return;
    }
    // Says so for ever: each turn jumps back over the fourteen bytes of two letters.
    let talking = Code::default().say("a\n").again(14);
    let files = Files::new(&talking.kernel());
    let mut started = files.plan().start().expect("a machine");
    started.wait_for("a\n");
    started.machine.pause().expect("it lives");
    started.drain();
    assert!(!started.has_more(), "a paused guest prints");
    started.machine.resume().expect("it lives");
    started.wait_for("a\n");
    started.machine.pause().expect("it lives");
    started
        .machine
        .stop()
        .expect("it can be stopped while it is paused");
    let (exit, _) = started.end();
    assert_eq!(exit, MachineExit::Stopped);
}

#[test]
fn memory_behind_the_hole_is_there() {
    if !can_make_machines() {
        return;
    }
    // Page tables for the first 2 MiB behind 4 GiB: the fifth entry of the second level, and a third level of its own.
    let code = Code::default()
        .store(0xc000, 0x1_0000_0083)
        .store(0xa020, 0xc003)
        .store(0x1_0001_2340, u64::from(b'!'))
        .say_byte_at(0x1_0001_2340)
        .power_off()
        .spin();
    let files = Files::new(&code.kernel());
    let mut plan = files.plan();
    plan.memory = (3 << 30) + (8 << 20);
    match plan.start() {
        Ok(started) => {
            let (exit, console) = started.end();
            assert_eq!((exit, console.as_str()), (MachineExit::PoweredOff, "!"));
        }
        Err(PlatformError::TooMuchMemory { most, .. }) => {
            bulkhead_harness::cannot_run!("this host has only {most} bytes of memory");
        }
        Err(error) => panic!("{error}"),
    }
}

#[test]
fn a_guest_that_touches_what_is_not_there_reads_ones_and_goes_on() {
    // 3 GiB is the hole. Its page table entry has to be made first: the fourth entry of the second level.
    let code = Code::default()
        .store(0xc000, 0xc000_0083)
        .store(0xa018, 0xc003)
        .store(0xc000_0000, 7)
        .say_byte_at(0xc000_0000)
        .power_off()
        .spin();
    if !can_make_machines() {
        return;
    }
    let files = Files::new(&code.kernel());
    let mut started = files.plan().start().expect("a machine");
    let exit = started.machine.wait().expect("an end");
    assert_eq!(exit, MachineExit::PoweredOff);
    assert_eq!(started.bytes(), [0xff]);
}

#[test]
fn a_guest_is_told_that_its_cpus_are_cores_of_one_processor() {
    if !can_make_machines() {
        return;
    }
    // Extended topology: one thread in a core, and so many of them in the package; and no further level.
    let code = Code::default()
        .say_cpuid(0xb, 0)
        .say_cpuid(0xb, 1)
        .say_cpuid(0xb, 2)
        .power_off();
    let files = Files::new(&code.spin().kernel());
    let mut plan = files.plan();
    plan.vcpus = 3;
    let (exit, console) = plan.run();
    assert_eq!(exit, MachineExit::PoweredOff);
    assert_eq!(console.as_bytes(), [1, 3, 0]);
}

#[test]
fn a_guest_larger_than_the_host_is_refused() {
    let files = Files::new(&Code::default().spin().kernel());
    let mut plan = files.plan();
    plan.memory = 1 << 60;
    let error = plan.start().err().expect("no host has that");
    assert!(
        matches!(error, PlatformError::TooMuchMemory { .. }),
        "{error}"
    );
}

#[test]
fn a_guest_too_small_for_its_kernel_says_what_it_needs() {
    if !can_make_machines() {
        return;
    }
    let files = Files::new(&Code::default().spin().kernel());
    let mut plan = files.plan();
    plan.memory = 18 << 20;
    match plan.start().err() {
        Some(PlatformError::Kvm(KvmError::TooLittleMemory { asked, least })) => {
            assert_eq!(asked, 18 << 20);
            assert!(least > 32 << 20, "{least}");
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn more_cpus_or_devices_than_there_can_be_are_refused() {
    if !can_make_machines() {
        return;
    }
    let files = Files::new(&Code::default().spin().kernel());
    for vcpus in [0, 255, u32::MAX] {
        let mut plan = files.plan();
        plan.vcpus = vcpus;
        let error = plan.start().err().expect("not so many");
        assert!(matches!(error, PlatformError::Vcpus { .. }), "{error}");
    }
    let mut plan = files.plan();
    plan.devices = (0..20)
        .map(|index| VmDevice {
            name: format!("d{index}"),
            device: Box::new(Rng::new()),
        })
        .collect();
    let error = plan.start().err().expect("not so many");
    let expected = matches!(error, PlatformError::Kvm(KvmError::Devices { .. }));
    assert!(expected, "{error}");
}
