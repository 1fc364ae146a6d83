//! The index survives its round trip, and nothing else passes.

use std::collections::BTreeMap;

use super::CHECKED;
use super::decode::{self, Problem};
use super::encode;
use crate::budget::Budget;
use crate::erofs::crc32c;
use crate::layer::tree::{
    Attributes, Child, Content, Extent, Extents, LayerInode, LayerTree, Target,
};

fn encode(tree: &LayerTree) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let checksum = encode::encode(tree, &mut bytes)?;
    bytes[CHECKED - 4..CHECKED].copy_from_slice(&checksum.to_le_bytes());
    assert!(bytes.len() as u64 <= super::length(tree));
    Ok(bytes)
}

fn decode(bytes: &[u8]) -> Result<LayerTree, Problem> {
    decode::decode(bytes, &mut Budget::of(u64::MAX))
}

fn inode(content: Content) -> LayerInode {
    LayerInode {
        attributes: Attributes {
            mode: 0o4755,
            uid: 100_000,
            gid: 7,
            mtime: -5,
            mtime_nsec: 999_999_999,
            xattrs: BTreeMap::from([(b"user.a"[..].into(), b"\0b"[..].into())]),
        },
        content,
    }
}

fn child(target: Target) -> Child {
    Child {
        whiteout: false,
        target: Some(target),
    }
}

fn sample() -> LayerTree {
    let mut tree = LayerTree::new();
    tree.data_blocks = 300;
    let sub = BTreeMap::from([
        (b"x"[..].into(), child(Target::Inode(2))),
        (b"y"[..].into(), child(Target::LowerLink(b"a/b"[..].into()))),
    ]);
    tree.inodes.push(inode(Content::Directory {
        opaque: true,
        implicit: false,
        children: sub,
    }));
    tree.inodes.push(inode(Content::File {
        size: 5000,
        extents: Extents::Flat(298),
    }));
    tree.inodes.push(inode(Content::File {
        size: 64 * 4096 - 1,
        extents: Extents::Sparse {
            chunk_bits: 2,
            runs: [
                Extent {
                    file_block: 0,
                    data_block: 4,
                    blocks: 8,
                },
                Extent {
                    file_block: 60,
                    data_block: 12,
                    blocks: 4,
                },
            ]
            .into(),
        },
    }));
    tree.inodes
        .push(inode(Content::Symlink(b"../x"[..].into())));
    tree.inodes.push(inode(Content::CharDevice(4095, 0xfffff)));
    tree.inodes.push(inode(Content::BlockDevice(8, 1)));
    tree.inodes.push(inode(Content::Fifo));
    let root = tree.children_mut(0).unwrap();
    for (name, id) in [
        ("a", 1),
        ("b", 2),
        ("c", 3),
        ("d", 4),
        ("e", 5),
        ("f", 6),
        ("g", 7),
    ] {
        root.insert(name.as_bytes().into(), child(Target::Inode(id)));
    }
    root.insert(
        b"gone"[..].into(),
        Child {
            whiteout: true,
            target: None,
        },
    );
    tree
}

#[test]
fn every_kind_of_object_survives_the_round_trip() {
    let tree = sample();
    assert_eq!(decode(&encode(&tree).unwrap()).unwrap(), tree);
}

#[test]
fn what_was_replaced_is_not_written() {
    let mut tree = sample();
    let before = encode(&tree).unwrap();
    tree.inodes.push(inode(Content::Fifo));
    assert_eq!(encode(&tree).unwrap(), before);
}

#[test]
fn any_flipped_byte_is_noticed() {
    let bytes = encode(&sample()).unwrap();
    for at in 0..bytes.len() {
        let mut bad = bytes.clone();
        bad[at] ^= 0x20;
        assert!(decode(&bad).is_err(), "byte {at}");
    }
}

#[test]
fn any_truncation_is_noticed_even_with_a_fitting_checksum() {
    let bytes = encode(&sample()).unwrap();
    for end in 0..bytes.len() {
        assert!(
            decode(&resign(bytes[..end].to_vec())).is_err(),
            "{end} bytes"
        );
    }
}

#[test]
fn damage_behind_a_fitting_checksum_never_gives_a_tree_that_is_none() {
    let bytes = encode(&sample()).unwrap();
    for at in CHECKED..bytes.len() {
        for value in [0, 1, 2, 0x7f, 0xff] {
            let mut bad = bytes.clone();
            bad[at] = value;
            // Whatever is accepted must be good enough to be written and read again.
            if let Ok(tree) = decode(&resign(bad)) {
                let again = encode(&tree).unwrap();
                let read = decode(&again).unwrap_or_else(|_| panic!("byte {at} = {value}"));
                assert_eq!(encode(&read).unwrap(), again, "byte {at} = {value}");
            }
        }
    }
}

#[test]
fn files_outside_the_data_are_refused() {
    let mut tree = sample();
    tree.data_blocks = 299;
    assert_eq!(
        decode(&encode(&tree).unwrap()),
        Err(Problem::Invalid("a file outside the layer's data"))
    );
}

#[test]
fn another_version_is_told_apart_from_damage() {
    let mut bytes = encode(&sample()).unwrap();
    bytes[8] = 2;
    assert_eq!(decode(&bytes), Err(Problem::Version));
    assert_eq!(decode(b"hello"), Err(Problem::Version));
}

fn resign(mut bytes: Vec<u8>) -> Vec<u8> {
    if bytes.len() >= CHECKED {
        let checksum = crc32c(u32::MAX, &bytes[CHECKED..]);
        bytes[CHECKED - 4..CHECKED].copy_from_slice(&checksum.to_le_bytes());
    }
    bytes
}
