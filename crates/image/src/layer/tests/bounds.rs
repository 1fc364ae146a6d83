//! What a small hostile archive may cost: memory by a budget, disk by what it really holds.

use std::os::unix::fs::MetadataExt;

use crate::budget::Budget;
use bulkhead_types::chain;

use crate::layer::testing::{Tar, complaint, complaint_within, converted, try_convert};
use crate::layer::tree::{Content, Extents, Target};
use crate::layer::{LayerError, Limits};

const MIB: u64 = 1 << 20;

fn within(bytes: u64) -> Limits {
    Limits {
        memory: Budget::of(bytes),
        ..Limits::default()
    }
}

/// An all-hole file in PAX's words.
fn hole(tar: Tar, name: &str, size: u64) -> Tar {
    tar.pax(&[("GNU.sparse.realsize", size.to_string().as_bytes())])
        .file(name, b"")
}

/// 62 KB of gzip once took 386 MB of memory and as much of the disk: a map of 64 KiB for each of these.
#[test]
fn files_that_are_one_hole_cost_no_map_whatever_they_claim() {
    let sizes = [1, 65_536, 65_537, 256 * MIB, 1 << 40, 8 << 40];
    let mut tar = Tar::new();
    for size in sizes {
        tar = hole(tar, &format!("f{size}"), size);
    }
    let layer = converted(&tar.finish());
    let tree = layer.tree();
    for (name, child) in tree.children(0).unwrap() {
        let Some(Target::Inode(id)) = child.target else {
            panic!("{name:?}")
        };
        match &tree.inodes[id as usize].content {
            Content::File {
                size,
                extents: Extents::Sparse { chunk_bits, runs },
            } => {
                assert!(runs.is_empty());
                assert_eq!(size.div_ceil(4096 << chunk_bits), 1, "{size}");
            }
            Content::File { size, .. } => assert!(*size <= 65_536, "{size}"),
            other => panic!("{other:?}"),
        }
    }
    let data = std::fs::metadata(layer.dir.path().join("data")).unwrap();
    assert!(data.blocks() * 512 <= 4096, "{} blocks", data.blocks());
    // Ten thousand of them are no more than their names and inodes.
    let many = (0..10_000).fold(Tar::new(), |tar, n| hole(tar, &format!("f{n}"), 300 * MIB));
    try_convert(&many.finish(), &within(5 * MIB)).unwrap();
}

/// Holes that are no whole chunk were written as zeros: 25 bytes of a map could take 16 KiB of the disk.
#[test]
fn claimed_zeros_take_no_space_on_the_disk() {
    let pieces = 200u64;
    let step = 16_384;
    let map: Vec<String> = (0..pieces).map(|n| format!("{},1", n * step)).collect();
    let size = (pieces * step).to_string();
    let tar = Tar::new()
        .pax(&[
            ("GNU.sparse.realsize", size.as_bytes()),
            ("GNU.sparse.map", map.join(",").as_bytes()),
        ])
        .file("f", &vec![b'x'; pieces as usize]);
    let layer = converted(&tar.finish());
    let data = std::fs::metadata(layer.dir.path().join("data")).unwrap();
    assert!(data.len() >= pieces * step - step);
    assert!(
        data.blocks() * 512 <= pieces * 4096 + 64 * 1024,
        "{} blocks",
        data.blocks()
    );
    // Also in small files, which are stored as they are.
    let small = (0..100).fold(Tar::new(), |tar, n| hole(tar, &format!("s{n}"), 65_536));
    let layer = converted(&small.finish());
    let data = std::fs::metadata(layer.dir.path().join("data")).unwrap();
    assert!(data.blocks() * 512 <= 64 * 1024, "{} blocks", data.blocks());
}

/// 3.8 MB of gzip once took 1.28 GB of memory.
#[test]
fn what_stays_in_memory_is_bounded_and_the_entry_is_named() {
    let value = vec![b'A'; 60_000];
    let target = "t".repeat(90);
    let attributes = |n: usize| {
        Tar::new()
            .pax(&[("SCHILY.xattr.user.x", &value)])
            .file(&format!("f{n}"), b"")
    };
    let named = |limit: u64, tar: Tar| {
        let text = complaint_within(&tar.finish(), &within(limit));
        let wanted = format!("would take the image beyond the limit of {limit} bytes of memory");
        assert!(
            text.starts_with("entry \"") && text.ends_with(&wanted),
            "{text}"
        );
        text
    };
    let text = named(
        MIB,
        (0..100).fold(Tar::new(), |tar, n| tar.then(attributes(n))),
    );
    assert!(text.contains("\"f8\""), "{text}");
    named(
        MIB,
        (0..5000).fold(Tar::new(), |tar, n| tar.symlink(&format!("s{n}"), &target)),
    );
    named(
        MIB,
        (0..5000).fold(Tar::new(), |tar, n| tar.file(&format!("d{n}/e/f"), b"")),
    );
    named(
        MIB,
        (0..9000).fold(Tar::new(), |tar, n| tar.file(&format!(".wh.w{n}"), b"")),
    );
    // What replaces itself stays too, until the end.
    named(
        MIB,
        (0..9000).fold(Tar::new(), |tar, _| tar.file("same", b"")),
    );
    named(
        MIB,
        (0..5000).fold(Tar::new(), |tar, n| {
            tar.hard_link(&format!("l{n}"), "below")
        }),
    );
    // A map of many pieces, none of which touches the next.
    let map: Vec<String> = (0..4000u64).map(|n| format!("{},1", n << 20)).collect();
    let tar = Tar::new()
        .pax(&[
            ("GNU.sparse.realsize", b"5000000000"),
            ("GNU.sparse.map", map.join(",").as_bytes()),
        ])
        .file("f", &[b'x'; 4000]);
    named(MIB / 8, tar);
}

#[test]
fn sparse_headers_without_segments_end_the_reading() {
    let mut header = Tar::header(b'S', b"f");
    let gnu = header.as_gnu_mut().unwrap();
    gnu.set_is_extended(true);
    gnu.set_real_size(1 << 20);
    let mut block = tar::GnuExtSparseHeader::new();
    block.set_is_extended(true);
    let endless = (0..1000).fold(Tar::new().raw(header, b""), |tar, _| {
        tar.content(block.as_bytes())
    });
    assert_eq!(
        complaint(&endless.finish()),
        "entry \"f\" has an invalid sparse map"
    );
}

#[test]
fn extension_records_before_one_entry_count_together() {
    let limits = Limits {
        max_extension_bytes: 4000,
        ..Limits::default()
    };
    let global =
        |count: usize| (0..count).fold(Tar::new(), |tar, _| tar.with(b'g', "pax", b"", |_| {}));
    assert!(try_convert(&global(7).file("f", b"").finish(), &limits).is_ok());
    assert_eq!(
        complaint_within(&global(8).file("f", b"").finish(), &limits),
        "entry \"pax\" exceeds the limit of 4000 bytes of extended header"
    );
}

#[test]
fn a_conversion_stops_while_the_file_system_has_space() {
    let limits = Limits {
        // No file system has all of itself free once it has a directory.
        keep_free: 100,
        ..Limits::default()
    };
    let error = try_convert(&Tar::new().file("f", b"x").finish(), &limits)
        .err()
        .unwrap();
    assert!(matches!(error, LayerError::Write { .. }), "{error:?}");
    assert!(
        chain(&error).contains("100 % stay free"),
        "{}",
        chain(&error)
    );
    assert_eq!(
        crate::ErrorKind::no_space_in(&error),
        Some(crate::ErrorKind::NoSpace)
    );
}
