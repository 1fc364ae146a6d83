//! A guest that reads on and on finds most of its image mapped before it gets there.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::process::Command;

use bulkhead_devices::Pmem;
use bulkhead_platform::{MachineExit, VmDevice};
use nix::errno::Errno;

use crate::code::Code;
use crate::rig::{Files, can_run_kernels, wait_for_threads};

/// Where the guest sees its image, as its RAM ends before: at the first address behind the hole.
const IMAGE: u64 = 1 << 32;
const LARGE_PAGE: u64 = 2 << 20;
const PAGE: u64 = 4096;
const BYTES: u64 = 64 * LARGE_PAGE;

/// Requests and a capability of linux/kvm.h.
const KVM_CHECK_EXTENSION: libc::c_ulong = 0xAE03;
const KVM_GET_STATS_FD: libc::c_ulong = 0xAECE;
const KVM_CAP_PRE_FAULT_MEMORY: libc::c_ulong = 236;
const KVM_CAP_BINARY_STATS_FD: libc::c_ulong = 203;

/// Set in the process that does a test alone.
const ALONE: &str = "BULKHEAD_TEST_ALONE";

fn has(capability: libc::c_ulong) -> bool {
    let kvm = File::open("/dev/kvm").expect("it was looked for");
    // SAFETY: a question with a number.
    unsafe { libc::ioctl(kvm.as_raw_fd(), KVM_CHECK_EXTENSION, capability) > 0 }
}

/// The first virtual CPU in this process.
fn first_cpu() -> i32 {
    let files = std::fs::read_dir("/proc/self/fd").expect("a proc file system");
    let found = files.filter_map(Result::ok).find(|file| {
        std::fs::read_link(file.path())
            .is_ok_and(|target| target.as_os_str() == "anon_inode:kvm-vcpu:0")
    });
    let name = found.expect("a virtual CPU").file_name();
    let number = name.to_str().and_then(|name| name.parse().ok());
    number.expect("a number")
}

/// A counter of a virtual CPU, which must not run just now (Documentation/virt/kvm/api.rst, 4.133).
fn counter(cpu: i32, wanted: &str) -> u64 {
    // SAFETY: a request without an argument, which makes a descriptor.
    let result = Errno::result(unsafe { libc::ioctl(cpu, KVM_GET_STATS_FD, 0) });
    // SAFETY: it is new.
    let mut file = File::from(unsafe { OwnedFd::from_raw_fd(result.expect("statistics")) });
    let mut all = Vec::new();
    file.read_to_end(&mut all).expect("statistics");
    let word = |at: usize| u32::from_ne_bytes(all[at..at + 4].try_into().expect("four bytes"));
    let [names, count, _, descriptors, data] = [4, 8, 12, 16, 20].map(|at| word(at) as usize);
    for index in 0..count {
        let descriptor = descriptors + index * (16 + names);
        let name = &all[descriptor + 16..descriptor + 16 + names];
        if name.split(|byte| *byte == 0).next() == Some(wanted.as_bytes()) {
            let at = data + word(descriptor + 8) as usize;
            return u64::from_ne_bytes(all[at..at + 8].try_into().expect("eight bytes"));
        }
    }
    panic!("KVM does not count {wanted}");
}

/// A guest that touches each page of its image in turn.
fn reader() -> Code {
    // A table for what lies behind the hole, whose entries are large pages.
    let tables = (0..BYTES / LARGE_PAGE).fold(Code::default(), |code, index| {
        code.store(0xc000 + index * 8, IMAGE + index * LARGE_PAGE + 0x83)
    });
    tables
        .store(0xa020, 0xc003)
        .touch(IMAGE, (BYTES / PAGE) as u32)
        .say("read\n")
        .spin()
}

#[test]
fn a_guest_that_reads_its_image_from_end_to_end_faults_for_few_of_its_pages() {
    if !can_run_kernels() {
        return;
    }
    if !has(KVM_CAP_PRE_FAULT_MEMORY) || !has(KVM_CAP_BINARY_STATS_FD) {
        bulkhead_harness::cannot_run!(
            "this host's KVM cannot map memory ahead, or does not count faults"
        );
        return;
    }
    // Descriptors do not say of which machine they are, so there must be no other.
    if std::env::var_os(ALONE).is_none() {
        let name = std::thread::current().name().expect("a test").to_owned();
        let mut alone = Command::new(std::env::current_exe().expect("a path"));
        alone.args(["--exact", &name, "--nocapture"]).env(ALONE, "");
        let output = alone.output().expect("it runs");
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{text}");
        assert!(text.contains("1 passed"), "{text}");
        return;
    }
    let files = Files::new(&reader().kernel());
    let mut image = tempfile::tempfile().expect("a file");
    for _ in 0..BYTES / LARGE_PAGE {
        image.write_all(&[1; LARGE_PAGE as usize]).expect("room");
    }
    let mut plan = files.plan();
    plan.devices.push(VmDevice {
        name: "image".to_owned(),
        device: Box::new(Pmem::read_only(vec![image]).expect("it can be mapped")),
    });
    let mut started = plan.start().expect("a machine");
    started.wait_for("read");
    started.machine.pause().expect("it lives");
    let faults = counter(first_cpu(), "pf_fixed");
    started.machine.resume().expect("it lives");
    started.machine.stop().expect("it lives");
    let (exit, _) = started.end();
    assert_eq!(exit, MachineExit::Stopped);
    wait_for_threads("ahead", 0);
    let pages = BYTES / PAGE;
    println!("{faults} faults for {pages} pages");
    assert!(faults > 0 && faults < pages / 2, "{faults} of {pages}");
}
