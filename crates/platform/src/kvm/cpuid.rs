//! What a guest's CPUID instruction answers.
//!
//! The base is what KVM supports on this host (KVM_GET_SUPPORTED_CPUID in Documentation/virt/kvm/api.rst), which
//! includes KVM's own leaves with its clock. Changed is only what that cannot know: the number of CPUs, which one is
//! asking, and what this machine does not have. Numbers of leaves and fields are those of the Intel SDM, volume 2,
//! CPUID, and of AMD's manual, volume 3, appendix E.

use kvm_bindings::{
    CpuId, KVM_CPUID_FLAG_SIGNIFCANT_INDEX, KVM_MAX_CPUID_ENTRIES, kvm_cpuid_entry2,
};
use kvm_ioctls::{Cap, Kvm, VcpuFd};

use super::error::{KvmError, request};

/// Leaf 1, ECX, and leaf 0x8000_0001, ECX: Intel's and AMD's virtualization. A compartment has no guests of its own, and
/// what emulates it for one is a large part of what a hostile guest could attack in KVM.
const INTEL_VIRTUALIZATION: u32 = 1 << 5;
const AMD_VIRTUALIZATION: u32 = 1 << 2;
/// Leaf 1, ECX: performance capabilities (a register of the counters that are taken away), deadline timer, hypervisor.
const PERFORMANCE_CAPABILITIES: u32 = 1 << 15;
const DEADLINE_TIMER: u32 = 1 << 24;
const HYPERVISOR: u32 = 1 << 31;
/// Leaf 1, EDX: there is more than one logical processor.
const MULTI_THREADING: u32 = 1 << 28;
/// Leaf 0x8000_0001, ECX: extended performance counters, of cores and of the northbridge and the cache.
const EXTENDED_COUNTERS: u32 = 1 << 23 | 1 << 24 | 1 << 28;

/// Extended topology, twice.
const TOPOLOGY: u32 = 0xb;
const NEWER_TOPOLOGY: u32 = 0x1f;
/// Levels of these leaves.
const THREADS: u32 = 1;
const CORES: u32 = 2;

/// The answers for a machine with some number of CPUs; what differs between its CPUs is filled in for each.
#[derive(Debug)]
pub(super) struct Answers {
    base: CpuId,
    vcpus: u32,
}

impl Answers {
    /// Asks KVM.
    pub(super) fn new(kvm: &Kvm, vcpus: u32) -> Result<Self, KvmError> {
        let supported = kvm
            .get_supported_cpuid(KVM_MAX_CPUID_ENTRIES)
            .map_err(request("tell which processor features it supports"))?;
        let timer = kvm.check_extension(Cap::TscDeadlineTimer);
        let mut entries = with_levels(supported.as_slice());
        for entry in &mut entries {
            adapt(entry, vcpus, timer);
        }
        let base = CpuId::from_entries(&entries)
            .map_err(|error| KvmError::Layout(format!("{error:?}")))?;
        Ok(Self { base, vcpus })
    }

    /// Gives the CPU with this number its answers.
    pub(super) fn give(&mut self, vcpu: &VcpuFd, index: u32) -> Result<(), KvmError> {
        for entry in self.base.as_mut_slice() {
            identify(entry, index, self.vcpus);
        }
        vcpu.set_cpuid2(&self.base)
            .map_err(request("take the processor's features"))
    }
}

/// KVM says nothing of levels of processors, as it knows of none: these are ours, threads, cores, and the end. The newer
/// of the two leaves that could tell them is left out, which sends who asks it to the older one.
fn with_levels(supported: &[kvm_cpuid_entry2]) -> Vec<kvm_cpuid_entry2> {
    let others = supported
        .iter()
        .filter(|entry| !matches!(entry.function, TOPOLOGY | NEWER_TOPOLOGY));
    let levels = (0..3).map(|index| kvm_cpuid_entry2 {
        function: TOPOLOGY,
        index,
        flags: KVM_CPUID_FLAG_SIGNIFCANT_INDEX,
        ..kvm_cpuid_entry2::default()
    });
    others.copied().chain(levels).collect()
}

/// How many bits number this many CPUs.
fn bits(vcpus: u32) -> u32 {
    u32::BITS - vcpus.saturating_sub(1).leading_zeros()
}

/// What is the same on each of the machine's CPUs: one package with one thread in each core.
fn adapt(entry: &mut kvm_cpuid_entry2, vcpus: u32, timer: bool) {
    match entry.function {
        1 => {
            entry.ecx |= HYPERVISOR;
            entry.ecx &= !(PERFORMANCE_CAPABILITIES | INTEL_VIRTUALIZATION);
            if timer {
                // Not in KVM's list of features: it depends on the local APIC being KVM's, which it is.
                entry.ecx |= DEADLINE_TIMER;
            }
            if vcpus > 1 {
                entry.edx |= MULTI_THREADING;
            } else {
                entry.edx &= !MULTI_THREADING;
            }
        }
        // Caches: nothing is shared between threads, the last level between all. Bits 25..14 are the threads that share
        // one, bits 31..26 the cores in the package, both less one.
        4 if entry.eax & 0x1f != 0 => {
            let level = entry.eax >> 5 & 7;
            let sharing = if level >= 3 { vcpus - 1 } else { 0 };
            entry.eax = entry.eax & 0x3fff | (sharing & 0xfff) << 14 | (vcpus - 1).min(0x3f) << 26;
        }
        0x8000_001d if entry.eax & 0x1f != 0 => {
            let level = entry.eax >> 5 & 7;
            let sharing = if level >= 3 { vcpus - 1 } else { 0 };
            entry.eax = entry.eax & !(0xfff << 14) | (sharing & 0xfff) << 14;
        }
        // Revision and features of AMD's virtualization.
        0x8000_000a => clear(entry),
        // Performance counters: counting costs time at every change between guest and host, and tells a guest what its
        // neighbours do.
        0xa | 0x8000_0022 => clear(entry),
        0x8000_0001 => {
            entry.ecx &= !(EXTENDED_COUNTERS | AMD_VIRTUALIZATION);
        }
        // Bits 7..0: cores less one; bits 15..12: how many bits of an APIC's number name the core.
        0x8000_0008 => {
            entry.ecx = entry.ecx & !0xf0ff | (vcpus - 1) & 0xff | bits(vcpus) << 12;
        }
        _ => {}
    }
}

