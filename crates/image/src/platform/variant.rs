//! Variants of architectures: which ones a processor can run, best first.
//!
//! The tables are those of containerd's package `platforms` (compare.go, database.go). One thing is added: the level
//! of this host's own x86-64 processor, which containerd leaves to its user.

/// The variant of an architecture in the one spelling that is compared; none is what the architecture's name alone
/// means.
pub(super) fn canonical(architecture: &str, variant: Option<&str>) -> String {
    let variant = variant.unwrap_or_default();
    let plain = match (architecture, variant) {
        ("amd64", "") => "v1",
        ("arm", "") => "v7",
        ("arm64", "" | "8" | "8.0" | "v8.0") => "v8",
        ("arm64", "9" | "9.0" | "v9.0") => "v9",
        ("arm", "5" | "6" | "7" | "8") => return format!("v{variant}"),
        _ => variant,
    };
    plain.to_owned()
}

/// Every variant that runs where `variant` does, best first, each [`canonical`]. A variant that no table knows runs
/// only where it is asked for by name.
pub(super) fn compatible(architecture: &str, variant: Option<&str>) -> Vec<String> {
    let wanted = canonical(architecture, variant);
    let (major, minor) = match numbers(&wanted) {
        Some(numbers) => numbers,
        None => return vec![wanted],
    };
    let down_to = |from: u32, last: u32| (last..=from).rev().map(|level| format!("v{level}"));
    match (architecture, major, minor) {
        ("amd64", 1..=4, 0) => down_to(major, 1).collect(),
        ("arm", 5..=8, 0) => down_to(major, 5).collect(),
        ("arm64", 8, 0..=9) => arm64(8, minor).collect(),
        // Arm's manual: v9.0 has what v8.5 has, and so on.
        ("arm64", 9, 0..=9) => arm64(9, minor)
            .chain(arm64(8, (minor + 5).min(9)))
            .collect(),
        _ => vec![wanted],
    }
}

fn arm64(major: u32, minor: u32) -> impl Iterator<Item = String> {
    (0..=minor).rev().map(move |minor| match minor {
        0 => format!("v{major}"),
        _ => format!("v{major}.{minor}"),
    })
}

/// `v8` and `v8.1` as numbers.
fn numbers(variant: &str) -> Option<(u32, u32)> {
    let digits = variant.strip_prefix('v')?;
    let (major, minor) = digits.split_once('.').unwrap_or((digits, "0"));
    Some((major.parse().ok()?, minor.parse().ok()?))
}

/// This processor's variant, where its architecture has levels that programs can ask for.
pub(super) fn of_host() -> Option<String> {
    #[cfg(target_arch = "x86_64")]
    return Some(format!("v{}", level(&has)));
    #[cfg(not(target_arch = "x86_64"))]
    None
}

/// Features of the micro-architecture levels (x86-64 psABI 1.0, table 3.1), from the second level on. What every
/// x86-64 processor has makes the first. OSXSAVE needs no name: the features of the third level count as present only
/// where the operating system saves their registers.
const LEVELS: [&[&str]; 3] = [
    &[
        "cmpxchg16b",
        "lahf",
        "popcnt",
        "sse3",
        "sse4.1",
        "sse4.2",
        "ssse3",
    ],
    &[
        "avx", "avx2", "bmi1", "bmi2", "f16c", "fma", "lzcnt", "movbe",
    ],
    &["avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"],
];

/// The highest level all of whose features, and those below, are there.
fn level(has: &dyn Fn(&str) -> bool) -> u32 {
    let above_first = LEVELS
        .iter()
        .take_while(|features| features.iter().all(|feature| has(feature)));
    above_first.fold(1, |level, _| level + 1)
}

#[cfg(target_arch = "x86_64")]
fn has(feature: &str) -> bool {
    use std::arch::is_x86_feature_detected as detected;
    match feature {
        "cmpxchg16b" => detected!("cmpxchg16b"),
        "lahf" => lahf(),
        "popcnt" => detected!("popcnt"),
        "sse3" => detected!("sse3"),
        "sse4.1" => detected!("sse4.1"),
        "sse4.2" => detected!("sse4.2"),
        "ssse3" => detected!("ssse3"),
        "avx" => detected!("avx"),
        "avx2" => detected!("avx2"),
        "bmi1" => detected!("bmi1"),
        "bmi2" => detected!("bmi2"),
        "f16c" => detected!("f16c"),
        "fma" => detected!("fma"),
        "lzcnt" => detected!("lzcnt"),
        "movbe" => detected!("movbe"),
        "avx512f" => detected!("avx512f"),
        "avx512bw" => detected!("avx512bw"),
        "avx512cd" => detected!("avx512cd"),
        "avx512dq" => detected!("avx512dq"),
        "avx512vl" => detected!("avx512vl"),
        _ => false,
    }
}

/// LAHF and SAHF in 64-bit mode, which the standard library has no name for: Intel SDM, volume 2, CPUID, leaf
/// 0x8000_0001, ECX, bit 0.
#[cfg(target_arch = "x86_64")]
fn lahf() -> bool {
    const LEAF: u32 = 0x8000_0001;
    std::arch::x86_64::__cpuid(0x8000_0000).eax >= LEAF
        && std::arch::x86_64::__cpuid(LEAF).ecx & 1 == 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_level_counts_only_with_all_below_it() {
        let up_to = |n: usize| {
            move |feature: &str| LEVELS.iter().take(n).any(|level| level.contains(&feature))
        };
        for n in 0..=3 {
            assert_eq!(level(&up_to(n)), u32::try_from(n).unwrap() + 1);
        }
        assert_eq!(level(&|feature| feature != "popcnt"), 1);
        assert_eq!(level(&|feature| feature != "movbe"), 2);
        assert_eq!(level(&|feature| feature != "avx512cd"), 3);
    }

    #[test]
    #[cfg(target_arch = "x86_64")]
    fn the_hosts_level_is_what_its_kernel_says() {
        // The kernel's names for the same bits (arch/x86/include/asm/cpufeatures.h).
        let names = [
            "cx16 lahf_lm popcnt pni sse4_1 sse4_2 ssse3",
            "avx avx2 bmi1 bmi2 f16c fma abm movbe",
            "avx512f avx512bw avx512cd avx512dq avx512vl",
        ];
        let text = std::fs::read_to_string("/proc/cpuinfo").unwrap();
        let flags = text.lines().find(|line| line.starts_with("flags")).unwrap();
        let flags: Vec<&str> = flags.split_whitespace().collect();
        let whole = names
            .iter()
            .take_while(|level| level.split(' ').all(|name| flags.contains(&name)));
        assert_eq!(of_host(), Some(format!("v{}", 1 + whole.count())));
    }

    #[test]
    fn newer_arm_processors_run_what_older_ones_do() {
        assert_eq!(compatible("arm", Some("v7")), ["v7", "v6", "v5"]);
        assert_eq!(compatible("arm", None), ["v7", "v6", "v5"]);
        assert_eq!(compatible("arm64", None), ["v8"]);
        let v9 = compatible("arm64", Some("v9.1"));
        assert_eq!(
            v9.iter().take(3).collect::<Vec<_>>(),
            ["v9.1", "v9", "v8.6"]
        );
        assert_eq!(v9.last().unwrap(), "v8");
        assert_eq!(compatible("mips", Some("softfloat")), ["softfloat"]);
        assert_eq!(compatible("amd64", Some("v9")), ["v9"]);
    }
}
