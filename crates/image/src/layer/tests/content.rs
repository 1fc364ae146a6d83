//! Contents: aligned, complete, with holes for zeros.

use std::os::unix::fs::{FileExt, MetadataExt};

use crate::layer::testing::{Converted, Tar, complaint, converted};
use crate::layer::tree::{Content, Extents, LayerTree, Target};

const MIB: usize = 1 << 20;

fn extents<'t>(tree: &'t LayerTree, name: &str) -> (u64, &'t Extents) {
    let child = &tree.children(0).unwrap()[name.as_bytes()];
    let Some(Target::Inode(id)) = child.target else {
        panic!("{name}")
    };
    match &tree.inodes[id as usize].content {
        Content::File { size, extents } => (*size, extents),
        other => panic!("{name} is {other:?}"),
    }
}

/// Reads a file back the way the disk would show it.
fn read(layer: &Converted, name: &str) -> Vec<u8> {
    let tree = layer.tree();
    let (size, extents) = extents(&tree, name);
    let data = std::fs::File::open(layer.dir.path().join("data")).unwrap();
    let mut out = vec![0; size as usize];
    match extents {
        Extents::Flat(block) => data
            .read_exact_at(&mut out, u64::from(*block) * 4096)
            .unwrap(),
        Extents::Sparse { runs, .. } => {
            for run in runs {
                let start = run.file_block as usize * 4096;
                let end = (start + run.blocks as usize * 4096).min(out.len());
                data.read_exact_at(&mut out[start..end], u64::from(run.data_block) * 4096)
                    .unwrap();
            }
        }
    }
    out
}

fn pattern(length: usize) -> Vec<u8> {
    (0..length).map(|at| (at / 7 % 251) as u8 + 1).collect()
}

#[test]
fn every_file_begins_on_a_block_and_comes_back_whole() {
    let sizes = [
        0,
        1,
        511,
        512,
        4095,
        4096,
        4097,
        65535,
        65536,
        65537,
        300_000,
        3 * MIB + 1,
    ];
    let mut tar = Tar::new();
    for size in sizes {
        tar = tar.file(&format!("f{size}"), &pattern(size));
    }
    let layer = converted(&tar.finish());
    let length = std::fs::metadata(layer.dir.path().join("data"))
        .unwrap()
        .len();
    assert_eq!(length, layer.summary.data_bytes);
    let blocks: usize = sizes.iter().map(|size| size.div_ceil(4096)).sum();
    assert_eq!(length, blocks as u64 * 4096);
    for size in sizes {
        assert_eq!(read(&layer, &format!("f{size}")), pattern(size), "{size}");
    }
}

#[test]
fn runs_of_zeros_become_holes() {
    let mut content = pattern(8 * MIB);
    content[MIB..3 * MIB].fill(0);
    content[5 * MIB + 100..6 * MIB - 100].fill(0);
    content[7 * MIB..].fill(0);
    let layer = converted(&Tar::new().file("f", &content).file("g", b"end").finish());
    assert_eq!(read(&layer, "f"), content);
    assert_eq!(read(&layer, "g"), b"end");
    let stored = layer.summary.data_bytes as usize;
    assert!(stored <= 4 * MIB + MIB / 8, "{stored}");
    let tree = layer.tree();
    assert!(matches!(extents(&tree, "f").1, Extents::Sparse { runs, .. } if runs.len() == 3));
}

#[test]
fn a_file_of_nothing_but_zeros_takes_no_data() {
    let layer = converted(&Tar::new().file("f", &vec![0; 3 * MIB + 5]).finish());
    assert_eq!(layer.summary.data_bytes, 0);
    assert_eq!(layer.summary.file_bytes, 3 * MIB as u64 + 5);
    assert_eq!(read(&layer, "f"), vec![0; 3 * MIB + 5]);
}

#[test]
fn pax_sparse_files_of_all_dialects_are_understood() {
    let size = 200_000;
    let mut expected = vec![0; size];
    expected[4096..4096 + 600].copy_from_slice(&pattern(600));
    expected[150_000..150_010].copy_from_slice(&pattern(610)[600..]);
    let data = pattern(610);
    let map = b"2\n4096\n600\n150000\n10\n";
    let mut with_map = map.to_vec();
    with_map.resize(512, 0);
    with_map.extend_from_slice(&data);
    let common: [(&str, &[u8]); 2] = [
        ("GNU.sparse.name", b"f"),
        ("GNU.sparse.realsize", b"200000"),
    ];
    let v10 = Tar::new()
        .pax(
            &[
                &common[..],
                &[("GNU.sparse.major", b"1"), ("GNU.sparse.minor", b"0")],
            ]
            .concat(),
        )
        .file("GNUSparseFile.0/f", &with_map);
    let v01 = Tar::new()
        .pax(&[&common[..], &[("GNU.sparse.map", b"4096,600,150000,10")]].concat())
        .file("GNUSparseFile.0/f", &data);
    let v00 = Tar::new()
        .pax(&[
            ("GNU.sparse.size", b"200000"),
            ("GNU.sparse.numblocks", b"2"),
            ("GNU.sparse.offset", b"4096"),
            ("GNU.sparse.numbytes", b"600"),
            ("GNU.sparse.offset", b"150000"),
            ("GNU.sparse.numbytes", b"10"),
        ])
        .file("f", &data);
    for (dialect, tar) in [("1.0", v10), ("0.1", v01), ("0.0", v00)] {
        let layer = converted(&tar.file("g", b"next").finish());
        assert_eq!(read(&layer, "f"), expected, "{dialect}");
        assert_eq!(read(&layer, "g"), b"next", "{dialect}");
    }
}

