//! The metadata image: what it holds, and what building one complains about.

use std::fs;
use std::os::unix::fs::FileExt;

use super::listing::of_disk;
use super::{build, built, finish};
use crate::Bounds;
use crate::erofs::Reader;
use crate::layer::testing::{Tar, converted};
use bulkhead_types::chain;

fn sample() -> Vec<Vec<u8>> {
    let mut tar = Tar::new().dir("etc").file("etc/passwd", b"root:x:0:0\n");
    for number in 0..500 {
        tar = tar.file(&format!("many/file-number-{number:05}"), b"x");
    }
    finish(vec![
        tar,
        Tar::new().symlink("a", "etc").file("etc/.wh.passwd", b""),
    ])
}

#[test]
fn the_same_layers_give_the_same_bytes() {
    let read = |archives: &[Vec<u8>]| fs::read(&built(archives).summary.parts[0].path).unwrap();
    let first = read(&sample());
    assert!(first == read(&sample()));
    let other = read(&finish(vec![Tar::new().file("etc/passwd", b"")]));
    assert_ne!(
        first[1024 + 48..1024 + 64],
        other[1024 + 48..1024 + 64],
        "the UUID tells images apart"
    );
}

#[test]
fn parts_are_whole_blocks_and_as_long_as_said() {
    let built = built(&sample());
    assert_eq!(built.summary.parts.len(), 3);
    for part in &built.summary.parts {
        assert_eq!(part.bytes % 4096, 0);
        assert_eq!(fs::metadata(&part.path).unwrap().len(), part.bytes);
    }
    assert_eq!(built.summary.parts[2].bytes, 0);
    assert_eq!(
        built.summary.parts[1].path,
        built.layers[0].dir.path().join("data")
    );
}

#[test]
fn directories_of_every_size_keep_all_names_findable() {
    // Around the sizes at which a directory's end no longer fits beside its inode, and at which a block is full.
    for count in [0, 1, 13, 14, 15, 16, 17, 30, 31, 32, 33, 1000] {
        let mut tar = Tar::new().dir("d");
        for number in 0..count {
            let name = format!("d/{number:04}{}", "n".repeat(84));
            tar = tar
                .file(&name, b"")
                .hard_link(&format!("d/!{number}"), &name);
        }
        let listing = of_disk(&built(&[tar.finish()]));
        assert_eq!(listing.len(), 2 + 2 * count, "{count}");
    }
}

#[test]
fn values_beyond_the_compact_inode_are_kept() {
    let mut tar = Tar::new();
    // The commonest time needs no extended inode; everything below has a reason for one.
    for number in 0..20 {
        tar = tar.file(&format!("plain{number}"), b"");
    }
    tar = tar
        .pax(&[("uid", b"65536")])
        .file("uid", b"")
        .pax(&[("gid", b"4294967294")])
        .file("gid", b"")
        .pax(&[("mtime", b"-7.25")])
        .file("mtime", b"")
        .pax(&[
            ("GNU.sparse.realsize", b"5368709121"),
            ("GNU.sparse.map", b"5368709120,1"),
        ])
        .file("size", b"!");
    let archives = [tar.finish()];
    let listing = of_disk(&built(&archives));
    assert_eq!(listing["/uid"].uid, 65536);
    assert_eq!(listing["/gid"].gid, 4_294_967_294);
    assert_eq!(listing["/mtime"].mtime, (-8, 750_000_000));
    assert_eq!(listing["/size"].size, 5_368_709_121);
    assert_eq!(listing["/plain0"].mtime, (1_000_000_000, 0));
}

#[test]
fn more_links_than_sixteen_bits_count_are_counted() {
    let mut many = Tar::new().file("a", b"");
    for number in 0..70_000 {
        many = many.hard_link(&format!("d/{number}"), "a");
    }
    let built = built(&[many.finish()]);
    let parts = built.summary.parts.iter();
    let reader = Reader::open(
        parts
            .map(|part| fs::File::open(&part.path).unwrap())
            .collect(),
    )
    .unwrap();
    let root = reader.list(&reader.stat(reader.root()).unwrap()).unwrap();
    let (_, a) = root.iter().find(|(name, _)| name == b"a").unwrap();
    assert_eq!(reader.stat(*a).unwrap().nlink, 70_001);
}

#[test]
fn attributes_of_every_kind_and_size_are_kept() {
    let big = vec![7; 40_000];
    let mut tar = Tar::new();
    for number in 0..10 {
        tar = tar
            .pax(&[
                (
                    "SCHILY.xattr.security.capability",
                    b"\x01\0\0\x02\0\x20\0\0\0\0\0\0\0\0\0\0\0\0\0\0",
                ),
                ("SCHILY.xattr.user.number", number.to_string().as_bytes()),
                ("SCHILY.xattr.trusted.t", b""),
                ("SCHILY.xattr.system.posix_acl_access", b"\x02\0\0\0"),
            ])
            .file(&format!("f{number}"), b"");
    }
    let tar = tar
        .pax(&[("SCHILY.xattr.user.big", &big)])
        .dir("d")
        .pax(&[("SCHILY.xattr.user.big", &big)])
        .symlink("s", &"t".repeat(90));
    let listing = of_disk(&built(&[tar.finish()]));
    for number in 0..10 {
        let xattrs = &listing[&format!("/f{number}")].xattrs;
        let names: Vec<_> = xattrs
            .iter()
            .map(|(name, _)| String::from_utf8_lossy(name))
            .collect();
        assert_eq!(
            names,
            [
                "security.capability",
                "system.posix_acl_access",
                "trusted.t",
                "user.number"
            ]
        );
        assert_eq!(xattrs[3].1, number.to_string().as_bytes());
    }
    assert_eq!(listing["/d"].xattrs[0].1, big);
    assert_eq!(listing["/s"].xattrs[0].1, big);
    assert_eq!(listing["/s"].content, "t".repeat(90).as_bytes());
}