fn clear(entry: &mut kvm_cpuid_entry2) {
    entry.eax = 0;
    entry.ebx = 0;
    entry.ecx = 0;
    entry.edx = 0;
}

/// What tells CPUs apart: the number of their local APIC, which is their own.
fn identify(entry: &mut kvm_cpuid_entry2, index: u32, vcpus: u32) {
    match entry.function {
        // Bits 31..24: APIC number; bits 23..16: logical processors in the package.
        1 => entry.ebx = entry.ebx & 0xffff | index << 24 | vcpus.min(0xff) << 16,
        // Extended topology. EAX: how many bits of the number to drop to get to the next level; EBX: logical
        // processors at this level; ECX: level's index and kind; EDX: the number.
        TOPOLOGY => {
            let (shift, count, kind) = match entry.index {
                0 => (0, 1, THREADS),
                1 => (bits(vcpus), vcpus, CORES),
                _ => (0, 0, 0),
            };
            entry.eax = shift;
            entry.ebx = count;
            entry.ecx = kind << 8 | entry.index & 0xff;
            entry.edx = index;
        }
        // EAX: APIC number; EBX: core's number, one thread in each; ECX: one node.
        0x8000_001e => {
            entry.eax = index;
            entry.ebx = index & 0xff;
            entry.ecx = 0;
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(function: u32, index: u32) -> kvm_cpuid_entry2 {
        kvm_cpuid_entry2 {
            function,
            index,
            eax: 0xffff_ffff,
            ebx: 0xffff_ffff,
            ecx: 0xffff_ffff,
            edx: 0xffff_ffff,
            ..kvm_cpuid_entry2::default()
        }
    }

    #[test]
    fn a_number_has_as_many_bits_as_it_needs() {
        let of: Vec<u32> = [1, 2, 3, 4, 5, 8, 9, 254].map(bits).to_vec();
        assert_eq!(of, [0, 1, 2, 2, 3, 3, 4, 8]);
    }

    #[test]
    fn each_cpu_finds_its_own_number_and_how_many_there_are() {
        let mut leaf = entry(1, 0);
        adapt(&mut leaf, 2, true);
        identify(&mut leaf, 1, 2);
        assert_eq!(leaf.ebx >> 16, 0x0102);
        assert_ne!(leaf.ecx & (HYPERVISOR | DEADLINE_TIMER), 0);
        assert_ne!(leaf.edx & MULTI_THREADING, 0);
        let mut cores = entry(0xb, 1);
        identify(&mut cores, 3, 4);
        assert_eq!(
            (cores.eax, cores.ebx, cores.ecx, cores.edx),
            (2, 4, 0x201, 3)
        );
        let mut amd = entry(0x8000_0008, 0);
        adapt(&mut amd, 4, true);
        assert_eq!(amd.ecx & 0xf0ff, 0x2003);
    }

    #[test]
    fn all_levels_of_processors_are_told_whatever_kvm_knows_of_them() {
        let supported = [entry(1, 0), entry(TOPOLOGY, 0), entry(NEWER_TOPOLOGY, 0)];
        let mut levels = with_levels(&supported);
        levels.iter_mut().for_each(|entry| identify(entry, 1, 2));
        let told: Vec<_> = levels
            .iter()
            .map(|entry| (entry.function, entry.index, entry.ebx, entry.edx))
            .skip(1)
            .collect();
        assert_eq!(
            told,
            [
                (TOPOLOGY, 0, 1, 1),
                (TOPOLOGY, 1, 2, 1),
                (TOPOLOGY, 2, 0, 1)
            ]
        );
    }

    #[test]
    fn one_cpu_is_not_several_threads() {
        let mut leaf = entry(1, 0);
        adapt(&mut leaf, 1, false);
        identify(&mut leaf, 0, 1);
        assert_eq!(leaf.edx & MULTI_THREADING, 0);
        assert_eq!(leaf.ebx >> 16, 0x0001);
        let mut cache = entry(4, 0);
        cache.eax = 0x7fff_c061;
        adapt(&mut cache, 1, false);
        assert_eq!(cache.eax, 0x61);
    }

    #[test]
    fn neither_performance_counters_nor_virtualization_are_promised() {
        for function in [0xa, 0x8000_000a, 0x8000_0022] {
            let mut leaf = entry(function, 0);
            adapt(&mut leaf, 2, false);
            assert_eq!((leaf.eax, leaf.ebx, leaf.ecx, leaf.edx), (0, 0, 0, 0));
        }
        let mut leaf = entry(0x8000_0001, 0);
        adapt(&mut leaf, 2, false);
        let taken = EXTENDED_COUNTERS | AMD_VIRTUALIZATION;
        assert_eq!(leaf.ecx, !taken, "the rest stays");
        let mut leaf = entry(1, 0);
        adapt(&mut leaf, 2, false);
        assert_eq!(leaf.ecx & INTEL_VIRTUALIZATION, 0);
    }
}