#[test]
fn gnu_sparse_files_with_extended_headers_are_understood() {
    // Thirty segments of 512 bytes, every 8192: four in the header, twenty-one and five in the extensions.
    let mut tar = Tar::new();
    let mut header = Tar::header(b'S', b"f");
    let gnu = header.as_gnu_mut().unwrap();
    for (index, place) in gnu.sparse.iter_mut().enumerate() {
        place.set_offset(index as u64 * 8192);
        place.set_length(512);
    }
    gnu.set_is_extended(true);
    gnu.set_real_size(30 * 8192);
    header.set_size(30 * 512);
    tar = tar.raw(header, b"");
    let mut next = 4;
    for (count, more) in [(21, true), (5, false)] {
        let mut extended = tar::GnuExtSparseHeader::new();
        for place in extended.sparse.iter_mut().take(count) {
            place.set_offset(next * 8192);
            place.set_length(512);
            next += 1;
        }
        extended.set_is_extended(more);
        tar = tar.content(extended.as_bytes());
    }
    let data = pattern(30 * 512);
    let layer = converted(&tar.content(&data).file("g", b"next").finish());
    let mut expected = vec![0; 30 * 8192];
    for index in 0..30 {
        expected[index * 8192..index * 8192 + 512].copy_from_slice(&data[index * 512..][..512]);
    }
    assert_eq!(read(&layer, "f"), expected);
    assert_eq!(read(&layer, "g"), b"next");
}

#[test]
fn a_sparse_file_of_terabytes_is_converted_at_once() {
    let size = 4u64 << 40;
    let map = format!("{},4,{},4", 1u64 << 40, size - 4);
    let layer = converted(
        &Tar::new()
            .pax(&[
                ("GNU.sparse.realsize", size.to_string().as_bytes()),
                ("GNU.sparse.map", map.as_bytes()),
            ])
            .file("f", b"headtail")
            .finish(),
    );
    let tree = layer.tree();
    let (length, extents) = extents(&tree, "f");
    assert_eq!(length, size);
    let Extents::Sparse { runs, chunk_bits } = extents else {
        panic!("{extents:?}")
    };
    assert_eq!(runs.len(), 2);
    assert_eq!(runs[0].file_block, 1 << 28);
    assert!(size >> (12 + chunk_bits) <= 16 << 10);
    let data = std::fs::File::open(layer.dir.path().join("data")).unwrap();
    let mut bytes = [0; 4];
    data.read_exact_at(&mut bytes, u64::from(runs[0].data_block) * 4096)
        .unwrap();
    assert_eq!(&bytes, b"head");
    let tail = u64::from(runs[1].data_block + runs[1].blocks) * 4096 - 4;
    data.read_exact_at(&mut bytes, tail).unwrap();
    assert_eq!(&bytes, b"tail");
    // The blob is large only in addresses.
    assert!(data.metadata().unwrap().blocks() * 512 < MIB as u64);
}

#[test]
fn sparse_maps_that_lie_are_refused() {
    let refused = |size: &str, map: &str, content: &[u8]| {
        complaint(
            &Tar::new()
                .pax(&[
                    ("GNU.sparse.realsize", size.as_bytes()),
                    ("GNU.sparse.map", map.as_bytes()),
                ])
                .file("s", content)
                .finish(),
        )
    };
    for (size, map, content) in [
        ("100", "0,5", &b"1234"[..]),
        ("100", "0,3", b"1234"),
        ("100", "98,4", b"1234"),
        ("100", "10,2,8,2", b"1234"),
        ("100", "10,2,11,2", b"1234"),
        ("100", "18446744073709551615,4", b"1234"),
        ("100", "0", b""),
        ("100", "0,4,", b"1234"),
        ("x", "0,4", b"1234"),
    ] {
        assert_eq!(
            refused(size, map, content),
            "entry \"s\" has an invalid sparse map",
            "{map}"
        );
    }
    let in_content = |content: &[u8]| {
        complaint(
            &Tar::new()
                .pax(&[
                    ("GNU.sparse.major", b"1"),
                    ("GNU.sparse.minor", b"0"),
                    ("GNU.sparse.realsize", b"100"),
                ])
                .file("s", content)
                .finish(),
        )
    };
    for content in [
        &b""[..],
        b"1\n",
        b"\n",
        b"1\n-4\n4\n",
        b"99999999999999999999999\n",
    ] {
        assert_eq!(in_content(content), "entry \"s\" has an invalid sparse map");
    }
}