#[test]
fn the_longest_symbolic_link_is_kept() {
    for length in [4000, 4032, 4064, 4065, 4095] {
        let target = "x".repeat(length);
        let tar = Tar::new()
            .pax(&[("linkpath", target.as_bytes())])
            .symlink("s", "y");
        assert_eq!(
            of_disk(&built(&[tar.finish()]))["/s"].content,
            target.as_bytes()
        );
    }
}

#[test]
fn a_damaged_layer_is_named() {
    let layer = converted(&sample()[0]);
    let dir = layer.dir.path();
    let out = tempfile::TempDir::new().unwrap();
    let complaint =
        || chain(&build(&[dir.to_owned()], &out.path().join("m"), &Bounds::default()).unwrap_err());

    let data = fs::File::options()
        .write(true)
        .open(dir.join("data"))
        .unwrap();
    let length = data.metadata().unwrap().len();
    data.set_len(length - 4096).unwrap();
    assert_eq!(
        complaint(),
        format!(
            "layer data {}/data has {} bytes instead of {length}",
            dir.display(),
            length - 4096
        )
    );
    data.set_len(length).unwrap();

    let index = fs::File::options()
        .read(true)
        .write(true)
        .open(dir.join("index"))
        .unwrap();
    index.write_all_at(b"x", 100).unwrap();
    assert_eq!(
        complaint(),
        format!(
            "cannot use the layer {0}: layer index {0}/index is damaged (wrong checksum)",
            dir.display()
        )
    );
    fs::remove_file(dir.join("index")).unwrap();
    assert!(complaint().contains("cannot read layer index"));
}

/// Each layer is within its budget; the image that has them all is not.
#[test]
fn the_layers_of_an_image_share_one_budget() {
    let layers: Vec<Vec<u8>> = (0..4)
        .map(|layer| {
            let tar = (0..3000).fold(Tar::new(), |tar, n| {
                tar.file(&format!("dir{layer}/file-{n}"), b"")
            });
            tar.finish()
        })
        .collect();
    let converted: Vec<_> = layers.iter().map(|layer| converted(layer)).collect();
    let dirs: Vec<_> = converted
        .iter()
        .map(|one| one.dir.path().to_owned())
        .collect();
    let out = tempfile::tempdir().unwrap();
    let built = |memory: u64, layers: usize| {
        let bounds = Bounds {
            memory: (64 << 20) + memory,
            ..Bounds::default()
        };
        build(&dirs[..layers], &out.path().join("m"), &bounds)
    };
    built(3 << 20, 1).unwrap();
    built(12 << 20, 4).unwrap();
    let text = chain(&built(3 << 20, 4).unwrap_err());
    assert!(
        text.contains("beyond the limit of 70254592 bytes of memory"),
        "{text}"
    );
}

/// The metadata image is made in memory; what passes the bound is named.
#[test]
fn the_metadata_of_an_image_are_within_its_budget() {
    use crate::budget::Budget;
    use crate::erofs::{self, Body, Inode, LayoutError, Tree};
    use crate::layer::{Attributes, Extents};
    let file = Inode {
        attributes: Attributes::implicit(),
        body: Body::File {
            size: 1 << 40,
            part: 0,
            extents: Extents::Sparse {
                chunk_bits: 2,
                runs: [].into(),
            },
        },
    };
    let root = Inode {
        attributes: Attributes::implicit(),
        body: Body::Directory([(b"map"[..].into(), 1)].into()),
    };
    let tree = Tree {
        inodes: vec![root, file],
    };
    // 256 MiB of map for one file that claims a terabyte.
    let error = erofs::write(&tree, &[0], &mut Budget::of(1 << 20)).unwrap_err();
    assert_eq!(
        error,
        LayoutError::Memory {
            path: "\"/map\"".to_owned(),
            limit: 1 << 20
        }
    );
}

/// One chunk of eight terabytes is what the format can say at most.
#[test]
fn a_file_that_is_one_hole_is_read_as_zeros() {
    let mut tar = Tar::new();
    for (name, size) in [("small", 300u64 << 20), ("large", 8 << 40)] {
        tar = tar
            .pax(&[("GNU.sparse.realsize", size.to_string().as_bytes())])
            .file(name, b"");
    }
    let built = built(&[tar.finish()]);
    assert!(built.summary.parts[0].bytes <= 2 * 4096);
    let parts = built
        .summary
        .parts
        .iter()
        .map(|part| fs::File::open(&part.path).unwrap());
    let reader = Reader::open(parts.collect()).unwrap();
    let root = reader.stat(reader.root()).unwrap();
    for (name, nid) in reader.list(&root).unwrap() {
        let stat = reader.stat(nid).unwrap();
        if stat.is_file() {
            let end = stat.size - 5000;
            assert_eq!(
                reader.contents(&stat, end, 5000).unwrap(),
                vec![0; 5000],
                "{name:?}"
            );
        }
    }
}
